"""A Redis that will never take a job is a wrong setting, and not one that is away for now."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from archisync.base.errors import ExitCode
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.redisservers import REDIS_SERVER, server
from tests.support.said import as_text
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
CLUSTER_HINT = "one Redis or Valkey, or one primary that Sentinels name: RQ does not work on a cluster"
COMMAND_HINT = "Redis 6.2 or newer, or Valkey, without rename-command; rights are limited by users: archisync redis acl"
USELESS = {
    "cluster": (
        {"cluster-enabled": "yes"},
        "ARCHISYNC_REDIS_URL names a Redis cluster, which takes no jobs: ",
        CLUSTER_HINT,
    ),
} | {
    command: ({"rename-command": f'{command} ""'}, "Redis lacks a command that jobs need: ", COMMAND_HINT)
    for command in ("EVAL", "COPY", "MULTI", "CLIENT", "RPUSH", "HSET", "SADD", "EXISTS")
}
PROGRAMS = ["valkey", *(["redis"] if REDIS_SERVER else [])]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", USELESS)
def test_a_redis_that_will_never_take_a_job_is_refused(
    cli: Cli, connection: Database, tmp_path: Path, name: str, program: str
) -> None:
    options: Mapping[str, str]
    options, said, hint = USELESS[name]
    agents.add(connection, AGENT, name=None, whitelisted=True)
    with server(tmp_path / "server", options, program=REDIS_SERVER if program == "redis" else None) as running:
        env = {
            "ARCHISYNC_REDIS_URL": f"redis://127.0.0.1:{running.port}/0",
            "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv",
        }
        needed_by = ("worker", "--burst", "--single") if name == "MULTI" else ("tick",)
        done = cli(*needed_by, env=env)
        assert done.returncode == ExitCode.CONFIGURATION, done.stderr
        assert f"error: {said}" in as_text(done.stderr)
        assert f"\nhint: {hint}\n" in as_text(done.stderr)
        if name not in ("CLIENT", "EVAL"):  # doctor itself gets no further
            doctor = cli("doctor", "--only", "redis", env=env)
            assert doctor.returncode == ExitCode.CONFIGURATION
            found = (
                "this Redis is a cluster, which takes no jobs"
                if name == "cluster"
                else f"Redis lacks commands that jobs need: {name.lower()}"
            )
            assert found in doctor.stdout


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("decode_responses=true", "decode_responses"),
        ("decode_responses=1", "decode_responses"),
        ("encoding=utf-16", "encoding"),
    ],
)
def test_a_url_with_which_no_job_can_be_read_is_refused(cli: Cli, query: str, wrong: str) -> None:
    for words in (("tick",), ("worker", "--burst"), ("doctor", "--only", "redis")):
        done = cli(*words, env={"ARCHISYNC_REDIS_URL": f"redis://127.0.0.1:1/0?{query}"})
        assert done.returncode == ExitCode.CONFIGURATION, (words, done.stdout, done.stderr)
        said = done.stdout + done.stderr
        assert f"ARCHISYNC_REDIS_URL: with {wrong} no job can be read" in said
        assert f"take {wrong} out of it" in said
