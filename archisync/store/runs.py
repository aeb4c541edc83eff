"""`system.sync_runs`: the life of a run. The row is the truth; Redis only delivers its id and fence.

    queued ──claim──▶ running ──▶ succeeded | held | failed | skipped
      ▲                  │
      └── retry, lease expired (attempt + 1, fence + 1)

Whoever changes a run names the fence that it knows, and changes nothing when the fence has moved on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from time import monotonic
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from archisync.base.errors import LeaseLostError, NotFoundError
from archisync.store.database import Database, Params


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    HELD = "held"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def unfinished(self) -> bool:
        return self in (State.QUEUED, State.RUNNING)


class Trigger(StrEnum):
    SCHEDULED = "scheduled"
    FORCED = "forced"


PRUNE_BATCH = 250
"""Rows of history deleted in one statement: some ten milliseconds, in which their locks are held."""
SKIPPED_COUNTED = 1_000
"""Pairs of a type of which a tick asks why they are not run: about 10 µs each."""
BACKOFF_CAP_MINUTES = 360
"""Longest pause of a pair that keeps failing, unless its interval is longer; also the reach of a wrong clock."""

# Purpose: a slot, a delivery or a retry that is further in the future than any can be comes from a clock that was wrong; put right
# so that it delays nothing by more than a tick (`due.credible` tells the same). So is the age of finished runs. Caller: tick. Locks: the
# rows concerned (normally none). One end of an index range a type: a plain condition was planned as a walk over all pairs, since nothing
# tells the planner that nobody's slot is in the future.
SQL_MEND_CLOCK = """
with slots as (
  update system.sync_state set last_slot_at = null
   where ctid = any (array(
     select wrong.version from system.sync_types t
       cross join lateral (
         select p.ctid as version from system.sync_state p
          where p.sync_type = t.sync_type and p.active
            and coalesce(p.last_slot_at, '-infinity'::timestamptz) > system.clock() + interval '1 minute'
          order by coalesce(p.last_slot_at, '-infinity'::timestamptz) desc limit 100000) wrong))
  returning 1),
deliveries as (
  update system.deliveries set delivered_at = (system.clock() - interval '1 hour')  -- long ago, however that is configured
   where delivered_at > system.clock() + interval '1 minute'
  returning 1),
retries as (
  update system.sync_runs set not_before = null
   where state = 'queued' and delivery_id is null and not_before > system.clock() + interval '61 minutes'
  returning 1),
history as (
  update system.sync_runs set kept_at = system.clock()  -- pruned a retention from now, and not years later
   where ctid = any (array(
     select r.ctid from system.sync_runs r
      where r.finished_at is not null and coalesce(r.kept_at, r.finished_at) > system.clock() + interval '1 minute'
      order by coalesce(r.kept_at, r.finished_at) desc limit 10000))
  returning 1)
select (select count(*) from slots) + (select count(*) from deliveries) + (select count(*) from retries)
     + (select count(*) from history) as mended
"""

# Purpose: take back runs whose worker fell silent; beyond the bound they are failed. A lease longer than any setting allows (an hour,
# see config.lease_s) comes from a clock that was wrong; a tick's own setting says nothing of a worker's. Caller: tick, first step.
# Locks: the expired rows; SKIP LOCKED, because a run that is committing its apply right now holds its own row.
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

# Purpose: a queued run for each due pair, the pair's slot moved, and the runs put into deliveries, in one statement. Caller: tick,
# second step. Locks: the due state rows, SKIP LOCKED: an overlapping tick takes the others. The rule itself is told in archisync.rules.due,
# and a property test compares the two. One index range a type; the inner ORDER BY … LIMIT is what keeps the planner on the index.
# Where statistics are old the planner takes all that is due, sorts it and keeps the first few: hence SQL_BY_INDEX before it.
# `offset 0` makes of each `not exists` a look into an index for each pair; joined, it has been seen to read the whole queue for each.
# The row that was locked is found again by its ctid; had a worker changed it just before the lock, the pair is the next tick's.
# The clock is read once: as a function it would be called several times for each row.
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
         and coalesce(p.last_slot_at, '-infinity'::timestamptz) <= c.now - every.i
         and (p.backoff_until is null or p.backoff_until <= c.now
              or p.backoff_until > c.now + interval '25 hours')  -- longer than any back-off: a wrong clock wrote it
         and not exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                          and r.state in ('queued', 'running') offset 0)
         and (not c.some_agent_is_paused
              or not exists (select from system.pauses x where x.agent_id = p.agent_id
                              and (x.sync_type is null or x.sync_type = p.sync_type)
                              and (x.until is null or x.until > c.now) offset 0))
       order by coalesce(p.last_slot_at, '-infinity'::timestamptz)
       limit %(limit)s
       for update of p skip locked) st
   where s.enabled
     and not exists (select from system.pauses x where x.agent_id is null
                      and (x.sync_type is null or x.sync_type = s.sync_type)
                      and (x.until is null or x.until > c.now))),
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

# Purpose: for SQL_INSERT_DUE, in its transaction: walk the index in its order; and compile nothing, which takes longer than the tick.
SQL_BY_INDEX = """
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)
"""

# Purpose: pairs past their slot that are not run, by type and reason. Caller: tick, for its summary; after SQL_INSERT_DUE, so the
# range holds only what something stands in the way of. Of each type those longest past their slot: while everything is paused, all
# pairs come to stand here, and each tick would ask after every one. No locks.
SQL_COUNT_SKIPPED = """
select s.sync_type, why.reason, why.n
  from system.sync_settings s
  cross join lateral (
    select case
             when exists (select from system.pauses x where (x.sync_type is null or x.sync_type = p.sync_type)
                           and (x.agent_id is null or x.agent_id = p.agent_id)
                           and (x.until is null or x.until > system.clock())) then 'paused'
             when exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                           and r.state = 'running') then 'running'
             when exists (select from system.sync_runs r where r.sync_type = p.sync_type and r.agent_id = p.agent_id
                           and r.state = 'queued') then 'queued'
             when p.backoff_until > system.clock() then 'backing-off'
             else 'left-for-next-tick' end as reason, count(*) as n
      from (select * from system.sync_state q where q.sync_type = s.sync_type and q.active
             and coalesce(q.last_slot_at, '-infinity'::timestamptz)
                 <= system.clock() - make_interval(mins => s.interval_minutes)
             order by coalesce(q.last_slot_at, '-infinity'::timestamptz) limit %(limit)s) p
     group by 1) why
 where s.enabled
 order by why.reason
"""

# Purpose: queued runs that belong to no delivery (forced, taken or given back) are put into one, forced ones into one of their own.
# Caller: deliver, before the push, in a commit of its own. Locks: those runs, SKIP LOCKED: an overlapping tick takes others.
SQL_ASSIGN = """
with ready as (
  select id, trigger = 'forced' as forced from system.sync_runs
   where state = 'queued' and delivery_id is null and (not_before is null or not_before <= system.clock())
   order by trigger = 'forced' desc, id limit %(limit)s for update skip locked),
delivery as (
  insert into system.deliveries (forced) select distinct forced from ready returning id, forced)
update system.sync_runs r set delivery_id = d.id
  from ready join delivery d using (forced) where r.id = ready.id
"""
# Purpose: the next delivery to push, forced ones first, then in the order of insertion (level, then most overdue), with those of
# its runs that are still queued. Caller: deliver, whose transaction holds the delivery locked while it pushes: an overlapping tick
# takes another. The runs are not locked: what happens to one meanwhile moves its fence or its state, and the job claims nothing.
# A delivery's runs are told as a range of sync_runs_by_delivery, in its order, here and below: statistics that were made while nothing
# was queued say that each index of the queued runs is empty, and then `=` has been seen to be looked for by reading all of them.
SQL_LOCK_UNDELIVERED = """
with delivery as materialized (
  select id, forced from system.deliveries where delivered_at is null
   order by forced desc, id limit 1 for update skip locked)
select d.id, d.forced, array_remove(array_agg(r.id order by r.id), null) as run_ids,
       array_remove(array_agg(r.fence order by r.id), null) as fences
  from delivery d
  left join lateral (
    select q.id, q.fence from system.sync_runs q
     where q.state = 'queued' and q.delivery_id between d.id and d.id order by q.delivery_id, q.sync_type, q.id) r on true
 group by d.id, d.forced
"""
SQL_ANY_UNDELIVERED = """
select exists (select from system.deliveries where delivered_at is null)
    or exists (select from system.sync_runs where state = 'queued' and delivery_id is null
                and (not_before is null or not_before <= system.clock())) as some
"""
SQL_MARK_DELIVERED = "update system.deliveries set delivered_at = system.clock() where id = %(id)s"
# Purpose: runs whose delivery may be lost. A run that waits for its agent's running one is not among them: the worker that
# finishes goes on with it. Caller: tick. No locks.
SQL_LONG_DELIVERED = """
select r.id, r.fence, r.delivery_id from system.deliveries d
  cross join lateral (
    select q.id, q.fence, q.delivery_id, q.agent_id from system.sync_runs q
     where q.state = 'queued' and q.delivery_id between d.id and d.id order by q.delivery_id, q.sync_type, q.id) r
 where d.delivered_at <= system.clock() - make_interval(secs => %(after_s)s)
   and not exists (select from system.sync_runs o where o.agent_id = r.agent_id and o.state = 'running')
 order by d.delivered_at, r.id limit %(limit)s
"""
SQL_MARK_UNDELIVERED = """
update system.sync_runs r set delivery_id = null
  from unnest(%(ids)s::bigint[], %(delivery_ids)s::bigint[]) as d(id, delivery_id)
 where r.id = d.id and r.delivery_id = d.delivery_id and r.state = 'queued'
"""
# Purpose: deliveries that have served. Caller: tick. Locks: those rows, SKIP LOCKED.
SQL_FORGET_DELIVERIES = """
delete from system.deliveries where id = any (array(
  select d.id from system.deliveries d
   where d.delivered_at is not null
     and (select q.delivery_id from system.sync_runs q
           where q.state = 'queued' and q.delivery_id >= d.id order by q.delivery_id limit 1) is distinct from d.id
   limit %(limit)s for update skip locked))
"""

# Purpose: queued -> running, by compare-and-set on the fence. Nothing is claimed while another run of the agent runs (the
# partial unique index decides when two workers claim at the same instant). The commit does not wait for the disk: a PostgreSQL that
# crashes and forgets the claim has ended the session too on which alone the run could be finished. Caller: worker. Locks: the row.
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
     when exists (select from system.pauses x where (x.sync_type is null or x.sync_type = r.sync_type)
                   and (x.agent_id is null or x.agent_id = r.agent_id)
                   and (x.until is null or x.until > system.clock())) then 'paused' end) as blocked,
  (select st.active from system.sync_state st where st.sync_type = r.sync_type and st.agent_id = r.agent_id) as active,
  set_config('synchronous_commit', 'off', true) as committed
"""
# Purpose: what the agent has waiting, in the order of delivery. Caller: the worker that has just finished a run of it. Plain
# `state = 'queued'` would let the planner walk over the whole queue by sync_runs_by_delivery (see SQL_LOCK_UNDELIVERED).
SQL_NEXT_OF_AGENT = """
select r.id, r.fence from system.sync_runs r
 where r.agent_id = %(agent_id)s and r.state in ('queued', 'running') and r.state <> 'running'
   and (r.not_before is null or r.not_before <= system.clock())
 order by r.trigger = 'forced' desc, r.id limit 1
"""
# Purpose: the worker is alive. SKIP LOCKED: while the apply transaction holds the row there is nothing to extend (the
# reaper passes it by as well). Caller: the worker's heartbeat thread.
SQL_HEARTBEAT = """
with mine as (select id from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running'
                 for update skip locked)
update system.sync_runs r set lease_until = system.clock() + make_interval(secs => %(lease_s)s)
  from mine where r.id = mine.id
"""
SQL_HOLDS_FENCE = """
select exists (select from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running') as held
"""
# Purpose: nobody may take the run from us until our transaction ends. Caller: apply. Locks: the row.
SQL_LOCK_FENCE = """
select id from system.sync_runs where id = %(id)s and fence = %(fence)s and state = 'running' for update
"""
# Purpose: the end of a run, whatever it is. Caller: finish. Locks: the row.
_SQL_FINISH = """
update system.sync_runs
   set state = %(state)s, reason = %(reason)s, message = %(message)s, finished_at = system.clock(), lease_until = null,
       rows_seen = %(seen)s, rows_inserted = %(inserted)s, rows_updated = %(updated)s, rows_unchanged = %(unchanged)s,
       rows_absent = %(absent)s, rows_restored = %(restored)s, rows_deleted = %(deleted)s,
       rows_quarantined = %(quarantined)s, export = %(export)s, steps = %(steps)s, warnings = %(warnings)s
 where id = %(id)s and fence = %(fence)s and state = 'running'
"""
SQL_FINISH = _SQL_FINISH + "returning sync_type, agent_id"
SQL_STATE_SUCCEEDED = """
update system.sync_state
   set consecutive_failures = 0, backoff_until = null, last_run_id = %(id)s, last_success_at = system.clock(),
       known_rows = %(known_rows)s, applied_sha256 = %(sha256)s, applied_source = %(source)s,
       data_version = data_version + case when %(changed)s then 1 else 0 end,
       high_rows = (select jsonb_object_agg(d.day, d.n) from (
         select day, max(n) as n from (
           select key as day, value::bigint as n from jsonb_each_text(case when %(accepted)s then '{}' else high_rows end)
            where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int
           union all select (system.clock() at time zone 'UTC')::date::text, %(known_rows)s) h
          group by day) d)
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: the export is still the one that was applied: the end of the run and the pair's state, in one statement, if the table is
# what that run left in this moment too: fetching takes minutes, and meanwhile somebody may clear it. Its commit does not wait for the
# disk: PostgreSQL that crashes in the same moment forgets that somebody looked, the run goes back to its lease, and nothing of the data
# is concerned. Caller: sync. Locks: the two rows, the run's first.
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
# Purpose: what is known of the applied export, if the same export again would change nothing: the pair's last run succeeded, left
# no row marked absent, which only a second export can delete or restore, quarantined none, which is worth telling again, and
# nobody else has written to the pair's rows since. Nor does a hold stand open, which a comparison would have to clear. Caller: sync. No
# locks.
SQL_APPLIED_SOURCE = """
select st.applied_source from system.sync_state st join system.sync_runs r on r.id = st.last_run_id
 where st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
   and r.state = 'succeeded' and coalesce(r.rows_absent, 0) = 0 and coalesce(r.rows_quarantined, 0) = 0
   and not exists (select from system.outside_changes o where o.sync_type = st.sync_type and o.agent_id = st.agent_id)
   and not exists (select from system.held_exports h where h.sync_type = st.sync_type and h.agent_id = st.agent_id
                    and h.decision is null)
"""
# Purpose: from here on the apply sees what others wrote to the pair's rows; what commits later leaves a row for the next sync.
# Caller: sync, first statement of the apply's transaction. Locks: rows that nobody else changes.
SQL_FORGET_OUTSIDE_CHANGES = """
delete from system.outside_changes where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: the transaction's writes to agent data are those of this run: defaults of its COPY, and no outside change. Caller: sync.
SQL_NAME_RUN = """
select set_config('archisync.run_id', %(id)s::text, true), set_config('archisync.agent_id', %(agent_id)s, true),
  st.applied_source ->> 'line_layout' as line_layout, st.applied_source ->> 'digest_layout' as digest_layout
  from (select) one left join system.sync_state st on st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
"""
SQL_STATE_FAILED = """
update system.sync_state
   set consecutive_failures = consecutive_failures + 1, last_run_id = %(id)s,
       backoff_until = system.clock() + system.backoff(sync_type, consecutive_failures + 1)
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: the pair's state after a run that was skipped. The slot is given back, or what stood in the way (a pause, say) would take a
# run along that is due: the pair is due again as of that slot, once nothing stands in its way. Another slot than the run's is left
# alone. The trigger's function system.deactivate_agents does the same. Caller: finish, in its transaction. Locks: the row.
SQL_STATE_SKIPPED = """
update system.sync_state st
   set last_run_id = %(id)s,
       last_slot_at = case when st.last_slot_at = r.slot_at then r.slot_at - make_interval(mins => s.interval_minutes)
                           else st.last_slot_at end
  from system.sync_runs r join system.sync_settings s using (sync_type)
 where r.id = %(id)s and st.sync_type = r.sync_type and st.agent_id = r.agent_id
"""
# Purpose: the pair's state after a run that was held. The ERP has answered, so failures are no longer in a row: nothing is to rest for.
# Caller: finish. Locks: the row.
SQL_STATE_HELD = """
update system.sync_state set last_run_id = %(id)s, consecutive_failures = 0, backoff_until = null
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: give a run back to be tried later, by a later tick. Caller: worker. Locks: the row.
SQL_REQUEUE = """
update system.sync_runs
   set state = 'queued', attempt = attempt + %(spent)s, fence = fence + 1, lease_until = null, delivery_id = null,
       delivered_at = null, not_before = system.clock() + make_interval(secs => %(delay_s)s), reason = %(reason)s, message = %(message)s
 where id = %(id)s and fence = %(fence)s and state = 'running'
"""
# Purpose: a forced run, unless one of the pair is unfinished. Caller: force.
SQL_FORCE = """
insert into system.sync_runs (sync_type, agent_id, trigger, requested_by, request_reason)
values (%(sync_type)s, %(agent_id)s, 'forced', %(by)s, %(why)s)
on conflict (agent_id, sync_type) where state in ('queued', 'running') do nothing
returning id
"""
# Purpose: the unfinished run that a forced one joins becomes forced, so that it runs though its type is disabled or its agent paused,
# a running one if it needs another attempt. A queued one is pushed again to the front of the queue. Caller: force. Locks: that row.
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
# Purpose: the guard's baseline. Caller: sync, in the apply's transaction. No locks.
SQL_BASELINE = """
select known_rows, (select max(value::bigint) from jsonb_each_text(high_rows)
                     where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int) as high
  from system.sync_state where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
SQL_STATE_OF = "select state, reason, message, fence from system.sync_runs where id = %(id)s"
SQL_GET = """
select r.*, coalesce(r.delivered_at, (select d.delivered_at from system.deliveries d where d.id = r.delivery_id)) as delivered_at
  from system.sync_runs r where r.id = %(id)s
"""
# Purpose: a run that had ended before `since`. Whatever has a lesser id was queued earlier still, so who asks for a span of time reads
# one end of an index that knows no times. The greatest id of a hundred, for some run may have waited and lasted long; and of none that a
# wrong clock dated. Caller: id_before. No locks.
SQL_ID_BEFORE = """
select coalesce(max(id), 0) as id from (
  select r.id from system.sync_runs r
   where r.finished_at is not null and coalesce(r.kept_at, r.finished_at) < %(since)s and r.queued_at < %(since)s
   order by coalesce(r.kept_at, r.finished_at) desc limit 100) x
"""
# Purpose: the newest runs, of any type and state or of some: those with the greatest ids, which no clock disturbs. One index range for each
# type and state, so that the last `limit` of a rare one are as near as those of a common one; of the queued ones those in the newest
# deliveries, and those that wait for one. The states come as parameters: `<> 'queued'` beside them, here and in other modules, tells the
# planner that sync_runs_by_state has the rows; and rows that are compared and sorted as that index sorts them keep it from walking along
# all ids instead. `after`: a bound for `since` (SQL_ID_BEFORE). Caller: history. No locks.
SQL_HISTORY = """
select * from (
  (select r.* from system.sync_types t
     cross join unnest(%(states)s::text[]) as w(state)
     cross join lateral (
       select * from system.sync_runs q
        where (q.sync_type, q.state) <= (t.sync_type, w.state) and (q.sync_type, q.state, q.id) > (t.sync_type, w.state, %(after)s::bigint)
          and q.state <> 'queued' and q.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
        order by q.sync_type desc, q.state desc, q.id desc limit %(limit)s) r
    where %(sync_type)s::text is null or t.sync_type = %(sync_type)s)
  union all
  (select q.* from system.deliveries d
     cross join lateral (
       select * from system.sync_runs r
        where r.state = 'queued' and r.delivery_id between d.id and d.id
          and (%(sync_type)s::text is null or r.sync_type = %(sync_type)s)
          and r.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
        order by r.id desc limit %(limit)s) q
    where 'queued' = any (%(states)s::text[])
    order by d.id desc, q.id desc limit %(limit)s)
  union all
  (select q.* from system.sync_runs q
    where 'queued' = any (%(states)s::text[]) and q.state = 'queued' and q.delivery_id is null
      and (%(sync_type)s::text is null or q.sync_type = %(sync_type)s)
      and q.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by q.id desc limit %(limit)s)) r
 order by r.id desc limit %(limit)s
"""
# Purpose: the newest runs of one agent. The unfinished ones, at most one a type, have an index of their own. Caller: history. No locks.
SQL_HISTORY_OF_AGENT = """
select * from (
  (select * from system.sync_runs q
    where q.agent_id = %(agent_id)s and q.finished_at is not null and (%(sync_type)s::text is null or q.sync_type = %(sync_type)s)
      and q.state = any (%(states)s::text[]) and q.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by q.id desc limit %(limit)s)
  union all
  (select q.* from system.sync_types t join system.sync_runs q on q.sync_type = t.sync_type
    where q.agent_id = %(agent_id)s and q.state in ('queued', 'running') and (%(sync_type)s::text is null or q.sync_type = %(sync_type)s)
      and q.state = any (%(states)s::text[]) and q.queued_at >= coalesce(%(since)s::timestamptz, '-infinity'))) r
 order by r.id desc limit %(limit)s
"""
SQL_RUNNING = "select * from system.sync_runs where state = 'running' order by started_at, id limit %(limit)s"
# Purpose: history retention, a batch of the oldest. Kept are: the last success of a pair, the run that its state names (the next sync
# asks whether that succeeded), the run whose export was applied last (`unchanged` runs name it), and a held export that waits for a
# decision or for its acceptance to be used. Unfinished runs are not in the index. Caller: tick and `prune`. Locks: the batch's rows,
# which nobody else wants, for some ten milliseconds.
SQL_PRUNE = """
with old as materialized (
  select id, sync_type, agent_id, state, coalesce(kept_at, finished_at) as since from system.sync_runs
   where finished_at is not null
     and coalesce(kept_at, finished_at) < system.clock() - make_interval(days => %(days)s)
     and coalesce(kept_at, finished_at) >= coalesce(%(reached)s::timestamptz, '-infinity')  -- no walk over what went before
   order by coalesce(kept_at, finished_at) limit %(limit)s for update skip locked),
needed as materialized (
  select o.id from old o
   where exists (select from system.sync_state st where st.agent_id = o.agent_id and st.sync_type = o.sync_type
                  and (st.last_run_id = o.id or (st.applied_source ->> 'run_id')::bigint = o.id))
      or exists (select from system.held_exports h where h.run_id = o.id
                  and (h.decision is null or (h.decision = 'accepted' and h.used_by_run is null and h.expires_at > system.clock())))
      or (o.state = 'succeeded' and not exists (
            select from system.sync_runs n where n.agent_id = o.agent_id and n.id > o.id and n.finished_at is not null
               and n.sync_type = o.sync_type and n.state = 'succeeded'))),
kept as (
  update system.sync_runs r set kept_at = system.clock() from needed n where r.id = n.id returning 1),
gone as (
  delete from system.sync_runs r using old o where r.id = o.id and o.id not in (select id from needed) returning 1)
select (select count(*) from old) as seen, (select max(since) from old) as reached,
       (select count(*) from kept) as kept, (select count(*) from gone) as gone
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A run in a worker's hands. `blocked`: why it must be skipped instead of done, or None."""

    run_id: int
    fence: int
    sync_type: str
    agent_id: str
    trigger: Trigger
    attempt: int
    blocked: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Runs to push together, in order: pairs of run id and fence. All of them are forced, or none."""

    delivery_id: int
    forced: bool
    runs: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """One run as it was pushed."""

    run_id: int
    fence: int
    delivery_id: int


@dataclass(kw_only=True, slots=True)
class Counts:
    """Rows of one run. `seen` are those of the export; `restored` came back after an absence; quarantined were refused."""

    seen: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    absent: int = 0
    restored: int = 0
    deleted: int = 0
    quarantined: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.inserted or self.updated or self.absent or self.restored or self.deleted)

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNT_NAMES}


COUNT_NAMES = ("seen", "inserted", "updated", "unchanged", "absent", "restored", "deleted", "quarantined")


@dataclass(kw_only=True)
class Report:
    """What a run leaves in its row beside its state: counts, the export it saw, milliseconds a step, warnings."""

    counts: Counts | None = None
    export: dict[str, Any] | None = None
    steps: dict[str, int] | None = None
    warnings: Sequence[dict[str, Any]] = ()


class Outcome(NamedTuple):
    """What a worker leaves a run as."""

    state: State
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One row of the history. Times are UTC-aware; counts are None until the run has seen an export."""

    run_id: int
    sync_type: str
    agent_id: str
    state: State
    reason: str | None
    message: str | None
    trigger: Trigger
    requested_by: str | None
    request_reason: str | None
    slot_at: datetime | None
    attempt: int
    fence: int
    not_before: datetime | None
    queued_at: datetime
    delivered_at: datetime | None
    started_at: datetime | None
    lease_until: datetime | None
    worker: str | None
    finished_at: datetime | None
    counts: Counts | None
    export: dict[str, Any] | None
    steps: dict[str, int] | None
    warnings: list[dict[str, Any]]

    @property
    def duration_s(self) -> float | None:
        if self.steps and "total" in self.steps:
            return self.steps["total"] / 1000
        if self.started_at and self.finished_at:
            return (self.finished_at - self.started_at).total_seconds()
        return None


def _run(row: dict[str, Any]) -> Run:
    counts = None
    if row["rows_seen"] is not None:
        counts = Counts(**{name: row[f"rows_{name}"] or 0 for name in COUNT_NAMES})
    plain = {
        name: row[name] for name in Run.__dataclass_fields__ if name not in ("run_id", "state", "trigger", "counts")
    }
    return Run(run_id=row["id"], state=State(row["state"]), trigger=Trigger(row["trigger"]), counts=counts, **plain)


def _one(db: Database, statement: str, params: Params) -> dict[str, Any]:
    row = db.execute(statement, params).fetchone()
    assert row is not None
    return row


# --- tick ---------------------------------------------------------------------------------------------------------


def mend_clock(db: Database) -> int:
    return int(_one(db, SQL_MEND_CLOCK, {})["mended"])


def reap(db: Database, *, max_attempts: int, limit: int = 10_000) -> int:
    """Runs taken back from workers that fell silent."""
    return int(_one(db, SQL_REAP, {"max_attempts": max_attempts, "limit": limit})["reaped"])


def insert_due(db: Database, *, limit: int, batch: int) -> tuple[int, int]:
    """Queue what is due, at most `limit` pairs a type, in deliveries of `batch` runs: (slots moved, runs queued)."""
    with db.transaction():
        db.execute(SQL_BY_INDEX)
        row = _one(db, SQL_INSERT_DUE, {"limit": limit, "batch": batch})
    return int(row["moved"]), int(row["due"])


def count_skipped(db: Database, *, limit: int = SKIPPED_COUNTED) -> tuple[dict[str, int], bool]:
    """Pairs past their slot by reason, `limit` of each type at most; and whether there may be more."""
    by_reason, by_type = Counter[str](), Counter[str]()
    for row in db.execute(SQL_COUNT_SKIPPED, {"limit": limit}).fetchall():
        by_reason[row["reason"]] += row["n"]
        by_type[row["sync_type"]] += row["n"]
    return dict(by_reason), limit in by_type.values()


def any_undelivered(db: Database) -> bool:
    return bool(_one(db, SQL_ANY_UNDELIVERED, {})["some"])


def assign(db: Database, *, limit: int) -> int:
    """Put runs that wait for a delivery into one; how many."""
    return db.execute(SQL_ASSIGN, {"limit": limit}).rowcount


def lock_undelivered(db: Database) -> Delivery | None:
    """The next delivery, for this transaction alone; None when there is none that nobody else has."""
    row = db.execute(SQL_LOCK_UNDELIVERED, binary=True).fetchone()
    if row is None:
        return None
    return Delivery(
        delivery_id=row["id"], forced=row["forced"], runs=list(zip(row["run_ids"], row["fences"], strict=True))
    )


def mark_delivered(db: Database, delivery_id: int) -> None:
    db.execute(SQL_MARK_DELIVERED, {"id": delivery_id})


def long_delivered(db: Database, *, after_s: int, limit: int = 200_000) -> list[Delivered]:
    """Queued runs that were pushed more than `after_s` seconds ago."""
    rows = db.execute(SQL_LONG_DELIVERED, {"after_s": after_s, "limit": limit}).fetchall()
    return [Delivered(run_id=r["id"], fence=r["fence"], delivery_id=r["delivery_id"]) for r in rows]


def mark_undelivered(db: Database, lost: Sequence[Delivered]) -> int:
    """Their delivery is lost: push them again. Runs that moved on meanwhile are left alone."""
    params = {"ids": [run.run_id for run in lost], "delivery_ids": [run.delivery_id for run in lost]}
    return db.execute(SQL_MARK_UNDELIVERED, params).rowcount


def forget_deliveries(db: Database, *, limit: int) -> int:
    return db.execute(SQL_FORGET_DELIVERIES, {"limit": limit}).rowcount


class Pruned(NamedTuple):
    """What one batch looked at, up to which time it came, what it kept because it is needed, and what it deleted."""

    seen: int
    reached: datetime | None
    kept: int
    gone: int


def prune(db: Database, *, days: int, limit: int, reached: datetime | None = None) -> Pruned:
    """Delete a batch of runs that finished more than `days` ago, going on where the last one came to. There are no more when fewer than
    `limit` were seen."""
    return Pruned(**_one(db, SQL_PRUNE, {"days": days, "limit": limit, "reached": reached}))


def prune_for(db: Database, *, days: int, seconds: float) -> int:
    """Delete batches for so long, at least one; the number of runs deleted. What is left is the next call's."""
    begun, gone, reached = monotonic(), 0, None
    while True:
        batch = prune(db, days=days, limit=PRUNE_BATCH, reached=reached)
        gone += batch.gone
        reached = batch.reached
        if batch.seen < PRUNE_BATCH or monotonic() - begun >= seconds:
            return gone


# --- worker -------------------------------------------------------------------------------------------------------


def claim(db: Database, run_id: int, fence: int, *, worker: str, lease_s: int) -> Claim | None:
    """The run, if it is still queued under that fence and its agent is free; None otherwise."""
    try:
        row = db.execute(
            SQL_CLAIM, {"id": run_id, "fence": fence, "worker": worker, "lease_s": lease_s}, prepare=True
        ).fetchone()
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


def next_of_agent(db: Database, agent_id: str) -> tuple[int, int] | None:
    """(run id, fence) of the agent's next queued run."""
    row = db.execute(SQL_NEXT_OF_AGENT, {"agent_id": agent_id}, prepare=True).fetchone()
    return (row["id"], row["fence"]) if row else None


def heartbeat(db: Database, run_id: int, fence: int, *, lease_s: int) -> bool:
    """Extend the lease; False when the run is no longer ours."""
    if db.execute(SQL_HEARTBEAT, {"id": run_id, "fence": fence, "lease_s": lease_s}).rowcount:
        return True
    return bool(_one(db, SQL_HOLDS_FENCE, {"id": run_id, "fence": fence})["held"])


def lock_fence(db: Database, claim: Claim) -> None:
    """Raises LeaseLostError when another worker has the run; else nobody takes it until our transaction ends."""
    if db.execute(SQL_LOCK_FENCE, {"id": claim.run_id, "fence": claim.fence}).fetchone() is None:
        raise _lost(claim)


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"run {claim.run_id} belongs to another worker now")


def finish(db: Database, claim: Claim, outcome: Outcome, *, report: Report) -> None:
    """End a run; in a transaction, for what the pair's state says of it is another statement. Raises LeaseLostError, and changes
    nothing, when the fence has moved on."""
    if db.execute(SQL_FINISH, _ending(claim, outcome, report), prepare=True).fetchone() is None:
        raise _lost(claim)
    match outcome.state:
        case State.FAILED:
            db.execute(SQL_STATE_FAILED, _pair(claim))
        case State.SKIPPED:
            db.execute(SQL_STATE_SKIPPED, {"id": claim.run_id})
        case State.HELD:
            db.execute(SQL_STATE_HELD, _pair(claim))


def end_unchanged(db: Database, claim: Claim, outcome: Outcome, *, report: Report, applied_by: int) -> bool:
    """End a run whose export was the one that run `applied_by` applied; False, and nothing changed, when the table may no longer be
    what that run left. Raises LeaseLostError, and changes nothing, when the fence has moved on."""
    params = _ending(claim, outcome, report) | _pair(claim) | {"applied_by": applied_by}
    row = db.execute(SQL_END_UNCHANGED, params, prepare=True).fetchone()
    if row is None or not row["mine"]:
        raise _lost(claim)
    return bool(row["ended"])


def _ending(claim: Claim, outcome: Outcome, report: Report) -> Params:
    counts = report.counts.as_dict() if report.counts else dict.fromkeys(COUNT_NAMES)
    return {
        "id": claim.run_id,
        "fence": claim.fence,
        "state": outcome.state,
        "reason": outcome.reason,
        "message": outcome.message,
        "export": Jsonb(report.export) if report.export is not None else None,
        "steps": Jsonb(report.steps) if report.steps is not None else None,
        "warnings": Jsonb(list(report.warnings)),
        **counts,
    }


def baseline(db: Database, *, sync_type: str, agent_id: str) -> tuple[int | None, int | None]:
    """Rows of the pair's last applied export, and of the largest one in the last seven days; None before the first."""
    from archisync.rules.guard import HIGH_WATER_DAYS  # here, and not above: a tick needs no guard

    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "high_water_days": HIGH_WATER_DAYS}
    row = db.execute(SQL_BASELINE, params).fetchone()
    return (row["known_rows"], row["high"]) if row else (None, None)


def applied_source(db: Database, claim: Claim) -> dict[str, Any]:
    """What `record_success` was given as `source`, when an unchanged export would leave the table as it is; else empty."""
    row = db.execute(SQL_APPLIED_SOURCE, _pair(claim), prepare=True).fetchone()
    return (row["applied_source"] or {}) if row else {}


class Begun(NamedTuple):
    """What the transaction of an apply has found. `outside_changes`: somebody else has written to the pair's rows since the last
    apply. `line_layout`: how the lines of the last export were read, and `digest_layout` those that the rows' digests are of; None
    when they were no lines, or nothing is known of it."""

    outside_changes: bool
    line_layout: str | None
    digest_layout: str | None


def begin_apply(db: Database, claim: Claim) -> Begun:
    """First statements of the transaction that applies the run's export."""
    outside_changes = db.execute(SQL_FORGET_OUTSIDE_CHANGES, _pair(claim)).rowcount > 0
    row = _one(db, SQL_NAME_RUN, _pair(claim))
    return Begun(outside_changes, row["line_layout"], row["digest_layout"])


def record_success(
    db: Database,
    claim: Claim,
    *,
    known_rows: int,
    sha256: str,
    changed: bool,
    accepted: bool,
    source: dict[str, Any],
) -> None:
    """The pair's state after an apply; in the apply's transaction. `source`: what `applied_source` finds again.
    `accepted`: a person said that so few rows are right, so the earlier high counts are forgotten."""
    from archisync.rules.guard import HIGH_WATER_DAYS

    params = {
        "known_rows": known_rows,
        "sha256": sha256,
        "changed": changed,
        "accepted": accepted,
        "high_water_days": HIGH_WATER_DAYS,
        "source": Jsonb(source),
    }
    db.execute(SQL_STATE_SUCCEEDED, _pair(claim) | params)


def _pair(claim: Claim) -> Params:
    return {"id": claim.run_id, "sync_type": claim.sync_type, "agent_id": claim.agent_id}


def requeue(db: Database, claim: Claim, *, delay_s: int, reason: str, message: str, spent_attempt: bool = True) -> None:
    """Give the run back for a later tick. Raises LeaseLostError."""
    params: Params = {
        "id": claim.run_id,
        "fence": claim.fence,
        "delay_s": delay_s,
        "reason": reason,
        "message": message,
        "spent": int(spent_attempt),
    }
    if db.execute(SQL_REQUEUE, params).rowcount == 0:
        raise LeaseLostError(f"run {claim.run_id} belongs to another worker now")


# --- people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Forced:
    """`joined`: the pair had an unfinished run, which serves instead of a second one."""

    run_id: int
    sync_type: str
    agent_id: str
    joined: bool


def force(db: Database, sync_type: str, agent_id: str, *, by: str, why: str | None) -> Forced:
    """A run of the pair at the front of the queue, or the unfinished one that there is."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "by": by, "why": why}
    while True:  # the unfinished run may end between the two statements: then there is room for ours
        with db.transaction():
            row = db.execute(SQL_FORCE, params).fetchone()
            joined = row is None
            if row is None:
                row = db.execute(SQL_JOIN, params).fetchone()
        if row is not None:
            return Forced(run_id=row["id"], sync_type=sync_type, agent_id=agent_id, joined=joined)


def get(db: Database, run_id: int) -> Run:
    """Raises NotFoundError."""
    row = db.execute(SQL_GET, {"id": run_id}, prepare=True).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {run_id}", hint="archisync history")
    return _run(row)


def state_of(db: Database, run_id: int) -> State:
    """Raises NotFoundError (the history may have been pruned)."""
    row = db.execute(SQL_STATE_OF, {"id": run_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {run_id}", hint="archisync history")
    return State(row["state"])


def history(
    db: Database,
    *,
    sync_type: str | None = None,
    agent_id: str | None = None,
    state: State | None = None,
    since: datetime | None = None,
    limit: int = 20,
) -> list[Run]:
    """Newest first, as they were queued."""
    states = [state] if state is not None else list(State)
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "states": states, "since": since, "limit": limit}
    if agent_id is not None:
        return [_run(row) for row in db.execute(SQL_HISTORY_OF_AGENT, params).fetchall()]
    after = id_before(db, since) if since is not None else 0
    return [_run(row) for row in db.execute(SQL_HISTORY, params | {"after": after}).fetchall()]


def id_before(db: Database, since: datetime) -> int:
    """The id of a run that was queued before then, and shortly before; 0 when there is none."""
    return int(_one(db, SQL_ID_BEFORE, {"since": since})["id"])


def running(db: Database, *, limit: int = 100) -> list[Run]:
    return [_run(row) for row in db.execute(SQL_RUNNING, {"limit": limit}).fetchall()]
