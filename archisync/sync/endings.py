"""How a run ends that is not applied: skipped, held, failed, or queued again for a later tick."""

from __future__ import annotations

import errno
from dataclasses import asdict

import psycopg

from archisync.base.errors import (
    ArchisyncError,
    ConfigurationError,
    NotSettledError,
    SourceError,
    SyncError,
    TransientSourceError,
    UnreachableError,
    UsageError,
)
from archisync.base.text import redact
from archisync.rules.config import Config
from archisync.rules.guard import Hold
from archisync.store import claims, endings, held
from archisync.store.claims import ClaimedRun
from archisync.store.database import Database
from archisync.store.endings import Outcome, Report
from archisync.store.refusals import translate
from archisync.store.runs import State
from archisync.sync.verdict import Outlook, told

LONGEST_RETRY_DELAY_S = 3600
_BLOCKED = {
    "type-disabled": "the type was disabled before the run began",
    "paused": "a pause began before the run did",
    "not-whitelisted": "the agent left the whitelist before the run began",
}
_REASONS: dict[type[ArchisyncError], str] = {
    ConfigurationError: "configuration",
    UsageError: "invalid-agent-id",
    UnreachableError: "database-unavailable",
}

_HINT_DISK = "df -h; df -i; findmnt   (the worker writes to its TMPDIR)"
_HINT_FILES = "ulimit -n; LimitNOFILE= of the worker's systemd unit"
_LIMITS_OF_THIS_MACHINE = {
    errno.ENOSPC: _HINT_DISK,
    errno.EDQUOT: _HINT_DISK,
    errno.EROFS: _HINT_DISK,
    errno.EMFILE: _HINT_FILES,
    errno.ENFILE: _HINT_FILES,
    errno.ENOMEM: "free -m; MemoryMax= of the worker's systemd unit",
}


def skip(db: Database, run: ClaimedRun, reason: str) -> Outcome:
    """End the run as skipped. `reason` is `ClaimedRun.blocked`."""
    return _finish(db, run, Outcome(State.SKIPPED, reason, _BLOCKED[reason]), Report())


def not_settled(db: Database, run: ClaimedRun, exc: NotSettledError) -> Outcome:
    """End the run as skipped, so that its slot comes again with the next tick."""
    return _finish(db, run, Outcome(State.SKIPPED, exc.reason, **told(exc)), Report())


def hold_back(db: Database, run: ClaimedRun, hold: Hold, outlook: Outlook, report: Report) -> Outcome:
    """End the run as held and keep what a person needs to decide, in one transaction."""
    outcome = Outcome(State.HELD, hold.rule, hold.message, hold.hint)
    with db.transaction():
        endings.finish(db, run, outcome, report=report)
        held.record(
            db,
            {
                "run_id": run.run_id,
                "sync_type": run.sync_type,
                "agent_id": run.agent_id,
                "rule": hold.rule,
                "message": hold.message,
                "hint": hold.hint,
                "acceptable": hold.rule.acceptable,
                "sha256": (report.export or {}).get("sha256"),
                "rows_valid": outlook.valid,
                "sample": outlook.vanishing,
                "planned": asdict(outlook.plan) if outlook.plan else {},
                "changes": outlook.changes,
                "findings": [asdict(found) for found in hold.findings],
            },
        )
    return outcome


def fail(db: Database, run: ClaimedRun, exc: ArchisyncError, report: Report) -> Outcome:
    """End the run as failed. After several failures in a row the pair backs off."""
    return _finish(db, run, Outcome(State.FAILED, reason_of(exc), **told(exc)), report)


def reason_of(exc: ArchisyncError) -> str:
    """The machine-readable word of a run that ends with this error."""
    return exc.reason if isinstance(exc, SyncError) else _REASONS.get(type(exc), "error")


def stopped_by(exc: BaseException) -> ArchisyncError:
    """The error of a worker that can't go on with an agent."""
    if isinstance(exc, ArchisyncError):
        return exc
    if isinstance(exc, psycopg.Error):
        return translate(exc)
    return unexpected(exc, hint="the worker's log at that time says where (delivery-failed)")


def unexpected(exc: BaseException, *, hint: str) -> SyncError:
    """The error for one that nobody expected here: a bug, or a limit of this machine. `hint`: for a bug."""
    number = exc.errno if isinstance(exc, OSError) else errno.ENOMEM if isinstance(exc, MemoryError) else None
    said = f"unexpected {type(exc).__name__}: {redact(str(exc))[:500]}"
    return SyncError(said, hint=_LIMITS_OF_THIS_MACHINE.get(number or 0, hint))


def retry_later(db: Database, config: Config, run: ClaimedRun, exc: ArchisyncError) -> Outcome:
    """Queue the run again for a later tick."""
    delay_s = retry_delay_s(run.attempt, first_s=config.retry_delay_s)
    if isinstance(exc, TransientSourceError) and exc.retry_after_s:
        delay_s = max(delay_s, int(min(exc.retry_after_s, LONGEST_RETRY_DELAY_S)))
    outcome = Outcome(State.QUEUED, "retry", **told(exc))
    claims.requeue(db, run, delay_s=delay_s, reason=outcome.reason, message=outcome.message, hint=outcome.hint)
    return outcome


def is_worth_retrying(config: Config, run: ClaimedRun, exc: ArchisyncError) -> bool:
    """Whether the run has attempts left and another one may help."""
    hopeless = isinstance(exc, SourceError | ConfigurationError | UsageError)
    return not hopeless and run.attempt < config.max_attempts


def retry_delay_s(attempt: int, *, first_s: int) -> int:
    """Seconds until the next attempt of a run. They double with each attempt, up to an hour."""
    return int(min(first_s * 2 ** (attempt - 1), LONGEST_RETRY_DELAY_S))


def _finish(db: Database, run: ClaimedRun, outcome: Outcome, report: Report) -> Outcome:
    endings.finish(db, run, outcome, report=report)
    return outcome
