"""Session advisory locks: held while a connection lives, free milliseconds after its process dies. They need a connection of
their own to PostgreSQL: behind PgBouncer in transaction mode a session belongs to everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from archisync.store.database import Database

LETTING_GO_S = 2
"""How long a session that has finished a run may hold its agent's lock beyond that: one statement, on a busy machine."""

# Purpose: one process at a time talks to the ERP for an agent, also across an expired lease. Caller: worker.
SQL_TRY_AGENT = "select pg_try_advisory_lock(hashtextextended('archisync.agent.' || %(agent_id)s, 0)) as locked"
# Purpose: the same, when another session has it: it may have just finished its run, which frees the agent, and be about to let go.
# Caller: worker, after `set local lock_timeout`.
SQL_WAIT_FOR_AGENT = "select pg_advisory_lock(hashtextextended('archisync.agent.' || %(agent_id)s, 0))"
SQL_FREE_AGENT = "select pg_advisory_unlock(hashtextextended('archisync.agent.' || %(agent_id)s, 0))"

# Purpose: an agent must not stay locked for good by a process that stands still (SIGSTOP, a frozen host). A session that holds
# the lock and has said nothing for longer than any run may take is ended; its process can write nothing any more, for its
# fence has moved on. The age of a session is PostgreSQL's own time, not system.clock(). Caller: a worker that finds the agent locked.
SQL_END_SILENT_HOLDER = """
select pg_terminate_backend(a.pid, 5000) as ended
  from pg_locks l join pg_stat_activity a using (pid)
 where l.locktype = 'advisory' and l.granted and l.objsubid = 1
   and l.database = (select oid from pg_database where datname = current_database())
   and ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('archisync.agent.' || %(agent_id)s, 0)
   and a.state like 'idle%%' and a.state_change < statement_timestamp() - make_interval(secs => %(silent_s)s)
"""


def end_silent_holder(db: Database, agent_id: str, *, silent_s: float) -> bool:
    """End the session that holds the agent's lock if it has been silent for longer than `silent_s`; whether there was one."""
    rows = db.execute(SQL_END_SILENT_HOLDER, {"agent_id": agent_id, "silent_s": silent_s}).fetchall()
    return any(row["ended"] for row in rows)


@contextmanager
def agent_lock(db: Database, agent_id: str) -> Iterator[bool]:
    """True while this session alone may talk to the ERP for the agent; False when another one does."""
    row = db.execute(SQL_TRY_AGENT, {"agent_id": agent_id}, prepare=True).fetchone()
    locked = bool(row and row["locked"]) or _locked_within(db, agent_id, LETTING_GO_S)
    try:
        yield locked
    finally:
        if locked and not db.closed and not db.broken:
            db.execute(SQL_FREE_AGENT, {"agent_id": agent_id}, prepare=True)


def _locked_within(db: Database, agent_id: str, seconds: int) -> bool:
    try:
        with db.transaction():
            db.execute(f"set local lock_timeout = '{seconds}s'")
            db.execute(SQL_WAIT_FOR_AGENT, {"agent_id": agent_id})
    except psycopg.errors.LockNotAvailable:
        return False
    return True
