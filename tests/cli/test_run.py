"""`run` while another process has the run or its agent, or none has: the exit code, the messages, and that no run is lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archisync.base.errors import ExitCode
from archisync.store import agents, endings, history, queued_runs
from archisync.store.database import Database, connected
from archisync.store.endings import Outcome, Report
from archisync.store.locks import agent_lock
from archisync.store.runs import State
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import begin_run

AGENT = "anna.bianchi"


@pytest.fixture
def agent(connection: Database, exports: Path) -> str:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    (exports / AGENT).mkdir()
    return AGENT


def taken(db: Database, sync_type: str) -> int:
    """A run of the agent that a worker elsewhere does."""
    forced = queued_runs.force(db, sync_type, AGENT, by="test", why=None)
    begin_run(db, forced.run_id)
    return forced.run_id


@pytest.mark.parametrize("other", ["customers", "orders"])
def test_inline_does_not_start_beside_another_run_of_the_agent(
    cli: Cli, connection: Database, agent: str, other: str
) -> None:
    run_id = taken(connection, other)
    done = cli("run", "orders", "--agent", agent, "--inline")
    assert done.returncode == ExitCode.BUSY
    assert done.stderr.splitlines()[-2:] == [
        f"error: run {run_id + 1} (orders of {agent}) can't start here: another run of {agent} is in progress",
        f"hint: archisync show {run_id + 1}   (it stays in the queue)",
    ]
    assert history.state_of(connection, run_id + 1) == "queued"


def test_inline_does_not_start_while_another_process_holds_the_agent(
    cli: Cli, connection: Database, database_url: str, agent: str
) -> None:
    """A worker that has lost its lease may still talk to the ERP."""
    with connected(database_url, purpose="zombie") as zombie, agent_lock(zombie, agent):
        done = cli("run", "orders", "--agent", agent, "--inline")
    assert done.returncode == ExitCode.BUSY
    assert f"can't start here: another run of {agent} is in progress" in done.stderr
    [run] = history.newest(connection)
    assert (run.state, run.reason, run.attempt) == ("queued", "agent-locked", 1)


# --- several pairs, while others work too -------------------------------------------------------------------------

OTHER = "luca.ferrari"
ORDERS = "order_id,created_at,customer_id\n1,2026-01-01,7\n"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe that the export program reads first: it waits until the test writes to the pipe."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def env(connection: Database, database_url: str, tmp_path: Path, gate: Path) -> dict[str, str]:
    """Two agents. The orders of the first come when the gate opens."""
    for agent_id in (AGENT, OTHER):
        agents.add(connection, agent_id, name=None, whitelisted=True)
    export = tmp_path / "orders.csv"
    export.write_text(ORDERS, "utf-8")
    program = tmp_path / "export"
    program.write_text(f"#!/bin/sh\n[ $1 = {OTHER} ] || cat {gate}\ncat {export}\n", "utf-8")
    program.chmod(0o755)
    return {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"exec:{program} {{agent}}"}


@contextmanager
def inline(env: dict[str, str], *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "run", "orders", *args, "--inline"],
        cwd=REPOSITORY, env=env | {"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("name", "value"), [("FETCH_TIMEOUT_S", "abc"), ("HISTORY_DAYS", "0"), ("LEASE_S", "soon")])
def test_with_a_wrong_setting_an_inline_run_is_refused_before_it_is_queued(
    cli: Cli, noon: Database, name: str, value: str
) -> None:
    done = cli("run", "orders", "--agent", "anna", "--inline", env={f"ARCHISYNC_{name}": value})
    assert (done.returncode, done.stderr.startswith(f"error: ARCHISYNC_{name} is ")) == (3, True), done.stderr
    assert noon.execute("select count(*) as n from system.runs").fetchone() == {"n": 0}


def until_said(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"never said: {words}")


def rows(table: str) -> list[list[str]]:
    return [line.split()[:4] for line in table.splitlines()[1:]]


def test_inline_reports_a_run_that_another_process_did_meanwhile(
    cli: Cli, connection: Database, env: dict[str, str], gate: Path
) -> None:
    with inline(env) as process:
        until_said(process, " run-started ")
        other = cli("run", "orders", "--agent", OTHER, "--inline", env=env)
        assert (other.returncode, rows(other.stdout)) == (0, [["2", "orders", OTHER, "succeeded"]])
        gate.write_text("", "utf-8")
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert rows(out) == [["1", "orders", AGENT, "succeeded"], ["2", "orders", OTHER, "succeeded"]]
    assert f"run 2: orders of {OTHER} succeeded (1 row seen: 1 inserted)" in err


def test_inline_waits_for_a_run_that_a_worker_claimed_meanwhile(
    connection: Database, env: dict[str, str], gate: Path
) -> None:
    with inline(env) as process:
        until_said(process, " run-started ")
        run = begin_run(connection, 2)
        gate.write_text("", "utf-8")
        until_said(process, f"run 1: orders of {AGENT} succeeded")
        endings.finish(connection, run, Outcome(State.FAILED, "no-export", "no export"), report=Report())
        out, err = process.communicate()
    assert process.returncode == ExitCode.SYNC_FAILED
    assert rows(out) == [["1", "orders", AGENT, "succeeded"], ["2", "orders", OTHER, "failed"]]
    assert err == f"run 2: orders of {OTHER} failed (no export)\n"


def test_inline_does_the_other_runs_when_a_worker_already_does_one(
    cli: Cli, connection: Database, env: dict[str, str]
) -> None:
    run_id = taken(connection, "orders")
    done = cli("run", "orders", "--inline", "--json", env=env)
    assert done.returncode == ExitCode.BUSY
    assert [(r["run_id"], r["state"]) for r in json.loads(done.stdout)["runs"]] == [
        (run_id + 1, "queued"),
        (run_id + 2, "succeeded"),
    ]
    assert done.stderr.endswith(
        f"error: run {run_id + 1} (orders of {AGENT}) can't start here: another run of {AGENT} is in progress\n"
        f"hint: archisync show {run_id + 1}   (it stays in the queue)\n"
    )


def test_ctrl_c_gives_an_inline_run_back_to_the_queue(
    cli: Cli, connection: Database, env: dict[str, str], gate: Path
) -> None:
    with inline(env) as process:
        until_said(process, " run-started ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert err == "interrupted; unfinished runs are back in the queue (archisync show 1)\n"
    run = history.get(connection, 1)
    assert (run.state, run.reason, run.message, run.attempt) == ("queued", "interrupted", "interrupted with Ctrl-C", 1)
    with inline(env) as process:
        until_said(process, " run-started ")
        gate.write_text("", "utf-8")
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert [row[0] for row in rows(out)] == ["1", "2"]


# --- --timeout ----------------------------------------------------------------------------------------------------


def test_a_timeout_shows_all_runs_and_names_the_unfinished_ones(cli: Cli, connection: Database, agent: str) -> None:
    agents.add(connection, OTHER, name=None, whitelisted=True)
    run_id = taken(connection, "orders")
    typed = ("run", "orders", "--wait", "--timeout", "0")
    message = (
        f"error: 2 runs not finished after 0 s: {run_id + 1}, {run_id + 2} (run {run_id + 1} is queued)\n"
        f"hint: the run goes on; archisync show {run_id + 1}\n"
    )
    shown = cli(*typed)
    assert (shown.returncode, shown.stderr[-len(message) :]) == (ExitCode.TIMEOUT, message)
    assert rows(shown.stdout) == [
        [str(run_id + 1), "orders", agent, "queued"],
        [str(run_id + 2), "orders", OTHER, "queued"],
    ]
    assert f"orders of {agent}: queued as run {run_id + 1}, behind run {run_id}, which is being done\n" in shown.stderr
    nobody = "note: no worker is alive on the queue archisync: archisync worker --processes 2\n"
    assert shown.stderr.count(nobody) == 1
    as_json = cli(*typed, "--json")
    assert as_json.returncode == ExitCode.TIMEOUT
    found = json.loads(as_json.stdout)["runs"]
    assert [(r["agent_id"], r["state"], r["counts"]) for r in found] == [
        (agent, "queued", None),
        (OTHER, "queued", None),
    ]


def test_a_timeout_names_at_most_ten_runs(cli: Cli, connection: Database) -> None:
    for number in range(12):
        agents.add(connection, f"agent.{number:02}", name=None, whitelisted=True)
    done = cli("run", "orders", "--wait", "--timeout", "0")
    assert "12 runs not finished after 0 s: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more (run 1 is queued)" in done.stderr


def test_with_redis_away_the_queued_runs_are_printed_all_the_same(cli: Cli, connection: Database, agent: str) -> None:
    away = {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}
    done = cli("run", "orders", "--agent", agent, "--json", env=away)
    assert done.returncode == ExitCode.UNREACHABLE
    [one] = json.loads(done.stdout)["runs"]
    assert (one["sync_type"], one["agent_id"], one["state"]) == ("orders", agent, None)
    assert "error: Redis is out of reach" in done.stderr
    done = cli("run", "orders", "--agent", agent, "--wait", env=away)
    assert (done.returncode, done.stdout) == (ExitCode.UNREACHABLE, f"{one['run_id']}\n")
    assert not connection.closed
