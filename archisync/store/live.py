"""What the live view asks beside `status`: the last runs of each type, and the pairs that need somebody's eye. Read only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archisync.database import Database

# Purpose: each type's newest finished runs, oldest first. Caller: trends. No locks.
SQL_TRENDS = """
select t.sync_type, r.state, coalesce((r.steps ->> 'total')::float / 1000,
                                      extract(epoch from r.finished_at - r.started_at)::float, 0) as seconds
  from system.sync_types t
  cross join lateral (
    select q.id, q.state, q.steps, q.started_at, q.finished_at from system.sync_runs q
     where q.sync_type = t.sync_type and q.state in ('succeeded', 'held', 'failed')
     order by q.id desc limit %(limit)s) r
 order by t.sync_type, r.id
"""
# Purpose: pairs that rest after failures, or whose data is older than two of their own intervals; the worst first. Caller: attention.
SQL_ATTENTION = """
select st.sync_type, st.agent_id, st.consecutive_failures, st.last_success_at,
       case when st.backoff_until > system.clock() then st.backoff_until end as backoff_until
  from system.sync_state st join system.sync_settings s using (sync_type)
 where st.active and s.enabled
   and (st.backoff_until > system.clock()
        or coalesce(st.last_success_at, '-infinity') <= system.clock() - 2 * make_interval(mins => s.interval_minutes))
 order by st.backoff_until is null, st.consecutive_failures desc, st.last_success_at nulls first, st.agent_id, st.sync_type
 limit %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One finished run of a trend."""

    state: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ailing:
    """A pair that rests (`backoff_until`) or is stale."""

    sync_type: str
    agent_id: str
    consecutive_failures: int
    last_success_at: datetime | None
    backoff_until: datetime | None


def trends(db: Database, *, limit: int) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for row in db.execute(SQL_TRENDS, {"limit": limit}).fetchall():
        found.setdefault(row["sync_type"], []).append(Point(state=row["state"], seconds=row["seconds"]))
    return found


def attention(db: Database, *, limit: int) -> list[Ailing]:
    return [Ailing(**row) for row in db.execute(SQL_ATTENTION, {"limit": limit}).fetchall()]
