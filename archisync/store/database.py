"""Connections to PostgreSQL, and what its errors mean for a user.

Every connection is in autocommit mode; a transaction is an explicit `with db.transaction()`.

Connections must also work behind PgBouncer in transaction mode: no prepared statements, no session settings (they would leak to other
clients), no startup `options` (PgBouncer refuses them). So the client limits how long a statement may take, which also works when the
network is dead; and each transaction sets what the server does when this client falls silent. Only workers, which connect to PostgreSQL
directly, use startup options and prepared statements: the statements of every run say `prepare=True`, since planning them takes longer
than running them. On other connections that has no effect.

Names in our statements are looked up in SEARCH_PATH, whatever role, database, URL or PGOPTIONS say: a function, operator or type that
somebody made in `public`, and that fits a call better than PostgreSQL's own, would otherwise run with our rights. A direct connection sets
it once. Through a pooler each transaction sets it, and a statement outside of one gets a transaction.

How a pooler is detected: at the start of a connection, PostgreSQL sends the id of the process that serves it. A pooler makes that number
up, since it serves the client by whichever process is free. So the number differs from `pg_backend_pid()` exactly when a pooler stands
between, in session mode too. There a lock would be safe, but workers refuse it all the same: the mode can change while they run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.abc import Params as Parameters
from psycopg.rows import DictRow, dict_row
from psycopg.sql import Composed
from psycopg.types.datetime import TimestamptzLoader

from archisync.base.errors import ArchisyncError, ConfigurationError, SchemaError, UnreachableError
from archisync.base.text import redact

Params: TypeAlias = dict[str, Any]

CONNECT_TIMEOUT_S = 5
"""For each address in the URL."""
ANSWER_TIMEOUT_S = 30
"""How long one statement may take; ARCHISYNC_DATABASE_TIMEOUT_S changes it for commands."""
CANCEL_TIMEOUT_S = 2
SERVER_FIRST_S = 10
"""How much longer than the server's statement_timeout the client waits, to receive the server's own error."""
IDLE_IN_TRANSACTION_TIMEOUT_S = 60
"""After this time the server ends a transaction whose client fell silent (SIGSTOP, a dead host): its row locks are free."""
_ONLY_WHEN_ASKED = 2**31
"""psycopg prepares a statement after that many executions: never by itself, only with `prepare=True`."""
SEARCH_PATH = "pg_catalog, pg_temp"
"""Tables of ours are named with their schema; pg_temp, which would else come first, has the stage."""
_SQL_BOUND_SILENCE = f"set local idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT_S}s'"
_SQL_POOLED = f"{_SQL_BOUND_SILENCE}; set local search_path = {SEARCH_PATH}"
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""For our end of the connection: they detect a dead host even while nothing waits for it."""

# Purpose: set the search_path of a direct connection; behind a pooler, which made up the process id that we know, only for this
# statement. Caller: connect, before any other statement: so it names the schema of everything it uses. No locks.
SQL_SET_PATH = f"""
select s.direct, pg_catalog.set_config('search_path', '{SEARCH_PATH}', not s.direct)
  from (select pg_catalog.pg_backend_pid() operator(pg_catalog.=) %(pid)s::pg_catalog.int4 as direct) s
"""  # noqa: S608 - the part is a constant of this module

_T = TypeVar("_T")


class NoAnswerError(psycopg.OperationalError):
    """PostgreSQL took too long over a statement. It was asked to cancel the statement, and the connection is closed."""


class _UtcLoader(TimestamptzLoader):
    """Loads times in UTC, whatever the server's TimeZone is: Python computes within one zone by local time, which is an hour off on two
    days of the year."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


class BoundedConnection(psycopg.Connection[DictRow]):
    """A connection on which neither side waits for ever."""

    answer_timeout_s: float = ANSWER_TIMEOUT_S
    silence_is_bounded: bool = False
    is_pooled: bool = False
    """Whether a pooler, in whatever mode, stands between this connection and PostgreSQL."""

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **kwargs: Any) -> _T:
        """Everything that waits for the server passes here. Raises NoAnswerError after `answer_timeout_s`."""
        try:
            return super().wait(_within(gen, self.answer_timeout_s), *args, **kwargs)
        except NoAnswerError:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            self.pgconn.finish()
            raise

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """As psycopg's; the server ends it when this process falls silent in the middle of it."""
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.is_pooled:
                self.execute(_SQL_POOLED)
            elif not self.silence_is_bounded:
                self.execute(_SQL_BOUND_SILENCE)
            yield transaction

    def execute(
        self, query: Any, params: Parameters | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.Cursor[DictRow]:
        """As psycopg's; through a pooler always in a transaction, which has our settings."""
        if self.is_pooled and self.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
            with self.transaction():
                return super().execute(query, params, prepare=prepare, binary=binary)
        return super().execute(query, params, prepare=prepare, binary=binary)


Database: TypeAlias = BoundedConnection


def _within(gen: Generator[Any, Any, _T], seconds: float) -> Generator[Any, Any, _T]:
    """`gen` with a time limit; psycopg resumes it at least ten times a second."""
    over_at = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if monotonic() >= over_at:
                raise NoAnswerError(f"no answer within {seconds:g} s (a lock, too much load, or a dead network)")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def connect(
    url: str, *, purpose: str, statement_timeout_s: int | None = None, answer_timeout_s: float = ANSWER_TIMEOUT_S
) -> BoundedConnection:
    """A new connection; `purpose` shows in pg_stat_activity.

    Raises UnreachableError when the server does not answer, ConfigurationError when the URL or the credentials are wrong.
    `statement_timeout_s` is for workers, which keep a direct connection: the server enforces it, and it replaces `answer_timeout_s`.
    """
    options: dict[str, Any] = {}
    if statement_timeout_s is not None:
        answer_timeout_s = statement_timeout_s + SERVER_FIRST_S
        settings = {
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
            "statement_timeout": f"{statement_timeout_s * 1000}",
            "jit": "off",  # compiling takes longer than any statement of a sync
            "client_connection_check_interval": "1s",  # how soon a dead worker's statement ends, and its agent's lock
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }
        options["options"] = _merge_options(url, " ".join(f"-c {name}={value}" for name, value in settings.items()))
    try:
        connection = BoundedConnection.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None if statement_timeout_s is None else _ONLY_WHEN_ASKED,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=f"archisync {purpose}",
            **_KEEPALIVES,
            **options,
        )
        connection.is_pooled = not one(connection, SQL_SET_PATH, {"pid": connection.info.backend_pid})["direct"]
        _read_times_as_utc(connection)
    except psycopg.Error as exc:
        raise translate(exc) from None
    connection.answer_timeout_s = answer_timeout_s
    connection.silence_is_bounded = statement_timeout_s is not None
    return connection


def _read_times_as_utc(connection: BoundedConnection) -> None:
    """Whatever TimeZone and DateStyle the server has. PgBouncer tracks DateStyle for each client, so this setting does not leak."""
    connection.adapters.register_loader("timestamptz", _UtcLoader)
    if not (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
        connection.execute("set datestyle to iso")


def _merge_options(url: str, ours: str) -> str:
    """Our server settings and those of the URL or of PGOPTIONS, which `options=` would otherwise replace; theirs win."""
    given = psycopg.conninfo.conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS", "")
    return f"{ours} {given}".strip()


HINT_DIRECT = (
    "give it an ARCHISYNC_DATABASE_URL of PostgreSQL itself; ticks and other commands may go through the pooler"
)
_HINT_WAITING = "to see who blocks it: select pid, pg_blocking_pids(pid), query from pg_stat_activity"
_HINT_URL = "check ARCHISYNC_DATABASE_URL"
_REFUSALS = {
    "password authentication failed": _HINT_URL,
    "no password supplied": "put the password into ARCHISYNC_DATABASE_URL or ~/.pgpass",
    "authentication failed": _HINT_URL,
    "does not exist": _HINT_URL,
    "is not permitted to log in": "name an account in ARCHISYNC_DATABASE_URL that may log in: archisync db grants shows how to make one",
    "pg_hba.conf rejects": "allow host, user and database in the server's pg_hba.conf, or check ARCHISYNC_DATABASE_URL",
    "no pg_hba.conf entry": "allow host, user and database in the server's pg_hba.conf, or check ARCHISYNC_DATABASE_URL",
    "permission denied for database": "as the database's owner: grant connect on database DATABASE to ROLE",
    "server does not support SSL": "check sslmode in ARCHISYNC_DATABASE_URL",
    "unrecognized configuration parameter": "check options in ARCHISYNC_DATABASE_URL, and PGOPTIONS",
    "invalid value for parameter": "check options in ARCHISYNC_DATABASE_URL, and PGOPTIONS",
}
"""Texts by which a server refuses a connection because a setting is wrong, and what to do. libpq passes on no SQLSTATE at the start of a
connection, only the text."""
_WRONG_OPTION = re.compile(
    r'invalid (?:integer value .* for connection option "(\w+)"|(port) number|"?(\w+)"? value: )|definition of (service)'
)
"""Texts by which libpq refuses the URL before it connects."""
_HINT_OPTION = "check {option} in ARCHISYNC_DATABASE_URL (in a password, write %2F for /, %3F for ? and %40 for @)"


_FUNCTION = re.compile(r'((?:\w|"[^"]+")+)\.(?:\w|"[^"]+")+\([^()]*\)')
"""The first function in an error's context, the innermost; with its schema, which is not in our search_path."""


def translate(exc: psycopg.Error) -> ArchisyncError:
    """The archisync error for a psycopg error, with what to do about it; it never shows a password."""
    said = redact(" ".join(str(exc).split())) or type(exc).__name__
    primary = exc.diag.message_primary or said
    errors = psycopg.errors
    if isinstance(
        exc, (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName)
    ):
        if (theirs := _FUNCTION.search(exc.diag.context or "")) and not theirs[0].startswith("system."):
            return ConfigurationError(
                f"a function of the database, {theirs[0]}, can't find a name: {primary}",
                hint="archisync's sessions have no schema of yours in their search_path: "
                f"alter function {theirs[0]} set search_path = {theirs[1]}",
            )
        return SchemaError("the database schema is missing or not current", hint="archisync db migrate")
    if isinstance(exc, errors.InsufficientPrivilege):
        return ConfigurationError(
            f"the database role may not do that: {said}", hint="grant the rights, or use another role"
        )
    if isinstance(exc, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)):
        return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint=_HINT_URL)
    if isinstance(exc, psycopg.ProgrammingError) and exc.sqlstate is None:
        return ConfigurationError(
            "ARCHISYNC_DATABASE_URL can't be read as a connection string", hint="postgresql://user@host/db"
        )
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return UnreachableError(
            "PostgreSQL is read-only there",
            hint="is it a standby? point ARCHISYNC_DATABASE_URL at the primary (target_session_attrs=read-write finds it)",
        )
    if isinstance(exc, errors.DiskFull):
        return UnreachableError(
            f"PostgreSQL has no room to write: {primary}", hint="free space on its disk; nothing is lost"
        )
    if isinstance(exc, (NoAnswerError, errors.QueryCanceled, errors.LockNotAvailable)):
        return UnreachableError(f"PostgreSQL did not finish a statement: {primary}", hint=_HINT_WAITING)
    if "unsupported startup parameter" in said:
        return ConfigurationError(f"a pooler refused the connection: {said}", hint=HINT_DIRECT)
    if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)):
        if (wrong := _WRONG_OPTION.search(said)) and "connection to server" not in said:
            option = wrong[wrong.lastindex or 0]
            return ConfigurationError(  # without the value, which may be part of a password that a / or ? cuts off
                f"ARCHISYNC_DATABASE_URL has a wrong {option}", hint=_HINT_OPTION.format(option=option)
            )
        hint = next((hint for phrase, hint in _REFUSALS.items() if phrase in said), None)
        if hint is not None:
            return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint=hint)
        return UnreachableError(
            f"PostgreSQL is out of reach: {said}", hint='is it up? pg_isready -d "$ARCHISYNC_DATABASE_URL"'
        )
    return ArchisyncError(f"PostgreSQL reported {type(exc).__name__}: {said}", hint="repeat with --debug for details")


@contextmanager
def connected(
    url: str, *, purpose: str, statement_timeout_s: int | None = None, answer_timeout_s: float = ANSWER_TIMEOUT_S
) -> Iterator[BoundedConnection]:
    """`connect` as a context that closes the connection and turns its database errors into archisync errors."""
    db = connect(url, purpose=purpose, statement_timeout_s=statement_timeout_s, answer_timeout_s=answer_timeout_s)
    try:
        yield db
    except psycopg.Error as exc:
        raise translate(exc) from exc
    finally:
        db.close()


def one(db: Database, statement: str | Composed, params: Params | None = None, *, prepare: bool = False) -> DictRow:
    """The row of a statement that always returns one."""
    row = db.execute(statement, params, prepare=prepare or None).fetchone()
    assert row is not None
    return row


# Purpose: PostgreSQL ends this session, and with it the locks that it holds, when its process stands still for that long (SIGSTOP, a frozen
# host). Needs no right, unlike ending another one's session. In the middle of a COPY it waits for as long as the process exists: no time
# limit of PostgreSQL counts there. Caller: require_direct. No locks.
SQL_END_WHEN_SILENT = """
select set_config('idle_session_timeout', %(silent_ms)s, false),
       set_config('statement_timeout', coalesce(nullif(current_setting('statement_timeout'), '0'), %(silent_ms)s), false)
"""


def require_direct(db: Database, *, silent_s: float) -> None:
    """Prepare a session that is to lock agents; the server ends it when it is silent for `silent_s`. Raises ConfigurationError behind a
    pooler, before anything is claimed."""
    if db.is_pooled:
        raise ConfigurationError(
            "a pooler stands between this process and PostgreSQL: an agent's ERP session can't be locked through it",
            hint=HINT_DIRECT,
        )
    db.execute(SQL_END_WHEN_SILENT, {"silent_ms": str(round(silent_s * 1000))})
