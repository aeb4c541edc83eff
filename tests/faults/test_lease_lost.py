"""A worker that was silent for longer than its lease ends quietly, wherever it wakes up."""

import io
import json
import threading

import pytest

from archisync import sources
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.sources.interface import Fetched, Request
from archisync.store import agents, claims, history, queued_runs
from archisync.store.claims import Claim, Locked
from archisync.store.database import Database, connected
from archisync.store.locks import agent_lock, unlock_agent
from archisync.store.runs import State
from archisync.work import heartbeat
from archisync.work.heartbeat import Heartbeat
from archisync.work.runner import Runner
from tests.support.rows import count, drain, job_of

AGENT = "anna.bianchi"


def claimed(db: Database, *types: str) -> Claim:
    """The agent with forced runs of these types, in the hands of a worker."""
    agents.add(db, AGENT, name=None, whitelisted=True)
    for name in types:
        queued_runs.force(db, name, AGENT, by="test", why=None)
    claim = claims.claim_agent(db, AGENT, worker="slow:1", lease_s=60)
    assert isinstance(claim, Claim)
    return claim


def expire(db: Database) -> None:
    db.execute("update system.claims set lease_until = system.clock() - interval '1 second'")


@pytest.mark.parametrize("inline", [False, True])
def test_a_worker_whose_lease_ended_while_it_fetched_leaves_the_run_and_the_agent_alone(
    connection: Database, database_url: str, config: Config, monkeypatch: pytest.MonkeyPatch, *, inline: bool
) -> None:
    """Its session has the agent's lock until it notices: no other worker gets the agent before."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    run_id = queued_runs.force(connection, "orders", AGENT, by="test", why=None).run_id
    lines, found = io.StringIO(), list[object]()
    real_fetch = sources.fetch

    def fetch(request: Request) -> Fetched:
        expire(connection)
        assert claims.reap(connection, max_attempts=3) == 1
        found.append(claims.claim_agent(connection, AGENT, worker="other:1", lease_s=60))
        return real_fetch(request)

    monkeypatch.setattr(sources, "fetch", fetch)
    with connected(database_url, purpose="worker") as worker:
        with Runner(worker, config, EventLog(lines, as_json=True)) as runner:
            if inline:
                assert runner.do_forced(AGENT, run_id) is None
            else:
                job = job_of(worker, run_id)
                assert job is not None
                assert runner.do(*job) == 0
        assert found == [Locked(agent_id=AGENT)]
        assert isinstance(claims.claim_agent(connection, AGENT, worker="other:1", lease_s=60), Claim)

    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["run-started", "lease-lost"]
    assert events[-1]["message"] == f"another worker has the agent {AGENT} now"
    run = history.get(connection, run_id)
    assert (run.attempt, run.reason) == (2, "lease-expired")
    assert count(connection, "select count(*) from agents.orders") == 0


def test_only_the_run_that_a_silent_worker_was_doing_spends_an_attempt(connection: Database) -> None:
    claim = claimed(connection, "orders", "customers", "ddt")
    doing = claim.runs[1]
    assert claims.begin(connection, doing, lease_s=60) is not None
    expire(connection)
    assert claims.reap(connection, max_attempts=3) == 1
    attempts = {run.run_id: (run.attempt, run.reason) for run in history.newest(connection)}
    assert attempts == {run.run_id: (2, "lease-expired") if run == doing else (1, None) for run in claim.runs}


def test_a_silent_worker_that_named_no_run_spends_an_attempt_of_the_first_one(connection: Database) -> None:
    claim = claimed(connection, "orders", "customers")
    expire(connection)
    assert claims.reap(connection, max_attempts=3) == 1
    assert {run.run_id: run.attempt for run in history.newest(connection)} == {
        claim.runs[0].run_id: 2,
        claim.runs[1].run_id: 1,
    }


def test_an_agent_whose_runs_all_wait_for_a_later_attempt_is_taken_back_from_a_silent_worker(
    connection: Database, config: Config
) -> None:
    [run] = claimed(connection, "orders").runs
    begun = claims.begin(connection, run, lease_s=60)
    assert begun is not None
    claims.requeue(connection, begun, delay_s=3600, reason="retry", message="the ERP does not answer")
    expire(connection)
    assert tick(connection, config).error is None
    assert count(connection, "select count(*) from system.claims") == 0
    waiting = history.get(connection, run.run_id)
    assert (waiting.state, waiting.attempt, waiting.reason) == (State.QUEUED, 2, "retry")


def test_a_run_fails_whose_workers_fell_silent_too_often_and_the_agents_other_runs_go_on(
    connection: Database, config: Config
) -> None:
    claim = claimed(connection, "orders", "customers")
    assert claims.begin(connection, claim.runs[0], lease_s=60) is not None
    expire(connection)
    assert claims.reap(connection, max_attempts=1) == 1
    failed = history.get(connection, claim.runs[0].run_id)
    assert (failed.state, failed.reason, failed.message) == (
        State.FAILED,
        "lease-expired",
        "the worker slow:1 fell silent",
    )
    assert failed.fence == claim.fence
    unlock_agent(connection, AGENT)
    assert drain(connection, config) == 1
    assert history.get(connection, claim.runs[1].run_id).state == State.SUCCEEDED


@pytest.mark.parametrize(("seconds", "extended"), [(1799, True), (1800, False)])
def test_a_run_beyond_its_time_limit_gets_no_longer_lease(
    connection: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, *, seconds: int, extended: bool
) -> None:
    """A later tick then takes it back, wherever it hangs."""
    [run] = claimed(connection, "orders").runs
    config = Config(environment={"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_LEASE_S": "10"})
    assert config.run_timeout_s == 1800
    looks = [0]

    def clock() -> float:
        """At the first look the run begins; at each later one it is that many seconds old."""
        looks[0] += 1
        return 0.0 if looks[0] == 1 else float(seconds)

    monkeypatch.setattr(heartbeat, "monotonic", clock)
    beats = Heartbeat(config, EventLog(io.StringIO()))
    with beats.beating(run):
        while looks[0] < 3:
            pass
    beats.stop()
    lease = "select lease_until < system.clock() + interval '11 seconds' from system.claims"  # it was claimed for 60
    assert bool(count(connection, lease)) is extended


def test_a_worker_that_has_just_finished_a_run_of_the_agent_is_waited_for(
    connection: Database, database_url: str
) -> None:
    """`archisync diff` gets the agent a moment later."""
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    waiting += " and database = (select oid from pg_database where datname = current_database())"
    locked: list[bool] = []

    def claim() -> None:
        with connected(database_url, purpose="other worker") as other, agent_lock(other, AGENT) as got:
            locked.append(got)

    with connected(database_url, purpose="worker") as first, agent_lock(first, AGENT):
        thread = threading.Thread(target=claim)
        thread.start()
        while thread.is_alive() and not count(connection, waiting):
            pass
    thread.join()
    assert locked == [True]
