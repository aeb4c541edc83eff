"""What only `doctor` asks the database. Read only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from archisync.rules.synctypes import SHARED_AGENT
from archisync.store.database import Database, one

STUCK_AFTER_S = 15 * 60
"""A run that was ready for that long is not merely waiting for others."""
EXPIRED_AFTER_S = 180
"""Three ticks should have taken the run back by then."""

# Purpose: the version and state of the server, and our role in it. Needs no schema of ours. Caller: server. No locks.
SQL_SERVER = """
select current_setting('server_version_num')::int as version, current_user as role,
       pg_is_in_recovery() as standby
"""
# Purpose: functions that everybody may run with their owner's rights: an older installation, or somebody's grant. Caller: open_functions.
# No locks.
SQL_OPEN_FUNCTIONS = """
select p.oid::regprocedure::text as name from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname in ('system', 'agents', 'shared') and p.prosecdef and has_function_privilege('public', p.oid, 'execute') order by 1
"""
# Purpose: schemas in which everybody may create, of those in which a session of this role finds names unless it says otherwise, and of
# ours. Caller: open_schemas. No locks.
SQL_OPEN_SCHEMAS = """
select n.nspname as name from pg_namespace n join pg_settings s on s.name = 'search_path'
 where (n.nspname in ('system', 'agents', 'shared') or n.nspname = any (string_to_array(translate(s.reset_val, '" ', ''), ',')))
   and has_schema_privilege('public', n.oid, 'create') order by 1
"""
# Purpose: running with an expired lease that no tick has taken back; queued and ready for too long. Caller: stuck_runs. No locks.
SQL_STUCK = """
select r.id as run_id, r.sync_type, r.agent_id, r.state, r.worker
  from system.unfinished_runs r
 where (r.state = 'running' and r.lease_until < system.clock() - make_interval(secs => %(expired_s)s))
    or (r.state = 'queued' and greatest(r.not_before, r.queued_at) < system.clock() - make_interval(secs => %(stuck_s)s)
        and not exists (select from system.claims c where c.agent_id = r.agent_id))
 order by r.id limit %(limit)s
"""
# Purpose: pairs that a tick would schedule, to check that their exports exist. Caller: active_pairs. No locks.
SQL_ACTIVE_PAIRS = """
select st.sync_type, st.agent_id from system.sync_state st join system.sync_settings s using (sync_type)
 where st.active and s.enabled order by st.agent_id, st.sync_type limit %(limit)s
"""
# Purpose: ids to check, since plain SQL may have written any. Caller: whitelisted_ids. No locks.
SQL_WHITELISTED_IDS = "select id::text as id from agents.users where whitelisted order by id limit %(limit)s"
# Purpose: agents on the whitelist that are not scheduled, among the first. Caller: out_of_step. No locks.
SQL_NOT_SCHEDULED = """
select u.id as agent_id from (select id::text as id from agents.users where whitelisted order by id limit %(limit)s) u
 where not exists (select from system.sync_state p where p.agent_id = u.id and p.active)
"""
# Purpose: agents that are scheduled but not on the whitelist, among the first. Caller: out_of_step. No locks.
SQL_STILL_SCHEDULED = """
select p.agent_id from (select distinct agent_id from system.sync_state where active and agent_id <> %(shared)s
                         order by agent_id limit %(limit)s) p
 where not exists (select from agents.users u where u.id::text = p.agent_id and u.whitelisted)
"""


# Purpose: the columns of a table as they are now. Caller: columns_of. No locks.
SQL_COLUMNS_OF = """
select a.attname as name, format_type(a.atttypid, null) as type,
       a.attnotnull and not a.atthasdef and a.attidentity = '' as must_be_filled
  from pg_attribute a where a.attrelid = to_regclass(%(table)s) and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
# Purpose: triggers of ours that somebody has disabled or dropped. Caller: idle_triggers. No locks.
SQL_IDLE_TRIGGERS = """
select w.name as "table", w.trigger, g.oid is not null as exists, w.always
  from (select t.table_name as name, tg.name as trigger, true as always
          from system.sync_types t cross join unnest(array['archisync_changed_outside', 'archisync_truncated']) as tg(name)
        union all
        select 'agents.users', 'archisync_users_' || what, false from unnest(array['inserted', 'updated', 'deleted', 'truncated']) what) w
  left join pg_trigger g on g.tgrelid = to_regclass(w.name) and g.tgname = w.trigger
 where g.oid is null or g.tgenabled not in ('A', case when w.always then 'A'::"char" else 'O' end)
 order by 1, 2
"""
# Purpose: exports that have waited long for a decision. Caller: held_long. No locks.
SQL_HELD_LONG = """
select run_id, sync_type, agent_id from system.held_exports
 where decision is null and held_at < system.clock() - make_interval(hours => %(hours)s) order by held_at limit 100
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """`version` as `server_version_num`: 180001. `standby`: read-only."""

    version: int
    role: str
    standby: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StuckRun:
    """A run that nobody seems to work on."""

    run_id: int
    sync_type: str
    agent_id: str
    state: str
    worker: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldLong:
    """A held export that nobody has decided about."""

    run_id: int
    sync_type: str
    agent_id: str


def held_long(db: Database, *, hours: int) -> list[HeldLong]:
    """Exports that have been held for longer, the oldest first; a hundred at most."""
    return [HeldLong(**row) for row in db.execute(SQL_HELD_LONG, {"hours": hours}).fetchall()]


class Column(NamedTuple):
    """`must_be_filled`: it is NOT NULL and has no default."""

    name: str
    type: str
    must_be_filled: bool


def columns_of(db: Database, table: str) -> list[Column]:
    """The columns that a table has, whoever made or changed them; none when there is no such table."""
    return [Column(**row) for row in db.execute(SQL_COLUMNS_OF, {"table": table}).fetchall()]


def idle_triggers(db: Database) -> list[tuple[str, str]]:
    """Triggers of ours that don't notice every write: "archisync_truncated on agents.orders", with the SQL that enables it, or an empty
    text when it was dropped."""
    found = []
    for row in db.execute(SQL_IDLE_TRIGGERS).fetchall():
        enable = f"alter table {row['table']} enable {'always ' if row['always'] else ''}trigger {row['trigger']}"
        found.append((f"{row['trigger']} on {row['table']}", enable if row["exists"] else ""))
    return found


def server(db: Database) -> Server:
    return Server(**one(db, SQL_SERVER))


def open_functions(db: Database) -> list[str]:
    """Functions of the schema that everybody may run as its owner; there should be none."""
    return [row["name"] for row in db.execute(SQL_OPEN_FUNCTIONS).fetchall()]


def open_schemas(db: Database) -> list[str]:
    """Schemas in which everybody may create functions that other sessions of this role then call; there should be none."""
    return [row["name"] for row in db.execute(SQL_OPEN_SCHEMAS).fetchall()]


def stuck_runs(db: Database, *, limit: int = 1000) -> list[StuckRun]:
    """Running with an expired lease that no tick has taken back, or queued and ready for too long; oldest first."""
    params = {"expired_s": EXPIRED_AFTER_S, "stuck_s": STUCK_AFTER_S, "limit": limit}
    return [StuckRun(**row) for row in db.execute(SQL_STUCK, params).fetchall()]


def active_pairs(db: Database, *, limit: int) -> list[tuple[str, str]]:
    """(sync type, agent id) of pairs that are scheduled."""
    return [(row["sync_type"], row["agent_id"]) for row in db.execute(SQL_ACTIVE_PAIRS, {"limit": limit}).fetchall()]


def whitelisted_ids(db: Database, *, limit: int) -> list[str]:
    """The first `limit` ids on the whitelist."""
    return [row["id"] for row in db.execute(SQL_WHITELISTED_IDS, {"limit": limit}).fetchall()]


def out_of_step(db: Database, *, limit: int) -> tuple[list[str], list[str]]:
    """Agents on the whitelist that are not scheduled, and scheduled ones not on it; among the first `limit` of each."""
    params: dict[str, object] = {"limit": limit, "shared": SHARED_AGENT}
    missing, left = (db.execute(s, params).fetchall() for s in (SQL_NOT_SCHEDULED, SQL_STILL_SCHEDULED))
    return [row["agent_id"] for row in missing], [row["agent_id"] for row in left]
