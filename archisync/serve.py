"""The run's life in a worker's hands: claim, lock the agent, heartbeat, perform, go on with the agent's next run.

Used by RQ jobs and by `run --inline` alike; knows nothing of Redis.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from archisync import sync
from archisync.config import AGENT_BOUND_S, Config
from archisync.database import Database, connected
from archisync.errors import ArchisyncError, LeaseLostError
from archisync.log import EventLog
from archisync.store import runs
from archisync.store.locks import agent_lock, end_silent_holder
from archisync.store.runs import Claim, State

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
) -> int:
    """Do the delivered run, then whatever else its agent has queued, within AGENT_BOUND_S; the number of runs done.

    A stale or duplicate delivery, or one whose agent is busy, does nothing and returns 0 at once: the run stays queued,
    and whoever finishes the agent's current run goes on with it.
    """
    started, done = monotonic(), 0
    following: tuple[int, int] | None = (run_id, fence)
    while following is not None:
        claim = runs.claim(db, *following, worker=worker_name(), lease_s=config.lease_s)
        if claim is None:
            log.event("delivery-ignored", run=following[0], fence=following[1])
            return done
        if serve_claim(db, config, log, claim, may_retry=True) is not None:
            done += 1
        if stopping() or monotonic() - started > AGENT_BOUND_S:
            return done
        following = runs.next_of_agent(db, claim.agent_id)
    return done


def serve_claim(db: Database, config: Config, log: EventLog, claim: Claim, *, may_retry: bool) -> State | None:
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
            with heartbeat(config, claim, log):
                state = sync.perform(db, config, claim, may_retry=may_retry)
        except LeaseLostError as exc:
            log.event("lease-lost", **ids, message=exc.message)
            return None
        run = runs.get(db, claim.run_id)
        log.event(
            "run-finished",
            **ids,
            state=state,
            reason=run.reason,
            message=run.message,
            seconds=round(monotonic() - begun, 3),
        )
        return state


def _give_back(db: Database, claim: Claim) -> None:
    runs.requeue(
        db,
        claim,
        delay_s=LOCKED_DELAY_S,
        reason="agent-locked",
        message="another process still talks to the ERP for this agent",
        spent_attempt=False,
    )


@contextmanager
def heartbeat(config: Config, claim: Claim, log: EventLog) -> Iterator[None]:
    """Extend the lease from a thread with a connection of its own, opened only when a run outlives a third of the lease.

    It stops when the run ends, when the lease is lost, and after the run's time limit: a run that hangs is taken back.
    """
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(config, claim, log, over), name="archisync-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=30)


def _beat(config: Config, claim: Claim, log: EventLog, over: threading.Event) -> None:
    started = monotonic()
    while not over.wait(config.lease_s / 3):
        try:
            with connected(config.database_url, purpose="heartbeat", answer_timeout_s=config.lease_s / 3) as db:
                while monotonic() - started < config.run_timeout_s:
                    if not runs.heartbeat(db, claim.run_id, claim.fence, lease_s=config.lease_s):
                        return
                    if over.wait(config.lease_s / 3):
                        return
                return
        except ArchisyncError as exc:  # PostgreSQL is away: try again, the lease lasts for two more rounds
            log.event("heartbeat-failed", run=claim.run_id, message=exc.message)
