"""What is known of each pair's last applied export: the guard's baseline, and what tells that the same export would change nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from archisync.rules.synctypes import SyncType
from archisync.store.claims import Claim
from archisync.store.database import Database, Params, one

# Purpose: the guard's baseline. Caller: baseline, in the apply's transaction. No locks.
SQL_BASELINE = """
select known_rows, (select max(value::bigint) from jsonb_each_text(high_rows)
                     where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int) as high
  from system.sync_state where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: what is known of the applied export, if the same export again would change nothing: the pair's last run succeeded, marked no row
# absent (a second export would delete or restore it), quarantined none (which is worth reporting again); nobody else has written to the
# pair's rows since; and no hold is open, which a comparison would have to clear. Caller: source. No locks.
SQL_SOURCE = """
select st.applied_source from system.sync_state st join system.sync_runs r on r.id = st.last_run_id
 where st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
   and r.state = 'succeeded' and coalesce(r.rows_absent, 0) = 0 and coalesce(r.rows_quarantined, 0) = 0
   and not exists (select from system.outside_changes o where o.sync_type = st.sync_type and o.agent_id = st.agent_id)
   and not exists (select from system.held_exports h where h.sync_type = st.sync_type and h.agent_id = st.agent_id
                    and h.decision is null)
"""
# Purpose: forget the changes that others made to the pair's rows: from here on the apply sees them. What commits later leaves a row for
# the next sync. Caller: begin_apply, as the first statement of the apply's transaction. Locks: those rows, which nobody else changes.
SQL_FORGET_OUTSIDE_CHANGES = """
delete from system.outside_changes where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: mark the transaction's writes to agent data as this run's: defaults for its COPY, and no outside change. Caller: begin_apply.
# No locks.
SQL_NAME_RUN = """
select set_config('archisync.run_id', %(id)s::text, true), set_config('archisync.agent_id', %(agent_id)s, true),
  st.applied_source ->> 'line_layout' as line_layout, st.applied_source ->> 'digest_layout' as digest_layout
  from (select) one left join system.sync_state st on st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
"""
# Purpose: the pair's state after an apply. Caller: record_success, in the apply's transaction. Locks: the row.
SQL_STATE_SUCCEEDED = """
update system.sync_state
   set consecutive_failures = 0, backoff_until = null, last_run_id = %(id)s, last_success_at = system.clock(),
       known_rows = %(known_rows)s, applied_source = %(source)s,
       data_version = data_version + case when %(changed)s then 1 else 0 end,
       high_rows = (select jsonb_object_agg(d.day, d.n) from (
         select day, max(n) as n from (
           select key as day, value::bigint as n from jsonb_each_text(case when %(accepted)s then '{}' else high_rows end)
            where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int
           union all select (system.clock() at time zone 'UTC')::date::text, %(known_rows)s) h
          group by day) d)
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""
# Purpose: the pair has no data any more, so no baseline and no applied export; a standing acceptance was given for other data.
# Caller: forget, in the transaction that deletes the rows. Locks: the state rows.
SQL_FORGET = """
update system.sync_state
   set known_rows = null, high_rows = '{}', applied_source = null, data_version = data_version + 1
 where sync_type = %(sync_type)s and (%(agent_id)s::text is null or agent_id = %(agent_id)s)
"""


def baseline(db: Database, *, sync_type: str, agent_id: str) -> tuple[int | None, int | None]:
    """Rows of the pair's last applied export, and of the largest one in the last seven days; None before the first."""
    from archisync.rules.guard import HIGH_WATER_DAYS  # imported here: a tick needs no guard

    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "high_water_days": HIGH_WATER_DAYS}
    row = db.execute(SQL_BASELINE, params).fetchone()
    return (row["known_rows"], row["high"]) if row else (None, None)


def source(db: Database, claim: Claim) -> dict[str, Any]:
    """The `source` of the last `record_success`, if the same export again would change nothing; else empty."""
    row = db.execute(SQL_SOURCE, claim.params, prepare=True).fetchone()
    return (row["applied_source"] or {}) if row else {}


class Begun(NamedTuple):
    """What an apply finds. `outside_changes`: somebody else has written to the pair's rows since the last apply.
    `line_layout`: how the lines of the last export were read; `digest_layout`: the layout that the rows' line digests belong to. None
    when the export had no lines, or nothing is known."""

    outside_changes: bool
    line_layout: str | None
    digest_layout: str | None


def begin_apply(db: Database, claim: Claim) -> Begun:
    """The first statements of the transaction that applies the run's export."""
    outside_changes = db.execute(SQL_FORGET_OUTSIDE_CHANGES, claim.params).rowcount > 0
    row = one(db, SQL_NAME_RUN, claim.params)
    return Begun(outside_changes, row["line_layout"], row["digest_layout"])


def record_success(
    db: Database, claim: Claim, *, known_rows: int, changed: bool, accepted: bool, source: dict[str, Any]
) -> None:
    """Record the apply in the pair's state, in the apply's transaction.

    `source` is what `source` returns later. `accepted`: a person said that so few rows are right, so the earlier high counts are forgotten.
    """
    from archisync.rules.guard import HIGH_WATER_DAYS

    params = {
        "known_rows": known_rows,
        "changed": changed,
        "accepted": accepted,
        "high_water_days": HIGH_WATER_DAYS,
        "source": Jsonb(source),
    }
    db.execute(SQL_STATE_SUCCEEDED, claim.params | params)


def forget(db: Database, sync_type: SyncType, agent_id: str | None) -> None:
    """Forget the pair's applied export, or that of every pair of the type when `agent_id` is None; for `data clear`."""
    db.execute(SQL_FORGET, {"sync_type": sync_type.name, "agent_id": agent_id})
