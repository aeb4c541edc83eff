"""One tick: queue what is due in PostgreSQL, push it to Redis, leave a heartbeat. Ticks may overlap.

The order of the steps is what keeps every due run: a run is committed in PostgreSQL before it is pushed, and marked as delivered after
it. Wherever a tick is killed, the next one finds in PostgreSQL what is left. The hook and pruning come after the heartbeat: however long
they take, `status` must not say that nobody calls tick.

An idle tick is two statements: one asks whether any step would find something to do, the other one leaves the heartbeat. The rest of its
time is imports, so it imports none of the modules that do the steps, and neither redis nor rq.
"""

from __future__ import annotations

import socket
from datetime import datetime

from archisync.rules.config import Config
from archisync.schedule.summary import Summary
from archisync.store import ticks
from archisync.store.database import Database

PRUNED_HEARTBEATS = 1_000
IDLE_TICKS_BETWEEN_PRUNING = 500
"""Nobody else would prune heartbeats where nothing is ever due."""


def tick(db: Database, config: Config) -> Summary:
    """Run one tick. If Redis can't be used, everything due is queued in PostgreSQL, and `Summary.error` says why it was not pushed.

    Raises UnreachableError or SchemaError if PostgreSQL can't be used; then nothing was queued.
    """
    summary = Summary()
    _check_settings(config)
    started_at, anything = ticks.anything_to_do(
        db, history_days=config.history_days, hook=config.text("ARCHISYNC_HOOK") != ""
    )
    if not anything:
        beat = _leave_heartbeat(db, summary, started_at)
        if beat % IDLE_TICKS_BETWEEN_PRUNING == 0:
            ticks.prune(db, limit=PRUNED_HEARTBEATS)
        return summary
    from archisync.schedule import steps  # imported here: an idle tick needs none of it

    steps.take_back_silent_runs(db, config, summary)
    steps.queue_and_deliver(db, config, summary)
    steps.count_skipped(db, summary)
    _leave_heartbeat(db, summary, started_at)
    steps.notify(db, config, summary)
    steps.prune(db, config, summary)
    summary.duration_ms = round(summary.elapsed_s * 1000)
    return summary


def _check_settings(config: Config) -> None:
    """A wrong setting is an error of every tick, and not only of the first one that has something to do."""
    _ = (config.lease_s, config.max_attempts, config.redeliver_after_s, config.run_timeout_s, config.queue)


def _leave_heartbeat(db: Database, summary: Summary, started_at: datetime) -> int:
    """Write the tick's row; its number."""
    summary.duration_ms = round(summary.elapsed_s * 1000)
    return ticks.record(
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
