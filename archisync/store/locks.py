"""Session advisory locks: held while a connection lives, free milliseconds after its process dies. They need a connection of
their own to PostgreSQL: behind PgBouncer in transaction mode a session belongs to everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from archisync.database import Database

# Purpose: one process at a time talks to the ERP for an agent, also across an expired lease. Caller: worker.
SQL_TRY_AGENT = "select pg_try_advisory_lock(hashtextextended('archisync.agent.' || %(agent_id)s, 0)) as locked"
SQL_FREE_AGENT = "select pg_advisory_unlock(hashtextextended('archisync.agent.' || %(agent_id)s, 0))"


@contextmanager
def agent_lock(db: Database, agent_id: str) -> Iterator[bool]:
    """True while this session alone may talk to the ERP for the agent; False when another one does."""
    row = db.execute(SQL_TRY_AGENT, {"agent_id": agent_id}).fetchone()
    locked = bool(row and row["locked"])
    try:
        yield locked
    finally:
        if locked and not db.closed and not db.broken:
            db.execute(SQL_FREE_AGENT, {"agent_id": agent_id})
