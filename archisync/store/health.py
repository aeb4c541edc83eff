"""Health now: each sync type over all its pairs, and the pairs that need attention. Read only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from archisync.base.text import counted
from archisync.store.database import Database, one

COUNTED = 1_000
"""Counts are exact up to here, and "more" beyond. So `status` costs the same with a million agents: a counted row takes about 5 µs, and
there are a dozen counts a type."""
COUNTS = ("pairs", "past_slot", "stale", "failing", "degraded", "backing_off", "queued", "running", "held")
_UP_TO = f"limit {COUNTED + 1}"
# Purpose: whether some agent is paused. Caller: type_health. No locks.
SQL_SOME_AGENT_IS_PAUSED = "select exists (select from system.pauses where agent_id is not null) as is_so"


def _type_health_where(runs: str) -> str:
    """`runs`: whether the pair `p` runs, and is not paused."""
    return f"""
select t.sync_type, s.enabled, s.interval_minutes,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
         order by system.or_never(p.last_success_at) {_UP_TO}) x) as pairs,
       (select ((c.reltuples - k.shared) / k.own)::bigint from pg_class c,
               (select count(*) filter (where scope = 'shared') as shared, count(*) filter (where scope = 'agent') as own
                  from system.sync_types) k
         where c.oid = 'system.sync_state_by_success'::regclass) as pairs_about,
       case when o.slot > k.now - s.every then 0 else (select count(*) from (select p.last_slot_at from system.sync_state p
           where p.sync_type = t.sync_type and p.active and p.unfinished_run_id is null
         order by system.or_never(p.last_slot_at) {_UP_TO}) x
         where system.or_never(x.last_slot_at) <= k.now - s.every) end
       + (select count(*) from (select p.last_slot_at from system.sync_state p
           where p.sync_type = t.sync_type and p.active and p.unfinished_run_id is not null
         order by p.unfinished_run_id {_UP_TO}) x
         where system.or_never(x.last_slot_at) <= k.now - s.every) as past_slot,
       case when not s.enabled or o.success > k.now - 2 * s.every then 0 else (select count(*) from (
         select p.last_success_at from system.sync_state p where p.sync_type = t.sync_type and p.active and {runs}
         order by system.or_never(p.last_success_at) {_UP_TO}) x
         where system.or_never(x.last_success_at) <= k.now - 2 * s.every) end
       + case when not s.enabled then 0 else (select count(*) from (
         select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and system.or_never(p.last_success_at) > k.now + interval '1 minute' and {runs}
         order by system.or_never(p.last_success_at) {_UP_TO}) x) end as stale,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.consecutive_failures > 0 and {runs} order by p.consecutive_failures {_UP_TO}) x) as failing,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.consecutive_failures >= 3 and {runs} order by p.consecutive_failures {_UP_TO}) x) as degraded,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.backoff_until > k.now and {runs} order by p.backoff_until {_UP_TO}) x) as backing_off,
       (select p.last_success_at from system.sync_state p where p.sync_type = t.sync_type and p.active
           and system.or_never(p.last_success_at) > '-infinity'
         order by system.or_never(p.last_success_at) desc limit 1) as newest_success_at,
       nullif(o.success, '-infinity') as oldest_success_at,
       case when s.enabled then least(
         (select coalesce(p.last_slot_at + s.every, k.now)
            from (select *, system.or_never(q.last_slot_at) as slot from system.sync_state q
                   where q.sync_type = t.sync_type and q.active and q.unfinished_run_id is null order by slot {_UP_TO}) p
           where (p.backoff_until is null or p.backoff_until <= k.now) and {runs}
           order by p.slot limit 1),
         (select min(greatest(p.last_slot_at + s.every, p.backoff_until))
            from (select * from system.sync_state q where q.sync_type = t.sync_type and q.active and q.backoff_until > k.now
                   order by q.backoff_until {_UP_TO}) p
           where {runs})) end as next_due_at,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.unfinished_run_id is not null
           and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.unfinished_run_id)
         order by p.unfinished_run_id {_UP_TO}) x)
       + (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.next_run_id is not null
           and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.next_run_id)
         order by p.next_run_id {_UP_TO}) x) as queued,
       (select count(*) from (select from system.claims c join system.queued_runs q on q.id = c.run_id
         where q.sync_type = t.sync_type {_UP_TO}) x) as running,
       (select count(*) from (select from system.held_exports h where h.sync_type = t.sync_type and h.decision is null
         order by h.agent_id {_UP_TO}) x) as held,
       exists (select from system.pauses_of(t.sync_type, null)) as paused
  from system.sync_types t
  join (select *, make_interval(mins => interval_minutes) as every from system.sync_settings) s using (sync_type)
 cross join (select system.clock() as now offset 0) k
 cross join lateral (
   select (select system.or_never(p.last_slot_at) from system.sync_state p
            where p.sync_type = t.sync_type and p.active and p.unfinished_run_id is null
            order by system.or_never(p.last_slot_at) limit 1) as slot,
          (select system.or_never(p.last_success_at) from system.sync_state p where p.sync_type = t.sync_type and p.active
            order by system.or_never(p.last_success_at) limit 1) as success offset 0) o
 order by t.level, t.sync_type
"""  # noqa: S608 - the parts are constants of this module


# Purpose: one row a type for `status`. Each figure is one end or a bounded range of an index, however many pairs and runs there are; an
# ORDER BY below a LIMIT keeps the planner on the index. Whether a pair is late is asked above it, since the planner expects few pairs in a
# range and would sort all that are late; and not at all when the pair that would be late first (`o`) is not.
# Pairs of paused agents are neither stale nor failing: somebody wanted that.
# `pairs_about` is what ANALYZE found last: every agent on the whitelist has one active pair of each type of its scope. Caller: type_health.
# No locks.
SQL_TYPE_HEALTH = _type_health_where("not exists (select from system.pauses_of(p.sync_type, p.agent_id))")
# Purpose: the same where no agent is paused: a quarter less to plan and to do. Caller: type_health. No locks.
SQL_TYPE_HEALTH_UNPAUSED = _type_health_where("true")
_NOT_PAUSED = """(not c.some_agent_is_paused
         or not exists (select from system.pauses_of(p.sync_type, p.agent_id, c.now) x where x.agent_id = p.agent_id))"""
# Purpose: pairs that rest after failures, those that rest longest first; then pairs whose data is older than two of their intervals, the
# oldest first. Not those that are paused or disabled: somebody wanted that. Caller: unhealthy_pairs. No locks.
# Both parts walk an index until they have enough. They skip paused pairs, of which there are no more than pauses; the second part also
# skips pairs that rest, so it does not begin when the first has found enough.
SQL_UNHEALTHY_PAIRS = f"""
with c as materialized (
  select system.clock() as now, exists (select from system.pauses where agent_id is not null) as some_agent_is_paused),
wanted as materialized (
  select s.sync_type, s.interval_minutes, make_interval(mins => s.interval_minutes) as every from system.sync_settings s cross join c
   where s.enabled and not exists (select from system.pauses_of(s.sync_type, null, c.now))),
resting as materialized (
  select a.* from c cross join wanted s
    cross join lateral (
      select p.*, greatest(p.last_slot_at + s.every, p.backoff_until) as next_at from system.sync_state p
       where p.sync_type = s.sync_type and p.active and p.backoff_until > c.now
         and {_NOT_PAUSED}
       order by p.backoff_until desc limit %(limit)s) a),
stale as (
  select a.* from c cross join wanted s
    cross join lateral (
      select p.*, null::timestamptz as next_at from system.sync_state p
       where p.sync_type = s.sync_type and p.active and (p.backoff_until is null or p.backoff_until <= c.now)
         and system.or_never(p.last_success_at) <= c.now - 2 * make_interval(mins => s.interval_minutes)
         and (select count(*) from resting r where r.sync_type = s.sync_type) < %(limit)s
         and {_NOT_PAUSED}
       order by system.or_never(p.last_success_at) limit %(limit)s) a)
select a.sync_type, a.agent_id, a.consecutive_failures, a.last_success_at,
       case when a.next_at is not null then a.backoff_until end as backoff_until, a.next_at
  from (select * from resting union all select * from stale) a
 order by a.next_at is null, a.consecutive_failures desc, a.last_success_at nulls first, a.agent_id, a.sync_type
 limit %(limit)s
"""  # noqa: S608 - the part is a constant of this module

# Purpose: pairs whose last run failed, of each type those with the most failures first, from where the last page ended: an end of an index
# range for each type. Caller: failing_pairs. No locks.
SQL_FAILING_PAIRS = """
select p.sync_type, p.agent_id, p.consecutive_failures, r.message as last_error, r.hint, p.last_success_at, p.backoff_until,
       coalesce(p.backoff_until > system.clock(), false) as rests
  from system.sync_types t
 cross join lateral (
   select s.* from system.sync_state s
    where s.sync_type = t.sync_type and s.active and s.consecutive_failures > 0
      and (s.consecutive_failures, s.agent_id)
          < (case when t.sync_type = %(after_type)s then %(after_failures)s::int else 2147483647 end, %(after_agent)s::text)
    order by s.consecutive_failures desc, s.agent_id desc limit %(limit)s) p
  left join system.sync_runs r on r.id = p.last_run_id
 where t.sync_type >= %(after_type)s
 order by p.sync_type, p.consecutive_failures desc, p.agent_id desc limit %(limit)s
"""
# Purpose: the pairs of a type whose data is oldest: an end of an index. Caller: least_fresh. No locks.
SQL_LEAST_FRESH = """
select p.sync_type, p.agent_id, p.consecutive_failures, p.last_success_at,
       case when p.backoff_until > system.clock() then p.backoff_until end as backoff_until,
       case when p.backoff_until > system.clock()
            then greatest(p.last_slot_at + make_interval(mins => s.interval_minutes), p.backoff_until) end as next_at
  from system.sync_state p join system.sync_settings s using (sync_type)
 where p.sync_type = %(sync_type)s and p.active
 order by system.or_never(p.last_success_at) limit %(limit)s
"""
# Purpose: the pairs whose last applied export had warnings that a person should read, the newest of each type first. Caller: warned.
# No locks.
SQL_WARNED = """
select p.sync_type, p.agent_id, p.warned_run_id as run_id, r.warnings
  from system.sync_types t
 cross join lateral (
   select s.sync_type, s.agent_id, s.warned_run_id from system.sync_state s
    where s.sync_type = t.sync_type and s.active and s.warned_run_id is not null
    order by s.warned_run_id desc limit %(limit)s) p
  join system.sync_runs r on r.id = p.warned_run_id
 order by p.warned_run_id desc limit %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeHealth:
    """One type over all its pairs. Counts are pairs, except queued, running (runs) and held (exports). They stop at COUNTED: `more_than`
    names those that did, `about` those that are an estimate instead (`pairs`)."""

    sync_type: str
    enabled: bool
    interval_minutes: int
    pairs: int
    past_slot: int
    stale: int
    failing: int
    degraded: int
    backing_off: int
    newest_success_at: datetime | None
    oldest_success_at: datetime | None
    next_due_at: datetime | None
    queued: int
    running: int
    held: int
    paused: bool
    more_than: tuple[str, ...] = ()
    about: tuple[str, ...] = ()

    def shown(self, name: str) -> str | int:
        """A count as people read it: the number, `>1000`, or `~250000`."""
        value: int = getattr(self, name)
        sign = ">" if name in self.more_than else "~" if name in self.about else ""
        return f"{sign}{value}" if sign else value

    @property
    def word(self) -> str:
        """The type's health in one word: the worst that holds. Never `healthy` while something is wrong."""
        if not self.enabled:
            return "disabled"
        if self.paused:
            return "paused"
        if self.held:
            return "held"
        if self.degraded:
            return "degraded"
        if not self.pairs:
            return "no agents"
        if self.stale:
            return "stale"
        if self.failing:
            return "failing"
        return "running" if self.running else "healthy"


@dataclass(frozen=True, kw_only=True, slots=True)
class UnhealthyPair:
    """A pair that rests after failures (until `backoff_until`; its slot may come later, at `next_at`), or one whose data is old."""

    sync_type: str
    agent_id: str
    consecutive_failures: int
    last_success_at: datetime | None
    backoff_until: datetime | None
    next_at: datetime | None

    def describe(self, when: Callable[[datetime], str]) -> str:
        """One line, such as: resting: ddt of anna: 4 failures, next in 3 h, last ok 2 h ago."""
        last = when(self.last_success_at) if self.last_success_at else "never"
        pair = f"{self.sync_type} of {self.agent_id}"
        if self.next_at is None:
            return f"stale: {pair}: last ok {last}"
        failures = counted(self.consecutive_failures, "failure")
        return f"resting: {pair}: {failures}, next {when(self.next_at)}, last ok {last}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailingPair:
    """A pair whose last run failed. `rests`: it is not tried before `backoff_until`."""

    sync_type: str
    agent_id: str
    consecutive_failures: int
    last_error: str | None
    hint: str | None
    last_success_at: datetime | None
    backoff_until: datetime | None
    rests: bool


def type_health(db: Database) -> list[TypeHealth]:
    """One for each type, in the order in which a tick queues them."""
    statement = SQL_TYPE_HEALTH if one(db, SQL_SOME_AGENT_IS_PAUSED)["is_so"] else SQL_TYPE_HEALTH_UNPAUSED
    return [_type_health(row) for row in db.execute(statement).fetchall()]


def _type_health(row: dict[str, Any]) -> TypeHealth:
    estimate = row.pop("pairs_about")
    beyond = [name for name in COUNTS if row[name] > COUNTED]
    row |= dict.fromkeys(beyond, COUNTED)
    about = ["pairs"] if "pairs" in beyond and estimate > COUNTED else []
    if about:
        row["pairs"] = int(float(f"{estimate:.3g}"))  # no more digits than are known
    if not row["enabled"] or row["paused"]:
        row["next_due_at"] = None
    return TypeHealth(**row, more_than=tuple(name for name in beyond if name not in about), about=tuple(about))


def unhealthy_pairs(db: Database, *, limit: int) -> list[UnhealthyPair]:
    """Pairs that rest after failures, then stale ones, the worst first; not paused or disabled ones."""
    return [UnhealthyPair(**row) for row in db.execute(SQL_UNHEALTHY_PAIRS, {"limit": limit}).fetchall()]


def least_fresh(db: Database, sync_type: str, *, limit: int) -> list[UnhealthyPair]:
    """The pairs of the type whose data is oldest, fresh or not, the oldest first."""
    rows = db.execute(SQL_LEAST_FRESH, {"sync_type": sync_type, "limit": limit}).fetchall()
    return [UnhealthyPair(**row) for row in rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class WarnedPair:
    """A pair whose data is as the last export, of which a person should read the `messages`. `run_id`: the run that applied it."""

    sync_type: str
    agent_id: str
    run_id: int
    messages: list[str]


def warned_pairs(db: Database, *, limit: int) -> list[WarnedPair]:
    """The newest ones first."""
    return [
        WarnedPair(messages=[warning["message"] for warning in row.pop("warnings")], **row)
        for row in db.execute(SQL_WARNED, {"limit": limit}).fetchall()
    ]


def failing_pairs(db: Database, *, after: tuple[str, int, str] | None, limit: int) -> list[FailingPair]:
    """Pairs by type, of each type those with the most failures first. `after`: type, failures and agent of the last one seen."""
    sync_type, failures, agent_id = after or ("", 0, "")
    params = {"after_type": sync_type, "after_failures": failures, "after_agent": agent_id, "limit": limit}
    return [FailingPair(**row) for row in db.execute(SQL_FAILING_PAIRS, params).fetchall()]
