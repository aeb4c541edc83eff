"""Queueing what is due: a run in PostgreSQL for each due pair."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from archisync.rules.config import Config
from archisync.schedule.deadlines import QUEUE_DEADLINE_S
from archisync.schedule.deliver import DELIVERY_JOBS
from archisync.schedule.summary import Summary
from archisync.store import queued_runs
from archisync.store.database import Database, connect

QUEUE_BATCH = 2_500
"""Pairs of each type in one statement. With much to do, the next ones are queued while these are pushed."""


def queue_due(db: Database, summary: Summary) -> bool:
    """Queue what is due, in one statement that commits by itself: a tick that is killed keeps what it has queued.

    Returns whether more may be due: some type may have had more pairs than a statement takes.
    """
    looked_at, due = queued_runs.insert_due(db, limit=QUEUE_BATCH, batch=DELIVERY_JOBS)
    summary.due += due
    return looked_at >= QUEUE_BATCH


class QueueingAhead:
    """Queues the rest of what is due in a thread, one statement ahead of its user. A context manager.

    The thread has a connection of its own. At the end of the block the rest is queued even if delivery has failed.
    """

    def __init__(self, config: Config, summary: Summary) -> None:
        self._config, self._summary = config, summary
        self._db: Database | None = None
        self._thread = ThreadPoolExecutor(1, "archisync-queueing")
        self._next: Future[bool] | None = None

    def __enter__(self) -> QueueingAhead:
        self._next = self._thread.submit(self._queue)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self.more():
                continue
        finally:
            self._thread.shutdown()
            if self._db is not None:
                self._db.close()

    def more(self) -> bool:
        """Wait for the statement that is being executed. False if there was none."""
        if self._next is None:
            return False
        ended, self._next = self._next, None
        if ended.result():
            self._next = self._thread.submit(self._queue)
        return True

    def _queue(self) -> bool:
        if self._db is None:
            timeout_s = self._config.database_timeout_s
            self._db = connect(self._config.database_url, purpose="tick", answer_timeout_s=timeout_s)
        return queue_due(self._db, self._summary) and self._summary.elapsed_s < QUEUE_DEADLINE_S
