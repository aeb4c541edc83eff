"""The documents of the API at a large site against a small one, on the server; and 200 requests a second beside ticks and workers."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import median, quantiles
from time import perf_counter, sleep

import httpx

from archisync.web.api.routes import ApiRoute
from archisync.web.api.table import ROUTES
from tests.benchmarks.figures import Figure, Settings, side_by_side
from tests.benchmarks.sites import ONE, Site, sites
from tests.support.panel import TOKEN, Panel, panel

API = "/api/v1"
RATE, SECONDS, CLIENTS = 200, 60, 20
SLOWEST_MS, SLOWER = 150, 2
PATIENCE_S = 1.0
"""An answer that takes longer is measured once."""
QUERIES = {
    "/runs": (
        "",
        "?agent_part=0000042",
        "?agent_part=agent",
        "?reason=rare",
        "?type=prices&state=failed",
        "?since=1h",
        f"?agent={ONE}",
    ),
    "/agents": ("", "?part=0000042", f"?after={ONE}"),
    "/pairs": ("", f"?agent={ONE}", f"?after=orders/{ONE}"),
    "/why": (f"?type=orders&agent={ONE}",),
    "/plan": ("?workers=2&for=6h",),
    "/doctor": ("?only=database",),
}
POLLED = (
    "/status",
    "/types",
    "/runs",
    "/runs?state=failed",
    "/agents",
    f"/why?type=orders&agent={ONE}",
    "/held",
    "/ticks",
)
"""What a panel asks again and again."""


def own(number: int) -> tuple[str, ...]:
    """The same for lists of a length of its own, and for an agent of its own: of what only this client asks it shares no answer."""
    length, one = f"limit={30 + number}", f"agent-{number + 1:08}"
    lists = ("/runs?", "/runs?state=failed&", "/agents?", "/held?", "/ticks?")
    return ("/status", "/types", *(path + length for path in lists), f"/why?type=orders&agent={one}")


def paths(route: ApiRoute) -> Iterator[str]:
    if route.method == "GET" and "{run}" not in route.path:
        path = route.path.format(agent=ONE, type="orders")
        for query in QUERIES.get(route.path, ("",)):
            yield path + query


def figures(settings: Settings) -> Iterator[Figure]:
    small, large, size = sites(settings)
    with (
        panel(small.url, small.redis_url, small.folder / "small.log") as one,
        panel(large.url, large.redis_url, large.folder / "large.log") as other,
    ):
        yield from documents(one, other, settings, size)
        yield from load(other, large, seconds=5 if settings.quick else SECONDS)


def documents(small: Panel, large: Panel, settings: Settings, size: str) -> Iterator[Figure]:
    with small.client() as one, large.client() as other:
        for path in (path for route in ROUTES for path in paths(route)):
            slowest_s = max(_seconds(client, path) for client in (one, other))
            ours, peer = side_by_side(
                settings.rounds if slowest_s < PATIENCE_S else 1,
                lambda path=path: _seconds(other, path),  # type: ignore[misc]
                lambda path=path: _seconds(one, path),  # type: ignore[misc]
            )
            ratio = ours / peer
            print(f" {path}: {ours * 1000:.1f} ms, {peer * 1000:.1f} ms", file=sys.stderr)
            yield Figure(
                name=f"GET {path}, {size}", unit="ms", ours=ours * 1000, against="100 agents, 1,000 runs", peer=peer * 1000,
                ratio=ratio, target=SLOWER, at_most=True, note="" if ours * 1000 <= SLOWEST_MS else f"over {SLOWEST_MS} ms",
            )  # fmt: skip


def _seconds(client: httpx.Client, path: str) -> float:
    begun = perf_counter()
    client.get(API + path).raise_for_status()
    return perf_counter() - begun


class Poller(threading.Thread):
    """Sends requests at a steady rate, each at its own time, however long the others take. By http.client, which takes a third of the time
    of httpx: client and panel share the CPUs."""

    def __init__(self, found: Panel, paths: Sequence[str], *, first_s: float, every_s: float, until_s: float) -> None:
        super().__init__(name="poller")
        self._found, self._paths = found, paths
        self._next_s, self._every_s, self._until_s = first_s, every_s, until_s
        self.waits_s: list[float] = []
        self.failed: list[str] = []

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with closing(HTTPConnection("127.0.0.1", self._found.port, timeout=60)) as connection:
            number = 0
            while self._next_s < self._until_s:
                sleep(max(0.0, self._next_s - perf_counter()))
                connection.request("GET", API + self._paths[number % len(self._paths)], headers=headers)
                answer = connection.getresponse()
                text = answer.read()
                self.waits_s.append(perf_counter() - self._next_s)  # from the time at which it was due
                if answer.status != HTTPStatus.OK:
                    self.failed.append(text.decode())
                number += 1
                self._next_s += self._every_s


def load(found: Panel, site: Site, *, seconds: int) -> Iterator[Figure]:
    """RATE requests a second beside an idle tick every two seconds and two workers."""
    site.rest()
    before_s = [site.seconds("tick") for _ in range(5)]
    workers = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--processes", "2"],
        env=site.environment,
        stderr=subprocess.DEVNULL,
    )
    ticks_s: list[float] = []
    for whose, paths in (("the same", [POLLED] * CLIENTS), ("lists of its own", [own(n) for n in range(CLIENTS)])):
        print(f" {RATE} requests a second for {seconds} s, each client {whose} …", file=sys.stderr)
        yield polled(found, site, paths, whose, ticks_s, seconds=seconds)
    workers.terminate()
    workers.wait(60)
    yield Figure(
        name="an idle tick beside them, whole process", unit="ms", ours=max(ticks_s) * 1000, against="the median before",
        peer=median(before_s) * 1000, ratio=max(ticks_s) / median(before_s), target=None, at_most=True,
        note=f"the longest of {len(ticks_s)}",
    )  # fmt: skip


def polled(
    found: Panel, site: Site, paths: Sequence[Sequence[str]], whose: str, ticks_s: list[float], *, seconds: int
) -> Figure:
    """The time that one request in a hundred takes longer than. `ticks_s`: gets the time of each tick beside them."""
    begun = perf_counter() + 1
    pollers = [
        Poller(found, mine, first_s=begun + n / RATE, every_s=CLIENTS / RATE, until_s=begun + seconds)
        for n, mine in enumerate(paths)
    ]
    for poller in pollers:
        poller.start()
    while perf_counter() < begun + seconds:
        ticks_s.append(site.seconds("tick"))
        sleep(2)
    for poller in pollers:
        poller.join()
    waits_ms = [wait * 1000 for poller in pollers for wait in poller.waits_s]
    failed = sum(len(poller.failed) for poller in pollers)
    p99 = quantiles(waits_ms, n=100)[98]
    return Figure(
        name=f"{RATE} requests a second beside ticks and two workers, each client {whose}, p99", unit="ms", ours=p99, against="", peer=None,
        ratio=p99, target=250, at_most=True,
        note=f"{len(waits_ms)} requests in {seconds} s, {failed} failed, median {median(waits_ms):.1f} ms; the ratio is milliseconds",
    )  # fmt: skip
