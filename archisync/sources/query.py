"""The SQL source: the rows of a query in a PostgreSQL database, such as the ERP's own or a warehouse.

    sql+postgresql://reader@erp-db.example/erp?query=/etc/archisync/{type}.sql

The file has one `select`. `%(agent)s` and `%(type)s` in it are bound as values (a `%` of another meaning is written `%%`). The query runs
read-only, by a cursor, so neither side keeps all rows in memory. Rows become JSON Lines, so a number is read as one in every locale.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from archisync.base.errors import AuthenticationError, ConfigurationError, SourceError, SyncError, TransientSourceError
from archisync.base.text import printable, redact
from archisync.rules.config import Config
from archisync.rules.synctypes import sync_type
from archisync.sources.interface import Export, Request
from archisync.sources.spool import spool
from archisync.sources.template import fill, has_placeholder
from archisync.store import session
from archisync.store.refusals import was_refused

SCHEME = "sql+postgresql"
_HINT = "for example sql+postgresql://reader@erp-db.example/erp?query=/etc/archisync/{type}.sql"
_CONNECT_TIMEOUT_S = 15
_SETTINGS: Mapping[str, str] = {
    # How values are written and read.
    "DateStyle": "ISO, DMY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # What ends a query: `statement_timeout` is the time for a fetch.
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_ROWS_AT_ONCE = 5_000
_MOST_QUERY_BYTES = 1024 * 1024
_TRANSIENT = ("08", "25P03", "25P04", "40", "53", "55", "57", "58")
"""Beginnings of SQLSTATE: connection, a transaction's time limits, rollback, resources, object in use, operator's intervention, system."""
_UNASKED = "no password supplied"
"""Said by libpq itself, in English."""


class QuerySource:
    """Reads exports with a query."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address that can't work."""
        _parse(template)

    def fetch(self, request: Request) -> Export:
        """Run the query to its end. Raises as described at `Source.fetch`."""
        place = _parse(request.template)
        query = _query(Path(fill(place.query, request)))
        deadline = monotonic() + request.config.fetch_timeout_s
        with _errors(place), _session(place, request) as connection:
            labels = _labels(connection, query, request)
            rows = _Rows(connection, query, request, deadline, place)
            spooled = spool(rows, request, origin=place.shown)
            suffix = ".jsonl"
        if not spooled.size_bytes:  # no JSON object shows the labels of an export without rows
            spooled.path.unlink()
            spooled = spool(io.BytesIO(_header(labels)), request, origin=place.shown)
            suffix = ".csv"
        return Export(
            path=spooled.path, origin=place.shown, suffix=suffix, size_bytes=spooled.size_bytes, sha256=spooled.sha256
        )

    def probe(self, request: Request) -> None:
        """Ask for the query's columns."""
        place = _parse(request.template)
        query = _query(Path(fill(place.query, request)))
        with _errors(place), _session(place, request) as connection:
            _labels(connection, query, request)


class _Place(NamedTuple):
    """`query` is the file with the query, with placeholders."""

    host: str
    port: int
    user: str
    database: str
    query: str

    @property
    def shown(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{SCHEME}://{self.host}{port}/{self.database}"

    @property
    def login(self) -> str:
        """As a connection string, without a password."""
        return make_conninfo(host=self.host, port=self.port or None, user=self.user or None, dbname=self.database)


def _parse(template: str) -> _Place:
    """The parts of the address. Raises ConfigurationError, which shows no password."""
    try:
        parts = urlsplit(template)
        host, port = parts.hostname or "", parts.port or 0
        given = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigurationError("the source is no address of a database with ?query=/a/file", hint=_HINT) from None
    if parts.password:
        raise ConfigurationError(
            "the source's address has a password in it", hint="put it into ARCHISYNC_SQL_PASSWORD, or into ~/.pgpass"
        )
    database = unquote(parts.path.lstrip("/"))
    host = given.pop("host", [host])[0]  # a folder with a socket
    query = given.pop("query", [""])[0]
    if given or parts.fragment or not (host and database and query.startswith("/")):
        raise ConfigurationError("the source is no address of a database with ?query=/a/file", hint=_HINT)
    if has_placeholder(host + database + (parts.username or "")):
        raise ConfigurationError("the source's address has a placeholder in its host, user or database", hint=_HINT)
    return _Place(host, port, unquote(parts.username or ""), database, query)


def _query(path: Path) -> bytes:
    """The query without its final semicolon."""
    hint = f"ls -l {shlex.quote(str(path))}"
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_QUERY_BYTES + 1)
    except OSError as exc:
        raise SourceError(f"the query {path} can't be read: {exc.strerror}", hint=hint) from exc
    query = text.rstrip().removesuffix(b";").rstrip()
    if not query or len(text) > _MOST_QUERY_BYTES:
        raise SourceError(f"the query {path} is empty or larger than 1 MiB", hint=hint)
    return query


@contextmanager
def _session(place: _Place, request: Request) -> Iterator[psycopg.Connection]:
    """A transaction that only reads, with our settings, through a pooler too. What decides about names and rows of the query itself
    (search_path, TimeZone, row security) is left to the role."""
    password = request.config.sql_password(sync_type(request.sync_type))
    with psycopg.connect(
        host=place.host,
        port=place.port or None,
        user=place.user or None,
        dbname=place.database,
        password=password or None,
        connect_timeout=_CONNECT_TIMEOUT_S,
        client_encoding=session.ENCODING,
        application_name="archisync source",
        keepalives_idle=15,
        options="",  # not those of PGOPTIONS, which are meant for archisync's own database
        autocommit=True,
    ) as connection:
        connection.read_only = True
        settings = {**_SETTINGS, "statement_timeout": f"{request.config.fetch_timeout_s}s"}
        with connection.transaction():
            connection.execute(session.setting_text(connection.info.backend_pid, settings).encode())
            yield connection


def _params(request: Request) -> dict[str, str]:
    return {"agent": request.agent_id, "type": request.sync_type}


def _labels(connection: psycopg.Connection, query: bytes, request: Request) -> list[str]:
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_wrapped("select * from ({}\n) q limit 0", query), _params(request))
        return [column.name for column in cursor.description or ()]


def _wrapped(statement: str, query: bytes) -> sql.Composed:
    return sql.SQL(statement).format(sql.SQL(query.decode("utf-8")))


class _Rows:
    """The rows as JSON Lines."""

    def __init__(
        self, connection: psycopg.Connection, query: bytes, request: Request, deadline: float, place: _Place
    ) -> None:
        fetch = psycopg.ClientCursor(connection)
        declare = "declare archisync_rows no scroll cursor for select pg_catalog.row_to_json(q)::pg_catalog.text from ({}\n) q"
        fetch.execute(_wrapped(declare, query), _params(request))
        self._fetch = fetch
        self._deadline = deadline
        self._late = f"{place.shown} did not answer within {request.config.fetch_timeout_s} s"
        self._rest = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while len(self._rest) < size and not self._ended:
            rows = self._fetch.execute(f"fetch {_ROWS_AT_ONCE} from archisync_rows").fetchall()
            self._ended = len(rows) < _ROWS_AT_ONCE
            self._rest += "".join(f"{row[0]}\n" for row in rows).encode()
            if monotonic() > self._deadline:
                raise TransientSourceError(self._late, hint="raise ARCHISYNC_FETCH_TIMEOUT_S, or make the query faster")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def _header(labels: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(labels)
    return text.getvalue().encode()


@contextmanager
def _errors(place: _Place) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        raise _meaning(exc, place) from exc
    except UnicodeDecodeError as exc:
        raise SourceError("the query is not UTF-8 text", hint="save it as UTF-8") from exc


def _meaning(exc: psycopg.Error, place: _Place) -> SyncError:
    said = printable(redact(str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__), limit=300)
    state = exc.sqlstate or ""
    port = f":{place.port}" if place.port else ""
    login = f"{place.user}@" if place.user else ""
    in_folder = place.host.startswith("/")
    psql = shlex.join(
        ["psql", place.login if in_folder else f"postgresql://{login}{place.host}{port}/{place.database}"]
    )
    if state.startswith("28") or was_refused(place.login, exc) or _UNASKED in str(exc):
        return AuthenticationError(
            f"{place.shown} does not let us in: {said}",
            hint=f"check ARCHISYNC_SQL_PASSWORD, ~/.pgpass of archisync's account and the server's pg_hba.conf: {psql}",
        )
    if not state or state.startswith(_TRANSIENT):
        return TransientSourceError(f"{place.shown} can't be asked: {said}", hint=psql)
    return SourceError(f"{place.shown} refuses the query: {said}", hint=f"try it with {psql}")
