"""Who does syncs now: the workers that Redis knows, each with the run that PostgreSQL says it does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from archisync.store import history

if TYPE_CHECKING:
    from archisync.queue.workers import LiveWorker
    from archisync.rules.config import Config
    from archisync.store.database import Database
    from archisync.store.runs import Run

RUNS_ASKED = 10_000
"""A site has fewer workers."""
UNREGISTERED = "unregistered"
"""Does a run and is not in Redis: `run --inline`, or a worker that Redis has forgotten until its next sign of life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenWorker:
    """A worker. `place`: its host and process id. `since`: when the run that it does began. `memory_bytes` and `seen_at`: of its last sign
    of life, which is a minute old at most. None: not known."""

    place: str
    state: str
    run: Run | None
    memory_bytes: int | None
    started_at: datetime | None
    seen_at: datetime | None

    @property
    def since(self) -> datetime | None:
        return self.run.started_at if self.run else None

    def document(self) -> dict[str, Any]:
        """What `worker list --json` prints."""
        return {
            "worker": self.place,
            "state": self.state,
            "run_id": self.run.run_id if self.run else None,
            "sync_type": self.run.sync_type if self.run else None,
            "agent_id": self.run.agent_id if self.run else None,
            "since": self.since,
            "memory_bytes": self.memory_bytes,
            "started_at": self.started_at,
            "seen_at": self.seen_at,
        }


def workers(db: Database, config: Config) -> list[SeenWorker]:
    """The workers of the queue, by host and process id, then whoever else does a run. Raises UnreachableError, ConfigurationError."""
    from archisync.queue.client import redis_client
    from archisync.queue.workers import live_workers

    with redis_client(config.redis_url) as client:
        alive = live_workers(client, config.queue)
    runs = {run.worker: run for run in history.running(db, limit=RUNS_ASKED)}
    found = [_seen(worker, runs.pop(worker.place_of_child, None)) for worker in alive]
    return found + [
        SeenWorker(place=str(place), state=UNREGISTERED, run=run, memory_bytes=None, started_at=None, seen_at=None)
        for place, run in runs.items()
    ]


def _seen(worker: LiveWorker, run: Run | None) -> SeenWorker:
    return SeenWorker(
        place=worker.place,
        state="busy" if run else worker.state,
        run=run,
        memory_bytes=worker.memory_bytes,
        started_at=worker.started_at,
        seen_at=worker.seen_at,
    )
