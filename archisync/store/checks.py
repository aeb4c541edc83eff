"""What `doctor` asks the database beside the questions that other modules ask already. Read only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archisync.rules.synctypes import SHARED_AGENT
from archisync.store.database import Database

STUCK_AFTER_S = 15 * 60
"""A run that is ready and has waited so long is not merely behind others."""
EXPIRED_AFTER_S = 180
"""Three ticks should have taken it back."""

# Purpose: the server's version and its clock, in one answer. Caller: server. No locks. Needs no schema of ours.
SQL_SERVER = """
select current_setting('server_version_num')::int as version, statement_timestamp() as now, current_user as role,
       pg_is_in_recovery() as standby, pg_backend_pid() as backend_pid
"""
# Purpose: runs that nobody seems to care for. Caller: stuck_runs. No locks.
SQL_STUCK = """
select id as run_id, sync_type, agent_id, state, worker
  from system.sync_runs r
 where (state = 'running' and lease_until < system.clock() - make_interval(secs => %(expired_s)s))
    or (state = 'queued' and greatest(not_before, queued_at) < system.clock() - make_interval(secs => %(stuck_s)s)
        and not exists (select from system.sync_runs o where o.agent_id = r.agent_id and o.state = 'running'))
 order by id limit %(limit)s
"""
# Purpose: pairs that a tick would schedule, for the look whether their exports exist. Caller: active_pairs. No locks.
SQL_ACTIVE_PAIRS = """
select st.sync_type, st.agent_id from system.sync_state st join system.sync_settings s using (sync_type)
 where st.active and s.enabled order by st.agent_id, st.sync_type limit %(limit)s
"""
# Purpose: ids that may have come into the registry by plain SQL. Caller: whitelisted_ids. No locks.
SQL_WHITELISTED_IDS = "select id from agents.users where whitelisted order by id limit %(limit)s"
# Purpose: agents that agents.users and system.sync_state do not agree on, among the first of each. Caller: out_of_step. No locks.
SQL_NOT_SCHEDULED = """
select u.id as agent_id from (select id from agents.users where whitelisted order by id limit %(limit)s) u
 where not exists (select from system.sync_state p where p.agent_id = u.id and p.active)
"""
SQL_STILL_SCHEDULED = """
select p.agent_id from (select distinct agent_id from system.sync_state where active and agent_id <> %(shared)s
                         order by agent_id limit %(limit)s) p
 where not exists (select from agents.users u where u.id = p.agent_id and u.whitelisted)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    version: int
    now: datetime
    role: str
    standby: bool
    backend_pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StuckRun:
    run_id: int
    sync_type: str
    agent_id: str
    state: str
    worker: str | None


def server(db: Database) -> Server:
    row = db.execute(SQL_SERVER).fetchone()
    assert row is not None
    return Server(**row)


def stuck_runs(db: Database, *, limit: int = 1000) -> list[StuckRun]:
    """Running with a lease that no tick has taken back; queued and ready for too long."""
    params = {"expired_s": EXPIRED_AFTER_S, "stuck_s": STUCK_AFTER_S, "limit": limit}
    return [StuckRun(**row) for row in db.execute(SQL_STUCK, params).fetchall()]


def active_pairs(db: Database, *, limit: int) -> list[tuple[str, str]]:
    """(sync type, agent id) of pairs that are scheduled."""
    return [(row["sync_type"], row["agent_id"]) for row in db.execute(SQL_ACTIVE_PAIRS, {"limit": limit}).fetchall()]


def whitelisted_ids(db: Database, *, limit: int) -> list[str]:
    return [row["id"] for row in db.execute(SQL_WHITELISTED_IDS, {"limit": limit}).fetchall()]


def out_of_step(db: Database, *, limit: int) -> tuple[list[str], list[str]]:
    """Ids on the whitelist that are not scheduled, and scheduled ones that are not on it; among the first `limit` of each."""
    params: dict[str, object] = {"limit": limit, "shared": SHARED_AGENT}
    missing, left = (db.execute(s, params).fetchall() for s in (SQL_NOT_SCHEDULED, SQL_STILL_SCHEDULED))
    return [row["agent_id"] for row in missing], [row["agent_id"] for row in left]
