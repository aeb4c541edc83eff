"""`system.deliveries`: queued runs that are pushed to Redis together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archisync.store.database import Database, one

# Purpose: put queued runs without a delivery (forced, taken back or given back) into one; forced ones into one of their own.
# Caller: assign, in a commit of its own before the push. Locks: those runs, SKIP LOCKED: an overlapping tick takes others.
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
# Purpose: the next delivery to push, with those of its runs that are still queued: forced ones first, then in the order of insertion
# (level, then most overdue). Caller: lock_next. Locks: the delivery, SKIP LOCKED, until the caller has pushed it: an overlapping tick takes
# another one. The runs are not locked: if one changes meanwhile, its fence or state has moved and the job claims nothing.
# A delivery's runs are written as a range of sync_runs_by_delivery, in its order, here and below: after an ANALYZE of an empty queue,
# statistics say that each index of the queued runs is empty, and the planner has been seen to read all of them for a plain `=`.
SQL_LOCK_NEXT = """
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
# Purpose: is there anything to push? Caller: any_undelivered. No locks.
SQL_ANY_UNDELIVERED = """
select exists (select from system.deliveries where delivered_at is null)
    or exists (select from system.sync_runs where state = 'queued' and delivery_id is null
                and (not_before is null or not_before <= system.clock())) as some
"""
# Purpose: Redis has the delivery. Caller: mark_delivered, in the transaction of SQL_LOCK_NEXT. Locks: the row.
SQL_MARK_DELIVERED = "update system.deliveries set delivered_at = system.clock() where id = %(id)s"
# Purpose: queued runs whose delivery may be lost. A run that waits for another run of its agent is not among them: the worker that
# finishes that one goes on with it. Caller: long_delivered. No locks.
SQL_LONG_DELIVERED = """
select r.id, r.fence, r.delivery_id from system.deliveries d
  cross join lateral (
    select q.id, q.fence, q.delivery_id, q.agent_id from system.sync_runs q
     where q.state = 'queued' and q.delivery_id between d.id and d.id order by q.delivery_id, q.sync_type, q.id) r
 where d.delivered_at <= system.clock() - make_interval(secs => %(after_s)s)
   and not exists (select from system.sync_runs o where o.agent_id = r.agent_id and o.state = 'running')
 order by d.delivered_at, r.id limit %(limit)s
"""
# Purpose: take runs out of a delivery that was lost, unless they have moved on. Caller: mark_undelivered. Locks: the runs.
SQL_MARK_UNDELIVERED = """
update system.sync_runs r set delivery_id = null
  from unnest(%(ids)s::bigint[], %(delivery_ids)s::bigint[]) as d(id, delivery_id)
 where r.id = d.id and r.delivery_id = d.delivery_id and r.state = 'queued'
"""
# Purpose: delete deliveries none of whose runs is queued any more. Caller: forget. Locks: those rows, SKIP LOCKED.
SQL_FORGET = """
delete from system.deliveries where id = any (array(
  select d.id from system.deliveries d
   where d.delivered_at is not null
     and (select q.delivery_id from system.sync_runs q
           where q.state = 'queued' and q.delivery_id >= d.id order by q.delivery_id limit 1) is distinct from d.id
   limit %(limit)s for update skip locked))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Runs to push together, as (run id, fence), in order. All of them are forced, or none."""

    delivery_id: int
    forced: bool
    runs: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """One run as it was pushed."""

    run_id: int
    fence: int
    delivery_id: int


def any_undelivered(db: Database) -> bool:
    return bool(one(db, SQL_ANY_UNDELIVERED)["some"])


def assign(db: Database, *, limit: int) -> int:
    """Put up to `limit` runs that wait for a delivery into one; the number of runs."""
    return db.execute(SQL_ASSIGN, {"limit": limit}).rowcount


def lock_next(db: Database) -> Delivery | None:
    """The next delivery, locked for this transaction; None when there is none, or other ticks have all of them."""
    row = db.execute(SQL_LOCK_NEXT, binary=True).fetchone()
    if row is None:
        return None
    runs = list(zip(row["run_ids"], row["fences"], strict=True))
    return Delivery(delivery_id=row["id"], forced=row["forced"], runs=runs)


def mark_delivered(db: Database, delivery_id: int) -> None:
    db.execute(SQL_MARK_DELIVERED, {"id": delivery_id})


def long_delivered(db: Database, *, after_s: int, limit: int = 200_000) -> list[Delivered]:
    """Queued runs that were pushed more than `after_s` seconds ago."""
    rows = db.execute(SQL_LONG_DELIVERED, {"after_s": after_s, "limit": limit}).fetchall()
    return [Delivered(run_id=r["id"], fence=r["fence"], delivery_id=r["delivery_id"]) for r in rows]


def mark_undelivered(db: Database, lost: Sequence[Delivered]) -> int:
    """Have runs pushed again whose delivery was lost; the number of runs. Those that have moved on are left alone."""
    params = {"ids": [run.run_id for run in lost], "delivery_ids": [run.delivery_id for run in lost]}
    return db.execute(SQL_MARK_UNDELIVERED, params).rowcount


def forget(db: Database, *, limit: int) -> int:
    """Delete up to `limit` deliveries that are done; the number of rows."""
    return db.execute(SQL_FORGET, {"limit": limit}).rowcount
