"""Pruning deletes history that nobody needs, and blocks nobody."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history
from archisync.store.database import Database, connected
from tests.support.rows import RUN_ID, add_run, count, drain, sync
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"


@pytest.fixture
def config(database_url: str, redis_url: str) -> Config:
    source = f"{SAMPLES}/{{agent}}/{{type}}.csv"
    return Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_SOURCE": source}
    )


def old(
    db: Database, state: str = "succeeded", *, days: int = 100, agent: str = AGENT, sync_type: str = "orders"
) -> int:
    """A run that finished (or was queued) so many days ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    finished = {} if state in ("queued", "running") else {"finished_at": then}
    return add_run(db, state, agent_id=agent, sync_type=sync_type, queued_at=then, **finished)


def held(db: Database, run_id: int, **columns: Any) -> None:
    db.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, rows_valid, data_version)"
        " values (%s, 'orders', %s, 'row-drop', 'fewer', true, 1, 0)",
        [run_id, AGENT],
    )
    for name, value in columns.items():
        db.execute(f"update system.held_exports set {name} = %s where run_id = %s", [value, run_id])


def left(db: Database) -> list[int]:
    return [row["id"] for row in db.execute("select id from system.runs order by id").fetchall()]


def seen_kept_gone(db: Database) -> tuple[int, int, int]:
    batch = history.prune(db, days=90, limit=10)
    return batch.seen, batch.kept, batch.gone


def test_the_last_success_of_each_pair_is_kept_however_old_and_earlier_ones_are_deleted(connection: Database) -> None:
    old(connection, days=300)
    last = old(connection, days=200)
    old(connection, "failed", days=150)
    other_type, other_agent = old(connection, sync_type="ddt"), old(connection, agent="luca")
    assert history.prune_for(connection, days=90, seconds=60) == 2
    assert left(connection) == [last, other_type, other_agent]


def test_a_kept_success_is_deleted_one_retention_time_after_a_newer_one(connection: Database) -> None:
    kept = old(connection, days=300)
    assert seen_kept_gone(connection) == (1, 1, 0)
    newer = old(connection, days=1)
    assert seen_kept_gone(connection) == (0, 0, 0)
    connection.execute("update system.sync_runs set kept_at = kept_at - interval '91 days' where id = %s", [kept])
    assert seen_kept_gone(connection) == (1, 0, 1)
    assert left(connection) == [newer]


def test_unfinished_runs_are_kept_however_old(connection: Database) -> None:
    waiting, running = old(connection, "queued"), old(connection, "running", sync_type="ddt")
    assert history.prune_for(connection, days=90, seconds=60) == 0
    assert left(connection) == [waiting, running]


def test_runs_that_are_not_old_enough_are_kept(connection: Database) -> None:
    young = old(connection, "failed", days=89)
    old(connection, "failed", days=91)
    assert history.prune_for(connection, days=90, seconds=60) == 1
    assert left(connection) == [young]


PENDING: list[dict[str, Any]] = [
    {},
    {"decision": "accepted", "expires_at": "2999-01-01T00:00:00Z"},
]
OVER: list[dict[str, Any]] = [
    {"decision": "accepted", "expires_at": "2020-01-01T00:00:00Z"},
    {"decision": "accepted", "expires_at": "2999-01-01T00:00:00Z", "used_by_run": 1},
    {"decision": "rejected"},
    {"decision": "superseded"},
    {"decision": "cleared"},
    {"decision": "withdrawn"},
]


@pytest.mark.parametrize("decision", PENDING)
def test_a_held_export_that_waits_is_kept(connection: Database, decision: dict[str, Any]) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    run_id = old(connection, "held")
    held(connection, run_id, **decision)
    assert history.prune_for(connection, days=90, seconds=60) == 0
    assert left(connection) == [run_id]
    assert count(connection, "select count(*) from system.held_exports") == 1


@pytest.mark.parametrize("decision", OVER)
def test_a_decided_held_export_is_deleted_with_its_run(connection: Database, decision: dict[str, Any]) -> None:
    held(connection, old(connection, "held"), **decision)
    assert history.prune_for(connection, days=90, seconds=60) == 1
    assert left(connection) == []
    assert count(connection, "select count(*) from system.held_exports") == 0


def test_an_unchanged_export_is_recognised_after_its_history_was_pruned(connection: Database, config: Config) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    applied = sync(connection, config, "customers", AGENT, trigger="scheduled")
    sync(connection, config, "customers", AGENT, trigger="scheduled")
    last = sync(connection, config, "customers", AGENT, trigger="scheduled")
    connection.execute("update system.sync_runs set finished_at = finished_at - interval '100 days'")
    assert history.prune_for(connection, days=90, seconds=60) == 1
    assert left(connection) == [applied.run_id, last.run_id]
    again = sync(connection, config, "customers", AGENT, trigger="scheduled")
    assert (again.state, again.reason) == ("succeeded", "unchanged-at-source")


def many(db: Database, number: int) -> None:
    db.execute(
        "insert into system.sync_runs (id, sync_type, agent_id, state, trigger, queued_at, finished_at)"
        f" select {RUN_ID}, 'orders', 'gone', 'failed', 'scheduled', now() - interval '99 days', now() - interval '99 days'"
        " from generate_series(1, %s)",
        [number],
    )


def test_batches_follow_until_all_is_deleted_or_the_time_is_up(connection: Database) -> None:
    many(connection, 2 * history.PRUNE_BATCH + 5)
    assert history.prune_for(connection, days=90, seconds=0) == history.PRUNE_BATCH
    assert history.prune_for(connection, days=90, seconds=600) == history.PRUNE_BATCH + 5
    assert left(connection) == []


def test_a_tick_a_worker_and_another_pruning_wait_for_no_batch(connection: Database, config: Config) -> None:
    """The batch stays open while they work: one that waited for its locks would never end."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    many(connection, history.PRUNE_BATCH + 7)
    with connected(config.database_url, purpose="pruning") as other, other.transaction():
        assert history.prune(other, days=90, limit=history.PRUNE_BATCH).gone == history.PRUNE_BATCH
        assert tick(connection, config).due == 6
        assert drain(connection, config) == 6
        assert history.prune_for(connection, days=90, seconds=60) == 0
    assert count(connection, "select count(*) from system.sync_runs") == 6
