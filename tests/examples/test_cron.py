"""examples/crontab under Debian's cron daemon for three real minutes, away from the machine's own crontabs."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import count
from tests.support.samples import SAMPLES

CRON = shutil.which("cron", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MINUTES = 3
PUNCTUAL_S = 10
"""Cron starts a job in the first seconds of its minute; a busy machine needs a few more."""


def why_not() -> str:
    """The reason why this machine can't run the daemon; empty when it can."""
    if CRON is None:
        return "cron is not installed (apt-get install cron)"
    if os.geteuid() != 0:
        return "only root can start cron"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "this root may not make a mount namespace of its own"


@contextmanager
def cron_with(crontab: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Debian's cron with this crontab of root and no other: a mount namespace has its own spool, pid file and /etc/crontab."""
    (folder / "crontab").write_text(crontab)
    script = (
        "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/cron.d && mount --bind /dev/null /etc/crontab"
        " && mount -t tmpfs tmpfs /var/spool/cron && mkdir -m 1730 /var/spool/cron/crontabs"
        f" && install -m 600 {folder}/crontab /var/spool/cron/crontabs/root && exec {CRON} -f -L 15"
    )
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script], start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def example(values: dict[str, str]) -> str:
    """examples/crontab with these values for its variables."""
    text = (REPOSITORY / "examples/crontab").read_text("utf-8")
    for name, value in values.items():
        text, found = re.subn(rf"^{name}=.*$", lambda _, line=f"{name}={value}": line, text, flags=re.M)  # type: ignore[misc]
        assert found == 1, name
    return text


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.soak
def test_cron_calls_tick_each_minute_and_everything_due_runs(
    cli: Cli, connection: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    script(programs / "archisync", f'cd {REPOSITORY} && exec {sys.executable} -m archisync "$@"')
    script(programs / "logger", f'exec sed "s/^/$2: /" >> {log}')  # in place of syslog
    source = f"{SAMPLES}/{{agent}}/{{type}}.csv"
    crontab = example(
        {
            "PATH": f"{programs}:/usr/bin:/bin", "ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": source,
        }
    )  # fmt: skip
    with cron_with(crontab, tmp_path) as cron:
        while len(logged := log.read_text().splitlines() if log.exists() else []) < MINUTES:
            assert cron.poll() is None
            connection.execute("select pg_sleep(0.5)")
    ticks = connection.execute(
        "select started_at, due, enqueued, error from system.ticks order by started_at"
    ).fetchall()
    starts: list[datetime] = [tick["started_at"] for tick in ticks]
    assert all(start.second < PUNCTUAL_S for start in starts), starts
    minutes = [start.replace(second=0, microsecond=0) for start in starts]
    assert [(b - a).total_seconds() for a, b in itertools.pairwise(minutes)] == [60.0] * (MINUTES - 1)
    assert [(tick["due"], tick["enqueued"], tick["error"]) for tick in ticks] == [(6, 6, None)] + [(0, 0, None)] * (
        MINUTES - 1
    )
    documents = [json.loads(line.removeprefix("archisync: ")) for line in logged]
    assert [document["tick"]["due"] for document in documents] == [6] + [0] * (MINUTES - 1)
    assert all(document["time"] for document in documents)
    assert cli("worker", "--burst", env={"ARCHISYNC_SOURCE": source}).returncode == 0
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") == 6
    assert cli("doctor", "--only", "ticks").returncode == 0
