"""Runs that wait for a worker: scheduled ones for the pairs that are due, and forced ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from archisync.store.database import Database, Params, one

SKIPPED_COUNTED = 1_000
"""Pairs of a type for which a tick looks up why they are not run: about 10 µs each."""

# Purpose: queue a run for each due pair, move the pair's slot, and put the runs into deliveries, in one statement. Caller: insert_due.
# Locks: the due state rows, SKIP LOCKED: an overlapping tick takes the others. The row that was locked is found again by its ctid; if a
# worker changed it just before the lock, the pair is left for the next tick. The rule is explained in archisync.rules.due, and a property
# test compares the two.
# One index range a type; the inner ORDER BY … LIMIT keeps the planner on the index. With old statistics it would read all that is due,
# sort it and keep the first few: hence SQL_BY_INDEX. `offset 0` makes each `not exists` one index lookup a pair; as a join, it has been
# seen to read the whole queue for each pair. The clock is read once: as a function it would be called several times for each row.
SQL_INSERT_DUE = """
with clock as materialized (
  select system.clock() as now, exists (select from system.pauses where agent_id is not null) as some_agent_is_paused),
due as (
  select st.version, st.sync_type, st.agent_id, st.last_slot_at, t.level, every.i as every, c.now,
         extract(epoch from c.now - st.last_slot_at)::float / s.interval_minutes as overdue
    from clock c
   cross join system.sync_settings s
    join system.sync_types t using (sync_type)
    cross join lateral (select make_interval(mins => s.interval_minutes) as i) every
    cross join lateral (
      select p.ctid as version, p.sync_type, p.agent_id, p.last_slot_at from system.sync_state p
       where p.sync_type = s.sync_type and p.active
         and system.or_never(p.last_slot_at) <= c.now - every.i
         and (p.backoff_until is null or p.backoff_until <= c.now
              or p.backoff_until > c.now + interval '25 hours')  -- longer than any back-off: a wrong clock wrote it
         and not exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                          and r.state in ('queued', 'running') offset 0)
         and (not c.some_agent_is_paused
              or not exists (select from system.pauses_of(p.sync_type, p.agent_id, c.now) x where x.agent_id = p.agent_id offset 0))
       order by system.or_never(p.last_slot_at)
       limit %(limit)s
       for update of p skip locked) st
   where s.enabled and not exists (select from system.pauses_of(s.sync_type, null, c.now))),
moved as (
  update system.sync_state st
     set last_slot_at = case when due.last_slot_at + due.every > due.now - due.every
                             then due.last_slot_at + due.every else due.now end
    from due where st.ctid = due.version
  returning st.sync_type, st.agent_id, st.last_slot_at, due.level, due.overdue),
ranked as (
  select m.*, row_number() over (order by level, overdue desc nulls first, agent_id, sync_type) - 1 as place from moved m),
delivery as (
  insert into system.deliveries (forced)
  select false from generate_series(0, (select max(place) / %(batch)s from ranked))
  returning id),
queued as (
  insert into system.sync_runs (sync_type, agent_id, trigger, slot_at, queued_at, delivery_id)
  select sync_type, agent_id, 'scheduled', last_slot_at, (select now from clock),
         (array(select id from delivery order by id))[place / %(batch)s + 1]
    from ranked order by place
  on conflict (agent_id, sync_type) where state in ('queued', 'running') do nothing
  returning 1)
select (select count(*) from moved) as moved, (select count(*) from queued) as due
"""
# Purpose: make SQL_INSERT_DUE walk the index in its order, and compile nothing, which takes longer than the tick. Caller: insert_due, in
# the same transaction. No locks.
SQL_BY_INDEX = """
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)
"""
# Purpose: pairs past their slot that are not run, by type and reason. Caller: count_skipped, after SQL_INSERT_DUE, so that the range
# holds only pairs that something stops. Only those of each type that are longest past their slot: while everything is paused, all pairs
# are in the range, and every tick would look each one up. No locks.
SQL_COUNT_SKIPPED = """
select s.sync_type, why.reason, why.n
  from system.sync_settings s
  cross join lateral (
    select case
             when exists (select from system.pauses_of(p.sync_type, p.agent_id)) then 'paused'
             when exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                           and r.state = 'running') then 'running'
             when exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                           and r.state = 'queued') then 'queued'
             when p.backoff_until > system.clock() then 'backing-off'
             else 'left-for-next-tick' end as reason, count(*) as n
      from (select * from system.sync_state q where q.sync_type = s.sync_type and q.active
             and system.or_never(q.last_slot_at) <= system.clock() - make_interval(mins => s.interval_minutes)
             order by system.or_never(q.last_slot_at) limit %(limit)s) p
     group by 1) why
 where s.enabled
 order by why.reason
"""
# Purpose: the agent's next queued run, in the order of delivery. Caller: next_of_agent. No locks. With plain `state = 'queued'` the planner
# may walk over the whole queue by sync_runs_by_delivery (see deliveries.SQL_LOCK_NEXT).
SQL_NEXT_OF_AGENT = """
select r.id, r.fence from system.sync_runs r
 where r.agent_id = %(agent_id)s and r.state in ('queued', 'running') and r.state <> 'running'
   and (r.not_before is null or r.not_before <= system.clock())
 order by r.trigger = 'forced' desc, r.id limit 1
"""
# Purpose: queue a forced run, unless the pair has an unfinished one. Caller: force. Locks: none but the new row.
SQL_FORCE = """
insert into system.sync_runs (sync_type, agent_id, trigger, requested_by, request_reason)
values (%(sync_type)s, %(agent_id)s, 'forced', %(by)s, %(why)s)
on conflict (agent_id, sync_type) where state in ('queued', 'running') do nothing
returning id
"""
# Purpose: make the pair's unfinished run a forced one, so that it runs even if its type is disabled or its agent paused; a running one is
# affected if it needs another attempt. A queued one is pushed again, to the front of the queue. Caller: force. Locks: that row.
SQL_JOIN = """
with unfinished as (
  select id, state, trigger from system.sync_runs
   where sync_type = %(sync_type)s and agent_id = %(agent_id)s and state in ('queued', 'running') for update)
update system.sync_runs r
   set trigger = 'forced',
       requested_by = coalesce(r.requested_by, %(by)s), request_reason = coalesce(r.request_reason, %(why)s),
       not_before = case when u.state = 'queued' then null else r.not_before end,
       delivery_id = case when u.state = 'queued' and u.trigger <> 'forced' then null else r.delivery_id end
  from unfinished u where r.id = u.id
returning r.id
"""


def insert_due(db: Database, *, limit: int, batch: int) -> tuple[int, int]:
    """Queue what is due, at most `limit` pairs a type, in deliveries of `batch` runs. Returns (slots moved, runs queued)."""
    with db.transaction():
        db.execute(SQL_BY_INDEX)
        row = one(db, SQL_INSERT_DUE, {"limit": limit, "batch": batch})
    return int(row["moved"]), int(row["due"])


def count_skipped(db: Database, *, limit: int = SKIPPED_COUNTED) -> tuple[dict[str, int], bool]:
    """Pairs past their slot that are not run, by reason, at most `limit` of each type; and whether there may be more."""
    by_reason, by_type = Counter[str](), Counter[str]()
    for row in db.execute(SQL_COUNT_SKIPPED, {"limit": limit}).fetchall():
        by_reason[row["reason"]] += row["n"]
        by_type[row["sync_type"]] += row["n"]
    return dict(by_reason), limit in by_type.values()


def next_of_agent(db: Database, agent_id: str) -> tuple[int, int] | None:
    """(run id, fence) of the agent's next queued run. A worker that finished a run of the agent goes on with it."""
    row = db.execute(SQL_NEXT_OF_AGENT, {"agent_id": agent_id}, prepare=True).fetchone()
    return (row["id"], row["fence"]) if row else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forced:
    """A forced run. `joined`: it is the unfinished run that the pair already had, and not a new one."""

    run_id: int
    sync_type: str
    agent_id: str
    joined: bool


def force(db: Database, sync_type: str, agent_id: str, *, by: str, why: str | None) -> Forced:
    """Queue a run of the pair at the front of the queue, or join its unfinished run."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "by": by, "why": why}
    while True:  # the unfinished run may end between the two statements: then there is room for ours
        with db.transaction():
            row = db.execute(SQL_FORCE, params).fetchone()
            joined = row is None
            if row is None:
                row = db.execute(SQL_JOIN, params).fetchone()
        if row is not None:
            return Forced(run_id=row["id"], sync_type=sync_type, agent_id=agent_id, joined=joined)
