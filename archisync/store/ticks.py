"""`system.ticks`: what each tick did. The age of the newest row tells whether anybody calls tick at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from archisync.database import Database

# Purpose: the heartbeat. Caller: tick, last step.
SQL_RECORD = """
insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error)
values (%(started_at)s, %(duration_ms)s, %(host)s, %(reaped)s, %(due)s, %(enqueued)s, %(redelivered)s, %(skipped)s, %(error)s)
"""
SQL_CLOCK = "select system.clock() as now"
SQL_LAST = """
select started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error,
       extract(epoch from system.clock() - started_at)::float as age_s
  from system.ticks order by id desc limit 1
"""
SQL_PRUNE = """
delete from system.ticks where id in
  (select id from system.ticks where started_at < system.clock() - interval '30 days' order by started_at limit %(limit)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    started_at: datetime
    duration_ms: int
    host: str
    reaped: int
    due: int
    enqueued: int
    redelivered: int
    skipped: dict[str, int]
    error: str | None
    age_s: float


def clock(db: Database) -> datetime:
    """PostgreSQL's time, in whole seconds: the only clock that decides anything."""
    row = db.execute(SQL_CLOCK).fetchone()
    assert row is not None
    return row["now"]  # type: ignore[no-any-return]


def record(db: Database, values: dict[str, Any]) -> None:
    db.execute(SQL_RECORD, values | {"skipped": Jsonb(values["skipped"])})


def last(db: Database) -> Heartbeat | None:
    row = db.execute(SQL_LAST).fetchone()
    return Heartbeat(**row) if row else None


def prune(db: Database, *, limit: int) -> int:
    return db.execute(SQL_PRUNE, {"limit": limit}).rowcount


SILENCE_S = 180
"""Three missed ticks: whoever should call `archisync tick` each minute does not."""


def overdue_note(beat: Heartbeat | None) -> str | None:
    """A sentence when nobody calls tick any more; None when all is well."""
    if beat is None:
        return "no tick has ever run: is cron calling archisync tick?"
    if beat.age_s < -SILENCE_S:
        return "the last tick is dated in the future: was PostgreSQL's clock set back?"
    if beat.age_s > SILENCE_S:
        return f"no tick for {beat.age_s / 60:.0f} minutes: is cron calling archisync tick?"
    return None
