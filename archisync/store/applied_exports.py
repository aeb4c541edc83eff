"""What is known of a pair's last applied export: the guard's baseline, and what a source may be asked to compare with."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from archisync.rules.synctypes import SyncType
from archisync.store.claims import Claim
from archisync.store.database import Database, Params, one

# Purpose: the guard's baseline. Caller: sync, in the apply's transaction. No locks.
SQL_BASELINE = """
select known_rows, (select max(value::bigint) from jsonb_each_text(high_rows)
                     where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int) as high
  from system.sync_state where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""

# Purpose: what is known of the applied export, if the same export again would change nothing: the pair's last run succeeded, left
# no row marked absent, which only a second export can delete or restore, quarantined none, which is worth telling again, and
# nobody else has written to the pair's rows since. Nor does a hold stand open, which a comparison would have to clear. Caller: sync. No
# locks.
SQL_SOURCE = """
select st.applied_source from system.sync_state st join system.sync_runs r on r.id = st.last_run_id
 where st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
   and r.state = 'succeeded' and coalesce(r.rows_absent, 0) = 0 and coalesce(r.rows_quarantined, 0) = 0
   and not exists (select from system.outside_changes o where o.sync_type = st.sync_type and o.agent_id = st.agent_id)
   and not exists (select from system.held_exports h where h.sync_type = st.sync_type and h.agent_id = st.agent_id
                    and h.decision is null)
"""

# Purpose: from here on the apply sees what others wrote to the pair's rows; what commits later leaves a row for the next sync.
# Caller: sync, first statement of the apply's transaction. Locks: rows that nobody else changes.
SQL_FORGET_OUTSIDE_CHANGES = """
delete from system.outside_changes where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""

# Purpose: the transaction's writes to agent data are those of this run: defaults of its COPY, and no outside change. Caller: sync.
SQL_NAME_RUN = """
select set_config('archisync.run_id', %(id)s::text, true), set_config('archisync.agent_id', %(agent_id)s, true),
  st.applied_source ->> 'line_layout' as line_layout, st.applied_source ->> 'digest_layout' as digest_layout
  from (select) one left join system.sync_state st on st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
"""

SQL_STATE_SUCCEEDED = """
update system.sync_state
   set consecutive_failures = 0, backoff_until = null, last_run_id = %(id)s, last_success_at = system.clock(),
       known_rows = %(known_rows)s, applied_sha256 = %(sha256)s, applied_source = %(source)s,
       data_version = data_version + case when %(changed)s then 1 else 0 end,
       high_rows = (select jsonb_object_agg(d.day, d.n) from (
         select day, max(n) as n from (
           select key as day, value::bigint as n from jsonb_each_text(case when %(accepted)s then '{}' else high_rows end)
            where key::date >= (system.clock() at time zone 'UTC')::date - %(high_water_days)s::int
           union all select (system.clock() at time zone 'UTC')::date::text, %(known_rows)s) h
          group by day) d)
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s
"""

# Purpose: the pair has no data any more: no baseline, nothing known of an applied export; a standing acceptance was given for other
# data. Caller: clear, which deletes the rows in the same transaction. Locks: the state rows.
SQL_FORGET = """
update system.sync_state
   set known_rows = null, high_rows = '{}', applied_sha256 = null, applied_source = null, data_version = data_version + 1
 where sync_type = %(sync_type)s and (%(agent_id)s::text is null or agent_id = %(agent_id)s)
"""


def baseline(db: Database, *, sync_type: str, agent_id: str) -> tuple[int | None, int | None]:
    """Rows of the pair's last applied export, and of the largest one in the last seven days; None before the first."""
    from archisync.rules.guard import HIGH_WATER_DAYS  # here, and not above: a tick needs no guard

    params: Params = {"sync_type": sync_type, "agent_id": agent_id, "high_water_days": HIGH_WATER_DAYS}
    row = db.execute(SQL_BASELINE, params).fetchone()
    return (row["known_rows"], row["high"]) if row else (None, None)


def source(db: Database, claim: Claim) -> dict[str, Any]:
    """What `record_success` was given as `source`, when an unchanged export would leave the table as it is; else empty."""
    row = db.execute(SQL_SOURCE, claim.params, prepare=True).fetchone()
    return (row["applied_source"] or {}) if row else {}


class Begun(NamedTuple):
    """What the transaction of an apply has found. `outside_changes`: somebody else has written to the pair's rows since the last
    apply. `line_layout`: how the lines of the last export were read, and `digest_layout` those that the rows' digests are of; None
    when they were no lines, or nothing is known of it."""

    outside_changes: bool
    line_layout: str | None
    digest_layout: str | None


def begin_apply(db: Database, claim: Claim) -> Begun:
    """First statements of the transaction that applies the run's export."""
    outside_changes = db.execute(SQL_FORGET_OUTSIDE_CHANGES, claim.params).rowcount > 0
    row = one(db, SQL_NAME_RUN, claim.params)
    return Begun(outside_changes, row["line_layout"], row["digest_layout"])


def record_success(
    db: Database,
    claim: Claim,
    *,
    known_rows: int,
    sha256: str,
    changed: bool,
    accepted: bool,
    source: dict[str, Any],
) -> None:
    """The pair's state after an apply; in the apply's transaction. `source`: what `source` finds again.
    `accepted`: a person said that so few rows are right, so the earlier high counts are forgotten."""
    from archisync.rules.guard import HIGH_WATER_DAYS

    params = {
        "known_rows": known_rows,
        "sha256": sha256,
        "changed": changed,
        "accepted": accepted,
        "high_water_days": HIGH_WATER_DAYS,
        "source": Jsonb(source),
    }
    db.execute(SQL_STATE_SUCCEEDED, claim.params | params)


def forget(db: Database, kind: SyncType, agent_id: str | None) -> None:
    """What is known of the pair's data, or of every pair's of the type when `agent_id` is None."""
    db.execute(SQL_FORGET, {"sync_type": kind.name, "agent_id": agent_id})
