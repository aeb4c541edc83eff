"""Runs that a worker has claimed: the lease that its heartbeat extends, the fence that refuses a former holder, and how a run ends.

Whoever changes a claimed run names the fence that it knows, and changes nothing when the fence has moved on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from archisync.base.errors import LeaseLostError
from archisync.store.database import Database, Params, one
from archisync.store.runs import COUNT_NAMES, Counts, Run, State, Trigger

# Purpose: queued -> running, by compare-and-set on the fence; nothing is claimed while another run of the agent runs (if two workers claim
# at the same instant, the partial unique index decides). The commit does not wait for the disk: a PostgreSQL that crashes and forgets the
# claim has also ended the session that could finish the run. Caller: claim. Locks: the row.
SQL_CLAIM = """
update system.sync_runs r
   set state = 'running', started_at = system.clock(), worker = %(worker)s, reason = null, message = null,
       delivered_at = (select d.delivered_at from system.deliveries d where d.id = r.delivery_id),
       lease_until = system.clock() + make_interval(secs => %(lease_s)s)
 where r.id = %(id)s and r.fence = %(fence)s and r.state = 'queued'
   and not exists (select from system.sync_runs o where o.agent_id = r.agent_id and o.state = 'running')
returning r.id, r.fence, r.sync_type, r.agent_id, r.trigger, r.attempt,
  (select case
     when r.trigger = 'forced' then null
     when not (select s.enabled from system.sync_settings s where s.sync_type = r.sync_type) then 'type-disabled'
     when exists (select from system.pauses_of(r.sync_type, r.agent_id)) then 'paused' end) as blocked,
  (select st.active from system.sync_state st where st.sync_type = r.sync_type and st.agent_id = r.agent_id) as active,
  set_config('synchronous_commit', 'off', true) as committed
"""
# Purpose: extend the lease. Caller: heartbeat. Locks: the row, SKIP LOCKED: while the apply's transaction holds it, there is nothing to
# extend, since the reaper skips it as well.
SQL_HEARTBEAT = """
with mine as (select id from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running'
                 for update skip locked)
update system.sync_runs r set lease_until = system.clock() + make_interval(secs => %(lease_s)s)
  from mine where r.id = mine.id
"""
# Purpose: is the run still ours? Caller: heartbeat, when it extended nothing. No locks.
SQL_HOLDS_FENCE = """
select exists (select from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running') as held
"""
# Purpose: take back runs whose lease has expired; after the last attempt they fail. A lease longer than any setting allows (an hour, see
# config.lease_s) comes from a clock that was wrong; the tick's own setting says nothing about a worker's. Caller: reap, a tick's second
# step. Locks: the expired rows, SKIP LOCKED: a run that is committing its apply holds its own row. Then the state rows of failed runs.
SQL_REAP = """
with expired as (
  select id from system.sync_runs
   where state = 'running'
     and (lease_until <= system.clock() or lease_until > system.clock() + interval '61 minutes')
   order by id limit %(limit)s for update skip locked),
reaped as (
  update system.sync_runs r
     set fence = fence + 1, lease_until = null, delivery_id = null, delivered_at = null, not_before = null,
         attempt = case when attempt < %(max_attempts)s then attempt + 1 else attempt end,
         state = case when attempt < %(max_attempts)s then 'queued' else 'failed' end,
         finished_at = case when attempt < %(max_attempts)s then null else system.clock() end,
         reason = 'lease-expired',
         message = 'the worker ' || coalesce(worker, '?') || ' fell silent'
    from expired where r.id = expired.id
  returning r.id, r.sync_type, r.agent_id, r.state),
failed as (
  update system.sync_state st
     set consecutive_failures = st.consecutive_failures + 1, last_run_id = reaped.id,
         backoff_until = system.clock() + system.backoff(st.sync_type, st.consecutive_failures + 1)
    from reaped where reaped.state = 'failed' and st.sync_type = reaped.sync_type and st.agent_id = reaped.agent_id
  returning 1)
select count(*) as reaped, count(*) filter (where state = 'failed') as failed from reaped
"""
# Purpose: what runs now, longest first. Caller: running. No locks.
SQL_RUNNING = "select * from system.sync_runs where state = 'running' order by started_at, id limit %(limit)s"
# Purpose: keep the run ours until the transaction ends. Caller: lock_fence. Locks: the row.
SQL_LOCK_FENCE = """
select id from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running' for update
"""
_SQL_FINISH = """
update system.sync_runs
   set state = %(state)s, reason = %(reason)s, message = %(message)s, finished_at = system.clock(), lease_until = null,
       rows_seen = %(seen)s, rows_inserted = %(inserted)s, rows_updated = %(updated)s, rows_unchanged = %(unchanged)s,
       rows_absent = %(absent)s, rows_restored = %(restored)s, rows_deleted = %(deleted)s,
       rows_quarantined = %(quarantined)s, export = %(export)s, steps = %(steps)s, warnings = %(warnings)s
 where id = %(id)s and fence = %(fence)s and state = 'running'
"""
# Purpose: end a run in whatever state. Caller: finish. Locks: the row.
SQL_FINISH = _SQL_FINISH + "returning sync_type, agent_id"
# Purpose: end a run whose export is still the one that was applied, and update the pair's state, in one statement; only if the table is
# still what that run left, for fetching takes minutes and meanwhile somebody may have cleared it. The commit does not wait for the disk:
# if PostgreSQL crashes at that moment, it forgets that the export was checked, the lease expires, and no data is concerned.
# Caller: end_unchanged. Locks: the two rows, the run's first.
SQL_END_UNCHANGED = f"""
with mine as (
  select from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running' for update),
still as (
  select from system.sync_state st
   where exists (select from mine) and st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
     and st.applied_source ->> 'run_id' = %(applied_by)s::text
     and not exists (select from system.outside_changes o where o.sync_type = st.sync_type and o.agent_id = st.agent_id)
     for update),
finished as ({_SQL_FINISH} and exists (select from still) returning sync_type, agent_id),
state as (
  update system.sync_state st
     set consecutive_failures = 0, backoff_until = null, last_run_id = %(id)s, last_success_at = system.clock()
    from finished f where st.sync_type = f.sync_type and st.agent_id = f.agent_id)
select exists (select from mine) as mine,
  (select set_config('synchronous_commit', 'off', true) from finished) is not null as ended
"""  # noqa: S608 - the part is a constant of this module
# Purpose: the pair's state after a run that failed. Caller: finish. Locks: the row.
SQL_STATE_FAILED = """
update system.sync_state
   set consecutive_failures = consecutive_failures + 1, last_run_id = %(id)s,
       backoff_until = system.clock() + system.backoff(sync_type, consecutive_failures + 1)
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: the pair's state after a run that was skipped. Its slot is given back: otherwise a pause, say, would cost a due run. The pair is
# due again as of that slot, once nothing stops it. If the slot has moved on, it stays. The function system.deactivate_agents does the
# same. Caller: finish. Locks: the row.
SQL_STATE_SKIPPED = """
update system.sync_state st
   set last_run_id = %(id)s,
       last_slot_at = case when st.last_slot_at = r.slot_at then r.slot_at - make_interval(mins => s.interval_minutes)
                           else st.last_slot_at end
  from system.sync_runs r join system.sync_settings s using (sync_type)
 where r.id = %(id)s and st.sync_type = r.sync_type and st.agent_id = r.agent_id
"""
# Purpose: the pair's state after a run that was held. The ERP has answered, so a series of failures is over and no back-off is needed.
# Caller: finish. Locks: the row.
SQL_STATE_HELD = """
update system.sync_state set last_run_id = %(id)s, consecutive_failures = 0, backoff_until = null
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: give a run back, for a later tick to deliver. Caller: requeue. Locks: the row.
SQL_REQUEUE = """
update system.sync_runs
   set state = 'queued', attempt = attempt + %(spent)s, fence = fence + 1, lease_until = null, delivery_id = null,
       delivered_at = null, not_before = system.clock() + make_interval(secs => %(delay_s)s), reason = %(reason)s, message = %(message)s
 where id = %(id)s and fence = %(fence)s and state = 'running'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A run that this worker has claimed. `blocked`: the reason why it must be skipped, or None."""

    run_id: int
    fence: int
    sync_type: str
    agent_id: str
    trigger: Trigger
    attempt: int
    blocked: str | None

    @property
    def params(self) -> Params:
        """The parameters that name the run, its fence and its pair in a statement."""
        return {"id": self.run_id, "fence": self.fence, "sync_type": self.sync_type, "agent_id": self.agent_id}


@dataclass(kw_only=True)
class Report:
    """What a run leaves in its row besides its state: counts, the export it saw, milliseconds of each step, warnings."""

    counts: Counts | None = None
    export: dict[str, Any] | None = None
    steps: dict[str, int] | None = None
    warnings: Sequence[dict[str, Any]] = ()


class Outcome(NamedTuple):
    """The state in which a run ends, and why."""

    state: State
    reason: str
    message: str


def claim(db: Database, run_id: int, fence: int, *, worker: str, lease_s: int) -> Claim | None:
    """Claim the run if it is still queued under that fence and its agent is free; None otherwise."""
    params = {"id": run_id, "fence": fence, "worker": worker, "lease_s": lease_s}
    try:
        row = db.execute(SQL_CLAIM, params, prepare=True).fetchone()
    except psycopg.errors.UniqueViolation:
        return None  # another worker claimed a run of this agent at the same instant
    if row is None:
        return None
    return Claim(
        run_id=row["id"],
        fence=row["fence"],
        sync_type=row["sync_type"],
        agent_id=row["agent_id"],
        trigger=Trigger(row["trigger"]),
        attempt=row["attempt"],
        blocked="not-whitelisted" if not row["active"] else row["blocked"],
    )


def heartbeat(db: Database, run_id: int, fence: int, *, lease_s: int) -> bool:
    """Extend the lease; False when the run is no longer ours."""
    if db.execute(SQL_HEARTBEAT, {"id": run_id, "fence": fence, "lease_s": lease_s}).rowcount:
        return True
    return bool(one(db, SQL_HOLDS_FENCE, {"id": run_id, "fence": fence})["held"])


def reap(db: Database, *, max_attempts: int, limit: int = 10_000) -> int:
    """Take back runs whose lease has expired; the number of runs."""
    return int(one(db, SQL_REAP, {"max_attempts": max_attempts, "limit": limit})["reaped"])


def running(db: Database, *, limit: int = 100) -> list[Run]:
    """What runs now, longest first."""
    return [Run.from_row(row) for row in db.execute(SQL_RUNNING, {"limit": limit}).fetchall()]


def lock_fence(db: Database, claim: Claim) -> None:
    """Keep the run ours until the transaction ends. Raises LeaseLostError when the fence has moved on."""
    if db.execute(SQL_LOCK_FENCE, claim.params).fetchone() is None:
        raise _lost(claim)


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"run {claim.run_id} belongs to another worker now")


def finish(db: Database, claim: Claim, outcome: Outcome, *, report: Report) -> None:
    """End the run. Call it in a transaction: the pair's state is a second statement.

    Raises LeaseLostError, and changes nothing, when the fence has moved on.
    """
    if db.execute(SQL_FINISH, _ending(claim, outcome, report), prepare=True).fetchone() is None:
        raise _lost(claim)
    match outcome.state:
        case State.FAILED:
            db.execute(SQL_STATE_FAILED, claim.params)
        case State.SKIPPED:
            db.execute(SQL_STATE_SKIPPED, claim.params)
        case State.HELD:
            db.execute(SQL_STATE_HELD, claim.params)


def end_unchanged(db: Database, claim: Claim, outcome: Outcome, *, report: Report, applied_by: int) -> bool:
    """End a run whose export is the one that run `applied_by` applied.

    Returns False, and changes nothing, when the table may no longer be what that run left. Raises LeaseLostError, and changes nothing,
    when the fence has moved on.
    """
    params = _ending(claim, outcome, report) | {"applied_by": applied_by}
    row = db.execute(SQL_END_UNCHANGED, params, prepare=True).fetchone()
    if row is None or not row["mine"]:
        raise _lost(claim)
    return bool(row["ended"])


def _ending(claim: Claim, outcome: Outcome, report: Report) -> Params:
    counts = report.counts.as_dict() if report.counts else dict.fromkeys(COUNT_NAMES)
    return {
        **claim.params,
        "state": outcome.state,
        "reason": outcome.reason,
        "message": outcome.message,
        "export": Jsonb(report.export) if report.export is not None else None,
        "steps": Jsonb(report.steps) if report.steps is not None else None,
        "warnings": Jsonb(list(report.warnings)),
        **counts,
    }


def requeue(db: Database, claim: Claim, *, delay_s: int, reason: str, message: str, spent_attempt: bool = True) -> None:
    """Give the run back, to be delivered by a tick after `delay_s` seconds. Raises LeaseLostError."""
    params: Params = {"delay_s": delay_s, "reason": reason, "message": message, "spent": int(spent_attempt)}
    if db.execute(SQL_REQUEUE, claim.params | params).rowcount == 0:
        raise _lost(claim)
