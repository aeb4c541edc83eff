"""How a run ends: its row moves from the queue into the history, and its pair's state says what came of it, in one statement.

An ending names the agent and the fence, and changes nothing when the agent was taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from archisync.store.claims import Claim, ClaimedRun, lost
from archisync.store.database import Database, Params
from archisync.store.runs import COUNT_NAMES, Counts, State

# What every ending begins with. The state is locked before the run's row is deleted, as everywhere (archisync.store.claims).
_BEGIN = """
with mine as materialized (
  select agent_id, worker, run_id, run_started_at, fence from system.claims
   where agent_id = %(agent_id)s and fence = %(fence)s for update),
"""
_HISTORY_COLUMNS = (
    "id, sync_type, agent_id, trigger, requested_by, request_reason, slot_at, attempt, queued_at, delivered_at, fence, worker, started_at,"
    " finished_at, state, reason, message, hint, rows_seen, rows_inserted, rows_updated, rows_unchanged, rows_absent, rows_restored,"
    " rows_deleted, rows_quarantined, export, steps, warnings, quarantined_rows"
)
# Of the state `st` when the run `e` ends: a run that was forced while it was being done is the pair's unfinished one then.
_NEXT = """unfinished_run_id = case when st.unfinished_run_id = e.id then st.next_run_id else st.unfinished_run_id end,
         next_run_id = null"""
_FROM_QUEUE = """e.id, e.sync_type, e.agent_id, e.trigger, e.requested_by, e.request_reason, e.slot_at, e.attempt, e.queued_at,
         (select d.delivered_at from system.deliveries d where d.id = e.delivery_id)"""

_FINISH = f"""{_BEGIN}
pair as materialized (
  select st.agent_id from mine join system.sync_state st on st.agent_id = mine.agent_id and st.sync_type = %(sync_type)s for update of st),
ended as (
  delete from system.queued_runs q using mine
   where q.id = %(run_id)s and q.agent_id = mine.agent_id and (select count(*) from pair) >= 0
  returning q.*),
unnamed as (update system.claims c set run_id = null from mine where c.agent_id = mine.agent_id),
history as (
  insert into system.sync_runs ({_HISTORY_COLUMNS})
  select {_FROM_QUEUE},
         mine.fence, mine.worker, coalesce(mine.run_started_at, system.clock()), system.clock(), %(state)s, %(reason)s, %(message)s,
         %(hint)s,
         %(seen)s, %(inserted)s, %(updated)s, %(unchanged)s, %(absent)s, %(restored)s, %(deleted)s, %(quarantined)s,
         %(export)s, %(steps)s, %(warnings)s, %(quarantined_rows)s
    from ended e cross join mine
  returning id),
state as ("""  # noqa: S608 - the parts are constants of this module
_FINISHED = """)
select (select count(*) from history) as ended"""

# Purpose: the end of a run that wrote no data. A forced one that fails never makes the schedule rest. A skipped one gives its slot back, or
# what stood in the way (a pause, say) would take a run along that is due: the pair is due again as of that slot; another slot than the
# run's is left alone. After a hold failures are no longer in a row: the ERP has answered. Caller: finish. Locks: claim, state, run.
SQL_FINISH = f"""{_FINISH}
  update system.sync_state st
     set last_run_id = %(run_id)s, {_NEXT},
         same_changes_nothing = st.same_changes_nothing and %(state)s = 'skipped',
         consecutive_failures = case %(state)s when 'failed' then st.consecutive_failures + 1 when 'held' then 0
                                               else st.consecutive_failures end,
         scheduled_failures = case when %(state)s = 'held' then 0
                                   else st.scheduled_failures + (%(state)s = 'failed' and e.trigger = 'scheduled')::int end,
         backoff_until = case when %(state)s = 'failed' and e.trigger = 'scheduled'
                              then system.clock() + system.backoff(st.sync_type, st.scheduled_failures + 1)
                              when %(state)s = 'held' then null else st.backoff_until end,
         last_slot_at = case when %(state)s = 'skipped' and st.last_slot_at = e.slot_at
                             then e.slot_at - make_interval(mins => s.interval_minutes) else st.last_slot_at end
    from ended e join system.sync_settings s using (sync_type)
   where st.sync_type = e.sync_type and st.agent_id = e.agent_id{_FINISHED}"""  # noqa: S608 - the parts are constants of this module

# Purpose: the end of a run whose export was applied, in the transaction that wrote the data. Caller: finish_applied. Locks: as above.
SQL_FINISH_APPLIED = f"""{_FINISH}
  update system.sync_state st
     set last_run_id = %(run_id)s, {_NEXT},
         consecutive_failures = 0, scheduled_failures = 0, backoff_until = null, last_success_at = system.clock(),
         known_rows = %(known_rows)s, applied_run_id = e.id, warned_run_id = case when %(warned)s then e.id end,
         same_changes_nothing = %(same_changes_nothing)s,
         data_version = st.data_version + case when %(changed)s then 1 else 0 end,
         high_rows = (select jsonb_object_agg(d.day, d.n) from (
           select day, max(n) as n from (
             select key as day, value::bigint as n from jsonb_each_text(case when %(accepted)s then '{{}}' else st.high_rows end)
              where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int
             union all select (system.clock() at time zone 'UTC')::date::text, %(known_rows)s) h
            group by day) d)
    from ended e
   where st.sync_type = e.sync_type and st.agent_id = e.agent_id
  returning st.sync_type, st.agent_id),
applied as (
  insert into system.applied_exports (sync_type, agent_id, source)
  select sync_type, agent_id, %(source)s from state
      on conflict (agent_id, sync_type) do update set source = excluded.source{_FINISHED}"""  # noqa: S608 - the parts are constants of this module

# Purpose: the end of runs whose exports are the ones that were applied, all of an agent's in one statement, and with `release` the end of
# its claim and lock. A run is left out that has become forced meanwhile, or whose table is no longer what its last apply left: fetching
# takes minutes, and somebody may have cleared it. The commit does not wait for the disk: a PostgreSQL that crashes in that moment
# forgets that somebody looked, and nothing of the data is concerned. Unless the export is to be moved after it: the commit that applied the
# export may have been a moment ago, and not wait either. Caller: end_unchanged. Locks: claim, states in order, runs.
SQL_END_UNCHANGED = f"""{_BEGIN}
told as materialized (
  select * from jsonb_to_recordset(%(ends)s)
           as t(id bigint, trigger text, applied_by bigint, reason text, message text, seen bigint, unchanged bigint, export jsonb,
                steps jsonb)),
still as materialized (
  select st.sync_type, st.agent_id, t.id
    from mine
    join system.queued_runs q on q.agent_id = mine.agent_id
    join told t on t.id = q.id and t.trigger = q.trigger
    join system.sync_state st on st.agent_id = q.agent_id and st.sync_type = q.sync_type
   where st.applied_run_id = t.applied_by
     and not exists (select from system.outside_changes o where o.sync_type = st.sync_type and o.agent_id = st.agent_id)
   order by st.sync_type for update of st),
ended as (
  delete from system.queued_runs q using still join told t using (id)
   where q.id = still.id and q.agent_id = still.agent_id and q.trigger = t.trigger
  returning q.*, t.reason as told_reason, t.message as told_message, t.seen, t.unchanged, t.export, t.steps),
history as (
  insert into system.sync_runs ({_HISTORY_COLUMNS})
  select {_FROM_QUEUE},
         mine.fence, mine.worker, system.clock(), system.clock(), 'succeeded', e.told_reason, e.told_message,
         null, e.seen, 0, 0, e.unchanged, 0, 0, 0, 0, e.export, e.steps, '[]', null
    from ended e cross join mine),
state as (
  update system.sync_state st
     set last_run_id = e.id, {_NEXT},
         consecutive_failures = 0, scheduled_failures = 0, backoff_until = null, last_success_at = system.clock()
    from ended e where st.sync_type = e.sync_type and st.agent_id = e.agent_id),
unnamed as (
  update system.claims c set run_id = null from mine
   where c.agent_id = mine.agent_id and not %(release)s and c.run_id in (select id from ended)),
released as (
  delete from system.claims c using mine
   where c.agent_id = mine.agent_id and %(release)s and (select count(*) from ended) = jsonb_array_length(%(ends)s)
  returning pg_advisory_unlock(hashtextextended('archisync.agent.' || c.agent_id, 0)))
select (select count(*) from mine) > 0 as mine, (select count(*) from released) > 0 as released,
       coalesce((select array_agg(id) from ended), '{{}}') as ended,
       set_config('synchronous_commit', case when %(moves)s then current_setting('synchronous_commit') else 'off' end, true)
"""  # noqa: S608 - the parts are constants of this module

# Purpose: one more warning of a run that has succeeded: its data is committed, and what came after did not work. Caller: add_warning.
# Locks: the run.
SQL_ADD_WARNING = """
update system.sync_runs
   set warnings = warnings || %(warning)s, reason = case reason when 'applied' then 'applied-with-warnings' else reason end
 where id = %(run_id)s and fence = %(fence)s
"""


@dataclass(kw_only=True)
class Report:
    """What a run leaves in its row beside its state: counts, the export it saw, milliseconds a step, warnings, some quarantined rows."""

    counts: Counts | None = None
    export: dict[str, Any] | None = None
    steps: dict[str, int] | None = None
    warnings: Sequence[dict[str, Any]] = ()
    quarantined_rows: Sequence[dict[str, Any]] = ()


class Outcome(NamedTuple):
    """What a worker leaves a run as. `hint`: what a person can do about it; None when there is nothing to do."""

    state: State
    reason: str
    message: str
    hint: str | None = None


class UnchangedEnd(NamedTuple):
    """A run whose export is the one that run `applied_by` applied."""

    run: ClaimedRun
    outcome: Outcome
    report: Report
    applied_by: int


class Ended(NamedTuple):
    """Which runs have ended, and whether the agent was let go with them."""

    run_ids: frozenset[int]
    released: bool


def finish(db: Database, run: ClaimedRun, outcome: Outcome, *, report: Report) -> None:
    """End a run that wrote no data. Raises LeaseLostError, and changes nothing, when the agent or the run was taken away."""
    _finish(db, SQL_FINISH, run, outcome, report, {})


def finish_applied(
    db: Database,
    run: ClaimedRun,
    outcome: Outcome,
    *,
    report: Report,
    known_rows: int,
    accepted: bool,
    source: dict[str, Any],
    warned: bool = False,
) -> None:
    """End a run whose export was applied; in the transaction of the apply. `source`: what the next claim brings as `applied`.
    `accepted`: a person said that so few rows are right, so the earlier high counts are forgotten. `warned`: `status` shows the run's
    warnings until the next export is applied. Raises LeaseLostError."""
    from archisync.rules.guard import HIGH_WATER_DAYS  # here, and not above: a tick needs no guard

    counts = report.counts or Counts()
    params: Params = {
        "known_rows": known_rows,
        "changed": counts.changed,
        # A row that is marked absent is deleted or restored by the next export only; a quarantined one is worth telling again.
        "same_changes_nothing": not (counts.absent or counts.quarantined),
        "accepted": accepted,
        "warned": warned,
        "high_water_days": HIGH_WATER_DAYS,
        "source": Jsonb(source),
    }
    _finish(db, SQL_FINISH_APPLIED, run, outcome, report, params)


def add_warning(db: Database, run: ClaimedRun, warning: dict[str, Any]) -> None:
    """Leave one more warning in the row of a run that this worker has ended."""
    db.execute(SQL_ADD_WARNING, run.params | {"warning": Jsonb(warning)})


def _finish(db: Database, statement: str, run: ClaimedRun, outcome: Outcome, report: Report, more: Params) -> None:
    counts = report.counts.as_dict() if report.counts else dict.fromkeys(COUNT_NAMES)
    params: Params = {
        **run.params,
        **outcome._asdict(),
        "export": Jsonb(report.export) if report.export is not None else None,
        "steps": Jsonb(report.steps) if report.steps is not None else None,
        "warnings": Jsonb(list(report.warnings)),
        "quarantined_rows": Jsonb(list(report.quarantined_rows)) if report.quarantined_rows else None,
        **counts,
    }
    row = db.execute(statement, params | more, prepare=True).fetchone()
    if row is None or not row["ended"]:
        raise lost(run.agent_id)


def end_unchanged(
    db: Database, claim: Claim, ends: Sequence[UnchangedEnd], *, release: bool, moves: bool = False
) -> Ended:
    """End the runs of one agent whose exports are unchanged; with `release`, let the agent go if all of them ended. A run whose table may
    no longer be what its last apply left stays queued. `moves`: an export is moved after the commit, which then waits for the disk. Raises
    LeaseLostError, and changes nothing, when the agent was taken away."""
    params: Params = {**claim.params, "release": release, "moves": moves, "ends": Jsonb([_told(end) for end in ends])}
    row = db.execute(SQL_END_UNCHANGED, params, prepare=True).fetchone()
    if row is None or not row["mine"]:
        raise lost(claim.agent_id)
    return Ended(frozenset(row["ended"]), row["released"])


def _told(end: UnchangedEnd) -> dict[str, Any]:
    counts = end.report.counts or Counts()
    return {
        "id": end.run.run_id,
        "trigger": end.run.trigger,
        "applied_by": end.applied_by,
        "reason": end.outcome.reason,
        "message": end.outcome.message,
        "seen": counts.seen,
        "unchanged": counts.unchanged,
        "export": end.report.export,
        "steps": end.report.steps,
    }
