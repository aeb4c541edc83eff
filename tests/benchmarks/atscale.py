"""Commands that people type, and pruning, with 1,000,000 agents and 10,000,000 runs of history, against 100 agents: whole processes.

Pruning changes the large site, so this area comes after the others that ask it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from archisync.store import history
from archisync.store.database import connected
from tests.benchmarks.figures import Figure, Settings, side_by_side, spread, timed
from tests.benchmarks.sites import ONE, Site, sites
from tests.support.rows import count

PRUNED_DAYS = 54
"""A tenth of the history is older (sites.DAYS)."""
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


def figures(settings: Settings) -> Iterator[Figure]:
    small, large, size = sites(settings)
    yield from _questions(small, large, settings, size)
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
    site.rest()
    with connected(site.url, purpose="bench", answer_timeout_s=600) as db:
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
