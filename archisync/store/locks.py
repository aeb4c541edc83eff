"""The session advisory lock of an agent: held while a connection lives, free milliseconds after its process dies.

It needs a direct connection to PostgreSQL: behind PgBouncer in transaction mode, clients share sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from archisync.store.database import Database

LETTING_GO_S = 2
"""How long a session that has finished its run may still hold the agent's lock: one statement, on a busy machine."""

# Purpose: let one process at a time talk to the ERP for an agent, even when a lease has expired. Caller: agent_lock. Locks: the agent.
SQL_TRY_AGENT = "select pg_try_advisory_lock(hashtextextended('archisync.agent.' || %(agent_id)s, 0)) as locked"
# Purpose: the same, when another session has the lock: it may have finished its run, and be about to release it. Caller: agent_lock,
# after `set local lock_timeout`. Locks: the agent.
SQL_WAIT_FOR_AGENT = "select pg_advisory_lock(hashtextextended('archisync.agent.' || %(agent_id)s, 0))"
# Purpose: release the agent. Caller: agent_lock. No locks.
SQL_FREE_AGENT = "select pg_advisory_unlock(hashtextextended('archisync.agent.' || %(agent_id)s, 0))"

# Purpose: end a session that holds the agent's lock and has been silent for longer than any run may take: a process that stands still
# (SIGSTOP, a frozen host) must not keep the agent locked for ever. The process can't write any more, since its fence has moved on. The age
# of a session is PostgreSQL's own time, not system.clock(). Caller: end_silent_holder. No locks.
SQL_END_SILENT_HOLDER = """
select pg_terminate_backend(a.pid, 5000) as ended
  from pg_locks l join pg_stat_activity a using (pid)
 where l.locktype = 'advisory' and l.granted and l.objsubid = 1
   and l.database = (select oid from pg_database where datname = current_database())
   and ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('archisync.agent.' || %(agent_id)s, 0)
   and a.state like 'idle%%' and a.state_change < statement_timestamp() - make_interval(secs => %(silent_s)s)
"""


def unlock_agent(db: Database, agent_id: str) -> None:
    """Free the agent that this session has locked."""
    db.execute(SQL_FREE_AGENT, {"agent_id": agent_id}, prepare=True)


def end_silent_holder(db: Database, agent_id: str, *, silent_s: float) -> bool:
    """End the session that holds the agent's lock if it has been silent for longer than `silent_s`; whether there was one."""
    rows = db.execute(SQL_END_SILENT_HOLDER, {"agent_id": agent_id, "silent_s": silent_s}).fetchall()
    return any(row["ended"] for row in rows)


@contextmanager
def agent_lock(db: Database, agent_id: str) -> Iterator[bool]:
    """Yields True while only this session may talk to the ERP for the agent, and False when another session does."""
    row = db.execute(SQL_TRY_AGENT, {"agent_id": agent_id}, prepare=True).fetchone()
    locked = bool(row and row["locked"]) or _locked_within(db, agent_id, LETTING_GO_S)
    try:
        yield locked
    finally:
        if locked and not db.closed and not db.broken:
            unlock_agent(db, agent_id)


def _locked_within(db: Database, agent_id: str, seconds: int) -> bool:
    try:
        with db.transaction():
            db.execute(f"set local lock_timeout = '{seconds}s'")
            db.execute(SQL_WAIT_FOR_AGENT, {"agent_id": agent_id})
    except psycopg.errors.LockNotAvailable:
        return False
    return True
