"""Connections to PostgreSQL.

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

from archisync.base.errors import ConfigurationError
from archisync.store import session
from archisync.store.refusals import CONNECT_TIMEOUT_S, NoAnswerError, translate, translate_refusal

Params: TypeAlias = dict[str, Any]

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


class _UtcLoader(TimestamptzLoader):
    """Loads times in UTC, whatever the server's TimeZone is: Python computes within one zone by local time, which is an hour off on two
    days of the year. In an eighth of the time of psycopg's own, which a page of runs does three hundred times."""

    def load(self, data: Buffer) -> datetime:
        try:
            return datetime.fromisoformat(bytes(data).decode()).astimezone(UTC)
        except ValueError:  # before Christ, or infinite: psycopg says so
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
        raise translate_refusal(url, exc) from None
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
