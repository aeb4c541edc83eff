"""The runs of the past, unfinished ones included: one run, the newest ones, and pruning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import NamedTuple

from archisync.base.errors import NotFoundError
from archisync.store.database import Database, Params, one
from archisync.store.runs import Run, State

LARGEST_ID = 2**63 - 1
BEFORE_SPAN = 100
"""Runs that are asked for where a span of time begins; about as many may come after it by their ids and before it by their times."""
PRUNE_BATCH = 250
"""Rows deleted in one statement: it holds their locks for some ten milliseconds."""

# Purpose: the states of some runs. Caller: states_of. No locks.
SQL_STATES_OF = "select id, state from system.runs where id = any (%(ids)s)"
# Purpose: those of some runs that are not in the queue any more. Caller: ended. No locks.
SQL_NOT_QUEUED = """
select w.id from unnest(%(ids)s::bigint[]) w(id) where not exists (select from system.queued_runs q where q.id = w.id)
"""
# Purpose: some runs of the history. One lookup for each: the planner knows nothing of a table that has just grown. Caller: ended. No locks.
SQL_ENDED = """
select r.* from unnest(%(ids)s::bigint[]) w(id)
 cross join lateral (select * from system.runs f where f.id = w.id offset 0) r
 order by r.id
"""
# Purpose: one run, with some rows that could not be read. Caller: get. No locks.
SQL_GET = """
select r.*, (select h.quarantined_rows from system.sync_runs h where h.id = r.id) as quarantined_rows
  from system.runs r where r.id = %(id)s
"""
# Purpose: the runs that are being done. Caller: running. No locks.
SQL_RUNNING = """
select r.* from system.claims c join system.unfinished_runs r on r.id = c.run_id
 order by r.started_at, r.id limit %(limit)s
"""
# Purpose: the id of a run that had ended before `since`. Every smaller id was queued earlier still, so a question about a span of time
# reads one end of an index that has no times. It takes the greatest id of BEFORE_SPAN, since some run may have waited and lasted long, and
# none that a wrong clock dated. Caller: id_before. No locks.
SQL_ID_BEFORE = f"""
select coalesce(max(id), 0) as id from (
  select r.id from system.sync_runs r
   where coalesce(r.kept_at, r.finished_at) < %(since)s and r.queued_at < %(since)s
   order by coalesce(r.kept_at, r.finished_at) desc limit {BEFORE_SPAN}) x
"""  # noqa: S608 - the part is a constant of this module
# Purpose: the newest runs of all types and states, or of some: those with the greatest ids, which no clock disturbs. Of the finished ones,
# one range of sync_runs_by_state for each type and state, read from its end, so that the last runs of a rare one are found as fast as those
# of a common one; the newest of these are looked up one by one. The queued ones likewise, in sync_state_unfinished and sync_state_next.
# `after`: a bound for `since` (SQL_ID_BEFORE). Caller: newest. No locks.
SQL_NEWEST = """
select * from (
  (select r.* from (
     select found.id from system.sync_types t
      cross join unnest(%(states)s::text[]) as w(state)
      cross join lateral (
        select h.id from system.sync_runs h
         where (h.sync_type, h.state, h.id) < (t.sync_type, w.state, %(before)s::bigint)
           and (h.sync_type, h.state, h.id) > (t.sync_type, w.state, %(after)s::bigint)
           and h.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
         order by h.sync_type desc, h.state desc, h.id desc limit %(limit)s) found
      where %(sync_type)s::text is null or t.sync_type = %(sync_type)s
      order by found.id desc limit %(limit)s) n
     cross join lateral (select * from system.runs x where x.id = n.id offset 0) r)
  union all
  (select r.* from system.sync_types t
     cross join lateral (
       (select p.unfinished_run_id as id from system.sync_state p
         where p.sync_type = t.sync_type and p.unfinished_run_id < %(before)s
           and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.unfinished_run_id)
         order by p.unfinished_run_id desc limit %(limit)s)
       union all
       (select p.next_run_id from system.sync_state p
         where p.sync_type = t.sync_type and p.next_run_id < %(before)s
           and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.next_run_id)
         order by p.next_run_id desc limit %(limit)s)) found
     join system.unfinished_runs r on r.id = found.id
    where 'queued' = any (%(states)s::text[])
      and (%(sync_type)s::text is null or t.sync_type = %(sync_type)s)
      and r.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by r.id desc limit %(limit)s)
  union all
  (select r.* from system.claims c join system.unfinished_runs r on r.id = c.run_id
    where 'running' = any (%(states)s::text[])
      and (%(sync_type)s::text is null or r.sync_type = %(sync_type)s)
      and r.id < %(before)s and r.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by r.id desc limit %(limit)s)) r
 order by r.id desc limit %(limit)s
"""
# Purpose: the newest runs of one agent, the unfinished ones among them: a range of sync_runs_by_agent, read from its end. `offset 0`: else
# a planner with old statistics reads all runs of the type. Caller: newest. No locks.
SQL_NEWEST_OF_AGENT = """
select r.* from (
  (select h.id from (
     select f.id, f.agent_id, f.sync_type, f.state, f.queued_at from system.sync_runs f
      where (f.agent_id, f.id) < (%(agent_id)s, %(before)s::bigint) and (f.agent_id, f.id) > (%(agent_id)s, 0)
      order by f.agent_id desc, f.id desc offset 0) h
    where (%(sync_type)s::text is null or h.sync_type = %(sync_type)s) and h.state = any (%(states)s::text[])
      and h.queued_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by h.agent_id desc, h.id desc limit %(limit)s)
  union all
  (select u.id from system.unfinished_runs u
    where u.agent_id = %(agent_id)s and (%(sync_type)s::text is null or u.sync_type = %(sync_type)s)
      and u.state = any (%(states)s::text[]) and u.id < %(before)s
      and u.queued_at >= coalesce(%(since)s::timestamptz, '-infinity'))
  order by id desc limit %(limit)s) n
 cross join lateral (select * from system.runs x where x.id = n.id offset 0) r
 order by r.id desc
"""
# Purpose: runs that ended since a moment, by the index that pruning walks. The end of a run is dated by its transaction's clock and seen
# when that commits, so who asks again and again asks from a little before the last answer. Caller: ended_since. No locks.
SQL_ENDED_SINCE = """
select r.* from (
  select h.id from system.sync_runs h
   where coalesce(h.kept_at, h.finished_at) >= %(since)s and h.finished_at >= %(since)s
     and (%(sync_type)s::text is null or h.sync_type = %(sync_type)s)
     and (%(agent_id)s::text is null or h.agent_id = %(agent_id)s)
     and (%(state)s::text is null or h.state = %(state)s)) found
 cross join lateral (select * from system.runs x where x.id = found.id offset 0) r
 order by r.finished_at, r.id
"""
# Purpose: delete a batch of the oldest runs. It keeps the last success of a pair, the run that the pair's state names (the next sync asks
# whether it succeeded), the run whose export was applied last (`unchanged` runs name it), and a held export that waits for a decision or
# for its acceptance to be used.  `reached`: where the last batch ended, so that none walks over the
# same entries again. Caller: prune. Locks: the batch's rows, SKIP LOCKED, which nobody else wants, for some ten milliseconds.
SQL_PRUNE = """
with old as materialized (
  select id, sync_type, agent_id, state, coalesce(kept_at, finished_at) as since from system.sync_runs
   where coalesce(kept_at, finished_at) < system.clock() - make_interval(days => %(days)s)
     and coalesce(kept_at, finished_at) >= coalesce(%(reached)s::timestamptz, '-infinity')
   order by coalesce(kept_at, finished_at) limit %(limit)s for update skip locked),
needed as materialized (
  select o.id from old o
   where exists (select from system.sync_state st where st.agent_id = o.agent_id and st.sync_type = o.sync_type
                  and (st.last_run_id = o.id or st.applied_run_id = o.id))
      or exists (select from system.held_exports h where h.run_id = o.id
                  and (h.decision is null or (h.decision = 'accepted' and h.used_by_run is null and h.expires_at > system.clock())))
      or (o.state = 'succeeded' and not exists (
            select from system.sync_runs n where n.agent_id = o.agent_id and n.id > o.id
               and n.sync_type = o.sync_type and n.state = 'succeeded'))),
kept as (
  update system.sync_runs r set kept_at = system.clock() from needed n where r.id = n.id returning 1),
gone as (
  delete from system.sync_runs r using old o where r.id = o.id and o.id not in (select id from needed) returning 1)
select (select count(*) from old) as seen, (select max(since) from old) as reached,
       (select count(*) from kept) as kept, (select count(*) from gone) as gone
"""


def get(db: Database, run_id: int) -> Run:
    """The run with all that is known of it, rows of agent data included. Raises NotFoundError."""
    row = db.execute(SQL_GET, {"id": run_id}, prepare=True).fetchone()
    if row is None:
        raise _not_found(run_id)
    return Run.from_row(row)


def _not_found(run_id: int) -> NotFoundError:
    return NotFoundError(f"there is no run {run_id}", hint="archisync history")


def states_of(db: Database, run_ids: Sequence[int]) -> dict[int, State]:
    """The states of some runs. Raises NotFoundError (the history may have been pruned)."""
    found = {row["id"]: State(row["state"]) for row in db.execute(SQL_STATES_OF, {"ids": list(run_ids)}).fetchall()}
    for run_id in run_ids:
        if run_id not in found:
            raise _not_found(run_id)
    return found


def ended(db: Database, run_ids: Sequence[int]) -> list[Run]:
    """Those of the runs that are over, by their ids. Raises NotFoundError (the history may have been pruned)."""
    params: Params = {"ids": list(run_ids)}
    gone = [row["id"] for row in db.execute(SQL_NOT_QUEUED, params).fetchall()]
    found = [Run.from_row(row) for row in db.execute(SQL_ENDED, {"ids": gone}).fetchall()] if gone else []
    known = {run.run_id for run in found}
    for run_id in gone:
        if run_id not in known:
            raise _not_found(run_id)
    return found


def state_of(db: Database, run_id: int) -> State:
    """Raises NotFoundError (the history may have been pruned)."""
    return states_of(db, [run_id])[run_id]


def running(db: Database, *, limit: int = 100) -> list[Run]:
    """The runs that are being done, those that began first."""
    return [Run.from_row(row) for row in db.execute(SQL_RUNNING, {"limit": limit}).fetchall()]


def newest(
    db: Database,
    *,
    sync_type: str | None = None,
    agent_id: str | None = None,
    state: State | None = None,
    states: Sequence[State] | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 20,
) -> list[Run]:
    """Runs in the reverse order of queueing, newest first; of one state, or of several. `before`: only runs with smaller ids, for the next
    page."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "since": since, "limit": limit}
    params["states"] = [state] if state is not None else list(states or State)
    params["before"] = LARGEST_ID if before is None else before
    if agent_id is not None:
        statement = SQL_NEWEST_OF_AGENT
    else:
        statement, params["after"] = SQL_NEWEST, id_before(db, since) if since is not None else 0
    return [Run.from_row(row) for row in db.execute(statement, params).fetchall()]


def ended_since(
    db: Database,
    since: datetime,
    *,
    sync_type: str | None = None,
    agent_id: str | None = None,
    state: State | None = None,
) -> list[Run]:
    """The runs that ended then or later, in the order in which they ended."""
    params: Params = {"since": since, "sync_type": sync_type, "agent_id": agent_id, "state": state}
    return [Run.from_row(row) for row in db.execute(SQL_ENDED_SINCE, params).fetchall()]


def id_before(db: Database, since: datetime) -> int:
    """The id of a run that was queued shortly before `since`; 0 when there is none."""
    return int(one(db, SQL_ID_BEFORE, {"since": since})["id"])


class Pruned(NamedTuple):
    """One batch: runs looked at, the time it reached, runs kept because they are needed, runs deleted."""

    seen: int
    reached: datetime | None
    kept: int
    gone: int


def prune(db: Database, *, days: int, limit: int, reached: datetime | None = None) -> Pruned:
    """Delete a batch of runs that finished more than `days` ago, from where the last batch ended.

    The batch was the last one when it saw fewer than `limit` runs.
    """
    return Pruned(**one(db, SQL_PRUNE, {"days": days, "limit": limit, "reached": reached}))


def prune_for(db: Database, *, days: int, seconds: float) -> int:
    """Delete batches for that long, at least one; the number of runs deleted. The rest is left for the next call."""
    begun, gone, reached = monotonic(), 0, None
    while True:
        batch = prune(db, days=days, limit=PRUNE_BATCH, reached=reached)
        gone += batch.gone
        reached = batch.reached
        if batch.seen < PRUNE_BATCH or monotonic() - begun >= seconds:
            return gone
