"""`worker list`: what each worker does, since when, and its memory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.conftest import Cli, clean_environment
from tests.support.rows import add_run

MEBIBYTE = 1 << 20


@contextmanager
def worker(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "archisync", "worker", "--single"]
    with subprocess.Popen(command, env=clean_environment() | env, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def waiting(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings with which an export waits until somebody opens the FIFO for writing."""
    os.mkfifo(tmp_path / "fifo")
    program = tmp_path / "export"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/fifo\n", "utf-8")
    program.chmod(0o755)
    return {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"exec:{program} {{agent}}",
    }


def listed(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("worker", "list", "--json").stdout)["workers"]
    return found


def test_a_worker_is_shown_with_what_it_does_since_when_and_its_memory(
    cli: Cli, connection: Database, waiting: dict[str, str], tmp_path: Path
) -> None:
    cli("agent", "add", "anna", "--allow")
    with worker(waiting) as process:
        while not (idle := listed(cli)):
            assert process.poll() is None
        [one] = idle
        assert (one["worker"].rpartition(":")[2], one["run_id"], one["since"]) == (str(process.pid), None, None)
        assert one["state"] in ("starting", "started", "idle")
        run_id = int(cli("run", "customers", "--agent", "anna", env=waiting).stdout)
        with (tmp_path / "fifo").open("w") as fifo:  # opened when the program waits at its other end
            [busy] = listed(cli)
            [row] = cli("worker", "list", "--columns", "doing,state").stdout.splitlines()[1:]
            fifo.write("customer_id,name\n1,A\n")
        started = connection.execute("select started_at from system.runs where id = %s", [run_id]).fetchone()
    assert row.split() == ["customers", "of", "anna", "(run", f"{run_id})", "busy"]
    assert (busy["worker"], busy["state"]) == (one["worker"], "busy")
    assert (busy["run_id"], busy["sync_type"], busy["agent_id"]) == (run_id, "customers", "anna")
    assert started is not None
    assert busy["since"] is not None
    assert 10 * MEBIBYTE < busy["memory_bytes"] < 1024 * MEBIBYTE
    assert busy["started_at"] == one["started_at"] <= busy["seen_at"]


def test_whoever_does_a_run_and_is_not_in_redis_is_shown_too(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    run_id = add_run(connection, "running", worker="elsewhere:7", started_at="2026-03-01T12:00:00Z")
    [one] = listed(cli)
    assert (one["worker"], one["state"], one["run_id"]) == ("elsewhere:7", "unregistered", run_id)
    assert (one["since"], one["memory_bytes"], one["started_at"]) == ("2026-03-01T12:00:00Z", None, None)


def test_without_workers_it_says_what_to_type(cli: Cli, redis_url: str) -> None:
    done = cli("worker", "list")
    said = "no worker is alive on the queue archisync: archisync worker --processes 2\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    assert (
        cli("worker", "list", env={"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}).returncode == ExitCode.UNREACHABLE
    )


def test_numbers_and_times_that_are_none_are_not_known(cli: Cli, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        name = "rq:worker:archisync.host.7.x"
        client.sadd("rq:workers:archisync", name)
        client.hset(name, mapping={"birth": "long ago", "memory_bytes": "-1", "child_pid": b"\xff"})
    [one] = listed(cli)
    assert (one["worker"], one["state"]) == ("host:7", "starting")  # RQ has registered it, and says no more yet
    assert (one["memory_bytes"], one["started_at"], one["seen_at"]) == (None, None, None)
