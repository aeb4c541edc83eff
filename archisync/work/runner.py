"""Doing a delivery: claim the run, lock the agent, sync under a heartbeat, go on with the agent's next run.

RQ jobs and `run --inline` both use it. It knows nothing of Redis.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from archisync.base.errors import LeaseLostError
from archisync.base.log import EventLog
from archisync.rules.config import AGENT_BOUND_S, Config
from archisync.sources.spoolfolder import SpoolFolder
from archisync.store import claims, queued_runs
from archisync.store.claims import Claim
from archisync.store.database import Database
from archisync.store.locks import agent_lock, end_silent_holder
from archisync.store.runs import State
from archisync.sync.run import Sync
from archisync.work.heartbeat import Heartbeat

LOCKED_DELAY_S = 15
"""How long a run waits when its agent is locked by a process that has lost its lease and will soon notice it."""


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class Runner:
    """Does deliveries in this process, over one connection. A context.

    It keeps two things from one run to the next: the heartbeat's thread, and an empty folder for the export. `stopping` says whether
    the process was asked to end.
    """

    def __init__(
        self, db: Database, config: Config, log: EventLog, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._db = db
        self._config = config
        self._log = log
        self._stopping = stopping
        self._heartbeat = Heartbeat(config, log)
        self._folder: SpoolFolder | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.stop()
        if self._folder is not None:
            self._folder.remove()

    def do(self, run_id: int, fence: int) -> int:
        """Do the delivered run, then the agent's other queued runs, within AGENT_BOUND_S. Returns the number of runs done.

        A stale or duplicate delivery does nothing and returns 0 at once. So does one whose agent is busy: the run stays queued, and
        the worker that finishes the agent's current run goes on with it.
        """
        started, done = monotonic(), 0
        following: tuple[int, int] | None = (run_id, fence)
        while following is not None:
            claim = claims.claim(self._db, *following, worker=worker_name(), lease_s=self._config.lease_s)
            if claim is None:
                self._log.event("delivery-ignored", run=following[0], fence=following[1])
                break
            if self.do_claimed(claim, may_retry=True) is not None:
                done += 1
            if self._stopping() or monotonic() - started > AGENT_BOUND_S:
                break
            following = queued_runs.next_of_agent(self._db, claim.agent_id)
        return done

    def do_claimed(self, claim: Claim, *, may_retry: bool) -> State | None:
        """Do a claimed run, with its agent locked and its lease kept alive. Returns the state that the run is left in.

        Returns None when another worker has the run by now, and when the run is given back because another process still holds the
        agent. `may_retry`: a run that fails for now may be queued again.
        """
        ids = {"run": claim.run_id, "type": claim.sync_type, "agent": claim.agent_id, "attempt": claim.attempt}
        with agent_lock(self._db, claim.agent_id) as locked:
            begun = monotonic()
            try:
                if not locked:
                    self._give_back(claim, ids)
                    return None
                self._log.event("run-started", **ids)
                with self._heartbeat.beating(claim), self._spool() as spool:
                    outcome = Sync(self._db, self._config, claim, spool=spool, may_retry=may_retry).run()
            except LeaseLostError as exc:
                self._log.event("lease-lost", **ids, message=exc.message)
                return None
            self._log.event("run-finished", **ids, **outcome._asdict(), seconds=round(monotonic() - begun, 3))
            return outcome.state

    def _give_back(self, claim: Claim, ids: dict[str, object]) -> None:
        """Queue the run again for later. It has not spent an attempt. A session that holds the agent and is silent is ended."""
        self._log.event("agent-locked", **ids)
        claims.requeue(
            self._db,
            claim,
            delay_s=LOCKED_DELAY_S,
            reason="agent-locked",
            message="another process still talks to the ERP for this agent",
            spent_attempt=False,
        )
        if end_silent_holder(self._db, claim.agent_id, silent_s=self._config.run_timeout_s):
            self._log.event("silent-holder-ended", **ids)

    @contextmanager
    def _spool(self) -> Iterator[Path]:
        """An empty folder for the export that only this process can read. It is emptied again at the end."""
        if self._folder is None:
            self._folder = SpoolFolder()
        folder = self._folder.path
        try:
            yield folder
        finally:
            for entry in os.scandir(folder):
                (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
