"""One sync of one agent: fetch → read → guard → apply. Reads everything before it writes anything; writes all or nothing.

`perform` leaves the run finished (`succeeded`, `held`, `failed`, `skipped`) or queued again for a later tick, and says which.
It raises only LeaseLostError (somebody else owns the run: nothing was written) and what a broken database raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg

from archisync import __version__, sources
from archisync.base.errors import (
    ArchisyncError,
    ConfigurationError,
    ExportError,
    LeaseLostError,
    SourceError,
    SyncError,
    TransientSourceError,
    UnreachableError,
    UsageError,
)
from archisync.base.signals import is_interrupt
from archisync.base.text import printable, redact
from archisync.formats import open_table
from archisync.rules.config import Config
from archisync.rules.guard import Evidence, Hold, Plan, Rule, judge
from archisync.rules.synctypes import SyncType, sync_type
from archisync.sources.interface import Export, Fetched, Request, Unchanged
from archisync.sources.spoolfolder import SpoolFolder
from archisync.store import applied_exports, claims, held, settings
from archisync.store.claims import Claim, Outcome, Report
from archisync.store.database import Database, translate
from archisync.store.runs import Counts, State, Trigger
from archisync.sync.apply import Apply
from archisync.sync.records import RecordReader, read_records
from archisync.sync.staging import Staged

if TYPE_CHECKING:
    from tenacity import RetryCallState

FETCH_ATTEMPTS = 3
FETCH_FIRST_WAIT_S = 0.5
FETCH_LONGEST_WAIT_S = 10.0
LONGEST_RETRY_DELAY_S = 3600
NO_RUN = 0
"""Of what is rolled back anyway."""
_SHOWN_LABELS = 20
_SHOWN_LABEL_CHARS = 80


@dataclass(kw_only=True)
class Progress:
    """What is known of the run so far: its report survives a failure half-way."""

    export: dict[str, Any] | None = None
    counts: Counts | None = None
    steps: dict[str, int] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, also one that fails. Milliseconds."""
        begun = monotonic()
        try:
            yield
        finally:
            self.steps[name] = round((monotonic() - begun) * 1000)

    def warn(self, code: str, message: str, count: int, **more: Any) -> None:
        self.warnings.append({"code": code, "message": message, "count": count, **more})

    def report(self) -> Report:
        steps = self.steps | {"total": round((monotonic() - self.started) * 1000)}
        return Report(counts=self.counts, export=self.export, steps=steps, warnings=self.warnings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a person needs to decide about a held export: its rows, what applying would do, keys of rows that would vanish,
    and rows that would change. Empty for an export that can't be read."""

    valid: int = 0
    plan: Plan = field(default_factory=Plan)
    vanishing: list[list[str]] = field(default_factory=list)
    changes: list[dict[str, object]] = field(default_factory=list)


class HeldExport(Exception):
    def __init__(self, hold: Hold, outlook: Outlook) -> None:
        super().__init__(hold.message)
        self.hold = hold
        self.outlook = outlook


def perform(db: Database, config: Config, claim: Claim, *, spool: Path, may_retry: bool) -> Outcome:
    """Do the claimed run. `may_retry`: a transient failure gives it back to the queue, up to the bound of attempts. `spool`: an
    empty folder, for the export; the caller empties it again.

    Returns what the run is left as; QUEUED means that a later tick tries again. Raises LeaseLostError.
    """
    if claim.blocked is not None:
        outcome = Outcome(State.SKIPPED, claim.blocked, _BLOCKED[claim.blocked])
        with db.transaction():
            claims.finish(db, claim, outcome, report=Report())
        return outcome
    progress = Progress()
    try:
        return _sync(db, config, claim, spool, progress)
    except HeldExport as exc:
        return _hold(db, claim, exc.hold, progress, exc.outlook)
    except ExportError as exc:
        return _hold(db, claim, _unreadable(exc), progress, Outlook())
    except LeaseLostError:
        raise
    except ArchisyncError as exc:
        return _fail(db, config, claim, exc, progress, may_retry=may_retry)
    except psycopg.Error as exc:
        if db.closed or db.broken:
            raise  # nobody to tell; the lease runs out and the reaper takes the run back
        return _fail(db, config, claim, translate(exc), progress, may_retry=may_retry)
    except Exception as exc:
        if is_interrupt(exc):
            raise
        # A bug in reading one export must end that run visibly, not the worker.
        error = SyncError(f"unexpected {type(exc).__name__}: {redact(str(exc))[:500]}")
        return _fail(db, config, claim, error, progress, may_retry=may_retry)


_BLOCKED = {
    "type-disabled": "the type was disabled before the run began",
    "paused": "a pause began before the run did",
    "not-whitelisted": "the agent left the whitelist before the run began",
}


def _sync(db: Database, config: Config, claim: Claim, spool: Path, progress: Progress) -> Outcome:
    kind = sync_type(claim.sync_type)
    with progress.step("fetch"):
        applied = _applied(db, config, claim, kind)
        export = _fetch(config, kind, claim.agent_id, spool, applied.get("validators", {}))
    if isinstance(export, Unchanged):
        if (outcome := _unchanged(db, claim, export, applied, progress)) is not None:
            return outcome
        applied = {}
        with progress.step("fetch"):
            export = _fetch(config, kind, claim.agent_id, spool, {})
        assert isinstance(export, Export)  # without validators no source says that nothing has changed
    progress.export = {
        "origin": printable(export.origin),
        "bytes": export.size_bytes,
        "sha256": export.sha256,
        **export.details,
    }
    if applied.get("sha256") == export.sha256:
        message = f"{applied['seen']} row(s) seen: as it was in run {applied['run_id']}; nothing was compared"
        if (outcome := _end_unchanged(db, claim, "unchanged", message, applied, progress)) is not None:
            return outcome
    return _read_and_apply(db, config, claim, kind, export, progress, follows=bool(applied))


def _applied(db: Database, config: Config, claim: Claim, kind: SyncType) -> dict[str, Any]:
    """What is known of the applied export; empty when the export itself is wanted: a person forced the run, the table may not
    be what that export made of it, or we would read it otherwise today."""
    if claim.trigger is Trigger.FORCED:
        return {}
    applied = applied_exports.source(db, claim)
    return applied if applied.get("read_as") == _read_as(config, kind) else {}


def _read_as(config: Config, kind: SyncType) -> str:
    """A fingerprint of what decides, beside the export, about the rows that come of it."""
    choices = (config.csv_dialect(kind), config.aliases(kind), kind)
    parts = (__version__, config.source(kind), config.locale(kind) or "", config.zone.key, repr(choices))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _unchanged(
    db: Database, claim: Claim, export: Unchanged, applied: dict[str, Any], progress: Progress
) -> Outcome | None:
    """`_end_unchanged` where the source itself says that it has nothing new."""
    progress.export = {"origin": printable(export.origin), "unchanged_since_run": applied["run_id"]}
    message = f"the source says that the export has not changed since run {applied['run_id']}; nothing was fetched"
    return _end_unchanged(db, claim, "unchanged-at-source", message, applied, progress)


def _end_unchanged(
    db: Database, claim: Claim, reason: str, message: str, applied: dict[str, Any], progress: Progress
) -> Outcome | None:
    """End the run: the table is what this very export made of it. None, and the run goes on, when it no longer is."""
    progress.counts = Counts(seen=applied["seen"], unchanged=applied["valid"])
    outcome = Outcome(State.SUCCEEDED, reason, message)
    if claims.end_unchanged(db, claim, outcome, report=progress.report(), applied_by=applied["run_id"]):
        return outcome
    progress.counts = None
    return None


def _fetch(config: Config, kind: SyncType, agent_id: str, spool: Path, validators: Mapping[str, str]) -> Fetched:
    """Fetch the whole export; transient faults are retried here, a few seconds at most, before a later tick does."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    request = Request(
        template=config.source(kind),
        agent_id=agent_id,
        sync_type=kind.name,
        spool_dir=spool,
        max_bytes=config.max_export_bytes,
        config=config,
        validators=validators,
    )
    retrying = Retrying(
        retry=retry_if_exception(_worth_waiting), stop=stop_after_attempt(FETCH_ATTEMPTS), wait=_wait_s, reraise=True
    )
    return retrying(sources.fetch, request)


def _worth_waiting(exc: BaseException) -> bool:
    """Not for a source that asks for a longer wait than a worker can spend: a later tick comes back then."""
    return isinstance(exc, TransientSourceError) and (exc.retry_after_s or 0) <= FETCH_LONGEST_WAIT_S


def _wait_s(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    exc = state.outcome.exception() if state.outcome else None
    asked_s = (exc.retry_after_s or 0) if isinstance(exc, TransientSourceError) else 0
    return max(asked_s, wait_random_exponential(multiplier=FETCH_FIRST_WAIT_S, max=FETCH_LONGEST_WAIT_S)(state))


def _read_and_apply(
    db: Database,
    config: Config,
    claim: Claim,
    kind: SyncType,
    export: Export,
    progress: Progress,
    *,
    follows: bool,
) -> Outcome:
    """`follows`: the pair's last run was an apply of the same source, so that an export without new lines is told as unchanged."""
    assert progress.export is not None
    with progress.step("open"):
        records = _read(config, kind, export, progress.export)
    if records.layout.ignored:
        count = len(records.layout.ignored)
        names = [printable(name, limit=_SHOWN_LABEL_CHARS) for name in records.layout.ignored[:_SHOWN_LABELS]]
        progress.warn("ignored-columns", f"{count} unknown column(s) ignored", count, columns=names)
    apply = Apply(db, kind, claim.agent_id, records.layout.columns)
    with db.transaction():
        begun = applied_exports.begin_apply(db, claim)
        layout = _hex(records.line_layout)
        renew = _must_renew_digests(begun, layout)
        with progress.step("read"):
            staged = _stage(apply, records, all_rows=renew or claim.trigger is Trigger.FORCED)
        _warn_about(staged, records, progress)
        plan, accepted = _guard(db, claim, apply, staged, export.sha256, progress)
        with progress.step("apply"):
            claims.lock_fence(db, claim)
            progress.counts = apply.write(staged, plan, claim.run_id)
            digest_layout = _digest_layout(plan, begun, layout, renew=renew)
            if renew:
                apply.renew_digests()
        _warn_about_references(apply, progress)
        held.clear(db, claim.sync_type, claim.agent_id)
        applied_exports.record_success(
            db,
            claim,
            known_rows=staged.valid,
            sha256=export.sha256,
            changed=progress.counts.changed,
            accepted=accepted,
            source={  # an export that lacks rows is told of again
                "validators": {} if staged.lacking else dict(export.validators),
                "sha256": None if staged.lacking else export.sha256,
                "line_layout": layout,
                "digest_layout": digest_layout,
                "seen": staged.seen,
                "valid": staged.valid,
                "run_id": claim.run_id,
                "read_as": _read_as(config, kind),
            },
        )
        outcome = Outcome(State.SUCCEEDED, *_told(progress, unchanged=follows and apply.nothing_read))
        claims.finish(db, claim, outcome, report=progress.report())
    return outcome


def _stage(apply: Apply, records: RecordReader, *, all_rows: bool) -> Staged:
    """Read the export as far as is needed. `all_rows`: take no row's digest for proof, and compare them all."""
    staged = apply.load(records)
    if staged is None and not all_rows:
        staged = apply.stage_new(records)
    return staged or apply.stage(records)


def _must_renew_digests(begun: applied_exports.Begun, layout: str | None) -> bool:
    """Whether the rows' digests are made anew: where somebody else wrote to the rows; and when the layout has changed, with the second
    export of the new one, so that a single odd export rewrites nothing."""
    return begun.outside_changes or (layout is not None and begun.line_layout == layout != begun.digest_layout)


def _digest_layout(plan: Plan, begun: applied_exports.Begun, layout: str | None, *, renew: bool) -> str | None:
    """The layout that the rows' digests are of, once this run is over."""
    only_this_export = not (plan.known or plan.deleted or plan.restored)
    return layout if renew or only_this_export else begun.digest_layout


def _hex(layout: int | None) -> str | None:
    return None if layout is None else f"{layout:016x}"


def _guard(
    db: Database, claim: Claim, apply: Apply, staged: Staged, sha256: str, progress: Progress
) -> tuple[Plan, bool]:
    """What applying will do, and whether a person accepted exactly that. Raises HeldExport unless the export may be applied."""
    pair = {"sync_type": claim.sync_type, "agent_id": claim.agent_id}
    plan, hold = _judge(db, apply, staged, **pair)
    if hold is None:
        return plan, False
    if _is_accepted(db, hold, plan, sha256, progress, run_id=claim.run_id, **pair):
        return plan, True
    progress.counts = Counts(seen=staged.seen, quarantined=staged.quarantined)
    raise HeldExport(hold, _outlook(apply, staged, plan))


def _is_accepted(
    db: Database, hold: Hold, plan: Plan, sha256: str, progress: Progress, *, run_id: int, sync_type: str, agent_id: str
) -> bool:
    """Whether a person accepted just this. The acceptance is used up by the run, if the transaction commits."""
    if not hold.rule.acceptable:
        return False
    accepted = held.use_acceptance(
        db, run_id=run_id, sync_type=sync_type, agent_id=agent_id, sha256=sha256, planned=asdict(plan)
    )
    if accepted is None:
        return False
    progress.warn("accepted", f"{hold.message}; accepted by {accepted[1]} (held run {accepted[0]})", 1)
    return True


def _judge(db: Database, apply: Apply, staged: Staged, *, sync_type: str, agent_id: str) -> tuple[Plan, Hold | None]:
    """What applying the staged export would do, and the guard's verdict."""
    known, high = applied_exports.baseline(db, sync_type=sync_type, agent_id=agent_id)
    plan = Plan() if staged.conflicting else apply.plan(staged)
    evidence = Evidence(
        seen=staged.seen,
        valid=staged.valid,
        quarantined=staged.quarantined,
        conflicting=staged.conflicting,
        known=known,
        high=high,
        plan=plan,
    )
    hold = judge(evidence, settings.all_limits(db)[sync_type])
    if hold and plan.vanishing and hold.rule is not Rule.PLANNED_DELETES:
        hold = Hold(rule=hold.rule, message=f"{hold.message}; {plan.vanishing} known row(s) would vanish")
    return plan, hold


def _outlook(apply: Apply, staged: Staged, plan: Plan) -> Outlook:
    changes = [] if staged.conflicting else apply.changes_sample()
    return Outlook(valid=staged.valid, plan=plan, vanishing=apply.vanishing_sample(), changes=changes)


def _read(config: Config, kind: SyncType, export: Export, record: dict[str, Any]) -> RecordReader:
    """The export's records; what was detected goes into the run's record. Raises ExportError."""
    aliases, locale = config.aliases(kind), config.locale(kind) or "iso"
    table = open_table(export, config.csv_dialect(kind), config.pdf_limits)
    record["detected"] = dict(table.detected)
    if table.detected["format"] == "pdf":
        from archisync.sync.reports import PrintedTable

        locale = config.locale(kind) or "it"
        table = PrintedTable(table, kind, aliases)
    return read_records(table, kind, locale=locale, zone=config.zone, extra_aliases=aliases)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a sync would do now. `hold`: the reason why it would be held instead."""

    origin: str
    seen: int
    quarantined: int
    outlook: Outlook
    hold: Hold | None
    warnings: list[dict[str, Any]]


def preview(db: Database, config: Config, kind: SyncType, agent_id: str) -> Preview:
    """Fetch, read, plan and judge the export as a run would, and write nothing. The caller holds the agent's lock.

    Raises what fetching raises; an export that can't be read is a Preview with a hold.
    """
    progress = Progress()
    with SpoolFolder() as spool:
        export = _fetch(config, kind, agent_id, spool, {})
        assert isinstance(export, Export)  # without validators no source says that nothing has changed
        origin = printable(export.origin)
        try:
            records = _read(config, kind, export, {})
            apply = Apply(db, kind, agent_id, records.layout.columns)
            with db.transaction(force_rollback=True):
                staged = apply.stage(records)
                _warn_about(staged, records, progress)
                pair = {"sync_type": kind.name, "agent_id": agent_id}
                plan, hold = _judge(db, apply, staged, **pair)
                if hold and _is_accepted(db, hold, plan, export.sha256, progress, run_id=NO_RUN, **pair):
                    hold = None
                outlook = _outlook(apply, staged, plan)
                _warn_about_references(apply, progress)
        except ExportError as exc:
            hold = _unreadable(exc)
            return Preview(origin=origin, seen=0, quarantined=0, outlook=Outlook(), hold=hold, warnings=[])
    return Preview(
        origin=origin,
        seen=staged.seen,
        quarantined=staged.quarantined,
        outlook=outlook,
        hold=hold,
        warnings=progress.warnings,
    )


def _unreadable(exc: ExportError) -> Hold:
    rule = Rule(exc.reason) if exc.reason in list(Rule) else Rule.UNREADABLE
    return Hold(rule=rule, message=printable(exc.message))


def _warn_about(staged: Staged, records: RecordReader, progress: Progress) -> None:
    if staged.quarantined:
        message = f"{staged.quarantined} row(s) quarantined"
        if staged.unkeyed:
            message += f"; {staged.unkeyed} of them have no readable key, so nothing was taken for absent"
        progress.warn("quarantined", message, staged.quarantined, rows=staged.quarantine_sample)
    if staged.lacking:
        message = f"the report announces {staged.lacking} row(s) more than it has, so nothing was taken for absent"
        progress.warn("lacking-rows", message, staged.lacking)
    if staged.repeated:
        progress.warn("repeated-rows", f"{staged.repeated} identical row(s) left out", staged.repeated)
    if records.skipped:
        progress.warn("skipped-rows", f"{records.skipped} row(s) without an id skipped", records.skipped)
    if control_characters := records.control_characters_removed:
        progress.warn("control-characters", f"{control_characters} control character(s) removed", control_characters)


def _warn_about_references(apply: Apply, progress: Progress) -> None:
    if unknown := apply.unknown_orders():
        progress.warn("unknown-orders", f"{unknown} row(s) name an order that is not known yet", unknown)
    if repeated := apply.repeated_order_numbers():
        progress.warn("repeated-order-numbers", f"{repeated} order number(s) belong to several orders", repeated)


def _told(progress: Progress, *, unchanged: bool) -> tuple[str, str]:
    """Reason and message of a run that was applied."""
    counts = progress.counts
    assert counts is not None
    told = ", ".join(f"{n} {name}" for name, n in counts.as_dict().items() if n and name != "seen")
    message = f"{counts.seen} row(s) seen: {told or 'nothing to do'}"
    if progress.warnings:
        return "applied-with-warnings", message
    if unchanged and not counts.changed:
        return "unchanged", f"{counts.seen} row(s) seen: every line is known; nothing was compared"
    return "applied", message


def _hold(db: Database, claim: Claim, hold: Hold, progress: Progress, outlook: Outlook) -> Outcome:
    """End the run as held and keep what a person needs to decide, in one transaction."""
    outcome = Outcome(State.HELD, hold.rule, hold.message)
    with db.transaction():
        claims.finish(db, claim, outcome, report=progress.report())
        held.record(
            db,
            {
                "run_id": claim.run_id,
                "sync_type": claim.sync_type,
                "agent_id": claim.agent_id,
                "rule": hold.rule,
                "message": hold.message,
                "acceptable": hold.rule.acceptable,
                "sha256": (progress.export or {}).get("sha256"),
                "rows_valid": outlook.valid,
                "sample": outlook.vanishing,
                "planned": asdict(outlook.plan),
                "changes": outlook.changes,
            },
        )
    return outcome


def _fail(
    db: Database, config: Config, claim: Claim, exc: ArchisyncError, progress: Progress, *, may_retry: bool
) -> Outcome:
    """Queue the run again for a later tick while it has attempts, unless asking again can't help; else it is failed, and
    the pair may back off."""
    reason = exc.reason if isinstance(exc, SyncError) else _REASONS.get(type(exc), "error")
    message = printable(redact(exc.message))
    hopeless = isinstance(exc, SourceError | ConfigurationError | UsageError)
    if may_retry and not hopeless and claim.attempt < config.max_attempts:
        delay_s = retry_delay_s(claim.attempt, first_s=config.retry_delay_s)
        if isinstance(exc, TransientSourceError) and exc.retry_after_s:
            delay_s = max(delay_s, int(min(exc.retry_after_s, LONGEST_RETRY_DELAY_S)))
        claims.requeue(db, claim, delay_s=delay_s, reason="retry", message=message)
        return Outcome(State.QUEUED, "retry", message)
    outcome = Outcome(State.FAILED, reason, message)
    with db.transaction():
        claims.finish(db, claim, outcome, report=progress.report())
    return outcome


_REASONS: dict[type[ArchisyncError], str] = {
    ConfigurationError: "configuration",
    UsageError: "invalid-agent-id",
    UnreachableError: "database-unavailable",
}


def retry_delay_s(attempt: int, *, first_s: int) -> int:
    """Seconds until the next attempt of a run: doubles with each, an hour at most."""
    return int(min(first_s * 2 ** (attempt - 1), LONGEST_RETRY_DELAY_S))
