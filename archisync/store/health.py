"""What the live view asks beside `status`: the last runs of each type, and the pairs that need somebody's eye. Read only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from archisync.store.database import Database

# Purpose: each type's newest finished runs, oldest first. Caller: trends. No locks.
# Why `<> 'queued'`, and why the rows are compared and sorted so: see runs.SQL_HISTORY.
SQL_TRENDS = """
select t.sync_type, r.state, coalesce((r.steps ->> 'total')::float / 1000,
                                      extract(epoch from r.finished_at - r.started_at)::float, 0) as seconds
  from system.sync_types t
  cross join lateral (
    select n.* from unnest('{succeeded,held,failed}'::text[]) as w(state)
      cross join lateral (
        select q.id, q.state, q.steps, q.started_at, q.finished_at from system.sync_runs q
         where (q.sync_type, q.state) between (t.sync_type, w.state) and (t.sync_type, w.state) and q.state <> 'queued'
         order by q.sync_type desc, q.state desc, q.id desc limit %(limit)s) n
     order by n.id desc limit %(limit)s) r
 order by t.sync_type, r.id
"""
_NOT_PAUSED = """(not c.some_agent_is_paused
           or (not exists (select from system.pauses x where x.sync_type is null and x.agent_id = p.agent_id
                            and (x.until is null or x.until > c.now) offset 0)
               and not exists (select from system.pauses x where x.sync_type = p.sync_type and x.agent_id = p.agent_id
                                and (x.until is null or x.until > c.now) offset 0)))"""
# Purpose: pairs that rest after failures, those that rest longest first; then those whose data is older than two of their own
# intervals, the oldest first. What is paused or switched off is so on purpose. Caller: attention. No locks.
# Both walk an index until they have enough. They pass over paused pairs, of which there are no more than pauses, and `status` lists those
# anyway; the second passes over pairs that rest as well, and so is not begun when the first has found enough. `offset 0`: see
# runs.SQL_INSERT_DUE.
SQL_ATTENTION = f"""
with c as materialized (
  select system.clock() as now, exists (select from system.pauses where agent_id is not null) as some_agent_is_paused),
wanted as materialized (
  select s.sync_type, s.interval_minutes from system.sync_settings s cross join c
   where s.enabled
     and not exists (select from system.pauses x where (x.sync_type is null or x.sync_type = s.sync_type) and x.agent_id is null
                       and (x.until is null or x.until > c.now))),
resting as materialized (
  select a.* from c cross join wanted s
    cross join lateral (
      select p.* from system.sync_state p
       where p.sync_type = s.sync_type and p.active and p.backoff_until > c.now
         and {_NOT_PAUSED}
       order by p.backoff_until desc limit %(limit)s) a),
stale as (
  select a.* from c cross join wanted s
    cross join lateral (
      select p.* from system.sync_state p
       where p.sync_type = s.sync_type and p.active and (p.backoff_until is null or p.backoff_until <= c.now)
         and coalesce(p.last_success_at, '-infinity'::timestamptz) <= c.now - 2 * make_interval(mins => s.interval_minutes)
         and (select count(*) from resting r where r.sync_type = s.sync_type) < %(limit)s
         and {_NOT_PAUSED}
       order by coalesce(p.last_success_at, '-infinity'::timestamptz) limit %(limit)s) a)
select a.sync_type, a.agent_id, a.consecutive_failures, a.last_success_at, a.resting_until as backoff_until
  from (select r.*, r.backoff_until as resting_until from resting r union all select t.*, null from stale t) a
 order by a.resting_until is null, a.consecutive_failures desc, a.last_success_at nulls first, a.agent_id, a.sync_type
 limit %(limit)s
"""  # noqa: S608 - the part is a constant of this module


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

    def told(self, when: Callable[[datetime], str]) -> str:
        """In one line: resting: ddt of anna: 4 failures, next in 3 h, last ok 2 h ago."""
        last = when(self.last_success_at) if self.last_success_at else "never"
        if self.backoff_until is None:
            return f"stale: {self.sync_type} of {self.agent_id}: last ok {last}"
        failures = f"{self.consecutive_failures} failure{'' if self.consecutive_failures == 1 else 's'}"
        return (
            f"resting: {self.sync_type} of {self.agent_id}: {failures}, next {when(self.backoff_until)}, last ok {last}"
        )


def trends(db: Database, *, limit: int) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for row in db.execute(SQL_TRENDS, {"limit": limit}).fetchall():
        found.setdefault(row["sync_type"], []).append(Point(state=row["state"], seconds=row["seconds"]))
    return found


def attention(db: Database, *, limit: int) -> list[Ailing]:
    return [Ailing(**row) for row in db.execute(SQL_ATTENTION, {"limit": limit}).fetchall()]
