"""What `plan` asks: what is queued, when pairs fall due, and how long runs take. Read only."""

from __future__ import annotations

from archisync.rules.forecast import DueGroup
from archisync.store.database import Database

MEASURED_RUNS = 1000
"""The newest runs of a type whose durations count: enough for a steady mean, few enough for one index range."""

# Purpose: pairs by type and minute in which they are due next (`now` if they are overdue), so that a million pairs are a few thousand rows.
# Disabled types and pauses without an end are left out; a pause or back-off with an end delays. Caller: due_groups. No locks.
SQL_DUE_GROUPS = """
select p.sync_type, s.interval_minutes, date_trunc('minute', due.at) as due_at, count(*) as pairs
  from system.sync_state p
  join system.sync_settings s using (sync_type)
  left join lateral (
    select x.until is null as for_good, x.until from system.pauses_of(p.sync_type, p.agent_id) x
     order by x.until desc nulls first limit 1) pause on true
  cross join lateral (select greatest(p.last_slot_at + make_interval(mins => s.interval_minutes), system.clock(), pause.until,
                                      p.backoff_until) as at) due
 where p.active and s.enabled and not coalesce(pause.for_good, false)
   and (%(sync_type)s::text is null or p.sync_type = %(sync_type)s)
   and (%(agent_id)s::text is null or p.agent_id = %(agent_id)s)
 group by 1, 2, 3 order by 3, 1
"""
# Purpose: queued runs by type, without those that a worker will skip. Caller: queued. No locks.
SQL_QUEUED = """
select r.sync_type, count(*) as runs
  from system.queued_runs r join system.sync_settings s using (sync_type)
 where not exists (select from system.claims c where c.agent_id = r.agent_id and c.run_id = r.id)
   and (r.trigger = 'forced' or (s.enabled and not exists (select from system.pauses_of(r.sync_type, r.agent_id))))
   and (%(sync_type)s::text is null or r.sync_type = %(sync_type)s)
   and (%(agent_id)s::text is null or r.agent_id = %(agent_id)s)
 group by 1
"""
# Purpose: the mean duration of a type's newest finished runs. Caller: durations. No locks.
# Why rows are compared and sorted as they are: see history.SQL_NEWEST.
SQL_DURATIONS = """
select t.sync_type, avg(coalesce((r.steps ->> 'total')::float / 1000,
                                 extract(epoch from r.finished_at - r.started_at)::float)) as mean_s, count(r.id) as runs
  from system.sync_types t
  left join lateral (
    select n.* from unnest('{succeeded,held,failed}'::text[]) as w(state)
      cross join lateral (
        select q.id, q.steps, q.started_at, q.finished_at from system.sync_runs q
         where (q.sync_type, q.state) between (t.sync_type, w.state) and (t.sync_type, w.state)
           and q.started_at is not null
         order by q.sync_type desc, q.state desc, q.id desc limit %(limit)s) n
     order by n.id desc limit %(limit)s) r on true
 group by t.sync_type
"""


def due_groups(db: Database, *, sync_type: str | None, agent_id: str | None) -> list[DueGroup]:
    """Pairs that fall due in the same minute, in order of time."""
    rows = db.execute(SQL_DUE_GROUPS, {"sync_type": sync_type, "agent_id": agent_id}).fetchall()
    return [DueGroup(**row) for row in rows]


def queued(db: Database, *, sync_type: str | None, agent_id: str | None) -> dict[str, int]:
    """Runs that wait for a worker, by type; a type without any is left out."""
    rows = db.execute(SQL_QUEUED, {"sync_type": sync_type, "agent_id": agent_id}).fetchall()
    return {row["sync_type"]: row["runs"] for row in rows}


def durations(db: Database) -> dict[str, float | None]:
    """The mean duration of a run in seconds, by type; None for a type that never ran."""
    rows = db.execute(SQL_DURATIONS, {"limit": MEASURED_RUNS}).fetchall()
    return {row["sync_type"]: row["mean_s"] for row in rows}
