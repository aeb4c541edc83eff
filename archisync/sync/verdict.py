"""The guard's verdict on a staged export, and a person's acceptance of an export that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

from archisync.base.errors import ArchisyncError, ExportError
from archisync.base.text import counted, printable, redact
from archisync.rules.guard import LEAST_ROWS, Alike, Evidence, Hold, Near, Plan, judge, nearest
from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Role, Scope
from archisync.sources.interface import Export
from archisync.store import applied_exports, held
from archisync.store.applied_exports import Begun, Other
from archisync.store.database import one
from archisync.sync.comparison import Comparison
from archisync.sync.evidence import notations, weighed_suspicions
from archisync.sync.runrecord import RunRecord
from archisync.sync.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`plan` is what applying the export would do. `hold` is None when it may be applied; `accepted`: because a person said so. `nearest`:
    the rules that saw anything, where nobody has accepted it. `shared`: another agent has the same export, and may have it."""

    plan: Plan
    hold: Hold | None
    accepted: bool = False
    nearest: Sequence[Near] = ()
    shared: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a person needs to decide about a held export: its good rows, what applying it would do, keys of rows that would vanish,
    and rows that would change. None for what nobody knows: of an export that can't be read, or that contradicts itself."""

    valid: int | None = None
    plan: Plan | None = None
    vanishing: list[list[str]] = field(default_factory=list)
    changes: list[dict[str, object]] = field(default_factory=list)


class HeldExport(Exception):
    """The export is held. Raised inside the transaction, which it rolls back."""

    def __init__(self, hold: Hold, outlook: Outlook) -> None:
        super().__init__(hold.message)
        self.hold = hold
        self.outlook = outlook


def judge_comparison(
    target: Target, comparison: Comparison, before: Begun, export: Export, record: RunRecord, zone: ZoneInfo
) -> Verdict:
    """Judge an export that has been compared. `zone`: of its times that name none.

    An acceptance is used up by the run if the transaction commits; `record` gets a warning that says who accepted.
    """
    staged = comparison.staged
    plan = Plan() if staged.conflicting else comparison.plan()
    other = _other_with(target, plan, before, export) if staged.valid else None
    first = not before.known_rows
    may_be_same = staged.valid < LEAST_ROWS or not _has_figures(target)
    near = _nearly(target, comparison) if first and other is None and not may_be_same and not before.shared else None
    folder, name = _place(printable(export.origin))
    last_folder, last_name = _place(before.origin or "")
    evidence = Evidence(
        seen=staged.seen,
        valid=staged.valid,
        quarantined=staged.quarantined,
        conflicting=staged.conflicting,
        known=before.known_rows,
        high=before.high_rows,
        plan=plan,
        suspicions=weighed_suspicions(target, comparison, plan, now=before.now, zone=zone),
        notations=notations(target, comparison, plan),
        another_agent=None if other is None or may_be_same or (first and other.from_start) else other.agent_id,
        alike=None if near is None or near[0].from_start else near[1],
        newly_open=staged.open_ended and not before.open_ended,
        written_at=written_at(export),
        last_written_at=before.written_at if folder == last_folder and export.sha256 != before.sha256 else None,
        beside=name != last_name,
    )
    hold = _hold(evidence, before)
    if hold is None or not _is_accepted(target, hold, plan, export.sha256, record):
        shared = before.shared or ((other or near) is not None and first)
        return Verdict(plan=plan, hold=hold, shared=shared, nearest=nearest(evidence, before.limits))
    return Verdict(plan=plan, hold=None, accepted=True, shared=before.shared or hold.rule is Rule.ANOTHER_AGENTS)


def _hold(evidence: Evidence, before: Begun) -> Hold | None:
    hold, plan = judge(evidence, before.limits), evidence.plan
    if hold and plan.vanishing and hold.rule is not Rule.PLANNED_DELETES:
        hold = replace(hold, message=f"{hold.message}; {counted(plan.vanishing, 'known row')} would vanish")
    return hold


def _is_accepted(target: Target, hold: Hold, plan: Plan, sha256: str, record: RunRecord) -> bool:
    if not hold.rule.acceptable:
        return False
    accepted = held.use_acceptance(
        target.db,
        run_id=target.run_id,
        sync_type=target.type.name,
        agent_id=target.agent_id,
        sha256=sha256,
        planned=asdict(plan),
    )
    if accepted is None:
        return False
    record.warn("accepted", f"{hold.message}; accepted by {accepted[1]} (held run {accepted[0]})", 1)
    return True


def outlook_of(comparison: Comparison, plan: Plan) -> Outlook:
    return Outlook(
        valid=comparison.staged.valid,
        plan=None if comparison.staged.conflicting else plan,
        vanishing=comparison.sample_vanishing(),
        changes=comparison.sample_changes(),
    )


def _other_with(target: Target, plan: Plan, before: Begun, export: Export) -> Other | None:
    """Another agent for whom these bytes were applied, where they change most of what is known, or are the first."""
    if target.type.scope is Scope.SHARED or before.shared or (plan.changed + plan.vanishing) * 2 < plan.known:
        return None
    return applied_exports.agent_with(target.db, target.type.name, target.agent_id, export.sha256)


def _nearly(target: Target, comparison: Comparison) -> tuple[Other, Alike] | None:
    """Another agent with rows of this first export: the least digests of its lines find one."""
    if target.type.scope is Scope.SHARED:
        return None
    digests = [f"{UUID(bytes=digest)}" for digest in comparison.staged.least]
    other = applied_exports.agent_with_least(target.db, target.type.name, target.agent_id, digests)
    if other is None:
        return None
    own, params = comparison.digests()
    counts = target.statement(
        "select count(*) as known, count(*) filter (where t.line_digest in ({own})) as rows"
        " from {table} t where t.agent_id = %(other)s and t.absent_since is null",
        own=own,
    )
    row = one(target.db, counts, {**params, "other": other.agent_id})
    return other, Alike(agent_id=other.agent_id, rows=row["rows"], known=row["known"])


def _has_figures(target: Target) -> bool:
    """Whether the export has what is one agent's own. Customers without it may be the same for two."""
    figures = {field.name for field in target.type.fields if field.role is Role.COUNTER}
    return bool(target.type.order_reference) or not figures or any(c.name in figures for c in target.columns)


def _place(origin: str) -> tuple[str, str]:
    """Folder and name of an export."""
    folder, _, name = origin.rpartition("/")
    return folder, name


def written_at(export: Export) -> datetime | None:
    """When the ERP wrote the export, where the source says so."""
    try:
        return None if export.written_at is None else datetime.fromtimestamp(export.written_at, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # no calendar has that time


class Told(TypedDict):
    message: str
    hint: str | None


def told(exc: ArchisyncError) -> Told:
    """What a run, and a held export, keep of an error. Nothing else takes an error apart, so that no hint is lost on the way."""
    return {"message": printable(redact(exc.message)), "hint": printable(redact(exc.hint)) or None}


def unreadable(exc: ExportError) -> Hold:
    """The hold of an export that can't be read as a whole."""
    rule = Rule(exc.reason) if exc.reason in list(Rule) else Rule.UNREADABLE
    return Hold(rule=rule, **told(exc))
