"""Who makes a pair rest: only failures of its schedule, never a person who forces it, however the forced run fails."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from archisync.store import agents, claims, deliveries, endings, queued_runs
from archisync.store.database import Database
from archisync.store.endings import Outcome, Report
from archisync.store.runs import State
from tests.support.rows import begin_run, count

AGENT = "anna"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def pair(connection: Database) -> Database:
    """One due pair: orders, each 10 min."""
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("update system.sync_settings set enabled = sync_type = 'orders'")
    connection.execute("update system.sync_state set last_slot_at = null")
    return connection


def fails(db: Database, run_id: int) -> None:
    """The run fails while a worker does it."""
    run = begin_run(db, run_id)
    endings.finish(db, run, Outcome(State.FAILED, "no-export", "there is no file"), report=Report())
    claims.release(db, claims.Claim(agent_id=AGENT, fence=run.fence))


def falls_silent(db: Database, run_id: int) -> None:
    """The worker that does the run dies, and its attempts are spent."""
    begin_run(db, run_id)
    db.execute("update system.claims set lease_until = system.clock() - interval '1 s'")
    assert claims.reap(db, max_attempts=1) == 1
    db.execute("select pg_advisory_unlock_all()")


def forced(db: Database) -> int:
    return queued_runs.force(db, "orders", AGENT, by="test", why=None).run_id


def joined(db: Database) -> int:
    """A scheduled run that a person joined before it began."""
    run_id = scheduled(db)
    assert queued_runs.force(db, "orders", AGENT, by="test", why=None).joined
    return run_id


def scheduled(db: Database) -> int:
    db.execute("update system.sync_state set last_slot_at = null where sync_type = 'orders'")
    assert queued_runs.insert_due(db, limit=10, batch=10)[1] == 1
    deliveries.assign(db, limit=10)
    return count(db, "select id from system.queued_runs")


def state(db: Database) -> dict[str, Any]:
    row = db.execute(
        "select consecutive_failures as failures, backoff_until - system.clock() as rests from system.sync_state"
        " where sync_type = 'orders'"
    ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("end", [fails, falls_silent])
@pytest.mark.parametrize("how", [forced, joined])
def test_five_forced_failures_are_counted_and_the_schedule_goes_on(
    pair: Database, how: Callable[[Database], int], end: Callable[[Database, int], None]
) -> None:
    for _ in range(5):
        end(pair, how(pair))
    assert state(pair) == {"failures": 5, "rests": None}
    end(pair, scheduled(pair))
    assert state(pair) == {"failures": 6, "rests": None}  # the schedule's first failure


@pytest.mark.parametrize("end", [fails, falls_silent])
def test_a_forced_failure_makes_no_rest_longer(pair: Database, end: Callable[[Database, int], None]) -> None:
    for expected in (None, 20 * MINUTE):
        end(pair, scheduled(pair))
        assert state(pair)["rests"] == expected
    end(pair, forced(pair))
    assert state(pair) == {"failures": 3, "rests": 20 * MINUTE}
    pair.execute("set archisync.now = '2026-05-05T12:30:00Z'")
    end(pair, scheduled(pair))
    assert state(pair) == {"failures": 4, "rests": 40 * MINUTE}  # its third
