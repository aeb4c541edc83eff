"""kill -9 and SIGTERM at the worst moments, on real servers: what was due still runs, once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import agents
from archisync.store.database import Database, connected
from tests.conftest import Cli
from tests.support.rows import count

AGENT = "anna.bianchi"


def killed_tick(config: Config, locked: str) -> None:
    """Start a tick while another session holds the lock on `locked`; kill it with SIGKILL when it waits for that lock."""
    with connected(config.database_url, purpose="blocker") as blocker, blocker.transaction():
        blocker.execute(f"lock table {locked} in access exclusive mode")
        process = subprocess.Popen(
            [sys.executable, "-m", "archisync", "tick"],
            env=os.environ | dict(config.environment),
            stdout=subprocess.DEVNULL,
        )
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'archisync tick'"
        with connected(config.database_url, purpose="watch") as watch:
            while count(watch, waiting) == 0:
                assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    # PostgreSQL notices a dead client only when it next writes to it: the waiting statement may still commit.
    left = "select count(*) from pg_stat_activity where application_name = 'archisync tick'"
    with connected(config.database_url, purpose="watch") as watch:
        while count(watch, left):
            continue


def run_everything(cli: Cli, config: Config) -> None:
    env = dict(config.environment)
    assert cli("tick", env=env).returncode == 0
    assert cli("worker", "--burst", env=env).returncode == 0


# system.pauses is read by the statement that inserts due runs: nothing is committed yet, but the server may still commit it.
# system.ticks is written last: everything is committed and pushed.
@pytest.mark.parametrize(("locked", "queued"), [("system.pauses", {0, 6}), ("system.ticks", {6})])
def test_a_tick_killed_before_or_after_its_commit_loses_and_doubles_no_run(
    cli: Cli, connection: Database, config: Config, locked: str, queued: set[int]
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    killed_tick(config, locked)
    assert count(connection, "select count(*) from system.queued_runs") in queued
    run_everything(cli, config)
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 1") == 6
    assert count(connection, "select count(*) from system.runs") == 6


def test_sigterm_lets_the_current_run_finish(cli: Cli, connection: Database, config: Config) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("update system.sync_settings set enabled = sync_type = 'customers'")
    assert cli("tick", env=dict(config.environment)).returncode == 0
    with connected(config.database_url, purpose="blocker") as blocker:
        with blocker.transaction():
            blocker.execute("lock table agents.customers in access exclusive mode")
            process = subprocess.Popen(
                [sys.executable, "-m", "archisync", "worker"],
                env=os.environ | dict(config.environment),
                stderr=subprocess.DEVNULL,
            )
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'archisync worker'"
            with connected(config.database_url, purpose="watch") as watch:
                while count(watch, waiting) == 0:
                    assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 1") == 1


@pytest.mark.parametrize("started", [0, 1, 4])
def test_sigterm_while_workers_are_starting_ends_them_all(config: Config, started: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--processes", "8"],
        env=os.environ | dict(config.environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert json.loads(process.stderr.readline())["event"] == "workers-started"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < started:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["workers-stopping", "workers-stopped"]
