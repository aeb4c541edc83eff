"""An ERP that fails for a moment, and one that keeps failing. Only the ERP is faked."""

from collections.abc import Callable

import pytest

from archisync import sources
from archisync.base.errors import TransientSourceError
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.sources.interface import Fetched, Request
from archisync.store import agents, history, queued_runs, runs
from archisync.store.database import Database
from archisync.store.queued_runs import Forced
from tests.support.rows import do_run

AGENT = "anna.bianchi"
_real_fetch = sources.fetch


def flaky(failures: int) -> Callable[[Request], Fetched]:
    """An ERP whose first `failures` answers are timeouts."""
    calls = iter(range(failures))

    def fetch(request: Request) -> Fetched:
        if next(calls, None) is not None:
            raise TransientSourceError("the ERP does not answer")
        return _real_fetch(request)

    return fetch


def deliver(db: Database, config: Config, run_id: int) -> runs.Run:
    """Do the run in its current state, as a worker would."""
    do_run(db, config, run_id)
    return history.get(db, run_id)


@pytest.fixture
def forced(connection: Database) -> int:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    return queued_runs.force(connection, "orders", AGENT, by="test", why=None).run_id


def test_a_short_fault_is_retried_in_place(
    monkeypatch: pytest.MonkeyPatch, connection: Database, config: Config, forced: int
) -> None:
    monkeypatch.setattr(sources, "fetch", flaky(2))
    done = deliver(connection, config, forced)
    assert (done.state, done.attempt) == ("succeeded", 1)


def test_a_lasting_fault_is_retried_by_later_ticks_with_growing_delay_then_failed(
    monkeypatch: pytest.MonkeyPatch, connection: Database, config: Config, forced: int
) -> None:
    monkeypatch.setattr(sources, "fetch", flaky(100))
    connection.execute("update system.sync_settings set enabled = false")
    delays = []
    for attempt in (2, 3):
        run = deliver(connection, config, forced)
        assert (run.state, run.reason, run.attempt, run.message) == (
            "queued",
            "retry",
            attempt,
            "the ERP does not answer",
        )
        assert run.not_before is not None
        row = connection.execute("select system.clock() as now").fetchone()
        assert row is not None
        delays.append((run.not_before - row["now"]).total_seconds())
        assert tick(connection, config).enqueued == 0  # not before its time
        connection.execute(f"set archisync.now = '{run.not_before.isoformat()}'")
        assert tick(connection, config).enqueued == 1
    assert delays == [60, 120]
    last = deliver(connection, config, forced)
    assert (last.state, last.reason) == ("failed", "source-unavailable")
    state = connection.execute(
        "select consecutive_failures, backoff_until from system.sync_state where sync_type = 'orders'"
    )
    found = state.fetchone()
    assert found is not None
    assert (found["consecutive_failures"], found["backoff_until"]) == (1, None)


@pytest.mark.parametrize(
    "stopped", ["insert into system.pauses default values", "update system.sync_settings set enabled = false"]
)
def test_a_run_forced_behind_a_running_one_is_done_in_spite_of_a_pause(
    monkeypatch: pytest.MonkeyPatch, connection: Database, config: Config, stopped: str
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    tick(connection, config)
    [scheduled] = history.newest(connection, sync_type="orders")
    behind: list[Forced] = []

    def fetch(request: Request) -> Fetched:
        if request.sync_type != "orders":
            return _real_fetch(request)
        connection.execute(stopped)
        behind.append(queued_runs.force(connection, "orders", AGENT, by="test", why="a complaint"))
        monkeypatch.setattr(sources, "fetch", _real_fetch)
        raise TransientSourceError("the ERP does not answer", retry_after_s=60)

    monkeypatch.setattr(sources, "fetch", fetch)
    again = deliver(connection, config, scheduled.run_id)
    assert (again.state, again.attempt, again.trigger, again.requested_by) == ("queued", 2, "scheduled", None)
    done = history.get(connection, behind[0].run_id)  # the same worker has done it when it was through
    assert (behind[0].joined, behind[0].behind) == (False, scheduled.run_id)
    assert (done.state, done.attempt, done.request_reason) == ("succeeded", 1, "a complaint")
