"""One tick: decide what is due, queue it in PostgreSQL, wake the workers, leave a heartbeat. Any number may overlap.

The order is the promise (DESIGN, section 3): (a) take back runs of silent workers, (b) queue what is due, (c) COMMIT, (d) push
to Redis in batches and mark each delivered, (e) heartbeat. Killed anywhere, the next tick finds in PostgreSQL what is left.
An idle tick never imports redis or rq.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

from archisync.config import Config
from archisync.database import Database
from archisync.due import Decision, Facts, decide
from archisync.errors import ArchisyncError, ConfigurationError, UnreachableError
from archisync.log import EventLog
from archisync.store import notices, pairs, runs, ticks

DEADLINE_S = 50.0
"""A tick is over before cron starts the next, if need be by force; what is left is the next one's."""
DELIVER_DEADLINE_S = 40.0
"""No batch is begun later: Redis may say nothing for queue.COMMAND_TIMEOUT_S, and the heartbeat must still be written, or `status`
would say that nobody calls tick."""
INSERT_DEADLINE_S = 25.0
"""Half of it is kept for delivery: workers wait for the push, not for the rows."""
INSERT_BATCH = 50_000
DELIVER_BATCH = 1_000
PRUNE_BATCH = 1_000
PRUNE_S = 2.0
"""For the history of runs: some hundred thousand of them, as a large company makes a minute."""


@dataclass(kw_only=True)
class Summary:
    """What one tick did. `skipped`: pairs past their slot that were not queued, by reason."""

    reaped: int = 0
    due: int = 0
    enqueued: int = 0
    redelivered: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    pruned: int = 0
    duration_ms: int = 0
    error: ArchisyncError | None = None

    def line(self) -> str:
        skipped = ", ".join(f"{n} {reason}" for reason, n in self.skipped.items()) or "0"
        text = f"due {self.due}, enqueued {self.enqueued}, redelivered {self.redelivered}, skipped {skipped}"
        if self.reaped:
            text += f", taken back {self.reaped}"
        return f"{text}; {self.duration_ms} ms"


def tick(db: Database, config: Config) -> Summary:
    """Run one tick. A failure to deliver is in `Summary.error`: everything due is queued all the same.

    Raises UnreachableError or SchemaError when PostgreSQL is out of reach; then nothing was decided.
    """
    started = monotonic()
    summary = Summary()
    started_at = ticks.clock(db)
    runs.mend_clock(db)
    summary.reaped = runs.reap(db, lease_s=config.lease_s, max_attempts=config.max_attempts)
    _insert_due(db, summary, started)
    try:
        deliver(db, config, summary, started)
    except (UnreachableError, ConfigurationError) as exc:
        summary.error = exc
    _tell(db, config, started)
    summary.skipped = runs.count_skipped(db)
    summary.pruned = runs.prune_for(db, days=config.history_days, seconds=PRUNE_S) + ticks.prune(db, limit=PRUNE_BATCH)
    notices.prune(db, limit=PRUNE_BATCH)
    summary.duration_ms = round((monotonic() - started) * 1000)
    ticks.record(
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
    return summary


def _tell(db: Database, config: Config, started: float) -> None:
    """Call the hook for what is in the outbox, if anything is, in the time that delivery has left."""
    try:
        if config.hook is None or not notices.any_waiting(db):
            return
        from archisync.hook import deliver_notices

        deliver_notices(db, config.hook, config.environment, until=started + DEADLINE_S)
    except ConfigurationError as exc:
        EventLog().event("hook-misconfigured", message=exc.message)


def _insert_due(db: Database, summary: Summary, started: float) -> None:
    """Each statement commits by itself (autocommit): a tick that is killed keeps what it has queued so far."""
    while monotonic() - started < INSERT_DEADLINE_S:
        moved, due = runs.insert_due(db, limit=INSERT_BATCH)
        summary.due += due
        if moved < INSERT_BATCH:  # no type can have had more than it was allowed
            return


def deliver(db: Database, config: Config, summary: Summary, started: float) -> None:
    """Push what PostgreSQL says is undelivered, and again what Redis has lost."""
    lost_maybe = runs.long_delivered(db, after_s=config.redeliver_after_s)
    if not lost_maybe and not runs.any_undelivered(db):
        return
    from archisync import queue  # here, and not above: importing redis and rq costs more than an idle tick

    with queue.connected(config.redis_url) as client:
        queue.clear_the_way(client, config.queue, EventLog())
        lost_count = 0
        if lost_maybe:
            waiting = queue.waiting_job_ids(client, config.queue)
            lost = [(run_id, job_id) for run_id, job_id in lost_maybe if job_id not in waiting]
            lost_count = runs.mark_undelivered(db, lost) if lost else 0
        pushed = 0
        while monotonic() - started < DELIVER_DEADLINE_S:
            batch = _deliver_batch(db, config, client)
            pushed += batch
            summary.redelivered = min(lost_count, pushed)
            summary.enqueued = pushed - summary.redelivered
            if batch < DELIVER_BATCH:
                return


def _deliver_batch(db: Database, config: Config, client: object) -> int:
    from archisync import queue
    from archisync.serve import AGENT_BOUND_S

    # RQ's own limit is the last resort: a worker may begin the agent's last run just before its bound.
    timeout_s = AGENT_BOUND_S + config.run_timeout_s + 60
    # CRITICAL SECTION: the one place where row locks are held during a network call. The locks keep an overlapping tick from
    # pushing the same runs; it skips them instead of waiting. The call is bounded by queue.COMMAND_TIMEOUT_S.
    with db.transaction():
        batch = runs.lock_undelivered(db, limit=DELIVER_BATCH)
        if batch:
            jobs = queue.push(client, config.queue, batch, timeout_s=timeout_s)  # type: ignore[arg-type]
            runs.mark_delivered(db, jobs)
    return len(batch)


def dry_run(db: Database) -> Iterator[tuple[Facts, Decision]]:
    """Every whitelisted pair with what a tick would decide about it now, and why. Writes nothing."""
    now = ticks.clock(db)
    for facts in pairs.all_facts(db):
        yield facts, decide(facts, now)
