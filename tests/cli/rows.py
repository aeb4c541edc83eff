"""Rows that commands show, at a clock that stands still: a run, a tick, a held export, the state of a pair."""

from typing import Any

from psycopg.types.json import Jsonb

from archisync.store.database import Database
from tests.support import rows

NOW = "2026-03-01T12:00:00Z"
AT_NOON = {"PGOPTIONS": f"-c archisync.now={NOW}"}


def add_run(db: Database, state: str = "succeeded", **columns: Any) -> int:
    """Write a run and return its id. Columns that are not given are those of a scheduled run of anna's orders, finished at NOW."""
    finished = {} if state in ("queued", "running") else {"finished_at": NOW}
    return rows.add_run(db, state, **finished | columns)


def add_tick(db: Database, at: str = NOW) -> None:
    db.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        " values (%s, 5, 'host-1', 0, 0, 0, 0, '{}')",
        [at],
    )


def add_held(db: Database, *, acceptable: bool = True) -> int:
    """Insert a held export of anna's orders and return the id of its run."""
    run_id = add_run(db, "held", reason="too-few-rows")
    db.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, sha256, rows_valid,"
        " known_rows, data_version, sample) values (%s, 'orders', 'anna', 'too-few-rows', '60 %% fewer', %s, 'ab12', 4,"
        " 10, 0, %s)",
        [run_id, acceptable, Jsonb([["o-1"], ["o-2"]])],
    )
    return run_id


def set_state(db: Database, **columns: Any) -> None:
    """Change the state of anna's orders."""
    changes = ", ".join(f"{name} = %s" for name in columns)
    db.execute(
        f"update system.sync_state set {changes} where sync_type = 'orders' and agent_id = 'anna'".encode(),
        list(columns.values()),
    )
