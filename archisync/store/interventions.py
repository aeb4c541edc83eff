"""What a person changes in the queue and in the state of pairs: runs are cancelled, failing pairs are found, rests are ended.

A cancelled run moves from the queue into the history. The claim of its agent stays: a worker that is doing the run finds no run to end
any more, so it writes nothing and lets the agent go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from archisync.store.database import Database, Params

# Purpose: the unfinished runs of a type, an agent, both or all. Caller: unfinished. No locks.
SQL_UNFINISHED = """
select q.id as run_id, q.sync_type, q.agent_id, c.worker from system.queued_runs q
  left join system.claims c on c.agent_id = q.agent_id and c.run_id = q.id
 where (%(sync_type)s::text is null or q.sync_type = %(sync_type)s) and (%(agent_id)s::text is null or q.agent_id = %(agent_id)s)
   and (%(ids)s::bigint[] is null or q.id = any (%(ids)s))
 order by q.id
"""
# Purpose: end unfinished runs as cancelled, those that are being done too. The pair keeps its slot: it is due again when its interval has
# passed. An apply that is committing has the state row: this waits for it, and then finds no run. Caller: cancel. Locks: states, in
# order; then the runs, by id.
SQL_CANCEL = """
with pair as materialized (
  select st.sync_type, st.agent_id from system.queued_runs q join system.sync_state st using (sync_type, agent_id)
   where q.id = any (%(ids)s) order by st.agent_id, st.sync_type for update of st),
theirs as materialized (
  select q.id from system.queued_runs q where q.id = any (%(ids)s) and (select count(*) from pair) >= 0 order by q.id for update),
ended as (
  delete from system.queued_runs q using theirs where q.id = theirs.id
  returning q.*),
claimed as materialized (
  select e.*, c.worker, c.fence, c.run_started_at from ended e
    left join system.claims c on c.agent_id = e.agent_id and c.run_id = e.id),
history as (
  insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, requested_by, request_reason, slot_at,
                                attempt, fence, queued_at, delivered_at, started_at, worker, finished_at)
  select id, sync_type, agent_id, 'cancelled', 'cancelled', %(message)s, trigger, requested_by, request_reason, slot_at,
         attempt, fence, queued_at, (select d.delivered_at from system.deliveries d where d.id = delivery_id), run_started_at, worker,
         system.clock()
    from claimed),
state as (
  update system.sync_state st
     set unfinished_run_id = case when not st.unfinished_run_id = any (ended.ids) then st.unfinished_run_id
                                  when st.next_run_id = any (ended.ids) then null else st.next_run_id end,
         next_run_id = null, last_run_id = ended.last_id
    from (select sync_type, agent_id, array_agg(id) as ids, max(id) as last_id from ended group by sync_type, agent_id) ended
   where st.sync_type = ended.sync_type and st.agent_id = ended.agent_id)
select id as run_id, sync_type, agent_id, worker from claimed order by id
"""
# Purpose: pairs whose last runs failed: of a type, an agent, both or all. Caller: failing. No locks.
SQL_FAILING = """
select st.sync_type, st.agent_id, st.consecutive_failures, st.backoff_until
  from system.sync_state st join system.sync_types t using (sync_type)
 where st.active and st.consecutive_failures > 0
   and (%(sync_type)s::text is null or st.sync_type = %(sync_type)s) and (%(agent_id)s::text is null or st.agent_id = %(agent_id)s)
   and (not %(resting)s or st.backoff_until > system.clock())
 order by t.level, st.sync_type, st.agent_id
"""
# Purpose: pairs that rest, of each type those first whose rest ends first, from where the last page ended. Caller: resting. No locks.
SQL_RESTING = """
select p.* from system.sync_types t
 cross join lateral (
   select st.sync_type, st.agent_id, st.consecutive_failures, st.backoff_until from system.sync_state st
    where st.sync_type = t.sync_type and st.active and st.backoff_until > system.clock()
      and (t.sync_type <> %(after_type)s
           or (st.backoff_until, st.agent_id) > (%(after_time)s::timestamptz, %(after_agent)s::text))
    order by st.backoff_until, st.agent_id limit %(limit)s) p
 where (t.level, t.sync_type)
       >= (coalesce((select x.level from system.sync_types x where x.sync_type = %(after_type)s), -1), %(after_type)s)
 order by t.level, t.sync_type, p.backoff_until, p.agent_id limit %(limit)s
"""
# Purpose: the rest of pairs after failures is over. Their failures still count: if they fail again, they rest longer. Caller: end_rests.
# Locks: the states, in order.
SQL_END_RESTS = """
with theirs as materialized (
  select st.sync_type, st.agent_id, st.backoff_until, st.consecutive_failures from system.sync_state st
    join unnest(%(types)s::text[], %(agents)s::text[]) as w(sync_type, agent_id) using (sync_type, agent_id)
   where st.backoff_until > system.clock()
   order by st.agent_id, st.sync_type for update of st)
update system.sync_state st set backoff_until = null from theirs
 where st.sync_type = theirs.sync_type and st.agent_id = theirs.agent_id
returning theirs.*
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """A run that is not over, or was not when it was cancelled. `worker`: who is doing it; None while it waits."""

    run_id: int
    sync_type: str
    agent_id: str
    worker: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing:
    """A pair whose last runs failed. `backoff_until`: when its rest ends, if it rests."""

    sync_type: str
    agent_id: str
    consecutive_failures: int
    backoff_until: datetime | None


def unfinished(
    db: Database, *, sync_type: str | None = None, agent_id: str | None = None, ids: Sequence[int] | None = None
) -> list[Unfinished]:
    """The unfinished runs of a type, an agent, or both; or those of these ids."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "ids": list(ids) if ids is not None else None}
    return [Unfinished(**row) for row in db.execute(SQL_UNFINISHED, params).fetchall()]


def cancel(db: Database, run_ids: Sequence[int], *, message: str) -> list[Unfinished]:
    """End these runs as cancelled; those that were not over. `message`: the sentence that the history shows."""
    params: Params = {"ids": list(run_ids), "message": message}
    return [Unfinished(**row) for row in db.execute(SQL_CANCEL, params).fetchall()]


def failing(
    db: Database, *, sync_type: str | None = None, agent_id: str | None = None, resting: bool = False
) -> list[Failing]:
    """Pairs whose last runs failed, in the order in which a tick queues them; with `resting` only those that rest."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "resting": resting}
    return [Failing(**row) for row in db.execute(SQL_FAILING, params).fetchall()]


def resting(db: Database, *, after: tuple[str, datetime, str] | None = None, limit: int | None = None) -> list[Failing]:
    """Pairs that rest after failures, by type in the order in which a tick queues them, those first whose rest ends first. `after`: type,
    end and agent of the last one seen. Without a limit: all."""
    sync_type, until, agent_id = after or ("", datetime.min.replace(tzinfo=UTC), "")
    params: Params = {"after_type": sync_type, "after_time": until, "after_agent": agent_id, "limit": limit}
    return [Failing(**row) for row in db.execute(SQL_RESTING, params).fetchall()]


def end_rests(db: Database, pairs: Sequence[Failing]) -> list[Failing]:
    """End the rests of these pairs; those that rested, as they were."""
    params: Params = {"types": [p.sync_type for p in pairs], "agents": [p.agent_id for p in pairs]}
    return [Failing(**row) for row in db.execute(SQL_END_RESTS, params).fetchall()]
