"""What happened: runs by outcome over a span of time, the slowest ones, and the trend of each type. Read only.

Counting reads the span's runs in an index: for a report, not for a screen that is redrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from archisync.store.database import Database
from archisync.store.history import id_before

OUTCOMES = ("succeeded", "held", "failed")
NEWEST = 20_000
"""Runs of a type among which the slowest are looked for: each is a row to read."""

# `after`, and why rows are compared and sorted as they are, here and below: see history.SQL_NEWEST.
# Purpose: finished runs of the span by outcome, in steps of equal length. Caller: outcomes. No locks.
SQL_OUTCOMES = """
select date_bin(%(step)s, r.queued_at, %(since)s) as at, r.state, count(*) as runs
  from system.sync_types t
  cross join unnest(%(states)s::text[]) as w(state)
  join system.sync_runs r on r.sync_type = t.sync_type and r.state = w.state
                          and r.id > %(after)s and r.queued_at >= %(since)s
 group by 1, 2 order by 1, 2
"""
# Purpose: the slowest of each type's newest succeeded runs in the span. Caller: slowest. No locks.
SQL_SLOWEST = """
select n.id, t.sync_type, n.agent_id, n.seconds, n.finished_at
  from system.sync_types t
  cross join lateral (
    select q.id, q.agent_id, q.finished_at,
           coalesce((q.steps ->> 'total')::float / 1000, extract(epoch from q.finished_at - q.started_at)::float, 0) as seconds
      from (select r.id, r.agent_id, r.finished_at, r.started_at, r.steps, r.queued_at from system.sync_runs r
             where (r.sync_type, r.state) <= (t.sync_type, 'succeeded')
               and (r.sync_type, r.state, r.id) > (t.sync_type, 'succeeded', %(after)s::bigint)
               and r.queued_at >= %(since)s
             order by r.sync_type desc, r.state desc, r.id desc limit %(newest)s) q
     order by seconds desc limit %(limit)s) n
 order by n.seconds desc, n.id limit %(limit)s
"""
# Purpose: each type's newest finished runs, oldest first. Caller: trends. No locks.
SQL_TRENDS = """
select t.sync_type, r.state, coalesce((r.steps ->> 'total')::float / 1000,
                                      extract(epoch from r.finished_at - r.started_at)::float, 0) as seconds
  from system.sync_types t
  cross join lateral (
    select n.* from unnest('{succeeded,held,failed}'::text[]) as w(state)
      cross join lateral (
        select q.id, q.state, q.steps, q.started_at, q.finished_at from system.sync_runs q
         where (q.sync_type, q.state) between (t.sync_type, w.state) and (t.sync_type, w.state)
         order by q.sync_type desc, q.state desc, q.id desc limit %(limit)s) n
     order by n.id desc limit %(limit)s) r
 order by t.sync_type, r.id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Finished runs that were queued from `at` until the next step."""

    at: datetime
    succeeded: int = 0
    held: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.succeeded + self.held + self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Slow:
    """A succeeded run and how long it took."""

    run_id: int
    sync_type: str
    agent_id: str
    seconds: float
    finished_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One finished run of a trend."""

    state: str
    seconds: float


def outcomes(db: Database, *, since: datetime, until: datetime, step: timedelta) -> list[Step]:
    """Every step of the span, those without a run too."""
    counts: dict[datetime, dict[str, int]] = {}
    params = {"since": since, "after": id_before(db, since), "step": step, "states": list(OUTCOMES)}
    for row in db.execute(SQL_OUTCOMES, params).fetchall():
        counts.setdefault(row["at"], {})[row["state"]] = row["runs"]
    steps = []
    at = since
    while at < until:
        steps.append(Step(at=at, **counts.get(at, {})))
        at += step
    return steps


def slowest(db: Database, *, since: datetime, limit: int) -> list[Slow]:
    """The slowest succeeded runs since then, slowest first."""
    params = {"since": since, "after": id_before(db, since), "newest": NEWEST, "limit": limit}
    rows = db.execute(SQL_SLOWEST, params).fetchall()
    return [Slow(run_id=row.pop("id"), **row) for row in rows]


def trends(db: Database, *, limit: int) -> dict[str, list[Point]]:
    """The last `limit` finished runs by type, oldest first."""
    found: dict[str, list[Point]] = {}
    for row in db.execute(SQL_TRENDS, {"limit": limit}).fetchall():
        found.setdefault(row["sync_type"], []).append(Point(state=row["state"], seconds=row["seconds"]))
    return found
