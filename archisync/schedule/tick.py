"""One tick: decide what is due, queue it in PostgreSQL, wake the workers, leave a heartbeat. Any number may overlap.

The order is the promise (DESIGN, section 3): (a) take back runs of silent workers, (b) queue what is due, (c) COMMIT, (d) push
to Redis in batches and mark each delivered, (e) heartbeat. Killed anywhere, the next tick finds in PostgreSQL what is left. What
schedules nothing, the hook and pruning, comes after the heartbeat: however long it takes, nobody may be told that no tick is called.

An idle tick is two statements: one looks for anything that the steps could do, and when there is nothing, the heartbeat. The rest of
its time is imports: it imports none of the modules that do the work, and neither redis nor rq.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from archisync.base.errors import ConfigurationError, UnreachableError
from archisync.rules.config import Config
from archisync.schedule.summary import Summary
from archisync.store import ticks
from archisync.store.database import Database

if TYPE_CHECKING:
    from archisync.rules.due import Decision, Facts

DEADLINE_S = 50.0
"""A tick is over before cron starts the next, if need be by force; what is left is the next one's."""
TELL_DEADLINE_S = 46.0
"""The last call of the hook is over by then: a tick ends by itself, and not because it is stopped."""
PRUNE_BATCH = 1_000
IDLE_TICKS_BETWEEN_PRUNING = 500
"""Of heartbeats, which nobody else would prune where nothing is ever due."""
PRUNE_S = 2.0
"""For the history of runs: some hundred thousand of them, as a large company makes a minute."""


def tick(db: Database, config: Config) -> Summary:
    """Run one tick. A failure to deliver is in `Summary.error`: everything due is queued all the same.

    Raises UnreachableError or SchemaError when PostgreSQL is out of reach; then nothing was decided.
    """
    started = monotonic()
    _ = (
        config.lease_s,
        config.max_attempts,
        config.redeliver_after_s,
        config.run_timeout_s,
        config.queue,
    )  # told now, if wrong, and not when work comes
    started_at, anything = ticks.anything_to_do(
        db,
        history_days=config.history_days,
        hook=config.text("ARCHISYNC_HOOK") != "",
    )
    summary = Summary()
    if anything:
        _work(db, config, summary, started)
    summary.duration_ms = _ms_since(started)
    beat = ticks.record(
        db,
        {
            "started_at": started_at,
            "duration_ms": summary.duration_ms,
            "host": socket.gethostname(),
            "reaped": summary.reaped,
            "due": summary.due,
            "enqueued": summary.enqueued,
            "redelivered": summary.redelivered,
            "skipped": summary.skipped,
            "error": summary.error.message if summary.error else None,
        },
    )
    if anything:
        _tell_and_prune(db, config, summary, started)
        summary.duration_ms = _ms_since(started)
    elif beat % IDLE_TICKS_BETWEEN_PRUNING == 0:
        ticks.prune(db, limit=PRUNE_BATCH)
    return summary


def _ms_since(started: float) -> int:
    return round((monotonic() - started) * 1000)


def _work(db: Database, config: Config, summary: Summary, started: float) -> None:
    """Every step before the heartbeat, in the order of the promise."""
    from archisync.schedule.deliver import queue_and_deliver  # imported here: an idle tick needs none of these
    from archisync.store import claims, clock, queued_runs

    clock.mend(db)
    summary.reaped = claims.reap(db, max_attempts=config.max_attempts)
    try:
        queue_and_deliver(db, config, summary, started)
    except (UnreachableError, ConfigurationError) as exc:
        summary.error = exc
    summary.skipped, summary.skipped_more = queued_runs.count_skipped(db)


def _tell_and_prune(db: Database, config: Config, summary: Summary, started: float) -> None:
    """What may be cut off without anybody missing it: the next tick goes on."""
    from archisync.store import deliveries, history, notices

    _tell(db, config, started)
    summary.pruned = history.prune_for(db, days=config.history_days, seconds=PRUNE_S)
    summary.pruned += ticks.prune(db, limit=PRUNE_BATCH)
    deliveries.forget(db, limit=PRUNE_BATCH)
    notices.prune(db, limit=PRUNE_BATCH)


def _tell(db: Database, config: Config, started: float) -> None:
    """Call the hook for what is in the outbox, if anything is, in the time that delivery has left."""
    from archisync.base.log import EventLog
    from archisync.store import notices

    try:
        if config.hook is None or not notices.any_waiting(db):
            return
        from archisync.schedule.hook import deliver_notices

        deliver_notices(db, config.hook, config.environment, until=started + TELL_DEADLINE_S)
    except ConfigurationError as exc:
        EventLog().event("hook-misconfigured", message=exc.message)


def dry_run(db: Database) -> Iterator[tuple[Facts, Decision]]:
    """Every whitelisted pair with what a tick would decide about it now, and why. Writes nothing."""
    from archisync.rules.due import decide  # here, and not above: only people ask for this
    from archisync.store import clock, pairs

    now = clock.now(db)
    for facts in pairs.all_facts(db):
        yield facts, decide(facts, now)
