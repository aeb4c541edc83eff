"""What `plan` asks: what is queued, when pairs fall due, and how long runs take. Read only."""

from __future__ import annotations

from typing import NamedTuple

from archisync.rules.forecast import DueGroup
from archisync.store.database import Database, Params

MEASURED_RUNS = 1000
"""The newest runs of a type whose durations count: enough for a steady mean, few enough for one index range."""

SAMPLED_PAGES = 1_000
"""Of a longer table so many of its pages are read, wherever they are: some 38,000 pairs, 15 ms."""
WHOLE = 1_000
"""Pairs of a type that are all read, however many others there are."""

_PERCENT = "least(100, 100.0 * %(pages)s * current_setting('block_size')::int / greatest(pg_relation_size('{}'), 1))"
_DUE_GROUPS = """
select t.sync_type, t.interval_minutes, date_trunc('minute', due.at) as due_at, t.about,
       round(sum(p.pairs) * case when t.about then 100 / t.percent else 1 end)::bigint as pairs
  from pairs p join types t using (sync_type) cross join c
  cross join lateral (
    select greatest(p.last_slot_at + t.every, c.now, p.backoff_until, case when c.anything_is_paused then (
             select max(coalesce(x.until, 'infinity')) from system.pauses_of(p.sync_type, p.agent_id) x) end) as at) due
 where due.at < 'infinity'
 group by 1, 2, 3, 4, t.percent order by 3, 1
"""
# Purpose: pairs by type and minute in which they are due next (`now` if they are overdue), so that a million pairs are a few thousand rows.
# Disabled types and pauses without an end are left out; a pause or back-off with an end delays. A type with more than WHOLE pairs is
# estimated from a sample of the table (`about`), unless that is all of it. Pairs of the sample that only pauses of everything or of the
# type may stop are counted by minute before anything else is asked of them, and then have no agent. Caller: due_groups. No locks.
SQL_DUE_GROUPS = f"""
with c as materialized (select system.clock() as now, exists (select from system.pauses) as anything_is_paused),
types as materialized (
  select s.sync_type, s.interval_minutes, make_interval(mins => s.interval_minutes) as every, z.percent, n.pairs,
         n.pairs > %(whole)s and z.percent < 100 as about
    from system.sync_settings s cross join (select {_PERCENT.format("system.sync_state")} as percent) z
    cross join lateral (select count(*) as pairs from (
      select from system.sync_state q where q.sync_type = s.sync_type and q.active
       order by system.or_never(q.last_success_at) limit %(whole)s + 1) x) n
   where s.enabled and (%(sync_type)s::text is null or s.sync_type = %(sync_type)s)),
pairs as (
  select p.*, 1 as pairs from types t cross join lateral (
    select q.sync_type, q.agent_id, q.last_slot_at, q.backoff_until from system.sync_state q
     where q.sync_type = t.sync_type and q.active order by system.or_never(q.last_success_at) limit %(whole)s) p
   where t.pairs <= %(whole)s
   union all
  select p.* from (
    select q.sync_type, q.agent_id, q.last_slot_at, q.backoff_until, count(*) as pairs from (
      select s.sync_type, date_bin('1 minute', s.last_slot_at, 'epoch') as last_slot_at,
             date_bin('1 minute', s.backoff_until, 'epoch') as backoff_until,
             case when s.agent_id in (select x.agent_id from system.pauses x where x.agent_id is not null) then s.agent_id end as agent_id
        from system.sync_state s tablesample system ({_PERCENT.format("system.sync_state")}) repeatable (0)
       where s.active offset 0) q
     group by 1, 2, 3, 4) p
   where p.sync_type in (select t.sync_type from types t where t.pairs > %(whole)s))
{_DUE_GROUPS}"""  # noqa: S608 - the parts are constants of this module
# Purpose: the same of one agent. Caller: due_groups. No locks.
SQL_DUE_GROUPS_OF_AGENT = f"""
with c as materialized (select system.clock() as now, exists (select from system.pauses) as anything_is_paused),
types as (
  select s.sync_type, s.interval_minutes, make_interval(mins => s.interval_minutes) as every, 100 as percent, false as about
    from system.sync_settings s where s.enabled and (%(sync_type)s::text is null or s.sync_type = %(sync_type)s)),
pairs as (select *, 1 as pairs from system.sync_state where active and agent_id = %(agent_id)s)
{_DUE_GROUPS}"""  # noqa: S608
_QUEUED = """
 where not exists (select from system.claims c where c.agent_id = r.agent_id and c.run_id = r.id)
   and (r.trigger = 'forced' or (s.enabled and not exists (select from system.pauses_of(r.sync_type, r.agent_id))))
   and (%(sync_type)s::text is null or r.sync_type = %(sync_type)s)
"""
# Purpose: queued runs by type, without those that a worker will skip; from a sample of a long queue. Caller: queued. No locks.
SQL_QUEUED = f"""
select r.sync_type, round(count(*) * 100 / z.percent)::bigint as runs, z.percent < 100 as about
  from system.queued_runs r tablesample system ({_PERCENT.format("system.queued_runs")}) repeatable (0)
  join system.sync_settings s using (sync_type)
 cross join (select {_PERCENT.format("system.queued_runs")} as percent) z
{_QUEUED} group by 1, z.percent
"""  # noqa: S608
# Purpose: the same of one agent. Caller: queued. No locks.
SQL_QUEUED_OF_AGENT = f"""
select r.sync_type, count(*) as runs, false as about from system.queued_runs r join system.sync_settings s using (sync_type)
{_QUEUED} and r.agent_id = %(agent_id)s group by 1
"""  # noqa: S608
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


class Queued(NamedTuple):
    """Runs that wait for a worker, by type; a type without any is left out. `about`: they are estimated from a sample of the queue."""

    runs: dict[str, int]
    about: bool


def due_groups(db: Database, *, sync_type: str | None, agent_id: str | None) -> list[DueGroup]:
    """Pairs that fall due in the same minute, in order of time."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "pages": SAMPLED_PAGES, "whole": WHOLE}
    statement = SQL_DUE_GROUPS if agent_id is None else SQL_DUE_GROUPS_OF_AGENT
    return [DueGroup(**row) for row in db.execute(statement, params).fetchall()]


def queued(db: Database, *, sync_type: str | None, agent_id: str | None) -> Queued:
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "pages": SAMPLED_PAGES}
    rows = db.execute(SQL_QUEUED if agent_id is None else SQL_QUEUED_OF_AGENT, params).fetchall()
    return Queued({row["sync_type"]: row["runs"] for row in rows}, any(row["about"] for row in rows))


def durations(db: Database) -> dict[str, float | None]:
    """The mean duration of a run in seconds, by type; None for a type that never ran."""
    rows = db.execute(SQL_DURATIONS, {"limit": MEASURED_RUNS}).fetchall()
    return {row["sync_type"]: row["mean_s"] for row in rows}
