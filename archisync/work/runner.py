"""The run's life in a worker's hands: claim, lock the agent, heartbeat, perform, go on with the agent's next run.

Used by RQ jobs and by `run --inline` alike; knows nothing of Redis.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from archisync.base.errors import ArchisyncError, LeaseLostError
from archisync.base.log import EventLog
from archisync.rules.config import AGENT_BOUND_S, Config
from archisync.sources.spoolfolder import SpoolFolder
from archisync.store import claims, queued_runs
from archisync.store.claims import Claim
from archisync.store.database import Database, connected
from archisync.store.locks import agent_lock, end_silent_holder
from archisync.store.runs import State
from archisync.sync import run as sync

LOCKED_DELAY_S = 15
"""Wait before a run is offered again whose agent is locked by a process that has lost its lease (it will notice soon)."""


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def serve(
    db: Database,
    config: Config,
    log: EventLog,
    run_id: int,
    fence: int,
    *,
    stopping: Callable[[], bool] = lambda: False,
    place: Workplace | None = None,
) -> int:
    """Do the delivered run, then whatever else its agent has queued, within AGENT_BOUND_S; the number of runs done.

    A stale or duplicate delivery, or one whose agent is busy, does nothing and returns 0 at once: the run stays queued,
    and whoever finishes the agent's current run goes on with it. `place`: the one of a process that serves many deliveries.
    """
    if place is None:
        with Workplace(config, log) as place:
            return serve(db, config, log, run_id, fence, stopping=stopping, place=place)
    started, done = monotonic(), 0
    following: tuple[int, int] | None = (run_id, fence)
    while following is not None:
        claim = claims.claim(db, *following, worker=worker_name(), lease_s=config.lease_s)
        if claim is None:
            log.event("delivery-ignored", run=following[0], fence=following[1])
            return done
        if serve_claim(db, config, log, claim, place, may_retry=True) is not None:
            done += 1
        if stopping() or monotonic() - started > AGENT_BOUND_S:
            return done
        following = queued_runs.next_of_agent(db, claim.agent_id)
    return done


def serve_claim(
    db: Database, config: Config, log: EventLog, claim: Claim, place: Workplace, *, may_retry: bool
) -> State | None:
    """Perform a claimed run under the agent's lock and a heartbeat; the state it is left in, None when it was lost or
    given back because another process still holds the agent."""
    ids = {"run": claim.run_id, "type": claim.sync_type, "agent": claim.agent_id, "attempt": claim.attempt}
    with agent_lock(db, claim.agent_id) as locked:
        begun = monotonic()
        try:
            if not locked:
                log.event("agent-locked", **ids)
                _give_back(db, claim)
                if end_silent_holder(db, claim.agent_id, silent_s=config.run_timeout_s):
                    log.event("silent-holder-ended", **ids)
                return None
            log.event("run-started", **ids)
            with place.beating(claim), place.spool() as spool:
                outcome = sync.perform(db, config, claim, spool=spool, may_retry=may_retry)
        except LeaseLostError as exc:
            log.event("lease-lost", **ids, message=exc.message)
            return None
        log.event("run-finished", **ids, **outcome._asdict(), seconds=round(monotonic() - begun, 3))
        return outcome.state


def _give_back(db: Database, claim: Claim) -> None:
    claims.requeue(
        db,
        claim,
        delay_s=LOCKED_DELAY_S,
        reason="agent-locked",
        message="another process still talks to the ERP for this agent",
        spent_attempt=False,
    )


class Workplace:
    """What a process keeps from one run to the next: the heartbeat's thread, and an empty folder for the export. A context.

    The thread extends the lease of the run that is being done, over a connection of its own, opened only when a run outlives a third
    of the lease. It leaves a run alone once its lease is lost, and after the run's time limit: a run that hangs is taken back.
    """

    def __init__(self, config: Config, log: EventLog) -> None:
        self._config = config
        self._log = log
        self._current: tuple[Claim, float] | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._folder: SpoolFolder | None = None

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
        if self._folder is not None:
            self._folder.remove()

    @contextmanager
    def spool(self) -> Iterator[Path]:
        """An empty folder that only this process may read, emptied again at the end."""
        if self._folder is None:
            self._folder = SpoolFolder()
        folder = self._folder.path
        try:
            yield folder
        finally:
            for entry in os.scandir(folder):
                (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)

    @contextmanager
    def beating(self, claim: Claim) -> Iterator[None]:
        """Keep the run's lease alive."""
        self._current = claim, monotonic()
        if self._thread is None:
            thread = threading.Thread(target=self._beat, name="archisync-heartbeat", daemon=True)
            thread.start()
            self._thread = thread  # one that an interrupt has kept from starting can't be waited for
        try:
            yield
        finally:
            self._current = None

    def _beat(self) -> None:
        """Looks twice in a third of the lease, so that nobody needs to wake it for a run that is over in a moment."""
        while not self._over.wait(self._config.lease_s / 6):
            current = self._current
            if current is None or monotonic() - current[1] < self._config.lease_s / 3:
                continue
            try:
                answer_s = self._config.lease_s / 3
                with connected(self._config.database_url, purpose="heartbeat", answer_timeout_s=answer_s) as db:
                    self._extend(db, *current)
            except ArchisyncError as exc:  # PostgreSQL is away: try again, the lease lasts for another round
                self._log.event("heartbeat-failed", run=current[0].run_id, message=exc.message)

    def _extend(self, db: Database, claim: Claim, begun: float) -> None:
        """Until that run is over, its lease is lost, or its time is up."""
        extended = True
        while self._current == (claim, begun):
            if extended and monotonic() - begun < self._config.run_timeout_s:
                extended = claims.heartbeat(db, claim.run_id, claim.fence, lease_s=self._config.lease_s)
            if self._over.wait(self._config.lease_s / 3):
                return
