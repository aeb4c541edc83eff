"""`system.audit`: what people did, who did it, from where and why. It is only added to; a trigger refuses anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from archisync.store.database import Database

# Purpose: records of what one person did, on one thing or on many. Caller: record, in the transaction that does it. Locks: none but the
# new rows.
SQL_RECORD = """
insert into system.audit (who, via, action, sync_type, agent_id, run_id, before, after, why)
select %(who)s, %(via)s, %(action)s, d.sync_type, d.agent_id, d.run_id, d.before, d.after, %(why)s
  from unnest(%(types)s::text[], %(agents)s::text[], %(runs)s::bigint[], %(befores)s::jsonb[], %(afters)s::jsonb[])
    as d(sync_type, agent_id, run_id, before, after)
"""
# Purpose: what people did, newest first. Caller: newest. No locks.
SQL_NEWEST = """
select * from system.audit
 where id < %(before)s and (%(agent_id)s::text is null or agent_id = %(agent_id)s)
   and (%(sync_type)s::text is null or sync_type = %(sync_type)s) and (%(run_id)s::bigint is null or run_id = %(run_id)s)
   and (%(since)s::timestamptz is null or at >= %(since)s)
 order by id desc limit %(limit)s
"""
_LARGEST_ID = 2**63 - 1


class Via(StrEnum):
    """From where somebody acts."""

    CLI = "cli"
    API = "api"
    PANEL = "panel"


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who acts: `name` is an account and its host (anna@web1), or the name of a token or of a proxy's user."""

    name: str
    via: Via


@dataclass(frozen=True, kw_only=True, slots=True)
class Deed:
    """On what somebody acted, and what that changed: field names and values. None for a type or an agent means all of them."""

    sync_type: str | None = None
    agent_id: str | None = None
    run_id: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row of `system.audit`."""

    id: int
    at: datetime
    who: str
    via: str
    action: str
    sync_type: str | None
    agent_id: str | None
    run_id: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    why: str | None


def record(db: Database, actor: Actor, action: str, deeds: Sequence[Deed], *, why: str | None) -> None:
    """Record what `actor` did, a row for each thing. Call it in the transaction that does it."""
    params = {
        "who": actor.name,
        "via": actor.via,
        "action": action,
        "why": why,
        "types": [deed.sync_type for deed in deeds],
        "agents": [deed.agent_id for deed in deeds],
        "runs": [deed.run_id for deed in deeds],
        "befores": [_json(deed.before) for deed in deeds],
        "afters": [_json(deed.after) for deed in deeds],
    }
    db.execute(SQL_RECORD, params)


def statement(actor: Actor, action: str, deed: Deed, *, why: str | None) -> sql.Composed:
    """The same for one thing, complete, for statements that somebody else executes."""
    values = {"who": actor.name, "via": actor.via.value, "action": action, "sync_type": deed.sync_type, "agent_id": deed.agent_id,
              "run_id": deed.run_id, "before": _json(deed.before), "after": _json(deed.after), "why": why}  # fmt: skip
    return sql.SQL("insert into system.audit ({})\nvalues ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Literal, values.values()))
    )


def _json(value: dict[str, Any] | None) -> Jsonb | None:
    return Jsonb(value) if value is not None else None


def newest(
    db: Database,
    *,
    sync_type: str | None = None,
    agent_id: str | None = None,
    run_id: int | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Record]:
    """What people did, newest first. `before`: only records with smaller ids, for the next page."""
    params = {
        "sync_type": sync_type,
        "agent_id": agent_id,
        "run_id": run_id,
        "since": since,
        "before": _LARGEST_ID if before is None else before,
        "limit": limit,
    }
    return [Record(**row) for row in db.execute(SQL_NEWEST, params).fetchall()]
