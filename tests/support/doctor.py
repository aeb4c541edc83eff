"""`archisync doctor` as its tests read it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import redis

from tests.conftest import REPOSITORY, Cli


class Found(NamedTuple):
    """A finding without the name of its check."""

    level: str
    message: str
    hint: str


def examine(cli: Cli, *args: str, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, list[Found]]]:
    """(exit code, findings by check)."""
    done = cli("doctor", "--json", *args, env=env)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["healthy"] is (done.returncode == 0)
    findings: dict[str, list[Found]] = {}
    for f in document["findings"]:
        findings.setdefault(f["check"], []).append(Found(f["level"], f["message"], f["hint"]))
    return done.returncode, findings


def only(cli: Cli, check: str, env: Mapping[str, str] | None = None) -> tuple[int, Found]:
    """(exit code, the one finding of this check)."""
    code, findings = examine(cli, "--only", check, env=env)
    assert list(findings) == [check]
    [finding] = findings[check]
    return code, finding


@contextmanager
def working(redis_url: str, database_url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker, from its registration until it has ended."""
    env = os.environ | {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": "/nowhere/{agent}/{type}.csv",
    }
    with (
        subprocess.Popen(
            [sys.executable, "-m", "archisync", "worker", *options], cwd=REPOSITORY, env=env, stderr=subprocess.DEVNULL
        ) as process,
        redis.Redis.from_url(redis_url) as client,
    ):
        while not client.scard("rq:workers:archisync"):
            assert process.poll() is None
        try:
            yield process
        finally:
            process.terminate()
