"""One sync of one agent: fetch → open → stage → judge → write → finish.

Everything is read before anything is written, and everything is written or nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from archisync.base.errors import ArchisyncError, ExportError, LeaseLostError, NotSettledError
from archisync.base.signals import is_interrupt
from archisync.base.text import counted, printable
from archisync.rules.config import Config
from archisync.rules.guard import Hold
from archisync.rules.synctypes import SHARED_AGENT, Scope, SyncType, sync_type
from archisync.sources.interface import Export, Fetched, Original, Unchanged
from archisync.store import applied_exports, endings, held
from archisync.store.applied_exports import Begun
from archisync.store.claims import Claim, ClaimedRun
from archisync.store.database import Database
from archisync.store.endings import Outcome, UnchangedEnd
from archisync.store.runs import Counts, State, Trigger
from archisync.sync.comparing import compare
from archisync.sync.comparison import Comparison
from archisync.sync.copying import Staged
from archisync.sync.endings import fail, hold_back, is_worth_retrying, not_settled, retry_later, skip, unexpected
from archisync.sync.exports import fetch_export, fetch_if_changed, open_export, put_away
from archisync.sync.knownrows import DigestLayouts
from archisync.sync.lost import lost_columns
from archisync.sync.records import RecordReader
from archisync.sync.runrecord import RunRecord
from archisync.sync.staging import RepeatedKeyError
from archisync.sync.survey import read_as, unchanged_at_source
from archisync.sync.tablecheck import explained
from archisync.sync.target import Target
from archisync.sync.verdict import HeldExport, Outlook, Verdict, judge_comparison, outlook_of, unreadable, written_at


class Sync:
    """A claimed run on its way from the export to the table.

    `spool` gives an empty folder for the export, and empties it again. `may_retry`: a run that fails for now may be queued again.
    """

    def __init__(
        self,
        db: Database,
        config: Config,
        run: ClaimedRun,
        *,
        spool: Callable[[], AbstractContextManager[Path]],
        may_retry: bool,
    ) -> None:
        self._db = db
        self._config = config
        self._run = run
        self._spool = spool
        self._may_retry = may_retry
        self._record = RunRecord()
        self._applied: dict[str, Any] = {}
        self._originals: tuple[Original, ...] = ()

    def run(self) -> Outcome:
        """Do the run and leave it finished (`succeeded`, `held`, `failed`, `skipped`) or queued for a later tick. Returns which.

        Raises LeaseLostError when another worker has the run by now (nothing was written), and what a broken connection to PostgreSQL
        raises: the lease then runs out, and a tick takes the run back.
        """
        if self._run.blocked is not None:
            return skip(self._db, self._run, self._run.blocked)
        outcome = self._end()
        if self._originals and outcome.state is State.SUCCEEDED:
            self._put_away(self._originals)
        return outcome

    def _end(self) -> Outcome:
        try:
            with self._spool() as self._folder:
                return self._take_steps()
        except HeldExport as exc:
            return self._hold(exc.hold, exc.outlook)
        except ExportError as exc:
            return self._hold(unreadable(exc), Outlook())
        except LeaseLostError:
            raise
        except NotSettledError as exc:
            return not_settled(self._db, self._run, exc)
        except ArchisyncError as exc:
            return self._fail(exc)
        except psycopg.Error as exc:
            if self._db.closed or self._db.broken:
                raise
            return self._fail(explained(self._db, self._type, exc))
        except Exception as exc:
            if is_interrupt(exc):
                raise
            return self.fail_unexpectedly(exc)

    def fail_unexpectedly(self, exc: Exception) -> Outcome:
        """End the run with an error that nobody expected: a bug in reading one export must end that run visibly, and not the worker."""
        whose = "" if self._run.agent_id == SHARED_AGENT else f" --agent {shlex.quote(self._run.agent_id)}"
        return self._fail(unexpected(exc, hint=f"to see where: archisync --debug diff {self._run.sync_type}{whose}"))

    def _hold(self, hold: Hold, outlook: Outlook) -> Outcome:
        return hold_back(self._db, self._run, hold, outlook, self._record.report())

    def _fail(self, exc: ArchisyncError) -> Outcome:
        if self._may_retry and is_worth_retrying(self._config, self._run, exc):
            return retry_later(self._db, self._config, self._run, exc)
        return fail(self._db, self._run, exc, self._record.report())

    def _put_away(self, originals: Sequence[Original]) -> None:
        """Move the files that the export was read from. The run has ended: what stands in the way is one more warning of it."""
        try:
            with self._spool() as folder:
                put_away(self._config, self._type, self._run.agent_id, folder, originals)
        except Exception as exc:
            if is_interrupt(exc):
                raise
            said = f"{exc.message}; {exc.hint}" if isinstance(exc, ArchisyncError) else f"{originals[0].path}: {exc!r}"
            endings.add_warning(self._db, self._run, {"code": "not-moved", "message": printable(said), "count": 1})

    # --- the steps --------------------------------------------------------------------------------------------

    def _take_steps(self) -> Outcome:
        """From the export to the end of the run. Raises HeldExport, and what stops a run on its way."""
        fetched = self._fetch()
        if (unchanged := self._end_unchanged(fetched)) is not None:
            return unchanged
        export = fetched if isinstance(fetched, Export) else self._fetch_again()
        records = self._open(export)
        target = Target(self._db, self._type, self._run.agent_id, records.layout.columns, run_id=self._run.run_id)
        try:
            return self._apply(target, records, export)
        except RepeatedKeyError:  # only a comparison of all rows can say what it means
            return self._apply(target, records, export, may_load=False)

    def _apply(self, target: Target, records: RecordReader, export: Export, *, may_load: bool = True) -> Outcome:
        with self._db.transaction():
            run = self._run
            before = applied_exports.begin_apply(
                self._db,
                run_id=run.run_id,
                sync_type=run.sync_type,
                agent_id=run.agent_id,
                moves=bool(self._originals),
            )
            layouts = DigestLayouts.of(records.line_layout, before)
            comparison = self._compare(target, records, compare_all=layouts.renew or before.forced, may_load=may_load)
            lost = lost_columns(records.layout, before)
            self._record.warn_about_lost(lost, records.layout)
            verdict = self._judge(target, comparison, export, before)
            self._write(comparison, verdict, layouts)
            of_agent = self._type.scope is Scope.AGENT
            written = written_at(export)
            more = {
                "columns": records.layout.found,
                "lost": {name: f"{day}" for name, day in lost.items()},
                # A time in the future would make all later exports look old.
                "written_at": f"{min(written, before.now)}" if written else None,
                "shared": verdict.shared,
                "least_digest": comparison.staged.least_digest(before.least_digest) if of_agent else None,
                "first": not before.known_rows or (before.first and export.sha256 == before.sha256),
            }
            return self._finish(comparison.staged, export, verdict, layouts, more)

    def _fetch(self) -> Fetched:
        """Fetch the export, unless the source says that it is still the one that was applied last."""
        with self._record.step("fetch"):
            self._applied = self._applied_export()
            validators = self._applied.get("validators", {})
            fetched = fetch_if_changed(
                self._config, self._type, self._run.agent_id, self._folder, validators=validators
            )
        self._note(fetched)
        return fetched

    def _applied_export(self) -> dict[str, Any]:
        """What is known of the export that was applied last.

        Empty when the export must be compared: a person forced the run, the table may have changed since, or today the export would
        be read in another way.
        """
        if self._run.trigger is Trigger.FORCED or self._run.applied.get("read_as") != self._read_as:
            return {}
        return self._run.applied

    @cached_property
    def _type(self) -> SyncType:
        """Raises ConfigurationError when this version of archisync can't read the type's declaration."""
        return sync_type(self._run.sync_type)

    @cached_property
    def _read_as(self) -> str:
        return read_as(self._config, self._type)

    def _note(self, fetched: Fetched) -> None:
        self._originals = fetched.originals
        self._record.export = {"origin": printable(fetched.origin)}
        if isinstance(fetched, Unchanged):
            self._record.export["unchanged_since_run"] = self._applied["run_id"]
        else:
            self._record.export |= {"bytes": fetched.size_bytes, "sha256": fetched.sha256, **fetched.details}

    def _end_unchanged(self, fetched: Fetched) -> Outcome | None:
        """End the run if the table is what this very export made it. None, and the run goes on, when it is not, or no longer."""
        applied = self._applied
        if isinstance(fetched, Unchanged):
            outcome = unchanged_at_source(applied)
        elif fetched.sha256 == applied.get("sha256"):
            seen = counted(applied["seen"], "row")
            message = f"{seen} seen: the export is the one of run {applied['run_id']}; nothing was compared"
            outcome = Outcome(State.SUCCEEDED, "unchanged", message)
        else:
            return None
        self._record.counts = Counts(seen=applied["seen"], unchanged=applied["valid"])
        claim = Claim(agent_id=self._run.agent_id, fence=self._run.fence)
        end = UnchangedEnd(self._run, outcome, self._record.report(), applied["run_id"])
        moves = bool(self._originals)
        if endings.end_unchanged(self._db, claim, [end], release=False, moves=moves).run_ids:
            return outcome
        self._record.counts = None
        self._applied = {}
        return None

    def _fetch_again(self) -> Export:
        """Fetch the whole export after all."""
        with self._record.step("fetch"):
            export = fetch_export(self._config, self._type, self._run.agent_id, self._folder)
        self._note(export)
        return export

    def _open(self, export: Export) -> RecordReader:
        """Read the labels and find the columns. Raises ExportError."""
        with self._record.step("open"):
            records = open_export(self._config, self._type, export, self._record.export, had=self._had)
        self._record.warn_about_columns(records.layout)
        return records

    def _had(self) -> list[str]:
        return applied_exports.had(self._db, sync_type=self._run.sync_type, agent_id=self._run.agent_id)

    def _compare(self, target: Target, records: RecordReader, *, compare_all: bool, may_load: bool) -> Comparison:
        """Read the export as far as needed: into an empty table, else the lines that are new, else all of it."""
        with self._record.step("read"):
            comparison = compare(target, records, compare_all=compare_all, may_load=may_load)
        self._record.warn_about_rows(comparison.staged, records)
        return comparison

    def _judge(self, target: Target, comparison: Comparison, export: Export, before: Begun) -> Verdict:
        """Raise HeldExport unless the guard or a person lets the export pass."""
        verdict = judge_comparison(target, comparison, before, export, self._record, self._config.zone)
        if verdict.hold is not None:
            staged = comparison.staged
            self._record.counts = Counts(seen=staged.seen, quarantined=staged.quarantined)
            raise HeldExport(verdict.hold, outlook_of(comparison, verdict.plan))
        if before.held:
            held.end(self._db, self._run.sync_type, self._run.agent_id)
        return verdict

    def _write(self, comparison: Comparison, verdict: Verdict, layouts: DigestLayouts) -> None:
        with self._record.step("apply"):
            self._record.counts = comparison.write(verdict.plan)
            if layouts.renew:
                comparison.renew_digests()
        self._record.warn_about_values(comparison)

    def _finish(
        self, staged: Staged, export: Export, verdict: Verdict, layouts: DigestLayouts, more: dict[str, Any]
    ) -> Outcome:
        """Record what the pair's next run needs to know, and end the run. `more`: besides what the arguments say."""
        outcome = self._applied_outcome(staged)
        # The same incomplete export must give its warning again, so it is never taken as unchanged.
        complete = not staged.missing
        endings.finish_applied(
            self._db,
            self._run,
            outcome,
            report=self._record.report(),
            known_rows=staged.valid,
            accepted=verdict.accepted,
            source={
                "validators": dict(export.validators) if complete else {},
                "sha256": export.sha256 if complete else None,
                "line_layout": layouts.now,
                "digest_layout": layouts.after(verdict.plan),
                "open_ended": staged.open_ended,
                "seen": staged.seen,
                "valid": staged.valid,
                "run_id": self._run.run_id,
                "read_as": self._read_as,
                "origin": printable(export.origin),
                **more,
            },
            warned=self._record.worth_telling,
        )
        return outcome

    def _applied_outcome(self, staged: Staged) -> Outcome:
        seen = f"{counted(staged.seen, 'row')} seen"
        if self._applied and staged.nothing_new and not self._record.changed and not self._record.warnings:
            return Outcome(State.SUCCEEDED, "unchanged", f"{seen}: every line is known; nothing was compared")
        reason = "applied-with-warnings" if self._record.warnings else "applied"
        return Outcome(State.SUCCEEDED, reason, f"{seen}: {self._record.in_words() or 'nothing to do'}")
