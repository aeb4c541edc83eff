"""Connections to PostgreSQL, and what its errors mean for a user.

Every connection is in autocommit mode; a transaction is an explicit `with db.transaction()`.

Connections must also work behind PgBouncer in transaction mode: no prepared statements, no session settings (they would leak to other
clients), no startup `options` (PgBouncer refuses them). A direct connection sets what our sessions are like once (archisync.store.session);
through a pooler each transaction sets it, and a statement outside of one gets a transaction. The client limits how long a statement may
take, which also works when the network is dead. Only workers, which connect to PostgreSQL directly, use prepared statements: the statements
of every run say `prepare=True`, since planning them takes longer than running them. On other connections that has no effect.

How a pooler is detected: at the start of a connection, PostgreSQL sends the id of the process that serves it. A pooler makes that number
up, since it serves the client by whichever process is free. So the number differs from `pg_backend_pid()` exactly when a pooler stands
between, in session mode too. There a lock would be safe, but workers refuse it all the same: the mode can change while they run.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
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
from archisync.store import session

Params: TypeAlias = dict[str, Any]

CONNECT_TIMEOUT_S = 5
"""For each address in the URL."""
ANSWER_TIMEOUT_S = 30
"""How long one statement may take; ARCHISYNC_DATABASE_TIMEOUT_S changes it for commands."""
CANCEL_TIMEOUT_S = 2
SERVER_FIRST_S = 10
"""How much longer than the server's statement_timeout the client waits, to receive the server's own error."""
_ONLY_WHEN_ASKED = 2**31
"""psycopg prepares a statement after that many executions: never by itself, only with `prepare=True`."""
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""For our end of the connection: they detect a dead host even while nothing waits for it."""

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
        """As psycopg's; through a pooler it has our settings, which no other client then gets."""
        is_outermost = self.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.is_pooled and is_outermost:
                self.apply_settings(session.SETTINGS)
            yield transaction

    def execute(
        self, query: Any, params: Parameters | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.Cursor[DictRow]:
        """As psycopg's; through a pooler always in a transaction, which has our settings."""
        if self.is_pooled and self.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
            with self.transaction():
                return super().execute(query, params, prepare=prepare, binary=binary)
        return super().execute(query, params, prepare=prepare, binary=binary)

    def apply_settings(self, settings: Mapping[str, str]) -> None:
        """Set them, and find out whether a pooler stands between."""
        cursor = super().execute(session.setting_text(self.info.backend_pid, settings).encode())
        assert cursor.nextset()
        (row,) = cursor.fetchall()
        self.is_pooled = not row["direct"]


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
    if statement_timeout_s is not None:
        answer_timeout_s = statement_timeout_s + SERVER_FIRST_S
    try:
        connection = BoundedConnection.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None if statement_timeout_s is None else _ONLY_WHEN_ASKED,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=f"archisync {purpose}",
            client_encoding=session.ENCODING,
            **_KEEPALIVES,
        )
        _check_encoding(connection)
        connection.apply_settings(
            session.SETTINGS if statement_timeout_s is None else session.for_worker(statement_timeout_s)
        )
        if connection.is_pooled:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        _read_times_as_utc(connection)
    except psycopg.Error as exc:
        error = translate(exc)
        if isinstance(error, UnreachableError) and _was_refused(url, exc):
            error = ConfigurationError(
                f"PostgreSQL refused the connection: {redact(' '.join(str(exc).split()))}", hint=_HINT_UNREAD
            )
        raise error from None
    connection.answer_timeout_s = answer_timeout_s
    return connection


def _check_encoding(connection: BoundedConnection) -> None:
    """Raises ConfigurationError. PostgreSQL has sent the database's encoding with the connection."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != session.ENCODING:
        connection.close()
        raise ConfigurationError(
            f"the database has the encoding {encoding}, which can't hold every name that an export may have",
            hint="make one with UTF8: createdb --encoding UTF8 --locale C.UTF-8 --template template0 NAME",
        )


def _read_times_as_utc(connection: BoundedConnection) -> None:
    """Behind a pooler rows may be read after their transaction: PgBouncer tracks DateStyle for each client, so this does not leak."""
    connection.adapters.register_loader("timestamptz", _UtcLoader)
    if not (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
        connection.execute("set datestyle to iso")


HINT_DIRECT = (
    "give it an ARCHISYNC_DATABASE_URL of PostgreSQL itself; ticks and other commands may go through the pooler"
)
_HINT_STARTUP = "take it out of ARCHISYNC_DATABASE_URL and of PG… variables (PGOPTIONS, PGGEQO): archisync needs none"
_HINT_WAITING = "to see who blocks it: select pid, pg_blocking_pids(pid), query from pg_stat_activity"
_HINT_URL = "check ARCHISYNC_DATABASE_URL"
_HINT_UNREAD = f"{_HINT_URL}, the server's pg_hba.conf, and whether it has a connection left for this role"
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


_ENDED_SESSIONS = ("57P05", "25P03", "25P04")
"""idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout."""
_LIMITS = ("53000", "53200", "53400", "54001")
"""Memory, temp_file_limit, max_stack_depth."""


def _hint_of_right(diag: psycopg.errors.Diagnostic) -> str:
    """Found by what no language changes: PostgreSQL's function, and the name of a setting."""
    if diag.source_function == "check_enable_rls":
        return "row security would hide rows of that table, and all must be seen: as a superuser, alter role ROLE bypassrls"
    if "session_replication_role" in (diag.message_primary or ""):
        return (
            "as a superuser: alter role ROLE reset session_replication_role (or alter database), so that triggers fire"
        )
    return "grant the rights, or use another role"


_ANSWER = re.compile(r"failed: \S+ ?:  ")
"""What libpq puts before a server's own words: how grave it is, in the server's language."""
_PASSING = ("too many", "remaining connection slots", "connection limit")


def _was_refused(url: str, exc: psycopg.Error) -> bool:
    """Whether a server that is up has refused the connection, in whatever language. libpq has the SQLSTATE, and passes it on to nobody but
    its own `ping`, which tells a server that starts or stops from one that doesn't like what it is asked for."""
    said = str(exc)
    if exc.sqlstate or not _ANSWER.search(said) or any(word in said for word in _PASSING):
        return False
    asked = psycopg.conninfo.make_conninfo(url, connect_timeout=CONNECT_TIMEOUT_S)
    return psycopg.pq.PGconn.ping(asked.encode()) == psycopg.pq.Ping.OK


def translate(exc: psycopg.Error) -> ArchisyncError:
    """The archisync error for a psycopg error, with what to do about it; it never shows a password."""
    said = redact(" ".join(str(exc).split())) or type(exc).__name__
    primary = exc.diag.message_primary or said
    errors = psycopg.errors
    if isinstance(
        exc, (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName)
    ):
        return _missing_name(exc, primary)
    if isinstance(exc, errors.InsufficientPrivilege):
        return ConfigurationError(f"the database role may not do that: {said}", hint=_hint_of_right(exc.diag))
    if isinstance(exc, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)):
        return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint=_HINT_URL)
    if isinstance(exc, psycopg.ProgrammingError) and exc.sqlstate is None:
        return ConfigurationError(
            "ARCHISYNC_DATABASE_URL can't be read as a connection string", hint="postgresql://user@host/db"
        )
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return UnreachableError(
            "PostgreSQL is read-only there",
            hint="is it a standby? point ARCHISYNC_DATABASE_URL at the primary (target_session_attrs=read-write finds it); "
            "else somebody has set default_transaction_read_only",
        )
    if isinstance(exc, errors.DiskFull):
        return UnreachableError(
            f"PostgreSQL has no room to write: {primary}", hint="free space on its disk; nothing is lost"
        )
    if isinstance(exc, (errors.DeadlockDetected, errors.SerializationFailure)):
        return UnreachableError(
            f"PostgreSQL ended one of two transactions that stood in each other's way: {primary}",
            hint="nothing of it was written; try again",
        )
    if exc.sqlstate in _ENDED_SESSIONS:
        return UnreachableError(
            f"PostgreSQL ended the session: {primary}", hint="was this process stopped, or is that limit very short?"
        )
    if exc.sqlstate in _LIMITS:
        return UnreachableError(f"PostgreSQL reached a limit of its own: {primary}", hint="raise it; nothing is lost")
    if isinstance(exc, (NoAnswerError, errors.QueryCanceled, errors.LockNotAvailable)):
        return UnreachableError(f"PostgreSQL did not finish a statement: {primary}", hint=_HINT_WAITING)
    if "unsupported startup parameter" in said:
        return ConfigurationError(f"a pooler refused the connection: {said}", hint=_HINT_STARTUP)
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


def _missing_name(exc: psycopg.Error, primary: str) -> ArchisyncError:
    """A function of the user's may look for names in a search_path that our sessions don't have."""
    if (theirs := _FUNCTION.search(exc.diag.context or "")) and not theirs[0].startswith("system."):
        return ConfigurationError(
            f"a function of the database, {theirs[0]}, can't find a name: {primary}",
            hint="archisync's sessions have no schema of yours in their search_path: "
            f"alter function {theirs[0]} set search_path = {theirs[1]}",
        )
    return SchemaError("the database schema is missing or not current", hint="archisync db migrate")


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
