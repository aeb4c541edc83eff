"""`system.ticks`: the heartbeats of ticks. The age of the newest one tells whether anybody calls tick at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from archisync.store.database import Database, Params, one

KEPT_DAYS = 30
"""How long heartbeats and notices are kept."""
SILENCE_S = 180
"""Three missed ticks: nobody calls `archisync tick` each minute."""

# Purpose: the heartbeat. Caller: record. The commit waits neither for the disk nor for a standby (the setting ends with the statement's
# transaction): if a crash of the server loses it, the next minute brings another. Locks: none but the new row.
SQL_RECORD = """
insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error)
values (%(started_at)s, %(duration_ms)s, %(host)s, %(reaped)s, %(due)s, %(enqueued)s, %(redelivered)s, %(skipped)s, %(error)s)
returning id, set_config('synchronous_commit', 'off', true)
"""
# Purpose: is there anything that a tick could do? Caller: anything_to_do. No locks.
# It may find a little more than the steps would (any delivery, any run without one), never less, with two exceptions: slots of a wrong
# clock while their type is disabled, which delay nothing until it is enabled; and finished runs of a wrong clock, which the next tick that
# works puts right. The oldest and the newest slot of each type are the two ends of an index range: `exists` with a condition may be
# planned as a walk over all pairs. Old heartbeats don't count: a lock on their table must not keep a run from being queued.
SQL_ANYTHING_TO_DO = """
with clock as materialized (select system.clock() as now)
select c.now, coalesce(exists (
         select from system.sync_settings s
          cross join lateral (
             select system.or_never(p.last_slot_at) as slot from system.sync_state p
              where p.sync_type = s.sync_type and p.active and p.unfinished_run_id is null
              order by system.or_never(p.last_slot_at) limit 1) oldest
          cross join lateral (
             select system.or_never(p.last_slot_at) as slot from system.sync_state p
              where p.sync_type = s.sync_type and p.active and p.unfinished_run_id is null
              order by system.or_never(p.last_slot_at) desc limit 1) newest
          where s.enabled and (oldest.slot <= c.now - make_interval(mins => s.interval_minutes)
                               or newest.slot > c.now + interval '1 minute'))
      or exists (select from system.claims k where k.lease_until <= c.now or k.lease_until > c.now + interval '61 minutes')
      or exists (select from system.queued_runs q where q.delivery_id is null)
      or exists (select from system.deliveries)
      or (select coalesce(r.kept_at, r.finished_at) from system.sync_runs r
           order by coalesce(r.kept_at, r.finished_at) limit 1) < c.now - make_interval(days => %(history_days)s)
      or (select n.created_at from system.notices n order by n.created_at limit 1) < c.now - make_interval(days => %(kept_days)s)
      or (%(hook)s and (exists (select from system.notices n where n.done_at is null and n.next_attempt_at <= c.now)
                        or exists (select from system.notices n where n.done_at is null
                                    and n.next_attempt_at > c.now + interval '61 minutes'))),  -- of a wrong clock
       false) as anything
  from clock c
"""

# Purpose: the tables of which the planner knows nothing: they were never analyzed, or pg_upgrade lost what was known, and autovacuum did
# not come (to a small table it never does). Only those that the current role may analyze. Caller: analyze_unknown. No locks.
SQL_UNKNOWN = """
select c.oid::regclass::text as name from pg_class c
 where c.oid in ('system.sync_types'::regclass, 'system.sync_settings'::regclass, 'system.sync_state'::regclass,
                 'system.sync_runs'::regclass)
   and c.reltuples < 0
   and (pg_has_role(c.relowner, 'usage')
        or current_setting('server_version_num')::int >= 170000 and has_table_privilege(c.oid, 'maintain'))
"""
# Purpose: the newest heartbeats and their age. Caller: newest. No locks.
SQL_NEWEST = """
select id, started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error,
       extract(epoch from system.clock() - started_at)::float as age_s
  from system.ticks where id < %(before)s order by id desc limit %(limit)s
"""
_LARGEST_ID = 2**63 - 1
# Purpose: delete a batch of old heartbeats. Caller: prune. Locks: those rows.
SQL_PRUNE = """
delete from system.ticks where id in
  (select id from system.ticks where started_at < system.clock() - make_interval(days => %(days)s) order by started_at limit %(limit)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """What a tick did, and how long ago it began (`age_s`)."""

    id: int
    started_at: datetime
    duration_ms: int
    host: str
    reaped: int
    due: int
    enqueued: int
    redelivered: int
    skipped: dict[str, int]
    error: str | None
    age_s: float


def anything_to_do(db: Database, *, history_days: int, hook: bool) -> tuple[datetime, bool]:
    """PostgreSQL's time, and whether a tick may find something to do. `hook`: a hook is configured, so notices count."""
    params: Params = {"history_days": history_days, "kept_days": KEPT_DAYS, "hook": hook}
    row = one(db, SQL_ANYTHING_TO_DO, params)
    return row["now"], row["anything"]


def analyze_unknown(db: Database) -> list[str]:
    """Let PostgreSQL look at the tables that it never looked at, which takes a second or two with millions of pairs, once; their names."""
    names = [row["name"] for row in db.execute(SQL_UNKNOWN).fetchall()]
    for name in names:
        db.execute(sql.SQL("analyze {}").format(sql.Identifier(*name.split("."))))
    return names


def record(db: Database, values: dict[str, Any]) -> int:
    """Write the heartbeat; its id."""
    return int(one(db, SQL_RECORD, values | {"skipped": Jsonb(values["skipped"])})["id"])


def last(db: Database) -> Heartbeat | None:
    """The newest heartbeat; None when no tick has ever run."""
    return next(iter(newest(db, limit=1)), None)


def newest(db: Database, *, limit: int, before: int | None = None) -> list[Heartbeat]:
    """Heartbeats, newest first. `before`: only those with smaller ids, for the next page."""
    params: Params = {"before": _LARGEST_ID if before is None else before, "limit": limit}
    return [Heartbeat(**row) for row in db.execute(SQL_NEWEST, params).fetchall()]


def prune(db: Database, *, limit: int) -> int:
    """Delete up to `limit` heartbeats older than KEPT_DAYS; the number of rows."""
    return db.execute(SQL_PRUNE, {"days": KEPT_DAYS, "limit": limit}).rowcount


def overdue_note(beat: Heartbeat | None) -> str | None:
    """A sentence when nobody calls tick any more; None when all is well."""
    if beat is None:
        return "no tick has ever run: is cron calling archisync tick?"
    if beat.age_s < -SILENCE_S:
        return "the last tick is dated in the future: was PostgreSQL's clock set back?"
    if beat.age_s > SILENCE_S:
        return f"no tick for {beat.age_s / 60:.0f} minutes: is cron calling archisync tick?"
    return None
