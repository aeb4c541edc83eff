"""Redis goes away, loses its data or refuses commands: a tick says so with its exit code and loses nothing. Everything due runs within
two ticks after Redis is back."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic

import pytest
import redis

from archisync.queue.client import COMMAND_TIMEOUT_S, redis_client
from archisync.rules.config import Config
from archisync.schedule.deadlines import DELIVER_DEADLINE_S, TICK_DEADLINE_S
from archisync.standalone.folders import temporary_folder
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.queued import (
    AGENT,
    QUEUE_KEY,
    config_for,
    env_of,
    one_due_pair,
    push_due_run,
    queued,
    succeeded,
)
from tests.support.rows import count
from tests.support.said import as_text

CRON_BOUND_S = 55
"""A tick ends before cron starts the next one."""
UNREACHABLE = 4
CONFIGURATION = 3
WAITING_HINT = "hint: queued runs wait in PostgreSQL; the next tick delivers them"


@pytest.fixture
def config(database_url: str, own_valkey: EmbeddedValkey) -> Config:
    return config_for(database_url, own_valkey.url)


def client_of(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def two_ticks(cli: Cli, connection: Database, config: Config) -> None:
    """A tick and a worker in each minute, twice at most. The delivery was late in its minute: the first tick comes 50 s after it."""
    for later_s in (50, 110):
        assert cli("tick", env=env_of(config, later_s=later_s)).returncode == 0
        assert cli("worker", "--single", "--burst", "--single", env=env_of(config, later_s=later_s)).returncode == 0
        if succeeded(connection):
            return


# --- refusals: the server is away, full, read-only or asks for a password ----------------------------------------

Fault = Callable[[EmbeddedValkey, Config], AbstractContextManager[Config]]
"""Redis is at fault while the block lasts; the value is the configuration for the tick."""


@contextmanager
def killed(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    server.kill()
    yield config
    server.start()


@contextmanager
def wrong_password(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with client_of(server) as client:
        client.config_set("requirepass", "secret-of-the-server")
        yield config_for(config.database_url, config.redis_url.replace("unix://", "unix://:secret-of-ours@"))
        client.config_set("requirepass", "")


@contextmanager
def no_password(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with client_of(server) as client:
        client.config_set("requirepass", "secret-of-the-server")
        yield config
        client.config_set("requirepass", "")


@contextmanager
def full_memory(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with client_of(server) as client:
        client.config_set("maxmemory", "1")
        yield config
        client.config_set("maxmemory", "0")


@contextmanager
def read_only_replica(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with client_of(server) as client, closed_port() as port:
        client.replicaof("127.0.0.1", port)
        yield config
        client.replicaof("NO", "ONE")


@contextmanager
def replica_without_its_primary(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with client_of(server) as client:
        client.config_set("replica-serve-stale-data", "no")
        with read_only_replica(server, config):
            yield config


@contextmanager
def failing_disk(server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    """The server can't write its snapshot and refuses writes, which is its default."""
    with client_of(server) as client:
        [folder] = client.config_get("dir").values()
        client.config_set("save", "3600 1")
        os.mkdir(os.path.join(folder, "dump.rdb"))  # noqa: PTH102,PTH118 - the server's answer is a plain string
        client.set("before", "1")
        client.bgsave()
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            continue
        assert client.info("persistence")["rdb_last_bgsave_status"] == "err"
        yield config
        client.config_set("save", "")


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on and that nobody else can take."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def unreachable_host(_server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    with closed_port() as port:
        yield config_for(config.database_url, f"redis://:secret-of-ours@127.0.0.1:{port}/0")


@contextmanager
def silent_host(_server: EmbeddedValkey, config: Config) -> Iterator[Config]:
    """The kernel accepts the connection, and nobody answers. The timeout of the URL comes before COMMAND_TIMEOUT_S."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield config_for(config.database_url, f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=1")


REFUSALS: dict[str, tuple[Fault, int, str, str]] = {
    "killed": (killed, UNREACHABLE, "error: Redis is out of reach: ", WAITING_HINT),
    "wrong password": (
        wrong_password,
        CONFIGURATION,
        "error: Redis refused the credentials: invalid username-password pair or user is disabled.",
        "hint: check ARCHISYNC_REDIS_URL",
    ),
    "no password": (
        no_password,
        CONFIGURATION,
        "error: Redis refused the credentials: Authentication required.",
        "hint: check ARCHISYNC_REDIS_URL",
    ),
    "full memory": (full_memory, UNREACHABLE, "error: Redis takes no jobs: ", WAITING_HINT),
    "read-only replica": (read_only_replica, UNREACHABLE, "error: Redis takes no jobs: ", WAITING_HINT),
    "replica without its primary": (
        replica_without_its_primary,
        UNREACHABLE,
        "error: Redis takes no jobs: ",
        WAITING_HINT,
    ),
    "failing disk": (failing_disk, UNREACHABLE, "error: Redis takes no jobs: ", WAITING_HINT),
    "unreachable host": (unreachable_host, UNREACHABLE, "error: Redis is out of reach: ", WAITING_HINT),
    "silent host": (silent_host, UNREACHABLE, "error: Redis is out of reach: ", WAITING_HINT),
}


@pytest.mark.parametrize(("fault", "code", "error", "hint"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_tick_that_cannot_deliver_says_so_in_time_and_loses_nothing(
    cli: Cli,
    connection: Database,
    config: Config,
    own_valkey: EmbeddedValkey,
    fault: Fault,
    code: int,
    error: str,
    hint: str,
) -> None:
    one_due_pair(connection)
    with fault(own_valkey, config) as faulty:
        begun = monotonic()
        tick = cli("tick", env=env_of(faulty))
        assert monotonic() - begun < CRON_BOUND_S
        assert (tick.returncode, "Traceback" in tick.stderr) == (code, False)
        assert error in as_text(tick.stderr)
        assert hint in as_text(tick.stderr)
        assert "secret" not in tick.stdout + tick.stderr
        assert queued(connection) == 1
        assert count(connection, "select count(*) from system.runs where delivered_at is not null") == 0
        assert count(connection, "select count(*) from system.ticks where error is not null") == 1
    two_ticks(cli, connection, config)
    assert succeeded(connection) == 1
    assert count(connection, "select count(*) from system.runs") == 1


def test_a_silent_redis_leaves_time_for_the_heartbeat() -> None:
    with redis_client("redis://127.0.0.1:9/0") as client:
        assert client.connection_pool.connection_kwargs["socket_timeout"] == COMMAND_TIMEOUT_S
    assert DELIVER_DEADLINE_S + COMMAND_TIMEOUT_S < TICK_DEADLINE_S


def test_a_tick_during_an_outage_keeps_the_runs_that_were_delivered_before(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey
) -> None:
    push_due_run(connection, config)
    own_valkey.kill()
    assert cli("tick", env=env_of(config, later_s=60)).returncode == UNREACHABLE
    own_valkey.start()
    assert "redelivered 1" in cli("tick", env=env_of(config, later_s=120)).stdout
    cli("worker", "--single", "--burst", "--single", env=env_of(config, later_s=120))
    assert succeeded(connection) == 1


def test_a_tick_with_nothing_to_deliver_does_not_need_redis(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey
) -> None:
    connection.execute("update system.sync_settings set enabled = false")
    own_valkey.kill()
    assert cli("tick", env=env_of(config)).returncode == 0


# --- losses: the server answers, and the jobs are gone ------------------------------------------------------------


def emptied(server: EmbeddedValkey) -> None:
    with client_of(server) as client:
        client.flushall()


def restarted_empty(server: EmbeddedValkey) -> None:
    server.kill()
    server.start()


def hashes_lost(server: EmbeddedValkey) -> None:
    """An evicting server drops job hashes and keeps the list."""
    with client_of(server) as client:
        client.delete(*client.keys("rq:job:*"))


def list_lost(server: EmbeddedValkey) -> None:
    with client_of(server) as client:
        client.delete(QUEUE_KEY)


@pytest.mark.parametrize("lose", [emptied, restarted_empty, list_lost])
def test_lost_jobs_are_pushed_again_by_the_next_tick(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey, lose: Callable[[EmbeddedValkey], None]
) -> None:
    push_due_run(connection, config)
    lose(own_valkey)
    assert "redelivered 1" in cli("tick", env=env_of(config, later_s=50)).stdout
    assert cli("worker", "--single", "--burst", "--single", env=env_of(config, later_s=50)).returncode == 0
    assert succeeded(connection) == 1


def test_a_job_whose_hash_is_lost_is_dropped_by_the_worker_and_pushed_again(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey
) -> None:
    push_due_run(connection, config)
    hashes_lost(own_valkey)
    assert cli("worker", "--single", "--burst", "--single", env=env_of(config)).returncode == 0
    assert succeeded(connection) == 0
    two_ticks(cli, connection, config)
    assert succeeded(connection) == 1


def test_jobs_that_never_reached_the_promoted_replica_are_pushed_again(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey
) -> None:
    with temporary_folder() as folder, EmbeddedValkey(folder, durable=False) as replica:
        replicate(own_valkey, replica)
        cut_off(own_valkey)
        push_due_run(connection, config)
        own_valkey.kill()
        with client_of(replica) as client:
            assert client.get("replicated") == b"1"
            assert client.llen(QUEUE_KEY) == 0
            client.replicaof("NO", "ONE")
        two_ticks(cli, connection, config_for(config.database_url, replica.url))
    assert succeeded(connection) == 1


def replicate(primary: EmbeddedValkey, replica: EmbeddedValkey) -> None:
    """Return when the replica has the primary's data."""
    with closed_port() as port:
        pass
    with client_of(primary) as first, client_of(replica) as second:
        first.config_set("repl-diskless-sync-delay", 0)
        first.config_set("port", port)
        second.replicaof("127.0.0.1", port)
        first.set("replicated", "1")
        while second.get("replicated") != b"1":
            continue


def cut_off(primary: EmbeddedValkey) -> None:
    """Nothing reaches a replica any more."""
    with client_of(primary) as client:
        client.config_set("port", 0)
        client.client_kill_filter(_type="replica")
        assert client.info("replication")["connected_slaves"] == 0


# --- a worker that runs meanwhile ---------------------------------------------------------------------------------


@contextmanager
def running_worker(config: Config, connection: Database) -> Iterator[subprocess.Popen[str]]:
    """`archisync worker` as a service runs it, after its first run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker"],
        env=os.environ | dict(config.environment),
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(connection, process, 1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def wait_for(connection: Database, process: subprocess.Popen[str], runs: int) -> None:
    while succeeded(connection) < runs:
        assert process.poll() is None


def a_read_only_replica_for_a_while(server: EmbeddedValkey) -> None:
    with client_of(server) as client, closed_port() as port:
        client.replicaof("127.0.0.1", port)
        client.replicaof("NO", "ONE")


def a_foreign_key_in_the_queues_place(server: EmbeddedValkey) -> None:
    with client_of(server) as client:
        client.set(QUEUE_KEY, "foreign")


@pytest.mark.parametrize(
    "harm", [restarted_empty, emptied, a_read_only_replica_for_a_while, a_foreign_key_in_the_queues_place]
)
def test_a_running_worker_recovers_by_itself(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey, harm: Callable[[EmbeddedValkey], None]
) -> None:
    push_due_run(connection, config)
    with running_worker(config, connection) as process:
        harm(own_valkey)
        forced = cli("run", "customers", "--agent", AGENT, env=env_of(config))
        assert forced.returncode == 0, forced.stderr
        wait_for(connection, process, 2)


@pytest.mark.parametrize("harm", [restarted_empty, emptied])
def test_a_worker_registers_again_with_its_next_heartbeat_after_redis_was_emptied(
    cli: Cli, connection: Database, config: Config, own_valkey: EmbeddedValkey, harm: Callable[[EmbeddedValkey], None]
) -> None:
    push_due_run(connection, config)
    with running_worker(config, connection) as process, client_of(own_valkey) as client:
        [key] = client.smembers("rq:workers:archisync")
        written = set(client.hgetall(key))
        harm(own_valkey)
        cli(
            "run", "customers", "--agent", AGENT, env=env_of(config)
        )  # a job, so that it does not wait for its next heartbeat
        wait_for(connection, process, 2)
        while client.smembers("rq:workers:archisync") != {key}:
            assert process.poll() is None
        counted = {b"current_job", b"successful_job_count", b"total_working_time"}  # they start again from zero
        assert set(client.hgetall(key)) >= written - counted
        assert cli("doctor", "--only", "workers", "--only", "worker-here", env=env_of(config)).returncode == 0
