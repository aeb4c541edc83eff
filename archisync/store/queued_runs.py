"""`system.queued_runs`: the runs that are not over. One of them is being done when its agent's claim names it; the others wait.

A pair's row in `system.sync_state` names its unfinished run (`unfinished_run_id`), so that what is due is a plain range of an index.
Each statement that adds or removes a queued run keeps the two in step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from archisync.store.database import Database, Params, one

SKIPPED_COUNTED = 1_000
"""Pairs of a type of which a tick asks why they are not run: about 10 µs each."""

# Purpose: how many pairs of one type are past their slot, at most, counted up to a limit. Caller: insert_due: the planner takes its limit
# for the number of rows, and would else expect so many that a walk over all pairs seems cheaper than looking these up. No locks.
SQL_MOST_DUE = """
select coalesce(max(d.n), 0) as n from system.sync_settings s
 cross join lateral (
   select count(*) as n from (
     select from system.sync_state p
      where p.sync_type = s.sync_type and p.active and p.unfinished_run_id is null
        and system.or_never(p.last_slot_at) >= '-infinity'
        and system.or_never(p.last_slot_at) <= system.clock() - make_interval(mins => s.interval_minutes)
      order by system.or_never(p.last_slot_at) limit %(limit)s) x) d
 where s.enabled
"""
# Purpose: a queued run for each due pair, the pair's slot moved, and the runs put into deliveries, in one statement. Caller: tick,
# second step. Locks: the due state rows, SKIP LOCKED: an overlapping tick takes the others. The rule itself stands in
# archisync.rules.due, and a property test compares the two. The clock is read once: as a function it would be called for each row. The
# lower end of the range says that it is one: of a bare `<=` the planner expects a third of all pairs.
# An agent's runs are one job: they share a place, in the order of the first that its worker is to do.
SQL_INSERT_DUE = """
with clock as materialized (
  select system.clock() as now, exists (select from system.pauses where agent_id is not null) as some_agent_is_paused),
due as (
  select st.sync_type, st.agent_id, st.last_slot_at, t.level, every.i as every, c.now,
         extract(epoch from c.now - st.last_slot_at)::float / s.interval_minutes as overdue
    from clock c
   cross join system.sync_settings s
    join system.sync_types t using (sync_type)
    cross join lateral (select make_interval(mins => s.interval_minutes) as i) every
    cross join lateral (
      select p.sync_type, p.agent_id, p.last_slot_at from system.sync_state p
       where p.sync_type = s.sync_type and p.active and p.unfinished_run_id is null
         and system.or_never(p.last_slot_at) >= '-infinity' and system.or_never(p.last_slot_at) <= c.now - every.i
         and (p.backoff_until is null or p.backoff_until <= c.now
              or p.backoff_until > c.now + interval '25 hours')  -- longer than any back-off: a wrong clock wrote it
         and (not c.some_agent_is_paused
              or not exists (select from system.pauses_of(p.sync_type, p.agent_id, c.now)))
       order by system.or_never(p.last_slot_at)
       limit %(limit)s
       for update of p skip locked) st
   where s.enabled and not exists (select from system.pauses_of(s.sync_type, null, c.now))),
agents as (
  select agent_id, row_number() over (order by min(level), max(overdue) desc nulls first, agent_id) - 1 as place
    from due group by agent_id),
delivery as (
  insert into system.deliveries (forced)
  select false from generate_series(0, (select max(place) / %(batch)s from agents))
  returning id),
numbered as (select array_agg(id order by id) as ids from delivery),
queued as (
  insert into system.queued_runs (sync_type, agent_id, trigger, slot_at, queued_at, delivery_id, job_no)
  select d.sync_type, d.agent_id, 'scheduled',
         case when d.last_slot_at + d.every > d.now - d.every then d.last_slot_at + d.every else d.now end,
         d.now, n.ids[a.place / %(batch)s + 1], a.place %% %(batch)s
    from due d join agents a using (agent_id) cross join numbered n
   order by a.place, d.level, d.sync_type
  on conflict (agent_id, sync_type, behind) do nothing
  returning id, sync_type, agent_id, slot_at),
moved as (
  update system.sync_state st set last_slot_at = q.slot_at, unfinished_run_id = q.id
    from queued q where st.sync_type = q.sync_type and st.agent_id = q.agent_id
  returning 1)
select (select count(*) from due) as looked_at, (select count(*) from queued) as due
"""

# Purpose: pairs past their slot that are not run, by type and reason. Caller: tick, for its summary; after SQL_INSERT_DUE, so that the
# two ranges hold only what something stands in the way of: pairs without an unfinished run, those longest past their slot; and
# pairs whose run is not over. While everything is paused all pairs come to stand here: hence the limit. No locks.
SQL_COUNT_SKIPPED = """
select s.sync_type, why.reason, why.n
  from system.sync_settings s
  cross join lateral (
    select reason, count(*) as n from (
      (select case
                when exists (select from system.pauses_of(p.sync_type, p.agent_id)) then 'paused'
                when p.backoff_until > system.clock() then 'backing-off'
                else 'left-for-next-tick' end as reason
         from (select * from system.sync_state q
                where q.sync_type = s.sync_type and q.active and q.unfinished_run_id is null
                  and system.or_never(q.last_slot_at) >= '-infinity'
                  and system.or_never(q.last_slot_at)
                      <= system.clock() - make_interval(mins => s.interval_minutes)
                order by system.or_never(q.last_slot_at) limit %(limit)s) p)
      union all
      (select case when exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.unfinished_run_id)
                   then 'running' else 'queued' end as reason
         from (select * from system.sync_state q
                where q.sync_type = s.sync_type and q.active and q.unfinished_run_id is not null
                order by q.unfinished_run_id limit %(limit)s) p
        where system.or_never(p.last_slot_at) <= system.clock() - make_interval(mins => s.interval_minutes))) w
     group by reason) why
 where s.enabled
 order by why.reason
"""

_BECOMES_FORCED = """
     set trigger = 'forced', not_before = null,
         requested_by = coalesce(q.requested_by, excluded.requested_by),
         request_reason = coalesce(q.request_reason, excluded.request_reason),
         delivery_id = case when q.trigger = 'forced' and q.not_before is null then q.delivery_id end
  returning q.id, q.sync_type, q.agent_id, q.xmax <> 0 as joined, q.behind"""
# Purpose: a forced run for each pair, or the pair's run that waits, which becomes forced: it runs though its type is disabled or its agent
# paused, and is pushed again to the front of the queue. A run that is being done may have read its export already: behind it there is a run
# of the person's own. Which one is being done is read before the state is locked: one that began since then fetches after this request.
# Pairs that were never on the whitelist are left out. Caller: force_all. Locks: the states, in order; then the runs.
SQL_FORCE = f"""
with asked as materialized (
  select a.sync_type, a.agent_id, min(a.place) as place
    from unnest(%(sync_types)s::text[], %(agent_ids)s::text[]) with ordinality as a(sync_type, agent_id, place)
   group by a.sync_type, a.agent_id),
pair as materialized (
  select st.sync_type, st.agent_id, st.unfinished_run_id, st.next_run_id, a.place from system.sync_state st
    join asked a on a.agent_id = st.agent_id and a.sync_type = st.sync_type
   order by st.agent_id, st.sync_type for update of st),
wanted as materialized (
  select p.*, case when p.next_run_id <> coalesce(c.run_id, 0) then p.next_run_id
                   when p.unfinished_run_id <> coalesce(c.run_id, 0) then p.unfinished_run_id end as waits
    from pair p left join system.claims c on c.agent_id = p.agent_id),
joined as (
  insert into system.queued_runs as q (id, sync_type, agent_id, trigger, requested_by, request_reason)
  select waits, sync_type, agent_id, 'forced', %(by)s, %(why)s from wanted where waits is not null
  on conflict (id) do update{_BECOMES_FORCED}),
own as (
  insert into system.queued_runs as q (sync_type, agent_id, trigger, requested_by, request_reason, behind)
  select sync_type, agent_id, 'forced', %(by)s, %(why)s, unfinished_run_id from wanted where waits is null order by place
  on conflict (agent_id, sync_type, behind) do update{_BECOMES_FORCED}),
state as (
  update system.sync_state st
     set unfinished_run_id = coalesce(own.behind, own.id), next_run_id = case when own.behind is not null then own.id end
    from own where st.agent_id = own.agent_id and st.sync_type = own.sync_type)
select run.id as run_id, run.sync_type, run.agent_id, run.joined, case when not run.joined then run.behind end as behind
  from (select * from joined union all select * from own) run join asked using (sync_type, agent_id) order by asked.place
"""  # noqa: S608 - the part is a constant of this module

# Purpose: the place in the queue of each type's first run that waits, counted up to a limit. Caller: positions. No locks.
SQL_POSITIONS = """
select t.sync_type, 1 + (
         select count(*) from (select q.id from system.queued_runs q where q.id < first.id
                                  and not exists (select from system.claims c where c.run_id = q.id) limit %(limit)s) x) as place
  from system.sync_types t
 cross join lateral (
   select least(
     (select p.unfinished_run_id from system.sync_state p
       where p.sync_type = t.sync_type and p.unfinished_run_id is not null
         and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.unfinished_run_id)
       order by p.unfinished_run_id limit 1),
     (select p.next_run_id from system.sync_state p
       where p.sync_type = t.sync_type and p.next_run_id is not null
         and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.next_run_id)
       order by p.next_run_id limit 1)) as id) first
 where first.id is not null
"""


def insert_due(db: Database, *, limit: int, batch: int) -> tuple[int, int]:
    """Queue what is due, at most `limit` pairs a type, in deliveries of `batch` agents: (pairs looked at, runs queued)."""
    most = int(one(db, SQL_MOST_DUE, {"limit": limit})["n"])
    if not most:
        return 0, 0
    row = one(db, SQL_INSERT_DUE, {"limit": most, "batch": batch})
    return int(row["looked_at"]), int(row["due"])


def count_skipped(db: Database, *, limit: int = SKIPPED_COUNTED) -> tuple[dict[str, int], bool]:
    """Pairs past their slot by reason, `limit` of each type at most; and whether there may be more."""
    by_reason, by_type = Counter[str](), Counter[str]()
    for row in db.execute(SQL_COUNT_SKIPPED, {"limit": limit}).fetchall():
        by_reason[row["reason"]] += row["n"]
        by_type[row["sync_type"]] += row["n"]
    return dict(by_reason), any(number >= limit for number in by_type.values())


def positions(db: Database, *, limit: int = SKIPPED_COUNTED) -> dict[str, int]:
    """How soon each type's first queued run comes: 1 is the next. `limit` + 1 means later than that; types without one are left out."""
    return {row["sync_type"]: row["place"] for row in db.execute(SQL_POSITIONS, {"limit": limit}).fetchall()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Forced:
    """`joined`: the pair had a run that waits, which serves instead of a second one. `behind`: the run that is being done, of which nobody
    knows whether it has read the newest export."""

    run_id: int
    sync_type: str
    agent_id: str
    joined: bool
    behind: int | None = None

    def __str__(self) -> str:
        how = "joins the queued run" if self.joined else "queued as run"
        behind = f", behind run {self.behind}, which is being done" if self.behind is not None else ""
        return f"{self.sync_type} of {self.agent_id}: {how} {self.run_id}{behind}"


def force_all(db: Database, pairs: Sequence[tuple[str, str]], *, by: str, why: str | None) -> list[Forced]:
    """For each pair (type, agent), in this order, a run at the front of the queue, or the one that waits already. The pairs must have
    been on the whitelist."""
    params: Params = {"by": by, "why": why}
    params["sync_types"], params["agent_ids"] = [p[0] for p in pairs], [p[1] for p in pairs]
    return [Forced(**row) for row in db.execute(SQL_FORCE, params).fetchall()]


def force(db: Database, sync_type: str, agent_id: str, *, by: str, why: str | None) -> Forced:
    """`force_all` for one pair."""
    [forced] = force_all(db, [(sync_type, agent_id)], by=by, why=why)
    return forced
