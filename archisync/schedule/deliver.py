"""What a tick does when there is something to do: queue what is due in PostgreSQL, push it to Redis, mark it delivered.

A module of its own, because an idle tick imports none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

from archisync.base.log import EventLog
from archisync.rules.config import AGENT_BOUND_S, Config
from archisync.store import deliveries, queued_runs
from archisync.store.database import Database, connect

if TYPE_CHECKING:
    from rq import Queue

    from archisync.schedule.summary import Summary

DELIVER_DEADLINE_S = 40.0
"""No batch is begun later: Redis may say nothing for COMMAND_TIMEOUT_S, and the heartbeat must still be written, or `status`
would say that nobody calls tick."""
INSERT_DEADLINE_S = 25.0
"""Half of it is kept for delivery: workers wait for the push, not for the rows."""
INSERT_BATCH = 2_500
"""Pairs of each type in one statement: with much to do, the next ones are queued while these are pushed."""
DELIVER_BATCH = 1_000
"""Runs in one push: a few milliseconds in which Redis serves nobody else."""


def queue_and_deliver(db: Database, config: Config, summary: Summary, started: float) -> None:
    """Queue what is due, and push it. With much to do, a thread queues the next part while this one is pushed."""
    if not _insert_due(db, summary):
        deliver(db, config, summary, started)
        return
    with _QueueingAhead(config, summary, started) as ahead:
        deliver(db, config, summary, started, more=ahead.more)


def _insert_due(db: Database, summary: Summary) -> bool:
    """One statement, which commits by itself (autocommit): a tick that is killed keeps what it has queued so far.

    False when that was all: no type can have had more than it was allowed."""
    moved, due = queued_runs.insert_due(db, limit=INSERT_BATCH, batch=DELIVER_BATCH)
    summary.due += due
    return moved >= INSERT_BATCH


class _QueueingAhead:
    """Queues the rest in a thread with a connection of its own, one statement ahead of whoever asks for `more`; a context manager.

    At the end of the block the rest is queued whatever became of the deliveries: Redis may be away.
    """

    def __init__(self, config: Config, summary: Summary, started: float) -> None:
        self._config, self._summary, self._started = config, summary, started
        self._db: Database | None = None
        self._thread = ThreadPoolExecutor(1, "archisync-queueing")
        self._coming: Future[bool] | None = None

    def __enter__(self) -> _QueueingAhead:
        self._coming = self._thread.submit(self._insert)
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
        """Wait for the statement that is on its way; False when there was none."""
        if self._coming is None:
            return False
        ended, self._coming = self._coming, None
        if ended.result():
            self._coming = self._thread.submit(self._insert)
        return True

    def _insert(self) -> bool:
        if self._db is None:
            seconds = self._config.database_timeout_s
            self._db = connect(self._config.database_url, purpose="tick", answer_timeout_s=seconds)
        return _insert_due(self._db, self._summary) and monotonic() - self._started < INSERT_DEADLINE_S


def deliver(
    db: Database, config: Config, summary: Summary, started: float, *, more: Callable[[], bool] = lambda: False
) -> None:
    """Push what PostgreSQL says is undelivered, and again what Redis has lost. `more`: whether further runs have been queued."""
    lost_maybe = deliveries.long_delivered(db, after_s=config.redeliver_after_s)
    if not lost_maybe and not deliveries.any_undelivered(db):
        return
    # Here, and not above: importing redis and rq costs more than all the rest.
    from archisync.queue.client import redis_client
    from archisync.queue.foreignkeys import move_foreign_keys_aside
    from archisync.queue.job import job_id
    from archisync.queue.joblist import missing_jobs, rq_queue

    with redis_client(config.redis_url) as client:
        move_foreign_keys_aside(client, config.queue, EventLog())
        lost_count = 0
        if lost_maybe:
            pushed_as = {job_id(d.run_id, d.fence, d.delivery_id): d for d in lost_maybe}
            lost = [pushed_as[id_] for id_ in missing_jobs(client, config.queue, pushed_as)]
            lost_count = deliveries.mark_undelivered(db, lost) if lost else 0
        while deliveries.assign(db, limit=DELIVER_BATCH) == DELIVER_BATCH:
            continue
        queue = rq_queue(client, config.queue)
        pushed = 0
        while monotonic() - started < DELIVER_DEADLINE_S:
            batch = _deliver_next(db, config, queue)
            if batch is None and not more():
                return
            pushed += batch or 0
            summary.redelivered = min(lost_count, pushed)
            summary.enqueued = pushed - summary.redelivered


def _deliver_next(db: Database, config: Config, queue: Queue) -> int | None:
    """Push one delivery: how many runs it has; None when nothing is left that no other tick is pushing."""
    from archisync.queue.push import push_delivery

    # RQ's own limit is the last resort: a worker may begin the agent's last run just before its bound.
    timeout_s = AGENT_BOUND_S + config.run_timeout_s + 60
    # CRITICAL SECTION: a row lock is held during a network call, here and where the hook is called. It keeps an overlapping tick from
    # pushing the same delivery; that takes another instead of waiting. The call is bounded by COMMAND_TIMEOUT_S.
    with db.transaction():
        delivery = deliveries.lock_next(db)
        if delivery is None:
            return None
        push_delivery(queue, delivery, timeout_s=timeout_s)
        deliveries.mark_delivered(db, delivery.delivery_id)
    return len(delivery.runs)
