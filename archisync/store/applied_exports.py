"""What is known of a pair's last applied export when the next one is applied."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from archisync.rules.guard import HIGH_WATER_DAYS
from archisync.rules.reasons import Limits
from archisync.rules.synctypes import SyncType
from archisync.store.database import Database, Params, one

# Purpose: the transaction's writes to agent data are those of this run (defaults of its COPY, and no outside change), and from here on it
# sees what others wrote to the pair's rows: what commits later leaves a row for the next sync. With what the guard and the apply have to
# know of the last export, and whether the run is forced, which it may have become on its way. A scheduled run's commit does not wait for
# the disk: a PostgreSQL that crashes in that moment forgets the data together with the run's end, so the run is still in the queue and is
# done again. Unless the export is moved after the commit: what lies among the exports that were read may be deleted by anybody. Caller:
# sync, first statement of the apply's transaction. Locks: rows that nobody else changes.
SQL_BEGIN_APPLY = """
with forgotten as (
  delete from system.outside_changes where sync_type = %(sync_type)s and agent_id = %(agent_id)s returning 1)
select set_config('archisync.run_id', %(run_id)s::text, true), set_config('archisync.agent_id', %(agent_id)s, true),
       set_config('archisync.sync_type', %(sync_type)s, true),
       r.forced, system.clock() as now,
       set_config('synchronous_commit', case when r.forced or %(moves)s then current_setting('synchronous_commit') else 'off' end, true),
       set_config('work_mem', '64MB', true),  -- for a hash of 100,000 rows; with 4 MB it goes to disk and back
       set_config('datestyle', 'ISO, DMY', true),  -- lines that are copied as they are may have dates with the day first
       exists (select from system.held_exports h where h.sync_type = %(sync_type)s and h.agent_id = %(agent_id)s
                and h.ended_at is null) as held,
       s.drop_percent, s.delete_percent, s.rewrite_percent, s.column_percents,
       exists (select from forgotten) as outside_changes, st.known_rows,
       (select max(value::bigint) from jsonb_each_text(st.high_rows)
         where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int) as high_rows,
       a.source ->> 'line_layout' as line_layout, a.source ->> 'digest_layout' as digest_layout,
       coalesce((a.source ->> 'open_ended')::boolean, false) as open_ended,
       coalesce(a.source -> 'columns', '[]') as columns, coalesce(a.source -> 'lost', '{}') as lost,
       (system.clock() at time zone 'UTC')::date as today,
       (a.source ->> 'written_at')::timestamptz as written_at, a.source ->> 'origin' as origin,
       a.source ->> 'sha256' as sha256, a.source ->> 'least_digest' as least_digest,
       coalesce((a.source ->> 'shared')::boolean, false) as shared,
       coalesce((a.source ->> 'first')::boolean, false) as first
  from system.sync_settings s
 cross join (select exists (select from system.queued_runs where id = %(run_id)s and trigger = 'forced') as forced) r
  left join system.sync_state st on st.sync_type = s.sync_type and st.agent_id = %(agent_id)s
  left join system.applied_exports a on a.sync_type = s.sync_type and a.agent_id = %(agent_id)s
 where s.sync_type = %(sync_type)s
"""

# Purpose: the columns that the pair's exports have had. Caller: had. No locks.
SQL_HAD = """
select coalesce(source -> 'columns', '[]')
       || (select coalesce(jsonb_agg(name), '[]') from jsonb_object_keys(source -> 'lost') name) as columns
  from system.applied_exports where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""

_SAME = """
with same as materialized (
  select a.agent_id, coalesce((a.source ->> 'first')::boolean, false) as first
    from system.applied_exports a
    join system.sync_state s on s.agent_id = a.agent_id and s.sync_type = a.sync_type and s.active
   where a.sync_type = %(sync_type)s and a.agent_id <> %(agent_id)s
     and {} and not coalesce((a.source ->> 'shared')::boolean, false))
select agent_id, first from same order by agent_id limit 1
"""
# Purpose: for whom else these very bytes were applied, and whether they were that agent's first; but for agents who are known to share
# them. All of them are asked for before the first is taken: else a planner that expects many reads the agents in order until one has
# them. Caller: agent_with, for an export that changes most rows of its pair. No locks.
SQL_SAME_BYTES = _SAME.format("a.source ->> 'sha256' = %(sha256)s")
# Purpose: whose rows a first export may nearly have. Of an agent with nine of ten rows in common, the row with the least digest is nearly
# always one of them, and one of the first few in this export's order. Caller: agent_with_least, once for each pair. No locks.
SQL_SAME_LEAST = _SAME.format("a.source ->> 'least_digest' = any (%(least)s)")

_OTHER_BYTES = """(
  select true from system.applied_exports a
    join system.sync_state s on s.agent_id = a.agent_id and s.sync_type = a.sync_type and s.active and s.known_rows > 0
   where a.sync_type = %(sync_type)s and a.agent_id <> %(agent_id)s and a.agent_id <> %(other)s
     and a.source ->> 'sha256' {} %(sha256)s
   order by a.source ->> 'sha256' limit 1)"""
# Purpose: whether anybody else has other bytes than these. They are looked for on either side of them, in order, so that an index answers
# where a hundred thousand agents have the same (of an EXISTS no order is kept). Caller: agent_with, which has found one. No locks.
SQL_OTHER_BYTES = f"select coalesce({_OTHER_BYTES.format('<')}, {_OTHER_BYTES.format('>')}, false) as found"

# Purpose: whether anybody else has rows at all. Caller: agent_with_least, which has found one. No locks.
SQL_OTHER_ROWS = """
select exists (
  select from system.sync_state s
   where s.sync_type = %(sync_type)s and s.active and s.known_rows > 0 and s.agent_id <> %(agent_id)s and s.agent_id <> %(other)s) as found
"""


class Other(NamedTuple):
    """Another agent with the same export. `from_start`: it looks as if all agents had shared it from the start: it was that agent's first,
    and nobody has others."""

    agent_id: str
    from_start: bool


# Purpose: the pair has no data any more: no baseline, nothing known of an applied export; a standing acceptance was given for other
# data. Caller: clear, which deletes the rows in the same transaction. Locks: the state rows.
SQL_FORGET = """
with forgotten as (
  update system.sync_state
     set known_rows = null, high_rows = '{}', applied_run_id = null, same_changes_nothing = false, warned_run_id = null,
         data_version = data_version + 1
   where sync_type = %(sync_type)s and (%(agent_id)s::text is null or agent_id = %(agent_id)s)
  returning sync_type, agent_id)
delete from system.applied_exports a using forgotten f where a.agent_id = f.agent_id and a.sync_type = f.sync_type
"""


class Begun(NamedTuple):
    """What the transaction of an apply begins with. `outside_changes`: somebody else has written to the pair's rows since the last apply.
    `known_rows`: rows of the last applied export; `high_rows`: of the largest one in the last seven days; None before the first.
    `line_layout`: how the lines of the last export were read, `digest_layout`: the one that the rows' digests are of; None when they
    were no lines, or nothing is known of it. `open_ended`: the last export's final line had no line end, and was accepted so.
    `columns`: the fields that it had; `lost`: those that earlier ones had, and since which day (UTC) they are gone. `origin`,
    `written_at`, `sha256`: where it was, when the ERP wrote it, and its bytes; `least_digest`: the first of its lines' digests, in order;
    `first`: it was the pair's first one. `shared`: another agent has the same export, from the beginning or because a person said so.
    `held`: a hold of an earlier export has not ended.
    `forced`: somebody waits for this run. `now`: the database's. `limits`: the guard's."""

    outside_changes: bool
    known_rows: int | None
    high_rows: int | None
    line_layout: str | None
    digest_layout: str | None
    open_ended: bool
    columns: list[str]
    lost: dict[str, str]
    today: date
    written_at: datetime | None
    origin: str | None
    sha256: str | None
    least_digest: str | None
    shared: bool
    first: bool
    held: bool
    forced: bool
    now: datetime
    limits: Limits


def begin_apply(db: Database, *, run_id: int, sync_type: str, agent_id: str, moves: bool = False) -> Begun:
    """The first statement of the transaction that applies an export. `moves`: the export is moved after the commit, which then waits for
    the disk. A preview, which is rolled back, has no run: 0."""
    params: Params = {
        "run_id": run_id,
        "moves": moves,
        "sync_type": sync_type,
        "agent_id": agent_id,
        "high_water_days": HIGH_WATER_DAYS,
    }
    row = one(db, SQL_BEGIN_APPLY, params, prepare=True)
    limits = Limits(drop=row["drop_percent"], delete=row["delete_percent"], rewrite=row["rewrite_percent"])
    limits = limits.with_columns(row["column_percents"])
    return Begun(limits=limits, **{name: row[name] for name in Begun._fields if name != "limits"})


def had(db: Database, *, sync_type: str, agent_id: str) -> list[str]:
    """The fields that the pair's exports have had lately."""
    row = db.execute(SQL_HAD, {"sync_type": sync_type, "agent_id": agent_id}).fetchone()
    return list(row["columns"]) if row else []


def agent_with(db: Database, sync_type: str, agent_id: str, sha256: str) -> Other | None:
    """Another active agent whose last applied export of this type has these bytes, and who does not share them as a rule."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "sha256": sha256}
    return _other(db, SQL_SAME_BYTES, SQL_OTHER_BYTES, params)


def agent_with_least(db: Database, sync_type: str, agent_id: str, least: Sequence[str]) -> Other | None:
    """Another active agent whose rows have one of these digests as their least, and who does not share them as a rule."""
    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "least": list(least)}
    return _other(db, SQL_SAME_LEAST, SQL_OTHER_ROWS, params)


def _other(db: Database, same: str, others: str, params: Params) -> Other | None:
    row = db.execute(same, params, prepare=True).fetchone()
    if row is None:
        return None
    found = row["first"] and one(db, others, params | {"other": row["agent_id"]})["found"]
    return Other(row["agent_id"], from_start=row["first"] and not found)


def forget(db: Database, sync_type: SyncType, agent_id: str | None) -> None:
    """What is known of the pair's data, or of every pair's of the type when `agent_id` is None."""
    db.execute(SQL_FORGET, {"sync_type": sync_type.name, "agent_id": agent_id})
