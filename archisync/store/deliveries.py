"""`system.deliveries`: jobs that are pushed to Redis together. A job is an agent with what it has queued; it has a number in its delivery.

A job is named by its delivery and its number, and finds the agent through runs that are still in that delivery. A run that is given back,
forced or taken back leaves its delivery, so whatever old job comes for it finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from archisync.store.database import Database, one

# Purpose: queued runs that belong to no delivery (forced, taken or given back) are put into one, agents with a forced run into one of
# their own. Caller: deliver, before the push, in a commit of its own. Locks: those runs, SKIP LOCKED: an overlapping tick takes others.
SQL_ASSIGN = """
with ready as (
  select id, agent_id, trigger = 'forced' as forced from system.queued_runs
   where delivery_id is null and (not_before is null or not_before <= system.clock())
   order by id limit %(limit)s for update skip locked),
agents as (select agent_id, bool_or(forced) as forced, min(id) as first from ready group by agent_id),
delivery as (insert into system.deliveries (forced) select distinct forced from agents returning id, forced),
numbered as (
  select a.agent_id, d.id, row_number() over (partition by d.id order by a.first) - 1 as job_no
    from agents a join delivery d using (forced))
update system.queued_runs q set delivery_id = n.id, job_no = n.job_no
  from ready r join numbered n using (agent_id) where q.id = r.id
"""

# Purpose: the next delivery to push, forced ones first, then in the order of insertion, with those of its jobs that still have a run.
# Caller: lock_next, whose transaction holds the delivery while it is pushed. Locks: the delivery, SKIP LOCKED: an overlapping tick takes
# another. Not the runs: one that leaves the delivery meanwhile only makes a job that finds nothing.
SQL_LOCK_NEXT = """
with delivery as materialized (
  select id, forced from system.deliveries where delivered_at is null
   order by forced desc, id limit 1 for update skip locked)
select d.id, d.forced, coalesce(array_agg(distinct q.job_no) filter (where q.id is not null), '{}') as jobs, count(q.id) as runs
  from delivery d left join system.queued_runs q on q.delivery_id = d.id
 group by d.id, d.forced
"""

# Purpose: is anything to be pushed? Caller: any_undelivered. No locks.
SQL_ANY_UNDELIVERED = """
select exists (select from system.deliveries where delivered_at is null)
    or exists (select from system.queued_runs where delivery_id is null and (not_before is null or not_before <= system.clock())) as some
"""

# Purpose: Redis has all of a delivery. Caller: mark_delivered, in the transaction that pushed it. Locks: the delivery.
SQL_MARK_DELIVERED = "update system.deliveries set delivered_at = system.clock() where id = %(id)s"

# Purpose: jobs that may be lost. A job whose agent a worker has is not among them: that worker looks for the agent's other runs.
# Caller: tick. No locks. A delivery's runs are written as a range of queued_runs_by_delivery, in its order, here and below: after an
# ANALYZE of an empty queue the planner reads the whole queue for a plain `=`.
SQL_LONG_DELIVERED = """
select d.id, r.job_no from system.deliveries d
  cross join lateral (
    select distinct on (q.delivery_id, q.job_no) q.job_no from system.queued_runs q
     where q.delivery_id between d.id and d.id
       and not exists (select from system.claims c where c.agent_id = q.agent_id)
     order by q.delivery_id, q.job_no) r
 where d.delivered_at <= system.clock() - make_interval(secs => %(after_s)s)
 order by d.id, r.job_no limit %(limit)s
"""

# Purpose: put the runs of lost jobs into another delivery. Caller: mark_undelivered. Locks: those runs.
SQL_MARK_UNDELIVERED = """
with theirs as materialized (
  select q.id from system.queued_runs q
    join unnest(%(delivery_ids)s::bigint[], %(job_nos)s::integer[]) as lost(delivery_id, job_no)
      on q.delivery_id = lost.delivery_id and q.job_no = lost.job_no
   order by q.id for update of q)
update system.queued_runs q set delivery_id = null from theirs where q.id = theirs.id
"""

# Purpose: deliveries that have served: none of their runs is left in them. Caller: tick. Locks: those rows, SKIP LOCKED.
SQL_FORGET = """
delete from system.deliveries where id = any (array(
  select d.id from system.deliveries d
   where d.delivered_at is not null
     and (select q.delivery_id from system.queued_runs q
           where q.delivery_id >= d.id order by q.delivery_id, q.job_no limit 1) is distinct from d.id
   limit %(limit)s for update skip locked))
"""


class JobKey(NamedTuple):
    """What names a job: its delivery, and its number there."""

    delivery_id: int
    job_no: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Jobs to push together, in order, and the number of their runs. All of them are forced, or none."""

    delivery_id: int
    forced: bool
    jobs: Sequence[JobKey]
    runs: int


def any_undelivered(db: Database) -> bool:
    return bool(one(db, SQL_ANY_UNDELIVERED, {})["some"])


def assign(db: Database, *, limit: int) -> int:
    """Put runs that wait for a delivery into one; how many."""
    return db.execute(SQL_ASSIGN, {"limit": limit}).rowcount


def lock_next(db: Database) -> Delivery | None:
    """The next delivery, for this transaction alone; None when there is none that nobody else has."""
    row = db.execute(SQL_LOCK_NEXT, binary=True).fetchone()
    if row is None:
        return None
    jobs = [JobKey(row["id"], number) for number in row["jobs"]]
    return Delivery(delivery_id=row["id"], forced=row["forced"], jobs=jobs, runs=row["runs"])


def mark_delivered(db: Database, delivery_id: int) -> None:
    db.execute(SQL_MARK_DELIVERED, {"id": delivery_id})


def long_delivered(db: Database, *, after_s: int, limit: int = 200_000) -> list[JobKey]:
    """Jobs with runs in the queue that were pushed more than `after_s` seconds ago."""
    rows = db.execute(SQL_LONG_DELIVERED, {"after_s": after_s, "limit": limit}).fetchall()
    return [JobKey(row["id"], row["job_no"]) for row in rows]


def mark_undelivered(db: Database, lost: Sequence[JobKey]) -> int:
    """Their jobs are lost: push the runs again. Runs that left the delivery meanwhile are left alone. How many there were."""
    params = {"delivery_ids": [job.delivery_id for job in lost], "job_nos": [job.job_no for job in lost]}
    return db.execute(SQL_MARK_UNDELIVERED, params).rowcount


def forget(db: Database, *, limit: int) -> int:
    return db.execute(SQL_FORGET, {"limit": limit}).rowcount
