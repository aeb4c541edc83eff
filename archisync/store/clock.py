"""PostgreSQL's clock, in whole seconds: the only one that decides anything; and mending what it wrote while it was wrong."""

from __future__ import annotations

from datetime import datetime

from archisync.store.database import Database, one

# Purpose: the time of every decision. Caller: now. No locks.
SQL_NOW = "select system.clock() as now"
# Purpose: reset a slot, delivery or retry that is further in the future than any can be: it comes from a clock that was wrong, and must
# delay nothing by more than a tick (`due.without_wrong_times` has the same bounds). The age of finished runs too. Caller: mend.
# Locks: the rows concerned (normally none). Slots are one end of an index range for each type: with a plain condition the planner walks
# over all pairs, since nothing tells it that no slot is in the future. By their place, for the same reason: with their keys it would join
# with all pairs.
SQL_MEND = """
with slots as (
  update system.sync_state set last_slot_at = null
   where ctid = any (array(
     select wrong.version from system.sync_types t
       cross join lateral (
         select p.ctid as version from system.sync_state p
          where p.sync_type = t.sync_type and p.active and p.unfinished_run_id is null
            and system.or_never(p.last_slot_at) > system.clock() + interval '1 minute'
          order by system.or_never(p.last_slot_at) desc limit 100000) wrong))
  returning 1),
deliveries as (
  update system.deliveries set delivered_at = system.clock() - interval '1 hour'  -- long ago, whatever is configured
   where delivered_at > system.clock() + interval '1 minute'
  returning 1),
retries as (
  update system.queued_runs set not_before = null
   where delivery_id is null and not_before > system.clock() + interval '61 minutes'
  returning 1),
history as (
  update system.sync_runs set kept_at = system.clock()  -- pruned one retention time from now, not years later
   where id = any (array(
     select r.id from system.sync_runs r
      where coalesce(r.kept_at, r.finished_at) > system.clock() + interval '1 minute'
      order by coalesce(r.kept_at, r.finished_at) desc limit 10000))
  returning 1)
select (select count(*) from slots) + (select count(*) from deliveries) + (select count(*) from retries)
     + (select count(*) from history) as mended
"""


def now(db: Database) -> datetime:
    """PostgreSQL's time, in whole seconds."""
    return one(db, SQL_NOW)["now"]  # type: ignore[no-any-return]


def mend(db: Database) -> int:
    """Reset the times that only a wrong clock can have written; the number of rows. A tick does it first."""
    return int(one(db, SQL_MEND)["mended"])
