"""The forecast of the coming runs from what PostgreSQL knows, and the workers that Redis knows: for `archisync plan` and the panel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from archisync.base.errors import ConfigurationError, UnreachableError, UsageError
from archisync.queue.client import redis_client
from archisync.queue.workers import LiveWorker, live_workers
from archisync.rules.config import Config
from archisync.rules.forecast import Forecast, make_forecast
from archisync.store import agents, clock, timetable
from archisync.store.database import Database

LONGEST = timedelta(days=31)


def check_span(text: str, span: timedelta) -> timedelta:
    """The span that was typed. Raises UsageError for one that no forecast covers."""
    if not timedelta(0) < span <= LONGEST:
        raise UsageError(f"--for {text} is out of range", hint=f"allowed: up to {LONGEST.days}d")
    return span


def forecast(db: Database, *, type_name: str | None, agent_id: str | None, span: timedelta, workers: int) -> Forecast:
    """Raises NotFoundError for an unknown agent."""
    if agent_id:
        agents.agent(db, agent_id)
    now = clock.now(db)
    groups = timetable.due_groups(db, sync_type=type_name, agent_id=agent_id)
    queued = timetable.queued(db, sync_type=type_name, agent_id=agent_id)
    measured = timetable.durations(db)
    return make_forecast(
        groups, measured, now=now, span=span, workers=workers, queued=queued.runs, queued_about=queued.about
    )


def workers_of(config: Config) -> list[LiveWorker]:
    """The live workers. Raises UnreachableError and ConfigurationError."""
    with redis_client(config.redis_url) as client:
        return live_workers(client, config.queue)


def workers_alive(config: Config) -> int:
    """How many workers a forecast counts with. Raises UnreachableError and ConfigurationError, with how to do without Redis."""
    try:
        return len(workers_of(config))
    except (UnreachableError, ConfigurationError) as exc:
        if isinstance(exc, ConfigurationError) and config.text("ARCHISYNC_REDIS_URL"):
            raise  # a wrong setting has its own hint
        raise exc.with_hint("archisync plan --workers 2   (asks no Redis how many are alive)") from None


def document(found: Forecast) -> dict[str, Any]:
    """What `plan --json` prints."""
    names = (
        "now",
        "workers",
        "durations_s",
        "assumed",
        "queued",
        "queued_s",
        "hours",
        "estimated",
        "notes",
        "keeps_up",
    )
    return {name: getattr(found, name) for name in names}
