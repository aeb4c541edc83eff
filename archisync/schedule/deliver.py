"""Delivery: pushing queued runs to Redis, and marking them as delivered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from archisync.base.errors import UnreachableError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.deadlines import DELIVER_DEADLINE_S
from archisync.schedule.summary import Summary
from archisync.store import deliveries
from archisync.store.database import Database
from archisync.store.site import site_of

if TYPE_CHECKING:
    from rq import Queue

DELIVERY_JOBS = 1_000
"""Jobs in one delivery: a push takes a few milliseconds, in which Redis answers nobody else."""


def deliver(db: Database, config: Config, summary: Summary, *, more: Callable[[], bool] = lambda: False) -> None:
    """Push every queued run that is not delivered, or whose delivery Redis has lost.

    `more` is called when all is pushed, and returns whether further runs have been queued. Raises UnreachableError or
    ConfigurationError; `summary` then has what was pushed before.
    """
    maybe_lost = deliveries.long_delivered(db, after_s=config.redeliver_after_s)
    if not maybe_lost and not deliveries.any_undelivered(db):
        return
    # Imported here: redis and rq take longer to import than all the rest of a tick that pushes nothing.
    from archisync.queue.client import redis_client
    from archisync.queue.foreignkeys import move_foreign_keys_aside
    from archisync.queue.job import job_id
    from archisync.queue.joblist import missing_jobs, rq_queue
    from archisync.queue.workers import require_own_queue

    with redis_client(config.redis_url) as client:
        move_foreign_keys_aside(client, config.queue, EventLog())
        require_own_queue(client, config.queue, site_of(db))
        by_job = {job_id(job): job for job in maybe_lost}
        lost = [by_job[id_] for id_ in missing_jobs(client, config.queue, by_job)]
        lost_count = deliveries.mark_undelivered(db, lost) if lost else 0
        while deliveries.assign(db, limit=DELIVERY_JOBS) == DELIVERY_JOBS:
            continue
        queue = rq_queue(client, config.queue)
        pushed = 0
        while summary.elapsed_s < DELIVER_DEADLINE_S:
            runs = _push_next(db, config, queue)
            if runs is None and not more():
                return
            pushed += runs or 0
            summary.redelivered = min(lost_count, pushed)
            summary.enqueued = pushed - summary.redelivered


def deliver_now(db: Database, config: Config) -> None:
    """Push what is queued without waiting for the next tick. Raises UnreachableError; then the next tick delivers it."""
    try:
        deliver(db, config, Summary())
    except UnreachableError as exc:
        raise exc.with_hint("the run is queued in PostgreSQL; the next tick delivers it") from exc


def _push_next(db: Database, config: Config, queue: Queue) -> int | None:
    """Push one delivery; the number of its runs. None if no delivery is left that no other tick is pushing."""
    from archisync.queue.job import job_timeout_s
    from archisync.queue.push import push_delivery

    # CRITICAL SECTION: a row lock is held during a network call, of at most COMMAND_TIMEOUT_S. The lock keeps an overlapping tick from
    # pushing the same delivery; that tick takes another one and does not wait.
    with db.transaction():
        delivery = deliveries.lock_next(db)
        if delivery is None:
            return None
        push_delivery(queue, delivery, timeout_s=job_timeout_s(config))
        deliveries.mark_delivered(db, delivery.delivery_id)
    return delivery.runs
