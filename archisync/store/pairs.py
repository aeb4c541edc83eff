"""The state of a pair, on which `archisync.rules.due` decides whether it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from archisync.rules.due import PairState
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, SyncType
from archisync.store.database import Database, Params, one

_PAUSE_SCOPE = """case when x.id is null then null when x.sync_type is null and x.agent_id is null then 'everything'
       when x.agent_id is null then 'the type ' || x.sync_type
       when x.sync_type is null then 'the agent ' || x.agent_id
       else x.sync_type || ' of ' || x.agent_id end as pause_scope"""
_STATE = f"""
  s.enabled, s.interval_minutes, st.last_slot_at, st.backoff_until, coalesce(st.consecutive_failures, 0) as consecutive_failures,
  r.id as run_id, r.state as run_state, coalesce(r.started_at, r.queued_at) as run_since, r.worker as run_worker,
  r.not_before as run_not_before, coalesce(r.attempt, 1) as run_attempt, coalesce(r.trigger = 'forced', false) as run_forced,
  {_PAUSE_SCOPE},
  x.until as pause_until, x.reason as pause_reason
"""
_JOINS = """
  left join system.unfinished_runs r on r.id = st.unfinished_run_id
  left join lateral (
    select x.* from system.pauses_of(p.sync_type, p.agent_id) x
     order by x.until desc nulls first, x.sync_type nulls first, x.agent_id nulls first limit 1) x on true
"""
# Purpose: the state of one pair, even if it does not exist. Caller: state. No locks.
SQL_STATE = f"""
select p.sync_type, p.agent_id, coalesce(st.active, false) as active,
       exists (select from agents.users u where u.id::text = p.agent_id) as in_users, {_STATE}
  from (select %(sync_type)s::text as sync_type, %(agent_id)s::text as agent_id) p
  join system.sync_settings s on s.sync_type = p.sync_type
  left join system.sync_state st on st.sync_type = p.sync_type and st.agent_id = p.agent_id
{_JOINS}
"""  # noqa: S608 - both parts are constants of this module
# Purpose: the state of every pair on the whitelist. Caller: active_states, through a server-side cursor. No locks.
SQL_ACTIVE_STATES = f"""
select st.sync_type, st.agent_id, true as active, true as in_users, {_STATE}
  from system.sync_state st
  join system.sync_settings s on s.sync_type = st.sync_type
  join system.sync_types t on t.sync_type = st.sync_type
  cross join lateral (select st.sync_type, st.agent_id) p
{_JOINS}
 where st.active
 order by t.level, st.sync_type, st.agent_id
"""  # noqa: S608


# Purpose: a page of the pairs that were ever scheduled, by agent and type. `offset 0`: else a planner
# that knows nothing of the registry reads all of it, to look up fifty. Caller: page. No locks.
SQL_PAGE = f"""
select st.sync_type, st.agent_id, st.active, st.last_success_at,
       exists (select from agents.users u where u.id::text = st.agent_id offset 0) as in_users,
       {_STATE}
  from (select q.* from system.sync_state q
         where (q.agent_id, q.sync_type) > (%(after_agent)s::text, %(after_type)s::text)
           and (%(sync_type)s::text is null or q.sync_type = %(sync_type)s)
           and (%(agent_id)s::text is null or q.agent_id = %(agent_id)s)
         order by q.agent_id, q.sync_type limit %(limit)s) st
  join system.sync_settings s on s.sync_type = st.sync_type
  cross join lateral (select st.sync_type, st.agent_id) p
{_JOINS}
 order by st.agent_id, st.sync_type
"""  # noqa: S608
# Purpose: of some pairs those whose type is disabled or that are paused, with the pause that lasts longest. Caller: stopped. No locks.
SQL_STOPPED = f"""
select p.sync_type, s.enabled, {_PAUSE_SCOPE}
  from unnest(%(sync_types)s::text[], %(agent_ids)s::text[]) with ordinality as p(sync_type, agent_id, place)
  join system.sync_settings s on s.sync_type = p.sync_type
  left join lateral (
    select x.* from system.pauses_of(p.sync_type, p.agent_id) x
     order by x.until desc nulls first, x.sync_type nulls first, x.agent_id nulls first limit 1) x
    on exists (select from system.pauses)
 where not s.enabled or x.id is not null
 order by p.place
"""  # noqa: S608


def _state(row: dict[str, object], scope: Scope) -> PairState:
    active, in_users = row.pop("active"), row.pop("in_users")
    shared = scope is Scope.SHARED
    return PairState(
        known=bool(in_users) or (shared and row["agent_id"] == SHARED_AGENT),
        whitelisted=bool(active),
        **row,  # type: ignore[arg-type]
    )


def state(db: Database, sync_type: SyncType, agent_id: str) -> PairState:
    """The state of one pair, whether it exists or not."""
    return _state(one(db, SQL_STATE, {"sync_type": sync_type.name, "agent_id": agent_id}), sync_type.scope)


def page(
    db: Database,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
    sync_type: SyncType | None = None,
    agent_id: str | None = None,
) -> list[tuple[PairState, datetime | None]]:
    """Pairs that were ever scheduled, by agent and type, each with its last success. `after`: agent and type of the last one seen."""
    after_agent, after_type = after or ("", "")
    params: Params = {"after_agent": after_agent, "after_type": after_type, "agent_id": agent_id, "limit": limit}
    params["sync_type"] = sync_type.name if sync_type else None
    rows = db.execute(SQL_PAGE, params).fetchall()
    return [
        (_state(row, SYNC_TYPES[row["sync_type"]].scope), last) for row in rows for last in [row.pop("last_success_at")]
    ]


class Stopped(NamedTuple):
    """Why a pair does not run by itself: its type is not `enabled`, or `pause_scope` says what is paused."""

    sync_type: str
    enabled: bool
    pause_scope: str | None


def stopped(db: Database, pairs: Sequence[tuple[str, str]]) -> list[Stopped]:
    """Those of the pairs (type, agent), in this order, whose type is disabled or that are paused."""
    params: Params = {"sync_types": [p[0] for p in pairs], "agent_ids": [p[1] for p in pairs]}
    return [Stopped(**row) for row in db.execute(SQL_STOPPED, params).fetchall()]


def active_states(db: Database) -> Iterator[PairState]:
    """Every pair on the whitelist, in the order in which a tick would queue; streamed."""
    with db.transaction(), db.cursor("archisync_pairs") as cursor:
        cursor.itersize = 5000
        for row in cursor.execute(SQL_ACTIVE_STATES):
            yield _state(row, Scope.AGENT)
