"""`system.held_exports`: exports that the guard stopped, and what a person decided about each.

An acceptance is bound to the export's sha256, to the version of the data, and to the numbers that the person saw: whoever writes to the
rows meanwhile, and however settings change, applying does that or nothing. It works once and lasts 24 hours. At most one held export of a
pair waits for a decision: a newer one supersedes it, a good one clears it. A person may change a decision until it is used; an export that
was rejected is not asked about again. A hold ends (`ended_at`) when an export of the pair is applied, whatever was decided, or when its
agent leaves the whitelist, which triggers record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from archisync.base.errors import NotFoundError, UsageError
from archisync.store.database import Database, Params, one

ACCEPTANCE_HOURS = 24
_LARGEST_RUN_ID = 2**63 - 1

# Purpose: a newer held export takes the place of the pair's undecided one. Caller: record, in the transaction that ends the run.
# Locks: the row.
SQL_SUPERSEDE = """
update system.held_exports set decision = 'superseded', decided_at = system.clock()
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s and decision is null
"""
# Purpose: keep what the guard stopped; if a person has rejected the same export already, it is rejected again, for the same reason.
# Caller: record, in the same transaction. Locks: none but the new row.
SQL_RECORD = """
insert into system.held_exports (run_id, sync_type, agent_id, rule, message, hint, acceptable, sha256, rows_valid, known_rows,
                                 data_version, sample, planned, changes, findings, decision, decided_at, decided_by, decided_why)
select %(run_id)s, %(sync_type)s, %(agent_id)s, %(rule)s, %(message)s, %(hint)s, %(acceptable)s, %(sha256)s, %(rows_valid)s,
       st.known_rows, st.data_version, %(sample)s, %(planned)s, %(changes)s, %(findings)s,
       before.decision, before.decided_at, before.decided_by, before.decided_why
  from system.sync_state st
  left join lateral (
    select h.* from system.held_exports h where h.sync_type = st.sync_type and h.agent_id = st.agent_id
     order by h.run_id desc limit 1) before
    on before.decision = 'rejected' and before.sha256 = %(sha256)s and before.planned = %(planned)s
   and before.data_version = st.data_version and before.ended_at is null
 where st.sync_type = %(sync_type)s and st.agent_id = %(agent_id)s
"""
# Purpose: an export of the pair is applied, so all its holds end together, with one notice, however many exports were held one after the
# other; the one that waited for a decision has its answer. Caller: end, in the apply's transaction. Locks: the rows.
SQL_END = """
with ended as (
  update system.held_exports
     set ended_at = system.clock(), decision = coalesce(decision, 'cleared'),
         decided_at = case when decision is null then system.clock() else decided_at end
   where agent_id = %(agent_id)s and sync_type = %(sync_type)s and ended_at is null
  returning run_id, used_by_run)
insert into system.notices (event, sync_type, agent_id, run_id, message)
select 'recovered', %(sync_type)s, %(agent_id)s, coalesce(e.used_by_run, e.run_id),
       case when e.used_by_run is null
            then format('a good export of %%s of %%s ended the hold of run %%s', %(sync_type)s::text, %(agent_id)s::text, e.run_id)
            else format('the held export of %%s of %%s was applied as accepted', %(sync_type)s::text, %(agent_id)s::text) end
  from ended e order by e.used_by_run is null, e.run_id desc limit 1
"""
_COLUMNS = """h.run_id, h.sync_type, h.agent_id, h.rule, h.message, h.hint, h.acceptable, h.sha256, h.rows_valid, h.known_rows,
       h.data_version, h.planned, h.held_at, h.decision, h.decided_at, h.decided_by, h.decided_why, h.expires_at, h.used_by_run, h.ended_at,
       (h.decision = 'accepted' and h.used_by_run is null and h.expires_at <= system.clock()) as expired"""
# Purpose: held exports, newest first, without agent data. Caller: held_exports. No locks.
SQL_LIST = f"""
select {_COLUMNS}
  from system.held_exports h
 where (%(all)s or h.decision is null) and h.run_id < %(before)s
   and (%(sync_type)s::text is null or h.sync_type = %(sync_type)s) and (%(agent_id)s::text is null or h.agent_id = %(agent_id)s)
 order by h.run_id desc limit %(limit)s
"""  # noqa: S608 - the part is a constant of this module
# Purpose: how many exports wait for a decision. Caller: count_waiting. No locks.
SQL_COUNT_WAITING = """
select count(*) as n from (select from system.held_exports where decision is null limit %(limit)s + 1) x
"""
# Purpose: one held export, with the agent data that a person needs to decide. Caller: held_export. No locks.
SQL_GET = f"""
select {_COLUMNS}, h.sample, h.changes, h.findings from system.held_exports h where h.run_id = %(run_id)s
"""  # noqa: S608
# Purpose: the pair's newest held export. Caller: decide. No locks.
SQL_NEWEST_OF_PAIR = """
select run_id from system.held_exports where sync_type = %(sync_type)s and agent_id = %(agent_id)s order by run_id desc limit 1
"""
# Purpose: the pair's held export that waits for a decision. Caller: open_of_pair. No locks.
SQL_OPEN_OF_PAIR = """
select run_id from system.held_exports
 where sync_type = %(sync_type)s and agent_id = %(agent_id)s and decision is null
"""
# Purpose: record a person's decision, or change it while it has had no effect. Caller: decide. Locks: the row.
SQL_DECIDE = """
update system.held_exports
   set decision = %(decision)s, decided_at = system.clock(), decided_by = %(by)s, decided_why = %(why)s,
       expires_at = case when %(decision)s = 'accepted' then system.clock() + make_interval(hours => %(hours)s) end
 where run_id = %(run_id)s
   and (decision is null or (decision in ('accepted', 'rejected') and ended_at is null
                             and (decision <> %(decision)s or expires_at <= system.clock())))
"""
# Purpose: use the acceptance of exactly this export, over this data, with these numbers. Caller: use_acceptance, in the apply's
# transaction: it works once, and only if the apply commits. Locks: the row.
SQL_USE = """
update system.held_exports h set used_by_run = %(run_id)s
  from system.sync_state st
 where h.sync_type = %(sync_type)s and h.agent_id = %(agent_id)s and h.decision = 'accepted' and h.used_by_run is null
   and h.ended_at is null and h.sha256 = %(sha256)s and h.planned = %(planned)s and h.expires_at > system.clock() and h.acceptable
   and st.sync_type = h.sync_type and st.agent_id = h.agent_id and st.data_version = h.data_version
returning h.run_id, h.decided_by
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A held export. `rule` is the guard's word, `known_rows` its baseline, `planned` what applying would have done, in rows.

    `sample` has keys of rows that would have vanished; `changes` has rows that would have changed, as
    `{"key": […], "fields": {name: [old, new]}}`; `findings` has what the guard's rules about values found, as
    `{"rule": …, "column": …, "message": …, "examples": [[old, new], …]}`. All three are None in a list, which does not read agent data.
    """

    run_id: int
    sync_type: str
    agent_id: str
    rule: str
    message: str
    hint: str | None
    acceptable: bool
    sha256: str | None
    rows_valid: int | None
    known_rows: int | None
    data_version: int
    planned: dict[str, int]
    held_at: datetime
    decision: str | None
    decided_at: datetime | None
    decided_by: str | None
    decided_why: str | None
    expires_at: datetime | None
    used_by_run: int | None
    ended_at: datetime | None
    expired: bool | None
    sample: list[list[str]] | None = None
    changes: list[dict[str, Any]] | None = None
    findings: list[dict[str, Any]] | None = None


def record(db: Database, params: Params) -> None:
    """Keep what the guard stopped; it supersedes the pair's undecided one."""
    db.execute(SQL_SUPERSEDE, params)
    db.execute(
        SQL_RECORD, params | {name: Jsonb(params[name]) for name in ("sample", "planned", "changes", "findings")}
    )


def end(db: Database, sync_type: str, agent_id: str) -> None:
    """End the pair's holds, because an export is applied."""
    db.execute(SQL_END, {"sync_type": sync_type, "agent_id": agent_id}, prepare=True)


def use_acceptance(
    db: Database, *, run_id: int, sync_type: str, agent_id: str, sha256: str, planned: dict[str, int]
) -> tuple[int, str] | None:
    """Use up the acceptance of exactly this: (held run, who accepted); None when there is none. `planned`: as in `Held`."""
    params: Params = {"run_id": run_id, "sync_type": sync_type, "agent_id": agent_id, "sha256": sha256}
    params["planned"] = Jsonb(planned)
    row = db.execute(SQL_USE, params).fetchone()
    return (row["run_id"], row["decided_by"]) if row else None


def held_exports(
    db: Database,
    *,
    include_decided: bool = False,
    sync_type: str | None = None,
    agent_id: str | None = None,
    before: int | None = None,
    limit: int = 1000,
) -> list[Held]:
    """Newest first, without agent data; only those that wait for a decision, unless `include_decided`. `before`: only those of runs with
    smaller ids, for the next page."""
    params: Params = {"all": include_decided, "sync_type": sync_type, "agent_id": agent_id, "limit": limit}
    params["before"] = _LARGEST_RUN_ID if before is None else before
    return [Held(**row) for row in db.execute(SQL_LIST, params).fetchall()]


def count_waiting(db: Database, *, limit: int) -> int:
    """Exports that wait for a decision; `limit` + 1 means more than `limit`."""
    return int(one(db, SQL_COUNT_WAITING, {"limit": limit})["n"])


def held_export(db: Database, run_id: int) -> Held:
    """Raises NotFoundError."""
    row = db.execute(SQL_GET, {"run_id": run_id}).fetchone() if abs(run_id) <= _LARGEST_RUN_ID else None
    if row is None:
        raise NotFoundError(f"run {run_id} has no held export", hint="archisync held list")
    return Held(**row)


def open_of_pair(db: Database, sync_type: str, agent_id: str) -> int | None:
    """The run whose export of this pair waits for a decision; None when none does."""
    row = db.execute(SQL_OPEN_OF_PAIR, {"sync_type": sync_type, "agent_id": agent_id}).fetchone()
    return row["run_id"] if row else None


def decide(db: Database, run_id: int, *, accept: bool, by: str, why: str) -> Held:
    """Record the decision about the export of that run, and return the row as decided.

    If the same export was held again meanwhile with the same numbers, that is the pair's newest hold. Raises NotFoundError, and UsageError
    when the hold is over or the export can't be accepted at all.
    """
    asked = held_export(db, run_id)
    held = _newest_of_pair(db, asked)
    if (held.sha256, held.planned, held.data_version) != (asked.sha256, asked.planned, asked.data_version):
        raise UsageError(
            f"the export of run {run_id} was replaced by that of run {held.run_id}",
            hint=f"archisync held show {held.run_id}",
        )
    if accept and not held.acceptable:
        raise UsageError(
            f"the export of run {run_id} can't be accepted: {held.message}",
            hint=held.hint or "correct it in the ERP; the next good export clears the hold by itself",
        )
    params: Params = {
        "run_id": held.run_id,
        "decision": "accepted" if accept else "rejected",
        "by": by,
        "why": why,
        "hours": ACCEPTANCE_HOURS,
    }
    if db.execute(SQL_DECIDE, params).rowcount == 0:
        raise UsageError(_over(held_export(db, held.run_id)), hint=f"archisync held show {held.run_id}")
    return held_export(db, held.run_id)


def _newest_of_pair(db: Database, asked: Held) -> Held:
    row = db.execute(SQL_NEWEST_OF_PAIR, {"sync_type": asked.sync_type, "agent_id": asked.agent_id}).fetchone()
    return held_export(db, row["run_id"]) if row else asked


def _over(held: Held) -> str:
    if held.used_by_run is not None:
        return f"the export of run {held.run_id} is accepted already by {held.decided_by}, and was applied by run {held.used_by_run}"
    if held.ended_at is not None and held.decision in ("accepted", "rejected"):
        return f"the hold of run {held.run_id} is over"
    by = f" by {held.decided_by}" if held.decided_by else ""
    return f"the export of run {held.run_id} is {held.decision} already{by}"
