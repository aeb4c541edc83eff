"""A claim: one worker has an agent with all that it has queued, and does it in order; what it leaves is delivered anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, claims, deliveries, queued_runs, settings
from archisync.store.claims import Claim, Locked
from archisync.store.database import Database, connected
from archisync.store.deliveries import JobKey
from tests.support.queued import LOCKED
from tests.support.rows import add_claim, count, pretend_applied

AGENT = "anna.bianchi"
WITHIN_S = 20


@pytest.fixture
def queued(connection: Database) -> Database:
    """The four types of one agent are queued, in a delivery."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=10, batch=10)
    return connection


def job_of(db: Database, agent_id: str = AGENT) -> JobKey:
    row = db.execute(
        "select delivery_id, job_no from system.queued_runs where agent_id = %s limit 1", [agent_id]
    ).fetchone()
    assert row is not None
    return JobKey(row["delivery_id"], row["job_no"])


def claim_job(db: Database, worker: str = "slow:1", *, job: JobKey | None = None) -> Claim | Locked | None:
    return claims.claim_job(db, *(job or job_of(db)), worker=worker, lease_s=60)


def claimed(db: Database) -> Claim:
    claim = claim_job(db)
    assert isinstance(claim, Claim)
    return claim


def types_of(claim: Claim) -> list[str]:
    return [run.sync_type for run in claim.runs]


def test_a_claim_has_the_runs_of_its_agent_forced_ones_first_then_by_level(queued: Database) -> None:
    job = job_of(queued)
    queued_runs.force(queued, "invoices", AGENT, by="test", why=None)
    found = claim_job(queued, job=job)
    assert isinstance(found, Claim)
    assert types_of(found) == ["invoices", "customers", "orders", "ddt"]  # of the same level in the order of queueing
    assert {run.agent_id for run in found.runs} == {found.agent_id} == {AGENT}
    assert {run.fence for run in found.runs} == {found.fence}


def test_a_run_that_waits_for_its_retry_is_left_out(queued: Database) -> None:
    queued.execute(
        "update system.queued_runs set not_before = system.clock() + interval '1 minute' where sync_type = 'orders'"
    )
    assert types_of(claimed(queued)) == ["customers", "ddt", "invoices"]


def test_a_claim_says_of_each_run_what_stands_in_its_way(queued: Database) -> None:
    settings.set_enabled(queued, SYNC_TYPES["orders"], False)
    settings.pause(queued, sync_type="ddt", agent_id=AGENT, until=None, reason=None, by="test")
    settings.set_enabled(queued, SYNC_TYPES["invoices"], False)
    queued_runs.force(queued, "invoices", AGENT, by="test", why=None)
    blocked = {run.sync_type: run.blocked for run in claimed(queued).runs}
    assert blocked == {"customers": None, "orders": "type-disabled", "ddt": "paused", "invoices": None}


def test_a_claim_brings_what_is_known_of_an_export_that_would_change_nothing(queued: Database) -> None:
    pretend_applied(queued)
    queued.execute("update system.sync_state set same_changes_nothing = sync_type <> 'orders'")
    queued.execute("insert into agents.customers (agent_id, customer_id, name) values (%s, 'C1', 'Uno')", [AGENT])
    applied = {run.sync_type: run.applied for run in claimed(queued).runs}
    known = {"run_id": 1}
    assert applied == {"orders": {}, "customers": {}, "ddt": known, "invoices": known}


def test_an_agent_that_a_worker_has_is_not_claimed_again_however_its_job_comes(
    queued: Database, database_url: str
) -> None:
    job = job_of(queued)
    claimed(queued)
    with connected(database_url, purpose="another worker") as other:
        assert claim_job(other, "quick:2", job=job) is None
        assert claims.claim_agent(other, AGENT, worker="quick:2", lease_s=60) is None
    assert queued.execute("select worker from system.claims").fetchall() == [{"worker": "slow:1"}]


def test_an_agent_that_another_session_has_locked_is_not_claimed(queued: Database, database_url: str) -> None:
    """That of a worker which was taken for dead and still talks to the ERP."""
    lost = claimed(queued)
    queued.execute("update system.claims set lease_until = system.clock()")
    assert claims.reap(queued, max_attempts=3) == 1
    deliveries.assign(queued, limit=10)
    with connected(database_url, purpose="another worker") as other:
        for found in (
            claim_job(other, "quick:2"),
            claims.claim_agent(other, AGENT, worker="quick:2", lease_s=60),
        ):
            assert found == Locked(agent_id=AGENT)
        assert count(other, "select count(*) from system.claims") == 0
        claims.put_off(other, AGENT, delay_s=15)
        waiting = (
            "select count(*) from system.queued_runs where not_before > system.clock() and reason = 'agent-locked'"
        )
        assert count(other, waiting) == 4
        assert count(other, "select sum(attempt) from system.queued_runs where agent_id = %s", AGENT) == 5  # none spent
        claims.release(queued, lost)
        other.execute("update system.queued_runs set not_before = null")
        assert isinstance(claims.claim_agent(other, AGENT, worker="quick:2", lease_s=60), Claim)


def test_a_worker_that_comes_a_moment_too_late_leaves_no_lock_behind(queued: Database, database_url: str) -> None:
    """The other claim commits while this one waits for it; its session may be gone already, and the agent's lock free."""
    with (
        connected(database_url, purpose="first") as first,
        connected(database_url, purpose="second") as second,
        ThreadPoolExecutor(1) as thread,
    ):
        with first.transaction():
            add_claim(first, AGENT)
            late = thread.submit(claim_job, second)
            end = monotonic() + WITHIN_S
            while not count(queued, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
                assert monotonic() < end
        assert late.result(WITHIN_S) is None
        assert count(queued, LOCKED) == 0


def test_of_many_workers_at_the_same_instant_one_gets_the_agent(queued: Database, database_url: str) -> None:
    job = job_of(queued)

    def race(number: int) -> Claim | Locked | None:
        return claim_job(sessions[number], f"worker:{number}", job=job)

    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(4))
        sessions = [stack.enter_context(connected(database_url, purpose="race")) for _ in range(4)]
        for _ in range(25):
            found = list(threads.map(race, range(4)))
            [(winner, claim)] = [(n, claim) for n, claim in enumerate(found) if isinstance(claim, Claim)]
            assert len(claim.runs) == 4
            assert count(queued, LOCKED) == 1
            claims.release(sessions[winner], claim)
            assert count(queued, LOCKED) == 0
            queued.execute(
                "update system.queued_runs set (delivery_id, job_no) = (%s, %s) where agent_id = %s", [*job, AGENT]
            )


def test_no_two_claims_have_the_same_fence(queued: Database) -> None:
    fences = set()
    for _ in range(3):
        claim = claims.claim_agent(queued, AGENT, worker="slow:1", lease_s=60)
        assert isinstance(claim, Claim)
        fences.add(claim.fence)
        claims.release(queued, claim)
    assert len(fences) == 3


def test_a_run_that_was_taken_away_after_the_claim_does_not_begin(queued: Database) -> None:
    claim = claimed(queued)
    assert claims.begin(queued, claim.runs[0], lease_s=60) is not None
    agents.set_whitelisted(queued, [AGENT], False)
    assert [claims.begin(queued, run, lease_s=60) for run in claim.runs[1:]] == [None, None, None]
    first = queued.execute("select id from system.queued_runs where agent_id = %s", [AGENT]).fetchall()
    assert [row["id"] for row in first] == [claim.runs[0].run_id]


def test_a_run_that_was_forced_after_the_claim_begins_as_a_forced_one(queued: Database) -> None:
    """Whatever stood in its way, and whatever is known of its export."""
    settings.set_enabled(queued, SYNC_TYPES["orders"], False)
    pretend_applied(queued)
    queued.execute("update system.sync_state set same_changes_nothing = true")
    [run] = [run for run in claimed(queued).runs if run.sync_type == "orders"]
    assert (run.trigger, run.blocked, run.applied) == ("scheduled", "type-disabled", {"run_id": 1})
    queued_runs.force(queued, "orders", AGENT, by="test", why=None)
    begun = claims.begin(queued, run, lease_s=60)
    assert begun is not None
    assert (begun.trigger, begun.blocked, begun.applied) == ("forced", None, {})


def test_what_a_released_agent_has_left_goes_into_another_delivery(queued: Database) -> None:
    job = job_of(queued)
    claim = claimed(queued)
    claims.release(queued, claim)
    assert (count(queued, "select count(*) from system.claims"), count(queued, LOCKED)) == (0, 0)
    assert claim_job(queued, job=job) is None  # the old job finds nothing
    assert deliveries.assign(queued, limit=10) == 4
    assert job_of(queued).delivery_id > job.delivery_id
    assert len(claimed(queued).runs) == 4


def test_a_silent_worker_loses_the_agent_and_only_the_run_that_it_was_doing_pays(queued: Database) -> None:
    claim = claimed(queued)
    assert claims.begin(queued, claim.runs[2], lease_s=60) is not None
    assert claims.reap(queued, max_attempts=3) == 0
    queued.execute("update system.claims set lease_until = system.clock()")
    assert claims.reap(queued, max_attempts=3) == 1
    rows = queued.execute(
        "select sync_type, attempt, reason, delivery_id from system.queued_runs where agent_id = %s order by id",
        [AGENT],
    ).fetchall()
    paid = claim.runs[2].sync_type
    assert {row["sync_type"]: (row["attempt"], row["reason"]) for row in rows} == {
        name: (2, "lease-expired") if name == paid else (1, None) for name in types_of(claim)
    }
    assert {row["delivery_id"] for row in rows} == {None}
    assert count(queued, "select count(*) from system.claims") == 0


def test_a_worker_that_dies_before_it_begins_a_run_is_charged_to_the_first(queued: Database) -> None:
    """A job that kills its worker must come to an end too."""
    for attempt in (1, 2, 3):
        claim = claims.claim_agent(queued, AGENT, worker=f"slow:{attempt}", lease_s=60)
        assert isinstance(claim, Claim)
        queued.execute("update system.claims set lease_until = system.clock()")
        assert claims.reap(queued, max_attempts=3) == 1
        claims.release(queued, claim)
    ended = queued.execute("select state, reason, attempt, message from system.sync_runs").fetchall()
    assert ended == [
        {"state": "failed", "reason": "lease-expired", "attempt": 3, "message": "the worker slow:3 fell silent"}
    ]
    assert count(queued, "select sum(attempt) from system.queued_runs where agent_id = %s", AGENT) == 3
