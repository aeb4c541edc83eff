"""`run --inline` while somebody else has the run or its agent: exit 7, and the run is not lost."""

from pathlib import Path

import pytest

from archisync.database import Database, connected
from archisync.errors import ExitCode
from archisync.store import agents, runs
from archisync.store.locks import agent_lock
from tests.conftest import Cli

AGENT = "anna.bianchi"


@pytest.fixture
def agent(connection: Database, exports: Path) -> str:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    (exports / AGENT).mkdir()
    return AGENT


def taken(db: Database, sync_type: str) -> int:
    """A run of the agent that a worker elsewhere is doing."""
    forced = runs.force(db, sync_type, AGENT, by="test", why=None)
    assert runs.claim(db, forced.run_id, 1, worker="elsewhere:7", lease_s=120) is not None
    return forced.run_id


def test_inline_says_where_the_run_is_already_running(cli: Cli, connection: Database, agent: str) -> None:
    run_id = taken(connection, "orders")
    done = cli("run", "orders", "--agent", agent, "--inline")
    assert done.returncode == ExitCode.BUSY
    assert done.stderr.splitlines()[-2:] == [
        f"error: run {run_id} (orders of {agent}) can't start here: it runs on elsewhere:7",
        f"hint: archisync show {run_id}",
    ]
    assert runs.state_of(connection, run_id) == "running"


def test_inline_does_not_start_beside_another_run_of_the_agent(cli: Cli, connection: Database, agent: str) -> None:
    run_id = taken(connection, "customers")
    done = cli("run", "orders", "--agent", agent, "--inline")
    assert done.returncode == ExitCode.BUSY
    assert done.stderr.splitlines()[-2:] == [
        f"error: run {run_id + 1} (orders of {agent}) can't start here: another run of {agent} is in progress",
        f"hint: archisync show {run_id + 1}   (it stays in the queue)",
    ]
    assert runs.state_of(connection, run_id + 1) == "queued"


def test_inline_does_not_start_while_somebody_still_holds_the_agent(
    cli: Cli, connection: Database, database_url: str, agent: str
) -> None:
    """A worker that has lost its lease may still talk to the ERP."""
    with connected(database_url, purpose="zombie") as zombie, agent_lock(zombie, agent):
        done = cli("run", "orders", "--agent", agent, "--inline")
    assert done.returncode == ExitCode.BUSY
    assert f"can't start here: another run of {agent} is in progress" in done.stderr
    [run] = runs.history(connection)
    assert (run.state, run.reason, run.attempt) == ("queued", "agent-locked", 1)
