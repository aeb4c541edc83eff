"""One agent with one due type, its deliveries, and what a worker logs; for the tests that break the queue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from subprocess import CompletedProcess
from typing import Any

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents
from archisync.store.database import Database
from tests.support.rows import count
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
QUEUE = "archisync"
QUEUE_KEY = f"rq:queue:{QUEUE}"
INTERMEDIATE_KEY = f"{QUEUE_KEY}:intermediate"
LOCKED = """select count(*) from pg_locks l join pg_database d on d.oid = l.database
             where l.locktype = 'advisory' and d.datname = current_database()"""
"""The number of locked agents, which is the number of processes that talk to the ERP."""


def config_for(database_url: str, redis_url: str) -> Config:
    return Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv",
        }
    )


def env_of(config: Config, *, later_s: float = 0) -> Mapping[str, str]:
    """The command's environment; `later_s` moves its clock ahead."""
    now = (datetime.now(UTC) + timedelta(seconds=later_s)).isoformat()
    return {**config.environment, **({"PGOPTIONS": f"-c archisync.now={now}"} if later_s else {})}


def one_due_pair(db: Database) -> None:
    """Make the agent's customers due, and nothing else, ever."""
    agents.add(db, AGENT, name=None, whitelisted=True)
    db.execute("update system.sync_settings set enabled = sync_type = 'customers'")


def push_due_run(db: Database, config: Config) -> None:
    """Have a tick queue and push the run of one due pair."""
    one_due_pair(db)
    assert tick(db, config).enqueued == 1


def succeeded(db: Database) -> int:
    return count(db, "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 1")


def queued(db: Database) -> int:
    return count(db, "select count(*) from system.runs where state = 'queued'")


def events(done: CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    """The log lines of that name on a command's standard error."""
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"time"')]
    return [line for line in lines if line["event"] == name]
