"""`agents.users`: the registry of agents. The table may be the company's own, with columns that archisync does not know.

archisync relies on `id` and `whitelisted` only, and shows a name when the table has one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import sql

from archisync.base.errors import ConfigurationError, NotFoundError, SchemaError, UsageError
from archisync.store.database import Database, Params, one

_AGENT = """u.id::text as agent_id,
       coalesce(to_jsonb(u) ->> 'full_name', to_jsonb(u) ->> 'name', to_jsonb(u) ->> 'username') as name,
       u.whitelisted is true as whitelisted,
       (select nullif(min(coalesce(s.last_success_at, '-infinity')), '-infinity')
          from system.sync_state s where s.agent_id = u.id::text) as oldest_success_at,
       exists (select from system.pauses_of(null, u.id::text) x where x.agent_id = u.id::text) as paused"""
# Purpose: the agents, each with the least fresh of its types. to_jsonb: the table may lack a column for names. Caller: agents, agent.
# No locks.
SQL_LIST = f"""
select {_AGENT} from agents.users u
where %(id)s::text is null or u.id::text = %(id)s
order by u.id
"""  # noqa: S608 - the part is a constant of this module
# Purpose: these agents, in the order of `ids`. One lookup for each: see history.SQL_ENDED. Caller: page. No locks.
SQL_THESE = f"""
select {_AGENT} from unnest(%(ids)s::text[]) with ordinality as w(id, place)
 cross join lateral (select * from agents.users x where x.id::text = w.id offset 0) u
 order by w.place
"""  # noqa: S608
# Purpose: ids that fit, in a walk over all ids that begins at `part`, where those are that begin with it, and goes on at the first id of
# all (`wrapped`). It ends after `steps` steps of `step` ids, so it costs the same however many agents there are. A step reads one range of
# the index, and is so short that no statistics, old or missing, make a sort of the table look cheaper; so the first id, which no step
# reads, is looked up. `caseless`: a piece of the part that has no letters, which is looked for first. `reached`: the last id that was
# looked at (never the empty text: the step behind the last id is followed by one more); `over`: it has come round. Caller: walk. No locks.
SQL_WALK = """
with recursive walk as (
  select 0 as n, coalesce(%(after)s::text, %(part)s::text, '') as reached,
         %(part)s::text is null or coalesce(%(after)s::text < %(part)s::text, false) as wrapped, false as over,
         array(select u.id::text from agents.users u
                where %(after)s::text is null and u.id::text = coalesce(%(part)s::text, '')
                  and (u.whitelisted is true = %(whitelisted)s::boolean) is not false) as ids
  union all
  select w.n + 1, case when s.ends and not w.wrapped then '' else s.last end, w.wrapped or s.ends, w.wrapped and s.ends, w.ids || s.ids
    from walk w cross join lateral (
      select max(x.id) as last, (count(*) < %(step)s or (w.wrapped and max(x.id) >= %(part)s::text)) is true as ends,
             coalesce(array_agg(x.id order by x.id) filter (
               where (not w.wrapped or x.id < %(part)s::text) is not false and (strpos(x.id, %(caseless)s::text) > 0) is not false
                 and (strpos(lower(x.id), lower(%(part)s::text)) > 0) is not false
                 and (x.whitelisted = %(whitelisted)s::boolean) is not false), '{}') as ids
        from (select u.id::text as id, u.whitelisted is true as whitelisted from agents.users u
               where u.id::text > w.reached order by u.id::text limit %(step)s) x) s
   where not w.over and (w.reached = '' or (cardinality(w.ids) < %(limit)s and w.n < %(steps)s)))
select reached, over, ids from walk order by n desc limit 1
"""
# Purpose: put agents on the whitelist, or take them off it; whether each was on it. Caller: set_whitelisted. Locks: the rows in the order
# of their ids, and those that the triggers change.
SQL_WHITELIST = """
with before as materialized (
  select u.id, u.whitelisted is true as was from agents.users u where u.id::text = any (%(ids)s) order by u.id for update)
update agents.users u set whitelisted = %(whitelisted)s from before b where u.id = b.id returning u.id::text as id, b.was
"""
# Purpose: an agent leaves the registry. Caller: remove. Locks: the row, and those that the triggers change.
SQL_REMOVE = "delete from agents.users where id::text = %(id)s"
# Purpose: how many agents are on the whitelist. Caller: count_whitelisted. No locks.
SQL_COUNT = "select count(*) as n from (select from agents.users where whitelisted limit %(limit)s + 1) x"
# Purpose: the columns that the table has. Caller: add. No locks.
SQL_COLUMNS = """
select column_name from information_schema.columns where table_schema = 'agents' and table_name = 'users'
"""
# Purpose: agent ids that a shell may offer. Caller: ids_beginning_with. No locks.
SQL_IDS_BEGINNING_WITH = """
select id::text as id from agents.users where starts_with(id::text, %(prefix)s) order by id limit %(limit)s
"""
# Purpose: make system.sync_state agree with agents.users where something has written past the triggers (replication, say).
# Caller: complete. Reads both tables from end to end. Locks: the rows that differ.
SQL_COMPLETE = """
select system.activate_agents(array(
         select u.id::text from agents.users u
          where u.whitelisted and not exists (select from system.sync_state p where p.agent_id = u.id::text and p.active))),
       system.deactivate_agents(array(
         select distinct p.agent_id from system.sync_state p join system.sync_types t using (sync_type)
          where p.active and t.scope = 'agent'
            and not exists (select from agents.users u where u.id::text = p.agent_id and u.whitelisted)))
"""

# Purpose: what agents.users is, and the types of the columns that we rely on. Caller: check_registry. No locks.
SQL_REGISTRY = """
select c.relkind::text as kind,
       (select format_type(a.atttypid, null) from pg_attribute a
         where a.attrelid = c.oid and a.attname = 'id' and not a.attisdropped) as id_type,
       (select format_type(a.atttypid, null) from pg_attribute a
         where a.attrelid = c.oid and a.attname = 'whitelisted' and not a.attisdropped) as whitelisted_type
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'agents' and c.relname = 'users'
"""
_ID_TYPES = ("text", "character varying", "smallint", "integer", "bigint", "uuid")
_RELATION = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence"}

LOOKED_THROUGH = 100_000
"""Ids that one search looks through: some 15 ms."""
STEP = 1_000
_LETTER = re.compile("[A-Za-z\x80-\U0010ffff]")
"""What another case may have, at least."""
LOOKED_AT = 1000
"""Agents compared with a mistyped id: a bound on the time that it takes in a large registry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """An agent. `oldest_success_at` is that of its least fresh type; None when one of its types never succeeded."""

    agent_id: str
    name: str | None
    whitelisted: bool
    paused: bool
    oldest_success_at: datetime | None


class Page(NamedTuple):
    """Some agents. `next`: give it as `after` for the next page, even when this one has fewer agents than were asked for; None when all
    ids have been looked through."""

    agents: list[Agent]
    next: str | None


class Walk(NamedTuple):
    """`over`: all ids that there are have been looked through; else those up to `reached`."""

    reached: str | None
    over: bool
    ids: list[str]


def ids_beginning_with(db: Database, prefix: str, *, limit: int) -> list[str]:
    """At most `limit` agent ids, in order; for completion in a shell."""
    return [row["id"] for row in db.execute(SQL_IDS_BEGINNING_WITH, {"prefix": prefix, "limit": limit}).fetchall()]


def agents(db: Database, agent_id: str | None = None) -> list[Agent]:
    """All agents, in order of their ids, or the one with that id."""
    return [Agent(**row) for row in db.execute(SQL_LIST, {"id": agent_id}).fetchall()]


def page(
    db: Database, *, limit: int, after: str | None = None, part: str | None = None, whitelisted: bool | None = None
) -> Page:
    """Agents in order of their ids. `part`: only those whose ids contain it, in any case of letters, and first those that begin with it;
    `whitelisted`: only those on the whitelist, or only the others; `after`: the `next` of the page before."""
    found = walk(db, limit=limit + 1, after=after, part=part, whitelisted=whitelisted)
    following = None if found.over else found.reached
    if len(found.ids) > limit:
        following = found.ids[limit - 1]
    shown = db.execute(SQL_THESE, {"ids": found.ids[:limit]}).fetchall() if found.ids else []
    return Page([Agent(**row) for row in shown], following)


def walk(
    db: Database, *, limit: int, after: str | None = None, part: str | None = None, whitelisted: bool | None = None
) -> Walk:
    """The ids of such agents: at least `limit` of them, unless it looked through LOOKED_THROUGH ids before, or all."""
    is_any = part is None and whitelisted is None
    step = limit if is_any else STEP
    params: Params = {"after": after, "part": part, "whitelisted": whitelisted, "limit": limit, "step": step}
    params["caseless"] = None if part is None else max(_LETTER.split(part), key=len)
    return Walk(**one(db, SQL_WALK, params | {"steps": LOOKED_THROUGH // STEP}))


def agent(db: Database, agent_id: str) -> Agent:
    """Raises NotFoundError."""
    found = agents(db, agent_id)
    if not found:
        raise _unknown(db, agent_id)
    return found[0]


def alike(db: Database, agent_id: str) -> str | None:
    """The agent whose id was probably meant; None when no id is similar.

    If there are more than LOOKED_AT agents, only those that begin with the same three letters are compared, or with the same one.
    """
    from difflib import get_close_matches

    known: list[str] = []
    for length in (0, 3, 1):
        known = ids_beginning_with(db, agent_id[:length], limit=LOOKED_AT + 1)
        if 0 < len(known) <= LOOKED_AT:
            break
    close = get_close_matches(agent_id, known, n=1)
    return close[0] if close else None


def did_you_mean(db: Database, agent_id: str) -> str:
    """The beginning of a hint, such as "did you mean anna? "; empty when no id is similar."""
    close = alike(db, agent_id)
    return f"did you mean {shlex.quote(close)}? " if close else ""


def set_whitelisted(db: Database, agent_ids: Sequence[str], whitelisted: bool) -> dict[str, bool]:
    """Put the agents on the whitelist, or take them off it; triggers update their pairs, runs and holds. Whether each was on it before.
    Raises NotFoundError for the first one that there is not, and then changes nothing."""
    with db.transaction():
        rows = db.execute(SQL_WHITELIST, {"ids": list(agent_ids), "whitelisted": whitelisted}).fetchall()
        before = {row["id"]: row["was"] for row in rows}
        for agent_id in agent_ids:
            if agent_id not in before:
                raise NotFoundError(
                    f"there is no agent {ascii(agent_id)[:60]}",
                    hint=f"{did_you_mean(db, agent_id)}archisync agent add {shlex.quote(agent_id)}   (or: archisync agent list)",
                )
    return before


def remove(db: Database, agent_id: str) -> None:
    """Take the agent out of the registry; triggers update its pairs, runs and holds. Raises NotFoundError, and UsageError when tables of
    the company refer to it."""
    try:
        removed = db.execute(SQL_REMOVE, {"id": agent_id}).rowcount
    except psycopg.errors.ForeignKeyViolation as exc:
        raise UsageError(
            f"rows of {exc.diag.schema_name}.{exc.diag.table_name} refer to the agent {agent_id}",
            hint=f"archisync agent deny {shlex.quote(agent_id)}   (it stays registered, and is not synced)",
        ) from None
    if removed == 0:
        raise _unknown(db, agent_id)


def _unknown(db: Database, agent_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no agent {ascii(agent_id)[:60]}", hint=f"{did_you_mean(db, agent_id)}archisync agent list"
    )


def check_registry(db: Database) -> None:
    """Raise SchemaError unless agents.users, if it exists, is a table that archisync can use."""
    row = db.execute(SQL_REGISTRY).fetchone()
    if row is None:
        return
    wrong = None
    if row["kind"] not in ("r", "p"):
        wrong = f"agents.users is {_RELATION.get(row['kind'], 'no table')}, and its triggers need a table"
    elif row["id_type"] is None:
        wrong = "agents.users has no column id"
    elif row["id_type"] not in _ID_TYPES:
        wrong = f"agents.users.id is of type {row['id_type']}; ids are {', '.join(_ID_TYPES)}"
    elif row["whitelisted_type"] not in (None, "boolean"):
        wrong = f"agents.users.whitelisted is of type {row['whitelisted_type']}, not boolean"
    if wrong:
        hint = (
            "rename it, and archisync makes its own table; or give it a column id, and the column whitelisted boolean"
        )
        raise SchemaError(wrong, hint=hint)


def complete(db: Database) -> None:
    """Schedule the agents on the whitelist and no others, where something has written past the triggers on agents.users."""
    db.execute(SQL_COMPLETE)


def add(db: Database, agent_id: str, *, name: str | None, whitelisted: bool) -> bool:
    """Register an agent; False when the id exists already, and then nothing changes.

    Raises ConfigurationError when the company's table has no column for a name, or requires others.
    """
    columns = {row["column_name"] for row in db.execute(SQL_COLUMNS).fetchall()}
    values: dict[str, object] = {"id": agent_id, "whitelisted": whitelisted}
    if name is not None:
        column = next((c for c in ("full_name", "name", "username") if c in columns), None)
        if column is None:
            raise ConfigurationError("agents.users has no column for a name", hint="leave out --name")
        values[column] = name
    statement = sql.SQL("insert into agents.users ({}) values ({}) on conflict (id) do nothing").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Placeholder, values))
    )
    try:
        return db.execute(statement, values).rowcount > 0
    except psycopg.errors.NotNullViolation as exc:
        raise ConfigurationError(
            f"agents.users requires a column that archisync doesn't know: {exc.diag.column_name}",
            hint="add the agent with SQL, then: archisync agent allow ID",
        ) from None
    except (psycopg.errors.InvalidTextRepresentation, psycopg.errors.NumericValueOutOfRange) as exc:
        raise UsageError(
            f"the ids of agents.users are numbers or uuids, and {ascii(agent_id)[:60]} is none: {exc.diag.message_primary}",
            hint="archisync agent list   (shows those that there are)",
        ) from None


def count_whitelisted(db: Database, *, limit: int) -> int:
    """Agents on the whitelist; `limit` + 1 means more than `limit`."""
    return int(one(db, SQL_COUNT, {"limit": limit})["n"])
