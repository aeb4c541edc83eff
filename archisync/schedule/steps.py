"""The steps of a tick that has something to do, in the order in which `tick` takes them. An idle tick does not import this module."""

from __future__ import annotations

from archisync.base.errors import ConfigurationError, UnreachableError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.deadlines import NOTIFY_DEADLINE_S
from archisync.schedule.deliver import deliver
from archisync.schedule.notify import send_notices
from archisync.schedule.queueing import QueueingAhead, queue_due
from archisync.schedule.summary import Summary
from archisync.store import claims, clock, deliveries, history, notices, queued_runs, settings, ticks
from archisync.store.database import Database

PRUNE_BATCH = 1_000
PRUNE_HISTORY_S = 2.0
"""Enough for some hundred thousand runs, which is what a large company makes in a minute."""


def take_back_silent_runs(db: Database, config: Config, summary: Summary) -> None:
    """Queue runs again whose worker no longer extends its lease."""
    clock.mend(db)
    ticks.analyze_unknown(db)
    summary.reaped = claims.reap(db, max_attempts=config.max_attempts)


def queue_and_deliver(db: Database, config: Config, summary: Summary) -> None:
    """Queue what is due, and push what is queued. With much to do, a thread queues the next part while this one is pushed."""
    try:
        if queue_due(db, summary):
            with QueueingAhead(config, summary) as ahead:
                deliver(db, config, summary, more=ahead.more)
        else:
            deliver(db, config, summary)
    except (UnreachableError, ConfigurationError) as exc:
        summary.error = exc


def count_skipped(db: Database, summary: Summary) -> None:
    """Count the pairs past their slot that were not queued, by reason."""
    summary.skipped, summary.skipped_more = queued_runs.count_skipped(db)


def notify(db: Database, config: Config, summary: Summary) -> None:
    """Send the notices that wait to the hook. A wrong hook is logged: it must not fail the tick."""
    try:
        if config.hook is not None and notices.any_waiting(db):
            left_s = NOTIFY_DEADLINE_S - summary.elapsed_s
            send_notices(db, config.hook, config.environment, within_s=left_s)
    except ConfigurationError as exc:
        EventLog().event("hook-misconfigured", message=exc.message, hint=exc.hint)


def prune(db: Database, config: Config, summary: Summary) -> None:
    """Delete a batch of what is old. What is left is the next tick's."""
    summary.pruned = history.prune_for(db, days=config.history_days, seconds=PRUNE_HISTORY_S)
    summary.pruned += ticks.prune(db, limit=PRUNE_BATCH)
    deliveries.forget(db, limit=PRUNE_BATCH)
    notices.prune(db, limit=PRUNE_BATCH)
    settings.forget_pauses(db)
