"""Redis under Sentinel: ticks and workers use the primary that the Sentinels name, and a failover loses and doubles nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from archisync.base.errors import ExitCode
from archisync.queue.client import redis_client
from archisync.queue.url import SENTINEL_PORT, _host
from archisync.standalone.folders import temporary_folder
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.queued import config_for, env_of, one_due_pair, queued, succeeded
from tests.support.redisservers import (
    REDIS_SERVER,
    Server,
    client_tls,
    free_port,
    make_certificates,
    server,
    tls_options,
)
from tests.support.rows import count
from tests.support.said import as_text

pytestmark = pytest.mark.check

NAME = "archisync-queue"
FAILOVER_TIMEOUT_S = 60.0
PASSWORD, SENTINEL_PASSWORD = "of-redis", "of-sentinel"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A primary, its replica and three Sentinels. Servers and Sentinels have passwords."""

    servers: dict[int, Server]
    sentinels: list[Server]

    def url(self, *, name: str = NAME, password: str = PASSWORD, sentinel_password: str = SENTINEL_PASSWORD) -> str:
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        return f"redis+sentinel://:{password}@{hosts}/{name}/0?sentinel_password={sentinel_password}"

    def primary_port(self) -> int:
        return int(_state(self.sentinels[0])["port"])

    def fail_over(self) -> None:
        """Kill the primary, and wait until the Sentinels have made the replica the primary and it takes writes."""
        old = self.primary_port()
        self.servers[old].process.kill()
        self.wait_for_successor(old)

    def wait_for_successor(self, old: int) -> None:
        """Wait until every Sentinel names another server than `old`, and the server takes writes."""
        until = monotonic() + FAILOVER_TIMEOUT_S
        while not all(self._has_switched(_state(sentinel), old) for sentinel in self.sentinels):
            assert monotonic() < until, "no failover"

    def _has_switched(self, state: dict[str, Any], old: int) -> bool:
        if state["port"] == old or state["is_sdown"] or state["is_odown"]:
            return False
        with self.servers[state["port"]].client() as client:
            return bool(client.info("replication")["role"] == "master")


def _state(sentinel: Server) -> dict[str, Any]:
    """What the Sentinel says of the primary."""
    with sentinel.client() as client:
        state: Any = client.sentinel_master(NAME)
    return dict(state)


@pytest.fixture
def watched() -> Iterator[Watched]:
    """The Sentinels know the replica and each other: they would fail over."""
    with watch(with_replica=True) as watched:
        for sentinel in watched.sentinels:
            while not _complete(_state(sentinel)):
                continue
        yield watched


@contextmanager
def watch(*, with_replica: bool) -> Iterator[Watched]:
    with temporary_folder() as folder, ExitStack() as stack:
        own = {"requirepass": PASSWORD, "masterauth": PASSWORD, "save": '""', "repl-diskless-sync-delay": "0"}
        primary = stack.enter_context(server(folder / "a", own))
        servers = {primary.port: primary}
        if with_replica:
            replica = stack.enter_context(server(folder / "b", own | {"replicaof": f"127.0.0.1 {primary.port}"}))
            servers[replica.port] = replica
            with replica.client() as client:
                while client.info("replication")["master_link_status"] != "up":
                    continue
        sentinels = [stack.enter_context(_sentinel(folder / f"s{n}", primary.port)) for n in range(3)]
        yield Watched(servers=servers, sentinels=sentinels)


def _sentinel(folder: Path, primary_port: int) -> AbstractContextManager[Server]:
    rules = {
        "monitor": f"{NAME} 127.0.0.1 {primary_port} 2", "auth-pass": f"{NAME} {PASSWORD}",
        "down-after-milliseconds": f"{NAME} 1000", "failover-timeout": f"{NAME} 3000",
        "sentinel-pass": SENTINEL_PASSWORD,
    }  # fmt: skip
    lines = {f"sentinel {name}": value for name, value in rules.items()} | {"requirepass": SENTINEL_PASSWORD}
    return server(folder, lines, sentinel=True)


def _complete(state: dict[str, Any]) -> bool:
    """The Sentinel knows the two others and the replica: only then does it fail over."""
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


def test_a_failover_between_tick_and_worker_loses_and_doubles_nothing(
    cli: Cli, connection: Database, database_url: str, watched: Watched
) -> None:
    for number in range(20):
        agents.add(connection, f"agent-{number}", name=None, whitelisted=True)
    config = config_for(database_url, watched.url())
    first = cli("tick", env=env_of(config))
    assert (first.returncode, first.stdout[:22]) == (0, "due 82, enqueued 82, r")
    with redis_client(config.redis_url) as client:
        used: Any = client.connection_pool.get_connection()
        watched.fail_over()
        used.disconnect()
        used.send_command("ROLE")  # a connection that is used again asks for the primary again
        assert used.read_response()[0] == b"master"
    for later_s in (60, 120):  # the second tick pushes again what had not reached the replica
        tick = cli("tick", env=env_of(config, later_s=later_s))
        assert tick.returncode == 0, tick.stderr
        burst = cli("worker", "--single", "--burst", "--processes", "2", env=env_of(config, later_s=later_s))
        assert burst.returncode == 0, burst.stderr
    assert queued(connection) == 0
    assert count(connection, "select count(*) from system.sync_runs where attempt > 1") == 0
    assert count(connection, "select count(*) from system.sync_runs where trigger = 'scheduled'") == 82
    assert count(connection, "select count(distinct (sync_type, agent_id)) from system.sync_runs") == 82


def test_a_tick_during_a_failover_keeps_what_is_due_and_a_waiting_worker_finds_the_new_primary(
    cli: Cli, connection: Database, database_url: str, watched: Watched
) -> None:
    one_due_pair(connection)
    config = config_for(database_url, watched.url())
    worker = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--single"], cwd=REPOSITORY, env=os.environ | dict(env_of(config)),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        old = watched.servers[watched.primary_port()]
        with old.client() as client:
            while not any(peer["cmd"] == "blmove" for peer in client.client_list()):  # the worker waits for a job
                assert worker.poll() is None
        old.process.kill()
        old.process.wait()
        during = cli("tick", env=env_of(config))
        assert during.returncode in (ExitCode.DONE, ExitCode.UNREACHABLE)  # the Sentinels may be quicker
        assert count(connection, "select count(*) from system.runs") == 1
        watched.wait_for_successor(old.port)
        tick = cli("tick", env=env_of(config))
        assert tick.returncode == 0, tick.stderr
        while not succeeded(connection):
            assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0  # the signal interrupts its wait for a job
    assert count(connection, "select count(*) from system.runs") == 1


@pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed (apt-get install redis-server)")
def test_sentinel_and_redis_over_tls_with_a_client_certificate(
    cli: Cli, connection: Database, database_url: str
) -> None:
    one_due_pair(connection)
    with temporary_folder() as folder, ExitStack() as stack:
        make_certificates(folder)
        port, sentinel_port = free_port(), free_port()
        stack.enter_context(server(folder / "a", tls_options(folder, port), program=REDIS_SERVER))
        watching = {"sentinel monitor": f"{NAME} 127.0.0.1 {port} 1", "tls-replication": "yes"}
        of_sentinel = tls_options(folder, sentinel_port) | watching
        stack.enter_context(server(folder / "s", of_sentinel, program=REDIS_SERVER, sentinel=True))
        options = "&".join(f"{name}={value}" for name, value in client_tls(folder).items())
        config = config_for(database_url, f"rediss+sentinel://127.0.0.1:{sentinel_port}/{NAME}/0?{options}")
        tick = cli("tick", env=env_of(config))
        assert (tick.returncode, tick.stdout[:18], tick.stderr) == (0, "due 1, enqueued 1,", "")
        assert cli("worker", "--single", "--burst", "--single", env=env_of(config)).returncode == 0
        assert succeeded(connection) == 1
        plain = config_for(database_url, config.redis_url.replace("rediss+", "redis+").partition("?")[0])
        assert cli("plan", env=env_of(plain)).returncode == ExitCode.UNREACHABLE


@pytest.fixture
def sentinels() -> Iterator[Watched]:
    with watch(with_replica=False) as watched:
        yield watched


def test_a_tick_says_what_is_wrong_with_sentinel(
    cli: Cli, connection: Database, database_url: str, sentinels: Watched
) -> None:
    one_due_pair(connection)

    def tick(url: str) -> tuple[int, str]:
        done = cli("tick", env=env_of(config_for(database_url, url)))
        assert "guessed" not in done.stderr
        return done.returncode, as_text(done.stderr)

    assert tick(sentinels.url(sentinel_password="guessed")) == (
        ExitCode.CONFIGURATION,
        "error: Sentinel refused the credentials\n"
        "hint: check sentinel_username and sentinel_password in ARCHISYNC_REDIS_URL\n",
    )
    code, said = tick(sentinels.url(password="guessed"))
    assert (code, said.partition(":")[2][:33]) == (ExitCode.CONFIGURATION, " Redis refused the credentials: i")
    assert tick(sentinels.url(name="other")) == (
        ExitCode.UNREACHABLE,
        "error: Redis is out of reach: no Sentinel that answers knows the primary, or it is down\n"
        "hint: redis-cli -h SENTINEL -p 26379 sentinel masters   (does ARCHISYNC_REDIS_URL have its name?)\n",
    )
    sentinels.sentinels[0].kill()  # one of three is enough
    assert tick(sentinels.url())[0] == 0
    assert queued(connection) == 1


@pytest.mark.parametrize(
    "rest",
    [
        "", "host", "host/", "host,/primary", "host:99999/primary", "host:x/primary", "host/primary/x", "host/primary/0/1",
        "host/primary?nonsense=1", "host/primary?ssl_ca_certs=/etc/hosts", "a@b@host/primary",
    ],
)  # fmt: skip
def test_a_url_that_can_t_be_read_is_a_configuration_error(cli: Cli, rest: str) -> None:
    done = cli("plan", env={"ARCHISYNC_REDIS_URL": f"redis+sentinel://{rest}"})
    assert (done.returncode, done.stderr) == (
        ExitCode.CONFIGURATION,
        "error: ARCHISYNC_REDIS_URL can't be read\n"
        "hint: redis://host:6379/0   or: redis+sentinel://host:26379,host:26379/primary/0\n",
    )


def test_hosts_are_names_or_addresses_with_or_without_a_port() -> None:
    assert [_host(text) for text in ("a.example", "a.example:26380", "[::1]:5", "[fe80::1]")] == [
        ("a.example", SENTINEL_PORT), ("a.example", 26380), ("::1", 5), ("fe80::1", SENTINEL_PORT),
    ]  # fmt: skip
