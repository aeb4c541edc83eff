"""A worker that was silent for longer than its lease ends quietly, wherever it wakes up."""

import io
import json
import threading

import pytest

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.store import agents, claims, history, queued_runs
from archisync.store.database import Database, connected
from archisync.store.locks import agent_lock
from archisync.store.runs import State
from archisync.work import heartbeat
from archisync.work.heartbeat import Heartbeat
from archisync.work.runner import Runner
from tests.support.rows import count

AGENT = "anna.bianchi"


def test_a_worker_that_finds_the_agent_locked_after_its_lease_ended_ends_quietly(
    connection: Database, database_url: str
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    forced = queued_runs.force(connection, "orders", AGENT, by="test", why=None)
    claim = claims.claim(connection, forced.run_id, 1, worker="slow:1", lease_s=60)
    assert claim is not None
    connection.execute("update system.sync_runs set lease_until = system.clock() - interval '1 second'")
    assert claims.reap(connection, max_attempts=3) == 1
    lines = io.StringIO()

    with connected(database_url, purpose="other worker") as other, agent_lock(other, AGENT) as locked:
        assert locked
        with Runner(connection, Config(environment={}), EventLog(lines, as_json=True)) as runner:
            left = runner.do_claimed(claim, may_retry=True)

    assert left is None
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["agent-locked", "lease-lost"]
    assert events[-1]["message"] == f"run {claim.run_id} belongs to another worker now"
    run = history.get(connection, claim.run_id)
    assert (run.state, run.fence, run.attempt, run.reason) == (State.QUEUED, 2, 2, "lease-expired")


@pytest.mark.parametrize(("seconds", "extended"), [(1799, True), (1800, False)])
def test_a_run_beyond_its_time_limit_gets_no_longer_lease(
    connection: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, *, seconds: int, extended: bool
) -> None:
    """A later tick then takes it back, wherever it hangs."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    forced = queued_runs.force(connection, "orders", AGENT, by="test", why=None)
    claim = claims.claim(connection, forced.run_id, 1, worker="slow:1", lease_s=60)
    assert claim is not None
    config = Config(environment={"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_LEASE_S": "10"})
    assert config.run_timeout_s == 1800
    looks = [0]

    def clock() -> float:
        """At the first look the run begins; at each later one it is that many seconds old."""
        looks[0] += 1
        return 0.0 if looks[0] == 1 else float(seconds)

    monkeypatch.setattr(heartbeat, "monotonic", clock)
    beats = Heartbeat(config, EventLog(io.StringIO()))
    with beats.beating(claim):
        while looks[0] < 3:
            pass
    beats.stop()
    lease = "select lease_until < system.clock() + interval '11 seconds' from system.sync_runs"  # it was claimed for 60
    assert bool(count(connection, lease)) is extended


def test_a_worker_that_has_just_finished_a_run_of_the_agent_is_waited_for(
    connection: Database, database_url: str
) -> None:
    """Its run ends before it frees the lock, so the agent's next run can be claimed in between."""
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
