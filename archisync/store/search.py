"""Runs by anything that a person may know of them: a part of the agent's id and the reason too, for which there is no index.

A search looks through a bounded number of runs, the newest first, and says where it ended. So it costs the same however many runs there
are, and a page may have fewer runs than were asked for, though there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES
from archisync.store import agents
from archisync.store.database import Database, Params
from archisync.store.history import BEFORE_SPAN, LARGEST_ID, id_before
from archisync.store.runs import Run, State

LOOKED_THROUGH = 6_000
"""Runs of each state that one page looks through, over all types; most have succeeded. Some tens of milliseconds."""
MOST_AGENTS = 50
"""If no more agents than these have the part in their ids, their own runs are looked through, however old."""

# `looked`: runs from the end of each range of an index, with the range (`source`) that they are of. A range that has more than was looked
# through hides what is older than its last run: `horizon` is the newest of those, and behind it nothing is shown.
_FOUND = """
horizon as materialized (
  select h.id, (select l.queued_at from looked l where l.id = h.id limit 1) as looked_to
    from (select coalesce(max(x.lowest), 0) as id
            from (select min(l.id) as lowest from looked l group by l.source having count(*) >= %(look)s) x) h),
found as (
  select l.id from looked l cross join horizon z
   where l.id >= z.id and l.state = any (%(states)s::text[])
     and (%(sync_type)s::text is null or l.sync_type = %(sync_type)s)
     and (%(since)s::timestamptz is null or l.queued_at >= %(since)s)
     and (%(part)s::text is null or strpos(lower(l.agent_id), lower(%(part)s)) > 0)
     and (%(reason)s::text is null or l.reason = %(reason)s)
   order by l.id desc limit %(limit)s)
select z.id as horizon, z.looked_to, r.* from horizon z
  left join (select x.* from found cross join lateral (select * from system.runs w where w.id = found.id offset 0) x) r on true
 order by r.id desc nulls last
"""
_OF_TYPE_AND_STATE = """system.sync_runs f
      where (f.sync_type, f.state, f.id) < (t.sync_type, w.state, %(before)s::bigint)
        and (f.sync_type, f.state, f.id) > (t.sync_type, w.state, {after})
      order by f.sync_type desc, f.state desc, f.id desc"""
# Purpose: the newest runs of all agents that fit. The index alone says where the ranges of finished runs end, and what is older than the
# newest end (`floor`) is not read: the last thousand failed runs lie in a thousand pages. Caller: search. No locks. Why rows are compared
# and sorted as they are: see history.SQL_NEWEST.
SQL_OF_ALL = f"""
with floor as materialized (
  select coalesce(max(e.id) - 1, %(after)s::bigint) as id from system.sync_types t
   cross join unnest(%(states)s::text[]) as w(state)
   cross join lateral (
     select f.id from {_OF_TYPE_AND_STATE.format(after="%(after)s::bigint")} offset %(look)s - 1 limit 1) e
   where %(sync_type)s::text is null or t.sync_type = %(sync_type)s),
looked as materialized (
  select h.* from system.sync_types t
   cross join unnest(%(states)s::text[]) as w(state)
   cross join lateral (
     select f.id, f.sync_type, f.state, f.agent_id, f.reason, f.queued_at, f.sync_type || ' ' || f.state as source
       from {_OF_TYPE_AND_STATE.format(after="(select z.id from floor z)")} limit %(look)s) h
   where %(sync_type)s::text is null or t.sync_type = %(sync_type)s
  union all
  select q.id, q.sync_type, 'queued', q.agent_id, q.reason, q.queued_at, t.sync_type || ' queued' from system.sync_types t
   cross join lateral (
     select p.unfinished_run_id as id from system.sync_state p
      where p.sync_type = t.sync_type and p.unfinished_run_id < %(before)s
        and not exists (select from system.claims c where c.agent_id = p.agent_id and c.run_id = p.unfinished_run_id)
      order by p.unfinished_run_id desc limit %(look)s) p
    join system.queued_runs q on q.id = p.id
   where 'queued' = any (%(states)s::text[]) and (%(sync_type)s::text is null or t.sync_type = %(sync_type)s)
  union all
  (select q.id, q.sync_type, 'running', q.agent_id, q.reason, q.queued_at, 'running' from system.claims c
    join system.queued_runs q on q.id = c.run_id
   where 'running' = any (%(states)s::text[]) and q.id < %(before)s order by q.id desc limit %(look)s)),
{_FOUND}"""  # noqa: S608 - the parts are constants of this module
# Purpose: the newest runs of some agents that fit. Caller: search. No locks.
SQL_OF_AGENTS = f"""
with looked as materialized (
  select h.* from unnest(%(agent_ids)s::text[]) as a(id)
   cross join lateral (
     select f.id, f.sync_type, f.state, f.agent_id, f.reason, f.queued_at, f.agent_id as source from system.sync_runs f
      where f.agent_id = a.id and f.id < %(before)s and f.id > %(after)s order by f.id desc limit %(look)s) h
  union all
  select q.id, q.sync_type, q.state, q.agent_id, q.reason, q.queued_at, ' unfinished' from system.unfinished_runs q
   where q.agent_id = any (%(agent_ids)s::text[]) and q.id < %(before)s),
{_FOUND}"""  # noqa: S608


class Page(NamedTuple):
    """Runs, newest first. `next`: give it as `before` for the next page; None when there is nothing more. `looked_to`: the page ended
    before it was full, and only runs queued since then have been looked through. `only_beginning`: there are too many agents to look into
    every id, and these are the runs of those whose ids begin with the part."""

    runs: list[Run]
    next: int | None
    looked_to: datetime | None = None
    only_beginning: bool = False


def search(
    db: Database,
    *,
    sync_type: str | None = None,
    agent_id: str | None = None,
    agent_part: str | None = None,
    states: Sequence[State] = (),
    reason: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Page:
    """Runs that fit everything that is given, newest first; `agent_part` is a part of the agent's id, in any case of letters."""
    wanted = [state.value for state in states or State]
    params: Params = {"sync_type": sync_type, "part": agent_part, "reason": reason, "since": since, "states": wanted}
    params["before"] = LARGEST_ID if before is None else before
    params["after"] = id_before(db, since) if since is not None else 0
    params["limit"] = limit + 1
    ids, only_beginning = ([agent_id], False) if agent_id is not None else _agents_with(db, agent_part)
    if ids:
        params |= {"agent_ids": ids, "look": max(limit + 1, LOOKED_THROUGH // len(ids))}
        return _page(db, SQL_OF_AGENTS, params)._replace(only_beginning=only_beginning)
    is_exact = agent_part is None and reason is None
    of_each_type = LOOKED_THROUGH // (1 if sync_type else len(SYNC_TYPES))
    params["look"] = limit + 1 + (since is not None) * BEFORE_SPAN if is_exact else max(limit + 1, of_each_type)
    return _page(db, SQL_OF_ALL, params)


def _agents_with(db: Database, part: str | None) -> tuple[list[str], bool]:
    """The agents whose ids contain the text; none when they are too many, or when nobody on the register is meant. And whether they are
    only those whose ids begin with it."""
    if part is None:
        return [], False
    found = agents.walk(db, part=part, limit=MOST_AGENTS + 1)
    ids = [*found.ids, *([SHARED_AGENT] if part.lower() in SHARED_AGENT else [])]
    if len(found.ids) > MOST_AGENTS or found.over:
        return (ids if len(ids) <= MOST_AGENTS else []), False
    return [agent_id for agent_id in ids if agent_id.startswith(part)], True


def _page(db: Database, statement: str, params: Params) -> Page:
    rows = db.execute(statement, params).fetchall()
    horizon = rows[0]["horizon"]
    found = [Run.from_row(row) for row in rows if row["id"] is not None]
    limit = params["limit"] - 1
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].run_id)
    return Page(found, horizon or None, rows[0]["looked_to"])
