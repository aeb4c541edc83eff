"""Is there a pooler (PgBouncer) between us and PostgreSQL? Where a session lock is needed there must be none.

PostgreSQL tells each new connection the process id that serves it. A pooler can't pass that on, since it serves the client by
whichever process is free: it makes a number up. So the number that the connection was given at its start and the one that
`pg_backend_pid()` tells differ exactly when somebody stands between. That is so in session mode too, where a lock would be
safe; it is refused all the same, because the mode can be changed under a running worker and can't be seen from here.
"""

from __future__ import annotations

from archisync.base.errors import ConfigurationError
from archisync.store.database import HINT_DIRECT, Database

# Purpose: the process that serves this very statement. Caller: is_pooled. No locks.
SQL_SERVED_BY = "select pg_backend_pid() as pid"


def is_pooled(db: Database) -> bool:
    """Whether a pooler stands between this connection and PostgreSQL, in whatever mode."""
    row = db.execute(SQL_SERVED_BY).fetchone()
    return row is None or row["pid"] != db.info.backend_pid


def require_direct(db: Database) -> None:
    """Raise ConfigurationError behind a pooler. Called before anything is claimed, by whoever will talk to the ERP."""
    if is_pooled(db):
        raise ConfigurationError(
            "a pooler stands between this process and PostgreSQL: an agent's ERP session can't be locked through it",
            hint=HINT_DIRECT,
        )
