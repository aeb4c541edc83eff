"""The session advisory lock of an agent: held while a connection lives, free milliseconds after its process dies.

It needs a direct connection to PostgreSQL: behind PgBouncer in transaction mode, clients share sessions. A process that stands still
with the lock is ended by the server (database.require_direct): no worker's role may end the session of another one, or see that it is idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from archisync.base.text import printable
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

# Purpose: the sessions that hold agents' locks although no worker has claimed the agent: a process that was taken for dead, or another
# program that has taken the lock, which any login can. Every role sees process, role and application of other sessions, and no more.
# Caller: strangers. No locks.
SQL_STRANGERS = """
select a.id as agent_id, l.pid, coalesce(s.usename, '?') as role, coalesce(s.application_name, '') as application
  from unnest(%(agent_ids)s::text[]) as a(id)
  join pg_locks l on l.locktype = 'advisory' and l.granted and l.objsubid = 1
                 and l.database = (select oid from pg_database where datname = current_database())
                 and ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('archisync.agent.' || a.id, 0)
  left join pg_stat_activity s on s.pid = l.pid
 where not exists (select from system.claims c where c.agent_id = a.id)
 order by a.id
"""
# Purpose: agents whose runs wait because a worker found them locked. Caller: found_locked. No locks.
SQL_FOUND_LOCKED = """
select distinct agent_id from system.queued_runs where reason = 'agent-locked' order by agent_id limit %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stranger:
    """A session that holds an agent's lock without a claim. `pid`: of the PostgreSQL process."""

    agent_id: str
    pid: int
    role: str
    application: str

    def __str__(self) -> str:
        application = f", {printable(self.application)}" if self.application else ""
        return (
            f"{self.agent_id} is locked by PostgreSQL's process {self.pid} (role {printable(self.role)}{application})"
        )

    @property
    def remedy(self) -> str:
        return f"as a superuser: select pg_terminate_backend({self.pid})"


def unlock_agent(db: Database, agent_id: str) -> None:
    """Free the agent that this session has locked."""
    db.execute(SQL_FREE_AGENT, {"agent_id": agent_id}, prepare=True)


def strangers(db: Database, agent_ids: Sequence[str]) -> list[Stranger]:
    """Who holds the locks of these agents, of which no worker has one."""
    return [Stranger(**row) for row in db.execute(SQL_STRANGERS, {"agent_ids": list(agent_ids)}).fetchall()]


def found_locked(db: Database, *, limit: int) -> list[str]:
    """Agents whose runs wait because a worker found them locked."""
    return [row["agent_id"] for row in db.execute(SQL_FOUND_LOCKED, {"limit": limit}).fetchall()]


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
