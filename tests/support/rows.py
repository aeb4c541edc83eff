"""What tests read from a database (a number, a hash of the data), and a worker in this process."""

import io
from typing import Any

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.store import history, queued_runs, runs
from archisync.store.database import Database
from archisync.work.runner import Runner

BOOKKEEPING = ("inserted_at", "updated_at", "run_id", "absent_since", "line_digest")


def count(db: Database, statement: str, *values: Any) -> int:
    """The single number that the statement gives."""
    row = db.execute(statement, list(values) or None).fetchone()
    assert row is not None
    return int(next(iter(row.values())))


def whitelist_agents(db: Database, number: int) -> None:
    """Add the agents a1, a2 … to the registry."""
    db.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, %s) n", [number]
    )


def do_delivery(db: Database, config: Config, run_id: int, fence: int, log: EventLog | None = None) -> int:
    """Do a delivery in this process, as a worker would. Returns the number of runs done."""
    with Runner(db, config, log or EventLog(io.StringIO())) as runner:
        return runner.do(run_id, fence)


def drain(db: Database, config: Config) -> int:
    """Do what is queued in this process, in queue order. Returns the number of runs done."""
    done = 0
    while row := db.execute(
        "select id, fence from system.sync_runs where state = 'queued' order by id limit 1"
    ).fetchone():
        done += do_delivery(db, config, row["id"], row["fence"])
    return done


def sync(db: Database, config: Config, sync_type: str, agent_id: str, *, trigger: str = "forced") -> runs.Run:
    """Run a sync of the pair in this process; gives the run as it ended."""
    forced = queued_runs.force(db, sync_type, agent_id, by="test", why=None)
    db.execute("update system.sync_runs set trigger = %s where id = %s", (trigger, forced.run_id))
    do_delivery(db, config, forced.run_id, history.get(db, forced.run_id).fence)
    return history.get(db, forced.run_id)


def record_tick(db: Database, *, ago: str = "10 s", duration_ms: int = 5, error: str | None = None) -> None:
    """The heartbeat of a tick that started so long ago."""
    db.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error)"
        " values (system.clock() - %s::interval, %s, 'host-1', 0, 0, 0, 0, '{}', %s)",
        [ago, duration_ms, error],
    )


def every_table() -> tuple[str, ...]:
    return tuple(sync_type.table for sync_type in SYNC_TYPES.values())


def fingerprint(db: Database, *sync_types: SyncType) -> str:
    """A hash over every row of the tables of these types (default: of all). Which run wrote a row, and when, does not count; whether it is
    marked absent does."""
    parts = []
    for sync_type in sync_types or tuple(SYNC_TYPES.values()):
        row = db.execute(
            f"""
            select md5(coalesce(string_agg(line, chr(10) order by line), '')) as hash
              from (select ((to_jsonb(t) - %(bookkeeping)s::text[])
                            || jsonb_build_object('absent', t.absent_since is not null))::text as line
                      from {sync_type.table} t) lines
            """,
            {"bookkeeping": list(BOOKKEEPING)},
        ).fetchone()
        assert row is not None
        parts.append(f"{sync_type.name}:{row['hash']}")
    return " ".join(parts)
