"""Doing a job: claim the agent, do what it has queued, let it go, look once more for what came meanwhile.

RQ jobs and `run --inline` both use it. It knows nothing of Redis.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

import psycopg

from archisync.base.errors import ArchisyncError, LeaseLostError
from archisync.base.log import EventLog
from archisync.base.signals import is_interrupt
from archisync.rules.config import AGENT_BOUND_S, AGENT_SLICE_S, Config
from archisync.sources.spoolfolder import SpoolFolder
from archisync.store import claims, endings, synctypes
from archisync.store.claims import Claim, ClaimedRun, Locked
from archisync.store.database import Database, connected
from archisync.store.endings import Outcome, UnchangedEnd
from archisync.store.runs import State
from archisync.sync.endings import reason_of, stopped_by
from archisync.sync.run import Sync
from archisync.sync.survey import survey
from archisync.sync.verdict import told
from archisync.work.heartbeat import Heartbeat

LOCKED_DELAY_S = 15
"""How long an agent waits that is locked by a process that has lost its lease and will soon notice it."""


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class Runner:
    """Does jobs in this process, over one connection. A context.

    It keeps two things from one run to the next: the heartbeat's thread, and an empty folder for the export; both are made when a run first
    needs them. `stopping` says whether the process was asked to end. `others_wait` says whether other agents wait for a worker: an agent
    that has had its time goes on only while none does.
    """

    def __init__(
        self,
        db: Database,
        config: Config,
        log: EventLog,
        *,
        stopping: Callable[[], bool] = lambda: False,
        others_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        self._db = db
        self._config = config
        self._log = log
        self._stopping = stopping
        self._others_wait = others_wait
        self._heartbeat = Heartbeat(config, log)
        self._folder: SpoolFolder | None = None
        self._name = worker_name()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.stop()
        if self._folder is not None:
            self._folder.remove()

    def do(self, delivery_id: int, job_no: int) -> int:
        """Do a delivered job: all runs that its agent has queued, and those that come meanwhile. Returns the number of runs done.

        A stale or duplicate job does nothing and returns 0 at once. So does one whose agent another worker has: that worker looks for
        more runs when it lets the agent go.
        """
        begun = monotonic()
        ids = {"delivery": delivery_id, "job": job_no}
        claimed = claims.claim_job(self._db, delivery_id, job_no, worker=self._name, lease_s=self._config.lease_s)
        if claimed is None:
            self._log.event("delivery-ignored", **ids)
        done = 0
        while claimed is not None:
            if isinstance(claimed, Locked):
                self._put_off(claimed.agent_id)
                break
            ended, released = self._do_claim(claimed, begun)
            done += ended
            if not released:
                break
            claimed = claims.claim_agent(self._db, claimed.agent_id, worker=self._name, lease_s=self._config.lease_s)
        return done

    def _do_claim(self, claim: Claim, begun: float) -> tuple[int, bool]:
        """Do the runs of a claimed agent in their order, those with an unchanged export at once. Returns how many ended, and whether the
        agent was let go because nothing was left."""
        with self._errors_end_in_the_run(claim):
            return self._do_runs(claim, begun)

    @contextmanager
    def _errors_end_in_the_run(self, claim: Claim) -> Iterator[None]:
        """Have the claim's current run say what stopped its worker, and raise it. Where PostgreSQL is away, the lease runs out."""
        try:
            yield
        except BaseException as exc:
            if not is_interrupt(exc):
                with suppress(ArchisyncError):
                    self._break_off(claim, exc)
            raise

    def _break_off(self, claim: Claim, exc: BaseException) -> None:
        error = stopped_by(exc)
        timeout_s = self._config.lease_s / 3
        with connected(self._config.database_url, purpose="worker", answer_timeout_s=timeout_s) as db:
            claims.break_off(db, claim, max_attempts=self._config.max_attempts, reason=reason_of(error), **told(error))

    def _do_runs(self, claim: Claim, begun: float) -> tuple[int, bool]:
        self._learn_types(claim)
        ends, left = self._survey(claim)
        done = 0
        try:
            while True:
                if ends or not left:
                    ended = endings.end_unchanged(self._db, claim, ends, release=not left)
                    done += len(ended.run_ids)
                    self._log_ends(ends, ended.run_ids)
                    if ended.released:
                        return done, True
                    left += [replace(end.run, applied={}) for end in ends if end.run.run_id not in ended.run_ids]
                    ends = []
                elif self._stopping() or self._time_is_up(monotonic() - begun):
                    claims.release(self._db, claim)
                    return done, False
                else:
                    done += self._do_run(left.popleft(), may_retry=True) is not None
        except LeaseLostError as exc:
            self._log.event("lease-lost", agent=claim.agent_id, message=exc.message, hint=exc.hint)
            claims.release(self._db, claim)  # the agent was taken away, or only its run, by whoever denied the agent
            return done, False

    def _learn_types(self, claim: Claim) -> None:
        """Know the types of the claim's runs as they are declared now."""
        synctypes.load_if_changed(self._db, ((run.sync_type, run.declared) for run in claim.runs))

    def _time_is_up(self, seconds: float) -> bool:
        return seconds > AGENT_BOUND_S or (seconds > AGENT_SLICE_S and self._others_wait())

    def _survey(self, claim: Claim) -> tuple[list[UnchangedEnd], deque[ClaimedRun]]:
        """The runs whose local export is the applied one, and the others. Nothing leaves this process."""
        ends, others = [], deque[ClaimedRun]()
        for run in claim.runs:
            end = survey(self._config, run)
            if end is None:
                others.append(run)
            else:
                ends.append(end)
        return ends, others

    def _log_ends(self, ends: Sequence[UnchangedEnd], run_ids: Collection[int]) -> None:
        for end in ends:
            if end.run.run_id in run_ids:
                self._log.event("run-finished", **_ids(end.run), **end.outcome._asdict())

    def do_forced(self, agent_id: str, run_id: int) -> State | None:
        """Do one run and nothing else of its agent; it is not tried again. Returns the state that it is left in, None when somebody else
        has the run or its agent. For `run --inline`."""
        claimed = claims.claim_agent(self._db, agent_id, worker=self._name, lease_s=self._config.lease_s)
        if isinstance(claimed, Locked):
            self._put_off(agent_id)
            return None
        if claimed is None:
            return None
        with self._errors_end_in_the_run(claimed):
            try:
                self._learn_types(claimed)
                run = next((run for run in claimed.runs if run.run_id == run_id), None)
                state = self._do_run(run, may_retry=False) if run is not None else None
            except LeaseLostError as exc:
                self._log.event("lease-lost", agent=agent_id, message=exc.message, hint=exc.hint)
                state = None
            claims.release(
                self._db, claimed
            )  # not in a finally: after Ctrl-C the caller gives the run back with its reason
        return state

    def _do_run(self, run: ClaimedRun, *, may_retry: bool) -> State | None:
        """Do one run of the claimed agent, with the lease kept alive. Returns the state that it is left in, None when it was taken away.
        Raises LeaseLostError."""
        begun = claims.begin(self._db, run, lease_s=self._config.lease_s)
        if begun is None:
            return None
        started = monotonic()
        self._log.event("run-started", **_ids(begun))
        outcome = self._outcome(begun, Sync(self._db, self._config, begun, spool=self._spool, may_retry=may_retry))
        self._log.event("run-finished", **_ids(begun), **outcome._asdict(), seconds=round(monotonic() - started, 3))
        return outcome.state

    def _outcome(self, run: ClaimedRun, sync: Sync) -> Outcome:
        try:
            with self._heartbeat.beating(run):
                return sync.run()
        except (ArchisyncError, psycopg.Error):
            raise
        except Exception as exc:
            if is_interrupt(exc):
                raise
            return sync.fail_unexpectedly(exc)

    def _put_off(self, agent_id: str) -> None:
        """Let the agent's runs wait: another process holds its lock."""
        self._log.event("agent-locked", agent=agent_id, hint="archisync doctor names the process that has it")
        claims.put_off(self._db, agent_id, delay_s=LOCKED_DELAY_S)

    @contextmanager
    def _spool(self) -> Iterator[Path]:
        """An empty folder for the export that only this process can read. It is emptied again at the end."""
        if self._folder is None:
            self._folder = SpoolFolder()
        folder = self._folder.path
        try:
            yield folder
        finally:
            self._empty(folder)

    def _empty(self, folder: Path) -> None:
        """Empty the folder; the next run has another one if that fails: this run is over, and its outcome must stay."""
        try:
            for entry in os.scandir(folder):
                (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
        except OSError:
            assert self._folder is not None
            self._folder.remove()
            self._folder = None


def _ids(run: ClaimedRun) -> dict[str, object]:
    return {"run": run.run_id, "type": run.sync_type, "agent": run.agent_id, "attempt": run.attempt}
