"""The standard error of a tick and of workers is a log: JSON Lines with times, whoever writes the line; on a terminal, text for people."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from archisync.base.errors import ExitCode
from archisync.base.log import EVENTS, REMEDIES
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli, clean_environment
from tests.support.samples import SAMPLES
from tests.support.terminal import run_on_terminal
from tests.support.warm import WarmCommand

AGENT = "anna.bianchi"
AWAY = "postgresql://somebody@127.0.0.1:9/x"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def log_of(stderr: str) -> list[dict[str, Any]]:
    """Its events. Every line must be one."""
    events = [json.loads(line) for line in stderr.splitlines()]
    for event in events:
        assert TIME.fullmatch(event["time"])
        assert event["event"] in EVENTS
        assert event["event"] not in REMEDIES or event["hint"]
    return events


@pytest.mark.parametrize(
    ("words", "env", "code", "message"),
    [
        (("tick",), {"ARCHISYNC_DATABASE_URL": AWAY}, ExitCode.UNREACHABLE, "PostgreSQL is out of reach: "),
        (("tick", "--json"), {"ARCHISYNC_DATABASE_URL": AWAY}, ExitCode.UNREACHABLE, "PostgreSQL is out of reach: "),
        (("tick", "--dry-run"), {"ARCHISYNC_DATABASE_URL": AWAY}, ExitCode.UNREACHABLE, "PostgreSQL is out of reach: "),
        (("tick",), {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}, ExitCode.UNREACHABLE, "Redis is out of reach: "),
        (("tick",), {"ARCHISYNC_REDIS_URL": ""}, ExitCode.CONFIGURATION, "ARCHISYNC_REDIS_URL is not set"),
        (("tick", "--nonsense"), {}, ExitCode.USAGE, "No such option: --nonsense"),
        (("--debug", "tick"), {"ARCHISYNC_DATABASE_URL": AWAY}, ExitCode.UNREACHABLE, "PostgreSQL is out of reach: "),
        (("worker", "--burst"), {"ARCHISYNC_DATABASE_URL": AWAY}, ExitCode.UNREACHABLE, "PostgreSQL is out of reach: "),
        (("worker", "--burst"), {"ARCHISYNC_SOURCE": "ftp://x"}, ExitCode.CONFIGURATION, "orders: no source reads the scheme ftp:"),
        (("worker", "--single"), {"ARCHISYNC_REDIS_URL": ""}, ExitCode.CONFIGURATION, "ARCHISYNC_REDIS_URL is not set"),
        (("up", "--folder", "/proc/x"), {"ARCHISYNC_SOURCE": "ftp://x"}, ExitCode.CONFIGURATION, "orders: no source reads the scheme ftp:"),
        (("metrics", "--serve", "nonsense"), {}, ExitCode.USAGE, "'nonsense' is not [HOST:]PORT"),
    ],
)  # fmt: skip
def test_an_error_is_an_event_with_its_hint(
    cli: Cli, connection: Database, words: tuple[str, ...], env: dict[str, str], code: ExitCode, message: str
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    done = cli(*words, env=env)
    (failed,) = [event for event in log_of(done.stderr) if event["event"] == "command-failed"]
    assert (done.returncode, failed["exit_code"]) == (code, code)
    assert failed["message"].startswith(message)
    assert failed["command"] == next(word for word in words if word[0] != "-")
    assert ("traceback" in failed) == ("--debug" in words)


def test_a_remark_is_an_event_where_standard_error_is_a_log_and_else_all_is_text(
    connection: Database, cli: Cli, tmp_path: Path
) -> None:
    env = clean_environment() | {"ARCHISYNC_DATABASE_URL": AWAY, "ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9"}
    command = [sys.executable, "-m", "archisync", "metrics", "--serve", "127.0.0.1:0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        (said,) = log_of(serving.stderr.readline())
        serving.terminate()
        assert (said["event"], said["command"], log_of(serving.stderr.read())) == ("command-said", "metrics", [])
    agents.add(connection, AGENT, name=None, whitelisted=True)
    (file := tmp_path / "customers.csv").write_text("customer_id,name\n1,A\n")
    done = cli("run", "customers", "--agent", AGENT, "--inline", env={"ARCHISYNC_SOURCE": str(file)})
    assert (done.returncode, "run-finished" in done.stderr, "{" in done.stderr) == (ExitCode.DONE, True, False)


def test_a_log_of_json_ticks_is_json_lines_with_times(cli: Cli, connection: Database) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    lines = (cli("tick", "--json").stdout + cli("tick", "--json").stdout).splitlines()
    ticks = [json.loads(line) for line in lines]
    assert [tick["tick"]["due"] for tick in ticks] == [6, 0]
    assert all(TIME.fullmatch(tick["time"]) for tick in ticks)


def test_whatever_goes_wrong_around_a_worker_is_an_event(
    cli: Cli, connection: Database, redis_url: str, tmp_path: Path
) -> None:
    """A child that is killed, of which RQ itself writes; jobs and keys of others; an agent that nobody may sync any more."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    killer = tmp_path / "killer"
    killer.write_text("#!/bin/sh\nkill -9 $PPID\n")
    killer.chmod(0o755)
    env = {"ARCHISYNC_SOURCE_ORDERS": f"exec:{killer}", "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}
    assert cli("tick", env=env).returncode == 0
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("rq:queue:archisync", "not-ours", b"\xff")
        client.set("rq:failed:archisync", "another application's")
        done = cli("worker", "--burst", "--single", env=env)
    events = log_of(done.stderr)
    names = {event["event"] for event in events}
    assert names >= {"run-started", "run-finished", "child-died", "job-set-aside", "key-moved-aside", "library-message"}
    assert any("Work horse" in event["message"] for event in events if event["event"] == "library-message")
    assert {event["exit_code"] for event in events if event["event"] == "child-died"} == {-signal.SIGKILL}


def test_a_delivery_that_the_database_broke_off_has_its_hint(cli: Cli, connection: Database, tmp_path: Path) -> None:
    """The source ends the worker's session: RQ's traceback is one event of ours."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    breaker = tmp_path / "breaker"
    conninfo = f"host={connection.info.host} port={connection.info.port} user=postgres dbname={connection.info.dbname}"
    breaker.write_text(
        f"#!{sys.executable}\nimport psycopg\n"
        f"with psycopg.connect({conninfo!r}, autocommit=True) as db:\n"
        "    db.execute(\"select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'archisync worker'\")\n"
    )
    breaker.chmod(0o755)
    env = {"ARCHISYNC_SOURCE": f"exec:{breaker}"}
    assert cli("tick", env=env).returncode == 0
    events = log_of(cli("worker", "--burst", "--single", env=env).stderr)
    failed = [event for event in events if event["event"] == "delivery-failed"]
    assert failed
    assert {event["because"].partition(":")[0] for event in failed} == {"PostgreSQL is out of reach"}


@pytest.mark.parametrize("words", [["tick"], ["worker", "--single"]])
def test_on_a_terminal_an_error_is_text_for_people(warm_command: WarmCommand, redis_url: str, words: list[str]) -> None:
    env = clean_environment() | {
        "ARCHISYNC_DATABASE_URL": AWAY, "ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_SOURCE": "/x/{agent}/{type}.csv",
    }  # fmt: skip
    code, shown = run_on_terminal(warm_command, words, env=env, columns=100, timeout_s=60)
    assert code == ExitCode.UNREACHABLE
    assert re.fullmatch(r"error: PostgreSQL is out of reach: .*\r\nhint: is it up\? .*\r\n", shown), shown
