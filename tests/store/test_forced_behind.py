"""A person who forces a pair gets a run that will still read the export: one that waits, or one behind the run that is being done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archisync import sources
from archisync.observe.why import explain
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.sources.interface import Fetched, Request
from archisync.store import agents, claims, deliveries, endings, health, history, interventions, queued_runs, timetable
from archisync.store.claims import Claim, ClaimedRun
from archisync.store.database import Database, connected
from archisync.store.endings import Outcome, Report
from archisync.store.queued_runs import Forced
from archisync.store.runs import State
from tests.support.rows import begin_run, count, do_run

AGENT = "anna"
HEADER = "order_id,created_at,customer_id\n"
_real_fetch = sources.fetch
NAMES = (
    "select array_remove(array[unfinished_run_id, next_run_id], null) from system.sync_state where sync_type = 'orders'"
)


@pytest.fixture
def pair(connection: Database) -> Database:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    return connection


@pytest.fixture
def doing(pair: Database) -> ClaimedRun:
    """A run of the pair that a worker is doing."""
    return begin_run(pair, force(pair).run_id)


def force(db: Database) -> Forced:
    return queued_runs.force(db, "orders", AGENT, by="test", why=None)


def waiting_and_next(db: Database) -> list[int]:
    row = db.execute(NAMES).fetchone()
    assert row is not None
    return list(row["array_remove"])


def test_what_the_erp_wrote_before_the_command_is_in_the_table_after_it(
    pair: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "orders.csv"
    export.write_text(HEADER + "1,2026-01-01,7\n")
    config = Config.from_environment({"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": str(export)})
    asked: list[Forced] = []

    def fetch(request: Request) -> Fetched:
        fetched = _real_fetch(request)
        if not asked:
            export.write_text(HEADER + "1,2026-01-01,8\n2,2026-01-02,9\n")
            asked.append(force(pair))
        return fetched

    monkeypatch.setattr(sources, "fetch", fetch)
    first = force(pair)
    do_run(pair, config, first.run_id)
    own = history.get(pair, asked[0].run_id)
    assert (asked[0].joined, asked[0].behind) == (False, first.run_id)
    assert history.get(pair, first.run_id).state is State.SUCCEEDED
    assert own.state is State.SUCCEEDED
    assert own.counts is not None
    assert (own.counts.updated, own.counts.inserted) == (1, 1)
    found = pair.execute("select order_id, customer_id from agents.orders order by 1").fetchall()
    assert [(row["order_id"], row["customer_id"]) for row in found] == [("1", "8"), ("2", "9")]


def test_one_that_waits_is_joined_claimed_or_not(pair: Database) -> None:
    first = force(pair)
    assert force(pair) == Forced(run_id=first.run_id, sync_type="orders", agent_id=AGENT, joined=True)
    assert isinstance(claims.claim_agent(pair, AGENT, worker="w", lease_s=60), Claim)
    assert force(pair).run_id == first.run_id  # the worker has not begun it yet
    assert waiting_and_next(pair) == [first.run_id]


def test_a_third_person_joins_the_run_behind_and_everybody_sees_it(pair: Database, doing: ClaimedRun) -> None:
    own = force(pair)
    assert (own.joined, own.behind, own.run_id) == (False, doing.run_id, doing.run_id + 1)
    again = force(pair)
    assert (again.joined, again.run_id) == (True, own.run_id)
    assert waiting_and_next(pair) == [doing.run_id, own.run_id]
    assert [(run.run_id, run.state) for run in history.newest(pair)] == [
        (own.run_id, State.QUEUED),
        (doing.run_id, State.RUNNING),
    ]
    orders = next(found for found in health.type_health(pair) if found.sync_type == "orders")
    assert (orders.queued, orders.running) == (1, 1)
    assert queued_runs.positions(pair) == {"orders": 1}
    assert timetable.queued(pair, sync_type=None, agent_id=None) == ({"orders": 1}, False)
    why = explain(pair, SYNC_TYPES["orders"], AGENT)
    assert why.decision.sentence.startswith(f"run {doing.run_id} is running on elsewhere:7")


def finished(db: Database, run: ClaimedRun, state: State) -> None:
    endings.finish(db, run, Outcome(state, "test", "by a test"), report=Report())


def applied(db: Database, run: ClaimedRun) -> None:
    outcome = Outcome(State.SUCCEEDED, "applied", "by a test")
    endings.finish_applied(db, run, outcome, report=Report(), known_rows=1, accepted=False, source={})


def silent(db: Database, run: ClaimedRun) -> None:
    db.execute("update system.claims set lease_until = system.clock() - interval '1 s'")
    assert claims.reap(db, max_attempts=1) == 1


def cancelled(db: Database, run: ClaimedRun) -> None:
    assert len(interventions.cancel(db, [run.run_id], message="by a test")) == 1


ENDS: dict[str, Callable[[Database, ClaimedRun], None]] = {
    "succeeded": applied,
    "failed": lambda db, run: finished(db, run, State.FAILED),
    "held": lambda db, run: finished(db, run, State.HELD),
    "skipped": lambda db, run: finished(db, run, State.SKIPPED),
    "silent": silent,
    "cancelled": cancelled,
}


@pytest.mark.parametrize("how", ENDS)
def test_however_the_run_before_ends_the_one_behind_is_next_and_no_tick_doubles_it(
    pair: Database, doing: ClaimedRun, how: str
) -> None:
    own = force(pair)
    ENDS[how](pair, doing)
    assert waiting_and_next(pair) == [own.run_id]
    pair.execute("update system.sync_state set last_slot_at = null, backoff_until = null")
    queued_runs.insert_due(pair, limit=10, batch=10)
    assert count(pair, "select count(*) from system.queued_runs where sync_type = 'orders'") == 1
    claims.release(pair, Claim(agent_id=AGENT, fence=doing.fence))
    pair.execute("select pg_advisory_unlock_all()")
    run = begin_run(pair, own.run_id)
    third = force(pair)  # behind one that stood behind another
    assert (third.behind, waiting_and_next(pair)) == (own.run_id, [own.run_id, third.run_id])
    applied(pair, run)
    assert waiting_and_next(pair) == [third.run_id]


def test_after_a_run_that_must_be_tried_again_both_wait_and_the_one_behind_is_joined(
    pair: Database, doing: ClaimedRun
) -> None:
    own = force(pair)
    claims.requeue(pair, doing, delay_s=60, reason="retry", message="the ERP does not answer")
    assert force(pair).run_id == own.run_id
    claims.release(pair, Claim(agent_id=AGENT, fence=doing.fence))
    run = begin_run(pair, own.run_id)
    joined = force(pair)  # the first one will still read the export
    assert (joined.joined, joined.run_id) == (True, doing.run_id)
    applied(pair, run)
    assert waiting_and_next(pair) == [doing.run_id]


def test_whoever_leaves_the_whitelist_keeps_the_run_that_is_being_done_alone(pair: Database, doing: ClaimedRun) -> None:
    own = force(pair)
    agents.set_whitelisted(pair, [AGENT], False)
    assert history.get(pair, own.run_id).state is State.SKIPPED
    assert waiting_and_next(pair) == [doing.run_id]
    applied(pair, doing)
    assert waiting_and_next(pair) == []


def test_both_are_cancelled_at_once_or_one_alone(pair: Database, doing: ClaimedRun) -> None:
    own = force(pair)
    assert len(interventions.cancel(pair, [own.run_id], message="m")) == 1
    assert waiting_and_next(pair) == [doing.run_id]
    own = force(pair)
    assert len(interventions.cancel(pair, [doing.run_id, own.run_id], message="m")) == 2
    assert waiting_and_next(pair) == []


def until_waiting(db: Database) -> None:
    """Until some other session waits for a lock."""
    while not count(
        db,
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    ):
        db.execute("select pg_sleep(0.005)")


def test_an_end_and_a_person_at_the_same_instant_leave_one_run_that_waits(
    pair: Database, doing: ClaimedRun, database_url: str
) -> None:
    """Whichever commits first: the other has looked before that, and waited."""
    with connected(database_url, purpose="other") as other:
        with pair.transaction():
            applied(pair, doing)
            asking = threading.Thread(target=force, args=[other])
            asking.start()
            with connected(database_url, purpose="watcher") as watcher:
                until_waiting(watcher)
        asking.join()
        [own] = waiting_and_next(pair)
        assert count(pair, "select count(*) from system.queued_runs") == 1
        claims.release(pair, Claim(agent_id=AGENT, fence=doing.fence))
        run = begin_run(pair, own)
        with other.transaction():
            behind = force(other)
            ending = threading.Thread(target=applied, args=[pair, run])
            ending.start()
            with connected(database_url, purpose="watcher") as watcher:
                until_waiting(watcher)
        ending.join()
    assert behind.behind == own
    assert waiting_and_next(pair) == [behind.run_id]
    assert deliveries.assign(pair, limit=10) is not None
