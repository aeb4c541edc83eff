"""`archisync run --inline`: this process as the worker of forced runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

from archisync.base.errors import ArchisyncError, BusyError
from archisync.base.log import EventLog
from archisync.base.signals import is_interrupt
from archisync.rules.config import Config
from archisync.store import claims, history
from archisync.store.claims import Claim
from archisync.store.database import Database, connected
from archisync.store.queued_runs import Forced
from archisync.store.runs import Run, State
from archisync.work.runner import Workplace, serve_claim, worker_name

POLL_S = 0.25
GIVE_BACK_TIMEOUT_S = 5.0
"""Whoever has typed Ctrl-C waits no longer than that."""


def run_inline(db: Database, config: Config, forced: Sequence[Forced], *, changed: Callable[[Run], object]) -> None:
    """Do the forced runs in this process, one after the other, without Redis or a worker. No later retries.

    All of them are queued, so ticks and workers may do some meanwhile: what can't be done in its turn is looked at again after the
    others, and waited for while somebody else does it. `changed` is called with each run as it ends. Interrupted, it gives back
    the run that it was doing. Raises BusyError, when the rest is done, for a run that was in another worker's hands from the
    beginning, or whose agent is.
    """
    at_work = Inline(db, config, changed)
    elsewhere = [one for one in forced if one.joined and history.state_of(db, one.run_id) is State.RUNNING]
    left = [one for one in forced if not at_work.done(one)]
    busy = [one for one in left if not at_work.seen_through(one, may_wait=one not in elsewhere)]
    if busy:
        raise _busy(db, busy[0])


class Inline:
    """This process as a worker of forced runs."""

    def __init__(self, db: Database, config: Config, changed: Callable[[Run], object]) -> None:
        self._db, self._config, self._changed = db, config, changed
        self._log = EventLog()

    def done(self, one: Forced) -> bool:
        """Do the run unless it is finished already; False when somebody else has it or its agent."""
        run = history.get(self._db, one.run_id)
        if run.state.unfinished:
            claim = claims.claim(self._db, run.run_id, run.fence, worker=worker_name(), lease_s=self._config.lease_s)
            if claim is None or not self._served(claim):
                return False
            run = history.get(self._db, one.run_id)
        self._changed(run)
        return True

    def _served(self, claim: Claim) -> bool:
        try:
            with Workplace(self._config, self._log) as place:
                return serve_claim(self._db, self._config, self._log, claim, place, may_retry=False) is not None
        except BaseException as exc:
            if not is_interrupt(exc):
                raise
            with suppress(ArchisyncError):  # or it has ended, or PostgreSQL can't be asked: then its lease runs out
                _give_back(self._config, claim)
            raise KeyboardInterrupt from exc

    def seen_through(self, one: Forced, *, may_wait: bool) -> bool:
        """The second look at a run: done meanwhile, waited for, or done here after all."""
        while not self.done(one):
            if not may_wait or history.state_of(self._db, one.run_id) is State.QUEUED:  # its agent is in other hands
                return False
            _until_not_running(self._db, one.run_id)
        return True


def _until_not_running(db: Database, run_id: int) -> None:
    while history.state_of(db, run_id) is State.RUNNING:
        sleep(POLL_S)


def _give_back(config: Config, claim: Claim) -> None:
    """Over a connection of its own: the interrupted one may be in the middle of anything."""
    with connected(config.database_url, purpose="run", answer_timeout_s=GIVE_BACK_TIMEOUT_S) as db:
        claims.requeue(
            db, claim, delay_s=0, reason="interrupted", message="interrupted with Ctrl-C", spent_attempt=False
        )


def _busy(db: Database, forced: Forced) -> ArchisyncError:
    run = history.get(db, forced.run_id)
    if run.state is State.RUNNING:
        where, after = f"it runs on {run.worker}", ""
    else:
        where, after = f"another run of {run.agent_id} is in progress", "   (it stays in the queue)"
    return BusyError(
        f"run {run.run_id} ({run.sync_type} of {run.agent_id}) can't start here: {where}",
        hint=f"archisync show {run.run_id}{after}",
    )
