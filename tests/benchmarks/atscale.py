"""Commands that people type, and pruning, with 1,000,000 agents and 10,000,000 runs of history, against 100 agents: whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import history
from archisync.store.database import connected
from tests.benchmarks import company
from tests.benchmarks.figures import Figure, Settings, side_by_side, spread, timed
from tests.support.rows import count

DAYS = 60
PRUNED_DAYS = 54
"""A tenth of the history is older."""
ONE = "agent-00000042"
COMMANDS: dict[str, float | None] = {
    "status": 2,
    f"why orders {ONE}": 2,
    "history": 2,
    "history prices": 2,
    f"history orders --agent {ONE}": 2,
    "history --state held": 2,
    "history --since 90s": 2,
    "metrics": None,
    "doctor": None,
}
SERVER = {"shared_buffers": "512MB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}


class Site:
    """A database, and the commands that its operator types."""

    def __init__(self, server: EmbeddedPostgres, valkey: EmbeddedValkey, folder: str, name: str) -> None:
        with connected(server.url, purpose="bench") as db:
            db.execute(f"create database {name}")
        self.url = urlsplit(server.url)._replace(path=f"/{name}").geturl()
        self.environment = os.environ | {
            "ARCHISYNC_DATABASE_URL": self.url,
            "ARCHISYNC_REDIS_URL": valkey.url,
            "ARCHISYNC_SOURCE": f"{folder}/{{agent}}/{{type}}.csv",
        }

    def seconds(self, command: str) -> float:
        """The time of the whole process. `doctor` may find faults, since there are no workers and no exports."""

        def run() -> None:
            words = [sys.executable, "-m", "archisync", *command.split()]
            done = subprocess.run(words, env=self.environment, check=False, capture_output=True)
            if done.returncode not in ((0, 1) if command == "doctor" else (0,)):
                raise AssertionError(f"archisync {command}: exit {done.returncode}: {done.stderr.decode()}")

        return timed(run)


def figures(settings: Settings) -> Iterator[Figure]:
    agents, history = (20_000, 200_000) if settings.quick else (1_000_000, 10_000_000)
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(servers, durable=False, settings=SERVER) as postgres,
        EmbeddedValkey(servers, durable=False) as valkey,
        tempfile.TemporaryDirectory() as folder,
    ):
        small, large = (Site(postgres, valkey, folder, name) for name in ("small", "large"))
        for site, size, rows in ((small, 100, 1_000), (large, agents, history)):
            with connected(site.url, purpose="bench", answer_timeout_s=3600) as db:
                begun = perf_counter()
                company.found(db, agents=size, runs=rows, days=DAYS)
            print(f" {size:,} agents and {rows:,} runs loaded in {perf_counter() - begun:.0f} s", file=sys.stderr)
        yield from _questions(small, large, settings, f"{agents:,} agents, {history:,} runs")
        yield from _pruning(large, settings)


def _questions(small: Site, large: Site, settings: Settings, size: str) -> Iterator[Figure]:
    for command, target in COMMANDS.items():
        ours, peer = side_by_side(
            settings.rounds,
            lambda command=command: large.seconds(command),  # type: ignore[misc]
            lambda command=command: small.seconds(command),  # type: ignore[misc]
        )
        print(f" {command}: {ours:.3f} s, {peer:.3f} s", file=sys.stderr)
        yield Figure(
            name=f"archisync {command}, whole process, {size}",
            unit="ms",
            ours=ours * 1000,
            against="100 agents, 1,000 runs",
            peer=peer * 1000,
            ratio=ours / peer,
            target=target,
            at_most=True,
        )


class Probe(threading.Thread):
    """Asks again and again for the row that pruning takes next, and records how long it waits."""

    SQL = "select id from system.sync_runs order by coalesce(kept_at, finished_at) limit 1 for update"

    def __init__(self, url: str) -> None:
        super().__init__(name="probe")
        self._url = url
        self.over = threading.Event()
        self.waits_ms: list[float] = []

    def run(self) -> None:
        with connected(self._url, purpose="probe") as db:
            while not self.over.wait(0.02):
                self.waits_ms.append(timed(lambda: db.execute(self.SQL)) * 1000)


class Pruning(threading.Thread):
    """Prunes batch after batch as `archisync prune` does, and records how long each takes."""

    def __init__(self, url: str) -> None:
        super().__init__(name="pruning")
        self._url = url
        self.batches_ms: list[float] = []
        self.gone = 0

    def run(self) -> None:
        with connected(self._url, purpose="prune") as db:
            reached, seen = None, history.PRUNE_BATCH
            while seen == history.PRUNE_BATCH:
                begun = perf_counter()
                batch = history.prune(db, days=PRUNED_DAYS, limit=history.PRUNE_BATCH, reached=reached)
                self.batches_ms.append((perf_counter() - begun) * 1000)
                reached, seen = batch.reached, batch.seen
                self.gone += batch.gone


def _pruning(site: Site, settings: Settings) -> Iterator[Figure]:
    """The tick itself prunes nothing: it keeps runs for the default time, and none is that old."""
    old = f"select count(*) from system.sync_runs where finished_at < system.clock() - interval '{PRUNED_DAYS} days'"
    with connected(site.url, purpose="bench", answer_timeout_s=600) as db:
        db.execute("update system.sync_settings set enabled = false")  # nothing becomes due meanwhile
        expected = count(db, old)
    before_s = [site.seconds("tick") for _ in range(3 * settings.rounds)]
    probe, pruning = Probe(site.url), Pruning(site.url)
    probe.start()
    pruning.start()
    during_s = []
    while pruning.is_alive():
        during_s.append(site.seconds("tick"))
    probe.over.set()
    probe.join()
    if pruning.gone < expected:  # some more have become old enough meanwhile
        raise AssertionError(f"{pruning.gone} of {expected} runs were pruned")
    total_s = sum(pruning.batches_ms) / 1000
    print(f" {pruning.gone} runs pruned in {total_s:.1f} s; ticks {spread(during_s)} s", file=sys.stderr)
    yield Figure(
        name=f"pruning of {pruning.gone:,} runs: the longest batch, for so long its locks are held",
        unit="ms",
        ours=max(pruning.batches_ms),
        against="the median batch",
        peer=median(pruning.batches_ms),
        ratio=max(pruning.batches_ms),
        target=100,
        at_most=True,
        note=f"the ratio is milliseconds; {pruning.gone / total_s:,.0f} runs a second in batches of {history.PRUNE_BATCH}",
    )
    yield Figure(
        name="the same: the longest wait of a session that asks for the row that is pruned next",
        unit="ms",
        ours=max(probe.waits_ms),
        against="its median wait",
        peer=median(probe.waits_ms),
        ratio=max(probe.waits_ms),
        target=100,
        at_most=True,
        note=f"the ratio is milliseconds; asked {len(probe.waits_ms)} times",
    )
    yield Figure(
        name="idle tick while that many runs are pruned, whole process",
        unit="ms",
        ours=median(during_s) * 1000,
        against="idle tick before",
        peer=median(before_s) * 1000,
        ratio=median(during_s) / median(before_s),
        target=None,
        at_most=True,
        note=f"{len(during_s)} ticks beside it, {spread(during_s)} s; pruning and the tick share {os.cpu_count()} CPUs",
    )
