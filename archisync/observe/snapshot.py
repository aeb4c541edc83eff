"""What `status` and its live view show of PostgreSQL, read at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archisync.base.errors import ExitCode

if TYPE_CHECKING:
    from datetime import datetime

    from archisync.rules.config import Config
    from archisync.store.database import Database
    from archisync.store.health import TypeHealth, UnhealthyPair, WarnedPair
    from archisync.store.held import Held
    from archisync.store.runs import Run
    from archisync.store.settings import Pause
    from archisync.store.ticks import Heartbeat

PAIRS_NAMED = 5
"""Unhealthy pairs listed at most: when the ERP is broken, they must not push the table of types off the screen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """`tick_note`: a sentence if nobody calls tick any more. `worker_note`: one if nobody can do what is queued."""

    now: datetime
    types: Sequence[TypeHealth]
    last_tick: Heartbeat | None
    tick_note: str | None
    worker_note: str | None
    running: Sequence[Run]
    held: Sequence[Held]
    unhealthy: Sequence[UnhealthyPair]
    warned: Sequence[WarnedPair]
    pauses: Sequence[Pause]

    @property
    def exit_code(self) -> ExitCode:
        """For scripts: SYNC_FAILED unless data is fresh and stays so, HELD when only a held export stands in the way."""
        watched = [h for h in self.types if h.enabled and not h.paused]
        if self.tick_note or self.worker_note or any(h.stale or h.failing for h in watched):
            return ExitCode.SYNC_FAILED
        return ExitCode.HELD if any(h.held for h in watched) else ExitCode.DONE

    def document(self) -> dict[str, Any]:
        """What `status --json` prints."""
        return {
            "now": self.now,
            "types": type_documents(self.types),
            "last_tick": self.last_tick,
            "tick_note": self.tick_note,
            "worker_note": self.worker_note,
            "running": self.running,
            "held": self.held,
            "ailing": self.unhealthy[:PAIRS_NAMED],
            "warned": self.warned[:PAIRS_NAMED],
            "pauses": self.pauses,
        }


def type_documents(types: Sequence[TypeHealth]) -> list[dict[str, Any]]:
    """The health of each type, with the word for it."""
    return [{name: getattr(h, name) for name in (*h.__dataclass_fields__, "word")} for h in types]


def read_snapshot(db: Database, *, held_limit: int, pairs_limit: int, config: Config | None = None) -> Snapshot:
    """`pairs_limit`: unhealthy pairs, and warned ones, to read at most. With `config`, Redis is asked for workers."""
    from archisync.store import clock, health, held, history, settings, ticks

    last_tick = ticks.last(db)
    return Snapshot(
        now=clock.now(db),
        types=health.type_health(db),
        last_tick=last_tick,
        tick_note=ticks.overdue_note(last_tick),
        worker_note=_worker_note(config) if config is not None else None,
        running=history.running(db),
        held=held.held_exports(db, limit=held_limit),
        unhealthy=health.unhealthy_pairs(db, limit=pairs_limit),
        warned=health.warned_pairs(db, limit=pairs_limit),
        pauses=settings.pauses(db),
    )


def _worker_note(config: Config) -> str | None:
    from archisync.queue import workers

    return workers.overdue_note(config)
