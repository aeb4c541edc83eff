"""`archisync run --inline`: this process does forced runs itself, as a worker would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

from archisync.base.errors import ArchisyncError, BusyError
from archisync.base.log import EventLog
from archisync.base.signals import is_interrupt
from archisync.rules.config import Config
from archisync.store import claims, history
from archisync.store.database import Database, connected
from archisync.store.queued_runs import Forced
from archisync.store.runs import Run, State
from archisync.work.runner import Runner, worker_name

POLL_S = 0.25
GIVE_BACK_TIMEOUT_S = 5.0
"""The longest that somebody waits who has pressed Ctrl-C."""


def run_inline(db: Database, config: Config, forced: Sequence[Forced], *, changed: Callable[[Run], object]) -> None:
    """Do the forced runs in this process, one after the other, without Redis or a worker. A run that fails is not tried again.

    The runs are queued, so workers may do some of them meanwhile. A run that can't be done in its turn is looked at again after the
    others; one that somebody else is doing is waited for. Calls `changed` with each run as it ends. Ctrl-C gives the current run back
    to the queue.

    Raises BusyError, after the other runs are done, when another worker has an agent for another run.
    """
    with Runner(db, config, EventLog(as_json=False)) as runner:  # beside what `run` says to a person
        inline = Inline(db, config, runner, changed)
        left = [one for one in forced if not inline.done(one)]
        busy = [one for one in left if not inline.done_later(one)]
    if busy:
        raise _busy(busy[0])


class Inline:
    """Does forced runs with a runner, or waits for the worker that does them."""

    def __init__(self, db: Database, config: Config, runner: Runner, changed: Callable[[Run], object]) -> None:
        self._db, self._config, self._runner, self._changed = db, config, runner, changed

    def done(self, one: Forced) -> bool:
        """Do the run, unless it is finished already. False when somebody else has the run or its agent."""
        run = history.get(self._db, one.run_id)
        if run.state.unfinished:
            if not self._do(run):
                return False
            run = history.get(self._db, one.run_id)
        self._changed(run)
        return True

    def _do(self, run: Run) -> bool:
        try:
            return self._runner.do_forced(run.agent_id, run.run_id) is not None
        except BaseException as exc:
            if not is_interrupt(exc):
                raise
            with suppress(ArchisyncError):  # PostgreSQL is away: the lease runs out
                _give_back(self._config, run)
            raise KeyboardInterrupt from exc

    def done_later(self, one: Forced) -> bool:
        """Look at a run again: it is done meanwhile, waited for, or done here after all. False when its agent is busy elsewhere."""
        while not self.done(one):
            if history.state_of(self._db, one.run_id) is State.QUEUED:
                return False
            _wait_while_running(self._db, one.run_id)
        return True


def _wait_while_running(db: Database, run_id: int) -> None:
    while history.state_of(db, run_id) is State.RUNNING:
        sleep(POLL_S)


def _give_back(config: Config, run: Run) -> None:
    """Over a connection of its own: the interrupted one may be in the middle of anything."""
    with connected(config.database_url, purpose="run", answer_timeout_s=GIVE_BACK_TIMEOUT_S) as db:
        claims.give_back(
            db, agent_id=run.agent_id, worker=worker_name(), reason="interrupted", message="interrupted with Ctrl-C"
        )


def _busy(one: Forced) -> ArchisyncError:
    return BusyError(
        f"run {one.run_id} ({one.sync_type} of {one.agent_id}) can't start here: another run of {one.agent_id} is in progress",
        hint=f"archisync show {one.run_id}   (it stays in the queue)",
    )
