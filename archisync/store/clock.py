"""PostgreSQL's clock, which decides everything; and what a wrong one has written."""

from __future__ import annotations

from datetime import datetime

from archisync.store.database import Database, one

SQL_NOW = "select system.clock() as now"

# Purpose: a slot, a delivery or a retry that is further in the future than any can be comes from a clock that was wrong; put right
# so that it delays nothing by more than a tick (as `due.without_wrong_times`). So is the age of finished runs. Caller: tick. Locks: the
# rows concerned (normally none). One end of an index range a type: a plain condition was planned as a walk over all pairs, since nothing
# tells the planner that nobody's slot is in the future.
SQL_MEND = """
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


def now(db: Database) -> datetime:
    """PostgreSQL's time, in whole seconds: the only clock that decides anything."""
    row = db.execute(SQL_NOW).fetchone()
    assert row is not None
    return row["now"]  # type: ignore[no-any-return]


def mend(db: Database) -> int:
    return int(one(db, SQL_MEND, {})["mended"])
