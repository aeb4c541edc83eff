"""`system.sync_settings`: how often each type runs, and the guard's thresholds. `system.pauses`: what must not run for now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from archisync.base.errors import UsageError
from archisync.rules.config import Config
from archisync.rules.reasons import Limits
from archisync.rules.synctypes import MAX_INTERVAL_MINUTES, MIN_INTERVAL_MINUTES, SYNC_TYPES, SyncType
from archisync.store.database import Database

# Purpose: a row for a type that has none; existing rows win over the environment. Caller: seed. Locks: none but the new row.
SQL_SEED = """
insert into system.sync_settings (sync_type, interval_minutes) values (%(sync_type)s, %(minutes)s)
on conflict (sync_type) do nothing
"""
# Purpose: all settings. Caller: all_settings. No locks.
SQL_LIST = "select sync_type, interval_minutes, enabled, updated_at from system.sync_settings"
# Purpose: the guard's thresholds of every type. Caller: all_limits. No locks.
SQL_LIMITS = (
    "select sync_type, drop_percent, delete_percent, rewrite_percent, column_percents from system.sync_settings"
)
# Purpose: change one type's thresholds. Caller: set_limits. Locks: that row.
SQL_SET_LIMITS = """
update system.sync_settings
   set drop_percent = %(drop)s, delete_percent = %(delete)s, rewrite_percent = %(rewrite)s,
       column_percents = %(columns)s, updated_at = system.clock()
 where sync_type = %(sync_type)s
"""
# Purpose: change one type's interval. Caller: set_interval. Locks: that row.
SQL_SET_INTERVAL = """
update system.sync_settings set interval_minutes = %(minutes)s, updated_at = system.clock()
where sync_type = %(sync_type)s
"""
# Purpose: enable or disable one type. Caller: set_enabled. Locks: that row.
SQL_SET_ENABLED = """
update system.sync_settings set enabled = %(enabled)s, updated_at = system.clock() where sync_type = %(sync_type)s
"""
# Purpose: pause a scope; a second pause of it replaces the first. Caller: pause. Locks: that row.
SQL_PAUSE = """
insert into system.pauses (sync_type, agent_id, until, reason, paused_by)
values (%(sync_type)s, %(agent_id)s, %(until)s, %(reason)s, %(paused_by)s)
on conflict (sync_type, agent_id) do update
   set until = excluded.until, reason = excluded.reason, paused_by = excluded.paused_by, paused_at = system.clock()
"""
_STANDING = "(until is null or until > system.clock())"
# Purpose: lift the pause of exactly that scope. Caller: resume. Locks: that row.
SQL_RESUME = f"""
delete from system.pauses
where sync_type is not distinct from %(sync_type)s and agent_id is not distinct from %(agent_id)s
  and {_STANDING}
"""  # noqa: S608 - the part is a constant of this module
# Purpose: forget pauses that are over. Caller: forget_pauses. Locks: those rows.
SQL_FORGET_PAUSES = "delete from system.pauses where until <= system.clock()"
# Purpose: the pauses in force, the widest first. Caller: pauses. No locks.
SQL_PAUSES = f"""
select id, sync_type, agent_id, until, reason, paused_by, paused_at from system.pauses
where {_STANDING} order by sync_type nulls first, agent_id nulls first
"""  # noqa: S608
# Purpose: a page of them, the newest first. Caller: newest_pauses. No locks.
SQL_NEWEST_PAUSES = f"""
select id, sync_type, agent_id, until, reason, paused_by, paused_at from system.pauses
where {_STANDING} and id < %(before)s order by id desc limit %(limit)s
"""  # noqa: S608
# Purpose: nobody else changes a type's settings before the transaction ends. Caller: lock. Locks: that row.
SQL_LOCK = "select from system.sync_settings where sync_type = %(sync_type)s for update"
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeSettings:
    """How often a type runs, and whether at all."""

    sync_type: str
    interval_minutes: int
    enabled: bool
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """A pause in force. Of everything when `sync_type` and `agent_id` are None."""

    id: int
    sync_type: str | None
    agent_id: str | None
    until: datetime | None
    reason: str | None
    paused_by: str | None
    paused_at: datetime


def check_interval(text: str) -> int:
    """Minutes from what a person typed. Raises UsageError, which names the allowed range."""
    allowed = f"allowed: a whole number of minutes from {MIN_INTERVAL_MINUTES} to {MAX_INTERVAL_MINUTES}"
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"the interval {ascii(text)[:40]} is not a whole number", hint=allowed)
    if len(text) > 6 or not MIN_INTERVAL_MINUTES <= int(text) <= MAX_INTERVAL_MINUTES:
        raise UsageError(f"the interval {text[:40]} is out of range", hint=allowed)
    return int(text)


def seed(db: Database, config: Config) -> None:
    """Add a row for each type that has none, with the interval that the environment names or the default."""
    for sync_type in map(SYNC_TYPES.__getitem__, SYNC_TYPES.built_in):
        db.execute(SQL_SEED, {"sync_type": sync_type.name, "minutes": config.seed_interval(sync_type)})


def all_settings(db: Database) -> list[TypeSettings]:
    """One for each type, in the registry's order."""
    rows = {row["sync_type"]: TypeSettings(**row) for row in db.execute(SQL_LIST).fetchall()}
    return [rows[name] for name in SYNC_TYPES if name in rows]


def set_interval(db: Database, sync_type: SyncType, minutes: int) -> None:
    db.execute(SQL_SET_INTERVAL, {"sync_type": sync_type.name, "minutes": minutes})


def set_enabled(db: Database, sync_type: SyncType, enabled: bool) -> None:
    db.execute(SQL_SET_ENABLED, {"sync_type": sync_type.name, "enabled": enabled})


def check_percent(text: str) -> int:
    """A share from what a person typed. Raises UsageError, which names the allowed range."""
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 100):
        raise UsageError(
            f"the share {ascii(text)[:40]} is not a percentage", hint="allowed: a whole number from 0 to 100"
        )
    return int(text)


def all_limits(db: Database) -> dict[str, Limits]:
    """The guard's thresholds by type, in the registry's order."""
    rows = {row["sync_type"]: row for row in db.execute(SQL_LIMITS).fetchall()}
    return {
        name: Limits(
            drop=row["drop_percent"], delete=row["delete_percent"], rewrite=row["rewrite_percent"]
        ).with_columns(row["column_percents"])
        for name in SYNC_TYPES
        if (row := rows.get(name))
    }


def set_limits(db: Database, sync_type: SyncType, limits: Limits) -> None:
    db.execute(
        SQL_SET_LIMITS,
        {"sync_type": sync_type.name, **limits.of_rows, "columns": Jsonb(limits.of_columns)},
    )


def pause(
    db: Database, *, sync_type: str | None, agent_id: str | None, until: datetime | None, reason: str | None, by: str
) -> None:
    """Pause everything (both None), a type, an agent, or one pair; until somebody resumes when `until` is None."""
    db.execute(
        SQL_PAUSE,
        {"sync_type": sync_type, "agent_id": agent_id, "until": until, "reason": reason, "paused_by": by},
    )


def resume(db: Database, *, sync_type: str | None, agent_id: str | None) -> bool:
    """Lift the pause of exactly that scope; False when there was none."""
    return db.execute(SQL_RESUME, {"sync_type": sync_type, "agent_id": agent_id}).rowcount > 0


def forget_pauses(db: Database) -> int:
    """Delete the pauses that are over; their number."""
    return db.execute(SQL_FORGET_PAUSES).rowcount


def pauses(db: Database) -> list[Pause]:
    """The pauses in force, the widest first."""
    return [Pause(**row) for row in db.execute(SQL_PAUSES).fetchall()]


def newest_pauses(db: Database, *, limit: int, before: int | None = None) -> list[Pause]:
    """Pauses in force, the newest first. `before`: only those with smaller ids, for the next page."""
    params = {"before": _LARGEST_ID if before is None else before, "limit": limit}
    return [Pause(**row) for row in db.execute(SQL_NEWEST_PAUSES, params).fetchall()]


def lock(db: Database, sync_type: SyncType) -> None:
    """Keep others from changing the type's settings until the transaction ends: for whoever looks first, and then changes."""
    db.execute(SQL_LOCK, {"sync_type": sync_type.name})
