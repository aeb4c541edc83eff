"""Writing a staged export to its table with a few set-based statements, in the caller's transaction.

A row that is already as the export says is not written. Absence is confirmed twice: a row that is missing is marked, and the next export
without it deletes it. A quarantined row whose key could be read counts as present. While a row's key can't be read, only rows that were
marked long ago are deleted. When the export has fewer rows than it announces, no row counts as absent (the plan then has none).
"""

from __future__ import annotations

from psycopg import sql

from archisync.rules.guard import Plan
from archisync.rules.synctypes import Scope
from archisync.store.runs import Counts
from archisync.sync.copying import LONG_GONE, Staged
from archisync.sync.suppressed import check
from archisync.sync.target import Target, columns_of, comma


def write(target: Target, staged: Staged, plan: Plan) -> Counts:
    """Make the table what the export says; what the plan has none of is not looked for. The caller holds the run's fence and commits."""
    counts = Counts(seen=staged.seen, quarantined=staged.quarantined)
    if staged.loaded:
        counts.inserted = staged.valid
        return counts
    if plan.deleted:
        counts.deleted = _delete(target, LONG_GONE if staged.unkeyed else sql.SQL("t.absent_since is not null"))
    if plan.vanishing:
        counts.absent = _mark_absent(target)
    if plan.new:  # before the updates, which move the rows that are looked up by their place
        counts.inserted = _insert(target)
    if plan.changed:
        every_row_changes = not plan.new and plan.changed == staged.valid - staged.known
        counts.updated = _update(target, every_row_changes=every_row_changes)
    if plan.restored:
        _restore(target)
        counts.restored = plan.restored - _still_marked(target)
    counts.unchanged = staged.valid - counts.updated - counts.inserted
    return counts


def _delete(target: Target, marked: sql.SQL) -> int:
    """Delete the rows that were marked absent and are missing again."""
    return target.execute("delete from {table} t where {mine} and {marked} and not {present}", marked=marked)


def _mark_absent(target: Target) -> int:
    return target.execute(
        "update {table} t set absent_since = system.clock(), line_digest = null, run_id = %(run_id)s"
        " where {mine} and t.absent_since is null and not {present}"
    )


def _insert(target: Target) -> int:
    agent_column, agent_value = sql.SQL(""), sql.SQL("")
    if target.type.scope is Scope.AGENT:
        agent_column, agent_value = sql.SQL("agent_id, "), sql.SQL("%(agent_id)s, ")
    return target.execute(
        "insert into {table} ({agent_column}{names}, line_digest, run_id)"
        " select {agent_value}{values}, s.line_digest, %(run_id)s from {stage} s"
        " where s.ok and not exists (select from {table} t where {mine} and {same})",
        agent_column=agent_column,
        agent_value=agent_value,
        names=comma(sql.Identifier(c.name) for c in target.columns),
        values=columns_of("s", target.columns),
    )


def _update(target: Target, *, every_row_changes: bool) -> int:
    """The plan has compared the rows; where all of them change, they are not compared again."""
    compared = {"changed": sql.SQL("true")} if every_row_changes else {}
    return target.execute(
        "with c as materialized (select system.clock() as now)"
        " update {table} t set {assign}, absent_since = null, line_digest = s.line_digest, updated_at = c.now,"
        " run_id = %(run_id)s"
        " from {stage} s, c"
        " where {mine} and s.ok and {same} and {changed}",
        assign=comma(
            sql.SQL("{} = {}").format(sql.Identifier(c.name), sql.Identifier("s", c.name)) for c in target.value_columns
        ),
        **compared,
    )


def _restore(target: Target) -> None:
    """Unmark the rows that are back with the same values; the update has unmarked those that changed."""
    target.execute(
        "update {table} t set absent_since = null, line_digest = s.line_digest, updated_at = system.clock(),"
        " run_id = %(run_id)s from {stage} s where {mine} and t.absent_since is not null and {same}"
    )


def _still_marked(target: Target) -> int:
    """Rows that should be restored and are not. (Those that are have moved, so their number can't be asked for by their place.)"""
    return target.count("select count(*) as n from {table} t where {mine} and t.absent_since is not null and {present}")


def renew_digests(target: Target, staged: Staged) -> None:
    """Give each row the digest of the line that it was compared with, so that only new lines of the next export are read.

    Needed after a change of the layout, and after somebody else wrote to the rows: their digests say nothing any more. Every row must
    have been compared. Raises WriteMismatchError: a row with another line's digest would pass for that line.
    """
    if staged.loaded:
        return
    assert not staged.known
    stale = target.statement("{mine} and {same} and t.line_digest is distinct from s.line_digest")
    # Rows that are missing and not marked, because the export has fewer rows than it announces.
    missing = target.statement("{mine} and t.line_digest is not null and not {present}")
    written = target.execute(
        "update {table} t set line_digest = s.line_digest from {stage} s where {stale}", stale=stale
    )
    written += target.execute("update {table} t set line_digest = null where {missing}", missing=missing)
    left = target.count(
        "select (select count(*) from {table} t, {stage} s where {stale})"
        " + (select count(*) from {table} t where {missing}) as n",
        stale=stale,
        missing=missing,
    )
    check(target, "given their digests", planned=written + left, written=written)
