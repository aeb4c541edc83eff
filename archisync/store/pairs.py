"""`system.sync_state` as people ask about it: the facts of a pair, and the health of a type; and forgetting a pair's data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from archisync.rules.due import Facts
from archisync.rules.synctypes import SHARED_AGENT, Scope, SyncType
from archisync.store.database import Database

_FACTS = """
  s.enabled, s.interval_minutes, st.last_slot_at, st.backoff_until, coalesce(st.consecutive_failures, 0) as consecutive_failures,
  r.id as run_id, r.state as run_state, coalesce(r.started_at, r.queued_at) as run_since, r.worker as run_worker,
  r.not_before as run_not_before, coalesce(r.attempt, 1) as run_attempt, coalesce(r.trigger = 'forced', false) as run_forced,
  case when x.id is null then null when x.sync_type is null and x.agent_id is null then 'everything'
       when x.agent_id is null then 'the type ' || x.sync_type
       when x.sync_type is null then 'the agent ' || x.agent_id
       else x.sync_type || ' of ' || x.agent_id end as pause_scope,
  x.until as pause_until, x.reason as pause_reason
"""
_JOINS = """
  left join system.sync_runs r on r.sync_type = p.sync_type and r.agent_id = p.agent_id and r.state in ('queued', 'running')
  left join lateral (
    select x.* from system.pauses x
     where (x.sync_type is null or x.sync_type = p.sync_type) and (x.agent_id is null or x.agent_id = p.agent_id)
       and (x.until is null or x.until > system.clock())
     order by x.until desc nulls first, x.sync_type nulls first, x.agent_id nulls first limit 1) x on true
"""
# Purpose: the facts of one pair, also of one that does not exist. Caller: why. No locks.
SQL_FACTS = f"""
select p.sync_type, p.agent_id, coalesce(st.active, false) as active,
       exists (select from agents.users u where u.id = p.agent_id) as in_users, {_FACTS}
  from (select %(sync_type)s::text as sync_type, %(agent_id)s::text as agent_id) p
  join system.sync_settings s on s.sync_type = p.sync_type
  left join system.sync_state st on st.sync_type = p.sync_type and st.agent_id = p.agent_id
{_JOINS}
"""  # noqa: S608 - both parts are constants of this module
# Purpose: the facts of every pair on the whitelist. Caller: tick --dry-run, through a server-side cursor. No locks.
SQL_ALL_FACTS = f"""
select p.sync_type, p.agent_id, true as active, true as in_users, {_FACTS}
  from system.sync_state p
  join system.sync_settings s on s.sync_type = p.sync_type
  join system.sync_types t on t.sync_type = p.sync_type
  join system.sync_state st on st.sync_type = p.sync_type and st.agent_id = p.agent_id
{_JOINS}
 where p.active
 order by t.level, p.sync_type, p.agent_id
"""  # noqa: S608
# Purpose: the pair has no data any more: no baseline, nothing known of an applied export; a standing acceptance was given for other
# data. Caller: clear, which deletes the rows in the same transaction. Locks: the state rows.
SQL_FORGET_DATA = """
update system.sync_state
   set known_rows = null, high_rows = '{}', applied_sha256 = null, applied_source = null, data_version = data_version + 1
 where sync_type = %(sync_type)s and (%(agent_id)s::text is null or agent_id = %(agent_id)s)
"""
COUNTED = 1_000
"""Counts are exact up to here; beyond it is told that there are more. So `status` costs the same with a million agents: a row that
is counted costs about 5 µs, and there are a dozen counts a type."""

COUNTS = ("pairs", "past_slot", "stale", "failing", "degraded", "backing_off", "queued", "running", "held")
_UP_TO = f"limit {COUNTED + 1}"
# Purpose: one line a type for `status`. Each figure is one end or a bounded range of an index, whatever the number of pairs and runs; an
# ORDER BY below a LIMIT is what keeps the planner on the index. Caller: health. No locks.
SQL_HEALTH = f"""
select t.sync_type, s.enabled, s.interval_minutes,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
         order by coalesce(p.last_slot_at, '-infinity'::timestamptz) {_UP_TO}) x) as pairs,
       -- what ANALYZE found last: every agent on the whitelist has one active pair of each type of its scope
       (select ((c.reltuples - k.shared) / k.own)::bigint from pg_class c,
               (select count(*) filter (where scope = 'shared') as shared, count(*) filter (where scope = 'agent') as own
                  from system.sync_types) k
         where c.oid = 'system.sync_state_by_success'::regclass) as pairs_about,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and coalesce(p.last_slot_at, '-infinity'::timestamptz) <= system.clock() - make_interval(mins => s.interval_minutes)
         order by coalesce(p.last_slot_at, '-infinity'::timestamptz) {_UP_TO}) x) as past_slot,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and coalesce(p.last_success_at, '-infinity'::timestamptz) <= system.clock() - 2 * make_interval(mins => s.interval_minutes)
         order by coalesce(p.last_success_at, '-infinity'::timestamptz) {_UP_TO}) x)
       + (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and coalesce(p.last_success_at, '-infinity'::timestamptz) > system.clock() + interval '1 minute'
         order by coalesce(p.last_success_at, '-infinity'::timestamptz) {_UP_TO}) x) as stale,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.consecutive_failures > 0 order by p.consecutive_failures {_UP_TO}) x) as failing,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.consecutive_failures >= 3 order by p.consecutive_failures {_UP_TO}) x) as degraded,
       (select count(*) from (select from system.sync_state p where p.sync_type = t.sync_type and p.active
           and p.backoff_until > system.clock() order by p.backoff_until {_UP_TO}) x) as backing_off,
       (select p.last_success_at from system.sync_state p where p.sync_type = t.sync_type and p.active
           and coalesce(p.last_success_at, '-infinity'::timestamptz) > '-infinity'
         order by coalesce(p.last_success_at, '-infinity'::timestamptz) desc limit 1) as newest_success_at,
       (select p.last_success_at from system.sync_state p where p.sync_type = t.sync_type and p.active
         order by coalesce(p.last_success_at, '-infinity'::timestamptz) limit 1) as oldest_success_at,
       (select coalesce(p.last_slot_at + make_interval(mins => s.interval_minutes), system.clock()) from system.sync_state p
         where p.sync_type = t.sync_type and p.active
         order by coalesce(p.last_slot_at, '-infinity'::timestamptz) limit 1) as next_due_at,
       (select count(*) from (
          (select from system.deliveries d cross join lateral (
             select from system.sync_runs r where r.state = 'queued' and r.delivery_id between d.id and d.id and r.sync_type = t.sync_type
              order by r.delivery_id, r.sync_type) r {_UP_TO})
          union all
          (select from system.sync_runs r where r.state = 'queued' and r.delivery_id is null and r.sync_type = t.sync_type
            order by r.delivery_id, r.sync_type {_UP_TO})) x) as queued,
       (select count(*) from (select from system.sync_runs r where r.sync_type = t.sync_type and r.state = 'running'
         order by r.sync_type, r.state, r.id {_UP_TO}) x) as running,
       (select count(*) from (select from system.held_exports h where h.sync_type = t.sync_type and h.decision is null
         order by h.agent_id {_UP_TO}) x) as held,
       exists (select from system.pauses x where x.agent_id is null and (x.sync_type is null or x.sync_type = t.sync_type)
                and (x.until is null or x.until > system.clock())) as paused
  from system.sync_types t
  join system.sync_settings s using (sync_type)
 order by t.level, t.sync_type
"""  # noqa: S608 - the one part is a constant of this module


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeHealth:
    """One type over all its pairs. Counts are pairs, except queued, running (runs) and held (exports); none is counted beyond
    COUNTED, and `more_than` names those that stopped there. `about` names those that are estimates: `pairs` above COUNTED."""

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
        """The one word for the type's health: the worst that holds. Never `healthy` while something is wrong."""
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


def _facts(row: dict[str, object], scope: Scope) -> Facts:
    active, in_users = row.pop("active"), row.pop("in_users")
    shared = scope is Scope.SHARED
    return Facts(
        known=bool(in_users) or (shared and row["agent_id"] == SHARED_AGENT),
        whitelisted=bool(active),
        **row,  # type: ignore[arg-type]
    )


def facts(db: Database, sync_type: SyncType, agent_id: str) -> Facts:
    """The facts of one pair, existing or not."""
    row = db.execute(SQL_FACTS, {"sync_type": sync_type.name, "agent_id": agent_id}).fetchone()
    assert row is not None  # the join is with a row of constants and sync_settings, which has every type
    return _facts(row, sync_type.scope)


def all_facts(db: Database) -> Iterator[Facts]:
    """Every whitelisted pair, in the order in which a tick would queue; streamed."""
    with db.transaction(), db.cursor("archisync_facts") as cursor:
        cursor.itersize = 5000
        for row in cursor.execute(SQL_ALL_FACTS):
            yield _facts(row, Scope.AGENT)


def health(db: Database) -> list[TypeHealth]:
    return [_health(row) for row in db.execute(SQL_HEALTH).fetchall()]


def _health(row: dict[str, Any]) -> TypeHealth:
    estimate = row.pop("pairs_about")
    beyond = [name for name in COUNTS if row[name] > COUNTED]
    row |= dict.fromkeys(beyond, COUNTED)
    about = ["pairs"] if "pairs" in beyond and estimate > COUNTED else []
    if about:
        row["pairs"] = int(float(f"{estimate:.3g}"))  # no more digits than are known
    if not row["enabled"] or row["paused"]:
        row["next_due_at"] = None  # nothing of it is
    return TypeHealth(**row, more_than=tuple(name for name in beyond if name not in about), about=tuple(about))


def forget_data(db: Database, kind: SyncType, agent_id: str | None) -> None:
    """What is known of the pair's data, or of every pair's of the type when `agent_id` is None."""
    db.execute(SQL_FORGET_DATA, {"sync_type": kind.name, "agent_id": agent_id})
