"""A killed worker leaves nothing behind: its child dies with it, and the agent is free."""

import os
import select
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
import redis

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store.database import Database, connected
from tests.conftest import Cli
from tests.support.queued import LOCKED, env_of, one_due_pair
from tests.support.rows import count, forget_runs

KILLS = 5
WAITING = """select count(*) from pg_stat_activity where application_name = 'archisync worker' and wait_event_type = 'Lock'
                and datname = current_database()"""
AT_REST = """select count(*) from pg_stat_activity where application_name = 'archisync worker' and state like 'idle%'
                and datname = current_database()"""


@contextmanager
def stopped_child(connection: Database, config: Config) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker and its child, which is stopped in the middle of its apply: it holds the agent and can't end by itself."""
    with connected(config.database_url, purpose="blocker") as blocker:
        with blocker.transaction():
            blocker.execute("lock table agents.customers in access exclusive mode")
            process = subprocess.Popen(
                [sys.executable, "-m", "archisync", "worker", "--single"],
                env=os.environ | dict(config.environment),
                stderr=subprocess.DEVNULL,
            )
            while count(connection, WAITING) == 0:
                assert process.poll() is None
            [child] = children(process.pid)
            os.kill(child, signal.SIGSTOP)
        while count(connection, AT_REST) == 0:
            assert process.poll() is None
    assert count(connection, LOCKED) == 1
    try:
        yield process, child
    finally:
        process.kill()
        process.wait(30)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(connection: Database, process: subprocess.Popen[bytes], child: int) -> tuple[float, float]:
    """Kill the worker alone with SIGKILL. Returns the milliseconds until its child is dead and until the agent is free."""
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(0) == []
    killed = monotonic()
    process.send_signal(signal.SIGKILL)
    assert poll.poll(30_000), "the child outlived its parent"
    dead = monotonic()
    os.close(descriptor)
    while count(connection, LOCKED):
        continue
    return (dead - killed) * 1000, (monotonic() - killed) * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child may outlive its parent until its run ends")
def test_a_child_dies_with_its_worker_and_the_agent_is_free(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    one_due_pair(connection)
    measured = []
    for _ in range(KILLS):
        forget_runs(connection)
        connection.execute("update system.sync_state set last_slot_at = null")
        client.flushall()
        assert tick(connection, config).enqueued == 1
        with stopped_child(connection, config) as (process, child):
            measured.append(kill(connection, process, child))
    dead_ms, free_ms = (statistics.median(sample) for sample in zip(*measured, strict=True))
    with capsys.disabled():
        print(f"\nchild dead {dead_ms:.1f} ms, agent free {free_ms:.1f} ms after kill -9 (median of {KILLS})")
    assert cli("tick", env=env_of(config, later_s=config.lease_s + 60)).returncode == 0
    assert cli("worker", "--single", "--burst", env=env_of(config, later_s=config.lease_s + 60)).returncode == 0
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 2") == 1
