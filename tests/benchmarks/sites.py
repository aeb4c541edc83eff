"""A large site and a small one, made once for all areas that ask them: 1,000,000 agents with 10,000,000 runs, and 100 with 1,000."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import connected
from tests.benchmarks import company
from tests.benchmarks.figures import Settings, timed

DAYS = 60
ONE = "agent-00000042"
_SERVER = {"shared_buffers": "512MB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}


class Site:
    """A database, and the commands that its operator types."""

    def __init__(self, server: EmbeddedPostgres, valkey: EmbeddedValkey, folder: str, name: str) -> None:
        with connected(server.url, purpose="bench") as db:
            db.execute(f"create database {name}")
        self.redis_url = valkey.url
        self.folder = Path(folder)
        self.url = urlsplit(server.url)._replace(path=f"/{name}").geturl()
        self.environment = os.environ | {
            "ARCHISYNC_DATABASE_URL": self.url,
            "ARCHISYNC_REDIS_URL": valkey.url,
            "ARCHISYNC_SOURCE": f"{folder}/{{agent}}/{{type}}.csv",
        }

    def rest(self) -> None:
        """Nothing becomes due any more: a tick is an idle one."""
        with connected(self.url, purpose="bench") as db:
            db.execute("update system.sync_settings set interval_minutes = 1440")

    def seconds(self, command: str) -> float:
        """The time of the whole process. `doctor` may find faults, since there are no workers and no exports."""

        def run() -> None:
            words = [sys.executable, "-m", "archisync", *command.split()]
            done = subprocess.run(words, env=self.environment, check=False, capture_output=True)
            if done.returncode not in ((0, 1) if command == "doctor" else (0,)):
                raise AssertionError(f"archisync {command}: exit {done.returncode}: {done.stderr.decode()}")

        return timed(run)


class Sites(NamedTuple):
    """`size`: of the large one, in words."""

    small: Site
    large: Site
    size: str


@cache
def sites(settings: Settings) -> Sites:
    """Both, on servers that end with the benchmark."""
    agents, history = (20_000, 200_000) if settings.quick else (1_000_000, 10_000_000)
    keep = settings.until_the_end.enter_context
    servers = keep(temporary_folder())
    postgres = keep(EmbeddedPostgres(servers, durable=False, settings=_SERVER))
    valkey = keep(EmbeddedValkey(servers, durable=False))
    folder = keep(tempfile.TemporaryDirectory())
    small, large = (Site(postgres, valkey, folder, name) for name in ("small", "large"))
    for site, size, rows in ((small, 100, 1_000), (large, agents, history)):
        print(f" loading {size:,} agents and {rows:,} runs …", file=sys.stderr)
        begun = perf_counter()
        with connected(site.url, purpose="bench", answer_timeout_s=3600) as db:
            company.found(db, agents=size, runs=rows, days=DAYS)
        print(f" loaded in {perf_counter() - begun:.0f} s", file=sys.stderr)
    return Sites(small, large, f"{agents:,} agents, {history:,} runs")
