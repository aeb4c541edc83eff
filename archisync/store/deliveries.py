"""`system.deliveries`: queued runs that are pushed to Redis together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archisync.store.database import Database, one

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


def forget(db: Database, *, limit: int) -> int:
    return db.execute(SQL_FORGET, {"limit": limit}).rowcount
