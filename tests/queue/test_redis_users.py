"""`redis acl`: its users are created on a real server. Their rights are enough for a tick and a worker, and no more than that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from archisync.base.errors import ConfigurationError, ExitCode
from archisync.queue.acl import User
from archisync.queue.client import redis_client
from archisync.queue.job import payload
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import Database
from archisync.store.deliveries import JobKey
from tests.conftest import REPOSITORY, Cli
from tests.support.queued import QUEUE_KEY, config_for, env_of, one_due_pair, queued, succeeded
from tests.support.said import as_text

PREFIX = "granted"
PASSWORDS = {User.TICK: "of-the-tick", User.WORKER: "of-the-worker"}


DOCTOR = (
    "--only",
    "redis",
    "--only",
    "redis-access",
    "--only",
    "eviction",
    "--only",
    "persistence",
    "--only",
    "workers",
)


def command(client: Any, *words: str) -> Any:
    return client.execute_command(*words)


@pytest.fixture
def urls(cli: Cli, own_valkey: EmbeddedValkey) -> dict[User, str]:
    """ARCHISYNC_REDIS_URL of each user. The default user is off."""
    done = cli("redis", "acl", "--prefix", PREFIX)
    assert done.returncode == 0
    path = own_valkey.url.removeprefix("unix://").partition("?")[0]
    with redis.Redis(unix_socket_path=path) as admin:
        command(admin, "ACL", "SETUSER", "admin", "on", ">admin", "~*", "&*", "+@all")
        for line in done.stdout.splitlines():
            command(admin, *line.split())
        for user, password in PASSWORDS.items():
            command(admin, "ACL", "SETUSER", f"{PREFIX}_{user}", "on", f">{password}")
        command(admin, "ACL", "SETUSER", "default", "off")
    return {user: f"unix://{PREFIX}_{user}@{path}?db=0&password={password}" for user, password in PASSWORDS.items()}


@pytest.fixture
def owner(urls: dict[User, str], own_valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    path = urls[User.TICK].partition("@")[2].partition("?")[0]
    with redis.Redis(unix_socket_path=path, username="admin", password="admin") as client:
        yield client


@pytest.fixture
def env(database_url: str, urls: dict[User, str]) -> dict[User, Mapping[str, str]]:
    return {user: env_of(config_for(database_url, url)) for user, url in urls.items()}


def denied(owner: redis.Redis) -> list[str]:
    """What the server refused: the user, the reason, the command or key."""
    return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in owner.acl_log()]


def test_ticks_workers_and_reading_commands_are_refused_nothing(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], owner: redis.Redis
) -> None:
    one_due_pair(connection)
    assert cli("tick", env=env[User.TICK]).stdout.startswith("due 1, enqueued 1, ")
    assert cli("worker", "--burst", "--single", env=env[User.WORKER]).returncode == 0
    assert succeeded(connection) == 1
    forced = ("run", "customers", "--agent", "anna.bianchi")
    assert cli(*forced, env=env[User.TICK]).returncode == 0
    with RunningWorker(env[User.WORKER], owner):
        for words in (("plan",), ("metrics",), ("doctor", "--only", "worker-here", *DOCTOR)):
            done = cli(*words, env=env[User.TICK])
            assert (done.returncode, done.stderr) == (0, "")
        assert cli(*forced, "--wait", "--timeout", "60", env=env[User.TICK]).returncode == 0
    assert queued(connection) == 0
    assert denied(owner) == []


class RunningWorker:
    """A worker that waits for jobs while the block lasts. SIGTERM ends it."""

    def __init__(self, env: Mapping[str, str], owner: redis.Redis) -> None:
        self._env, self._owner = env, owner

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "archisync", "worker"], cwd=REPOSITORY, env=os.environ | dict(self._env),
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not self._owner.scard("rq:workers:archisync"):
            assert self.process.poll() is None
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0


def test_foreign_keys_and_jobs_are_set_aside_with_these_rights(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], owner: redis.Redis
) -> None:
    one_due_pair(connection)
    owner.set("rq:failed:archisync", "not what RQ expects")
    for id_ in ("agent-900-0", "nightly-report"):
        owner.hset(f"rq:job:{id_}", mapping={"data": b"\x80\x04.", "created_at": "now"})
    owner.rpush(QUEUE_KEY, "agent-900-0", "nightly-report", b"\xff\xfe", "gone")
    tick = cli("tick", env=env[User.TICK])
    assert (tick.returncode, "key-moved-aside" in tick.stderr) == (0, True)
    worker = cli("worker", "--burst", "--single", env=env[User.WORKER])
    assert (worker.returncode, worker.stderr.count("job-set-aside"), "maintenance-failed" in worker.stderr) == (
        0,
        4,
        False,
    )
    assert succeeded(connection) == 1
    assert denied(owner) == []


def test_rq_s_housekeeping_is_refused_nothing(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], owner: redis.Redis
) -> None:
    """What killed workers have left: jobs in `:intermediate` and in the started registry, and a worker whose key has expired."""
    for number in range(3):
        data = zlib.compress(payload(JobKey(900, number)))
        job: dict[Any, Any] = {
            "created_at": "2026-01-01T00:00:00.000000Z",
            "status": "queued",
            "origin": "archisync",
            "data": data,
        }
        owner.hset(f"rq:job:agent-900-{number}", mapping=job)
        owner.rpush("rq:queue:archisync:intermediate", f"agent-900-{number}")
    owner.set("rq:queue:archisync:intermediate:first_seen:agent-900-0", "1")
    owner.zadd("rq:wip:archisync", {"agent-900-1:execution": 1})
    owner.sadd("rq:workers:archisync", "rq:worker:archisync.gone.7.abcd", "rq:worker:another")
    one_due_pair(connection)
    assert cli("tick", env=env[User.TICK]).returncode == 0
    worker = cli("worker", "--burst", "--single", env=env[User.WORKER])
    assert (worker.returncode, "maintenance-failed" in worker.stderr) == (0, False)
    assert owner.smembers("rq:workers:archisync") == {b"rq:worker:another"}
    assert owner.lrange("rq:queue:archisync:intermediate", 0, -1) == [b"agent-900-1", b"agent-900-2"]
    assert denied(owner) == []


def test_a_job_whose_child_process_is_killed_is_recorded_as_failed_with_these_rights(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], owner: redis.Redis, tmp_path: Path
) -> None:
    one_due_pair(connection)
    assert cli("tick", env=env[User.TICK]).returncode == 0
    program = tmp_path / "kill-the-child"  # the export program's parent is the worker's child
    program.write_text("#!/bin/sh\nkill -9 $PPID\n")
    program.chmod(0o755)
    cli(
        "worker",
        "--burst",
        "--single",
        env={**env[User.WORKER], "ARCHISYNC_SOURCE": f"exec:{program} {{agent}} {{type}}"},
    )
    assert owner.zcard("rq:failed:archisync") == 1
    assert denied(owner) == []


def test_a_tick_may_neither_take_jobs_nor_do_a_worker_s_housekeeping(urls: dict[User, str]) -> None:
    with redis.Redis.from_url(urls[User.TICK]) as client:
        for words in (f"LPOP {QUEUE_KEY}", f"DEL {QUEUE_KEY}", "DEL rq:job:x", "SUBSCRIBE rq:pubsub:archisync.x"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                command(client, *words.split())


def test_running_the_commands_again_keeps_password_and_on_and_removes_added_rights(
    cli: Cli, urls: dict[User, str], owner: redis.Redis
) -> None:
    command(owner, "ACL", "SETUSER", f"{PREFIX}_tick", "+flushall", "~*")
    for line in cli("redis", "acl", "--prefix", PREFIX).stdout.splitlines():
        command(owner, *line.split())
    with redis.Redis.from_url(urls[User.TICK]) as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()


def test_the_rights_are_limited_to_the_configured_queue(cli: Cli) -> None:
    done = cli("redis", "acl", env={"ARCHISYNC_QUEUE": "night"})
    tick, worker = done.stdout.splitlines()
    assert tick.startswith("ACL SETUSER archisync_tick resetkeys resetchannels nocommands ~rq:queue:night ")
    assert worker.startswith("ACL SETUSER archisync_worker resetkeys resetchannels nocommands ~rq:queue:night ")
    assert "archisync " not in done.stdout.replace("archisync_", "")
    assert done.stderr.splitlines()[-1] == (
        "switch each on: ACL SETUSER archisync_tick on '>PASSWORD'   (then: ACL SAVE, or CONFIG REWRITE)"
    )
    assert cli("--quiet", "redis", "acl").stderr == ""


@pytest.mark.parametrize("prefix", ["", "1st", "a b", "x" * 41])
def test_a_prefix_that_can_t_begin_a_name_is_a_usage_error(cli: Cli, prefix: str) -> None:
    done = cli("redis", "acl", "--prefix", prefix)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == (
        f"error: {ascii(prefix)[:40]} can't begin the name of a user\n"
        "hint: letters, digits, dot, dash, underscore, at most 40, beginning with a letter\n"
    )


REFUSED = "error: Redis refused the credentials: "


@pytest.mark.parametrize(
    "words", [("tick",), ("plan",), ("worker", "--single"), ("worker",)], ids=lambda words: " ".join(words)
)
def test_a_wrong_password_is_a_configuration_error_and_no_outage(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], words: tuple[str, ...]
) -> None:
    """Exit code 3 and not 4: no later tick and no restart will do better. Somebody must change a setting."""
    one_due_pair(connection)
    wrong = {name: value.replace("of-the-tick", "guessed") for name, value in env[User.TICK].items()}
    done = cli(*words, env=wrong)
    assert done.returncode == ExitCode.CONFIGURATION
    assert REFUSED in as_text(done.stderr)
    assert as_text(done.stderr).count("hint: check ARCHISYNC_REDIS_URL\n") == 1
    assert "guessed" not in done.stderr + done.stdout


def test_refused_credentials_are_not_tried_again(urls: dict[User, str]) -> None:
    wrong = urls[User.TICK].replace("of-the-tick", "guessed")
    with pytest.raises(ConfigurationError), redis_client(wrong, retries=1_000) as client:
        client.ping()


def test_a_missing_right_is_an_error_that_names_the_command(
    cli: Cli, connection: Database, env: dict[User, Mapping[str, str]], owner: redis.Redis
) -> None:
    one_due_pair(connection)
    command(owner, "ACL", "SETUSER", f"{PREFIX}_tick", "-rpush")
    done = cli("tick", env=env[User.TICK])
    assert done.returncode == ExitCode.CONFIGURATION
    assert as_text(done.stderr).startswith("error: the Redis user may not do that: ")
    assert "'rpush'" in done.stderr
    assert as_text(done.stderr).endswith("\nhint: archisync redis acl\n")
    assert queued(connection) == 1


def test_a_script_has_only_the_rights_of_its_user(urls: dict[User, str], owner: redis.Redis) -> None:
    """A tick pushes with a script. `eval` gives it no other key and no other command."""
    owner.set("somebody-elses", "1")
    with redis.Redis.from_url(urls[User.TICK]) as client:
        for script in ("return redis.call('GET', 'somebody-elses')", "return redis.call('FLUSHALL')"):
            with pytest.raises(redis.ResponseError, match="ACL failure in script"):
                client.eval(script, 0)
    assert owner.get("somebody-elses") == b"1"
