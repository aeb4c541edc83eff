"""`system.sync_types`: the types that there are, and how the company's own ones are declared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import psycopg

from archisync.rules.synctypes import SYNC_TYPES, OwnType, SyncType
from archisync.store import typetables
from archisync.store.database import Database

# Purpose: the company's own types, and the declarations of those that the caller does not know yet. Caller: load. No locks.
SQL_OWN = """
select sync_type, level, sha256, case when sha256 <> all (%(known)s::text[]) then declaration::text end as declaration
  from system.sync_types where declaration is not null
"""
# Purpose: every type with what is known of its declaration. Caller: listed. No locks.
SQL_LIST = """
select t.sync_type, t.scope, t.level, t.table_name, t.declaration is not null as own, t.sha256, t.declared_by, t.declared_at,
       s.interval_minutes, s.enabled
  from system.sync_types t left join system.sync_settings s using (sync_type)
 order by t.level, t.sync_type
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A row of the registry. `own`: the company declared it; else it comes with archisync."""

    sync_type: str
    scope: str
    level: int
    table_name: str
    own: bool
    sha256: str | None
    declared_by: str | None
    declared_at: datetime
    interval_minutes: int | None
    enabled: bool | None


def load(db: Database) -> None:
    """Let this process know the company's own types as they are now. A database without the table has none."""
    known = {own.sha256: own.declaration for own in SYNC_TYPES.own.values()}
    try:
        rows = db.execute(SQL_OWN, {"known": list(known)}, prepare=True).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InsufficientPrivilege):
        return
    SYNC_TYPES.set_own(
        {
            row["sync_type"]: OwnType(
                name=row["sync_type"],
                level=row["level"],
                sha256=row["sha256"],
                declaration=row["declaration"] or known[row["sha256"]],
            )
            for row in rows
        }
    )


def load_if_changed(db: Database, declared: Iterable[tuple[str, str | None]]) -> None:
    """`load`, if this process does not know one of these types (name, SHA-256 of its declaration) as it is declared now."""
    own = SYNC_TYPES.own
    if any(sha256 and (name not in own or own[name].sha256 != sha256) for name, sha256 in declared):
        load(db)


def listed(db: Database) -> list[Listed]:
    """Every type, in the order in which a tick queues them."""
    return [Listed(**row) for row in db.execute(SQL_LIST).fetchall()]


def built_in_rows() -> str:
    """The rows of the types that come with archisync, as JSON for the migration."""
    rows = [_row(SYNC_TYPES[name]) for name in SYNC_TYPES.built_in]
    return json.dumps(rows)


def _row(type_: SyncType) -> dict[str, object]:
    return {
        "sync_type": type_.name,
        "scope": type_.scope,
        "level": type_.level,
        "table_name": type_.table,
        "default_minutes": type_.default_interval_minutes,
    }


def create_built_in_tables(db: Database) -> None:
    """The tables of the types that come with archisync."""
    for name in SYNC_TYPES.built_in:
        for statement in typetables.create(SYNC_TYPES[name]):
            db.execute(statement)
