"""What a report for people without a terminal shows: freshness, runs over time, what waits or fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archisync.queue.workers import overdue_note
from archisync.rules.config import Config
from archisync.store import activity, clock, health, held, history, ticks
from archisync.store.activity import Point, Slow, Step
from archisync.store.database import Database
from archisync.store.health import TypeHealth
from archisync.store.held import Held
from archisync.store.runs import Run, State

BARS = 56
LISTED = 50
SLOWEST = 10
TREND_RUNS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """`steps` are the runs from `since` to `now` in BARS equal steps. `tick_note` is a sentence when no tick runs any more,
    `worker_note` when nobody can do what is queued."""

    now: datetime
    since: datetime
    step: timedelta
    health: Sequence[TypeHealth]
    trends: dict[str, list[Point]]
    steps: Sequence[Step]
    held: Sequence[Held]
    failures: Sequence[Run]
    slowest: Sequence[Slow]
    tick_note: str | None
    worker_note: str | None


def read(db: Database, *, days: int, config: Config) -> Report:
    """The state now, and the runs of the last days. Redis is asked for workers."""
    span = timedelta(days=days)
    now = clock.now(db)
    until = now + timedelta(seconds=1)  # the clock has whole seconds, and the current one counts
    since, step = until - span, span / BARS
    return Report(
        now=now,
        since=since,
        step=step,
        health=health.type_health(db),
        trends=activity.trends(db, limit=TREND_RUNS),
        steps=activity.outcomes(db, since=since, until=until, step=step),
        held=held.held_exports(db, limit=LISTED),
        failures=history.newest(db, state=State.FAILED, since=since, limit=LISTED),
        slowest=activity.slowest(db, since=since, limit=SLOWEST),
        tick_note=ticks.overdue_note(ticks.last(db)),
        worker_note=overdue_note(config),
    )
