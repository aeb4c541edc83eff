"""A panel that is polled for hours, while runs come and go, stays as large as it was."""

from __future__ import annotations

import os
from itertools import count, cycle
from pathlib import Path
from statistics import median
from time import monotonic

import httpx
import pytest

from archisync.store.database import Database
from tests.support.panel import TOKEN, Panel, signed_in
from tests.support.rows import add_run, record_tick

HOUR_S = int(os.environ.get("ARCHISYNC_TEST_POLL_S", "3600"))
GROWTH_BYTES = 3 * 1024 * 1024
"""An arena or two of the allocators, however many requests there were: garbage is not left to gather, either."""
POLLED = (
    "/", "/runs", "/types/orders", "/held", "/plan", "/pair?type=orders&agent=mario.bassi", "/agents", "/audit", "/metrics",
    "/api/sync/monitoring/status?limit=20", "/api/sync/monitoring/circuit-breaker", "/api/v1/status", "/api/v1/runs", "/api/v1/workers",
    "/nothing", "/runs/0", "/api/v1/held/0",
)  # fmt: skip


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
@pytest.mark.parametrize(
    "lasts_s", [pytest.param(2, marks=pytest.mark.slow), pytest.param(HOUR_S, marks=pytest.mark.soak)]
)
def test_memory_is_flat_while_browsers_poll(lasts_s: int, shown: Panel, troubled: Database) -> None:
    """The first requests load what is needed for the first time; after them, the last samples are held against the first."""
    sizes: list[int] = []
    with signed_in(shown) as browser, shown.client(TOKEN) as program:
        asked, tags = count(), dict.fromkeys(POLLED, "")
        poll(browser, program, tags, rounds=4)
        end = monotonic() + lasts_s
        while monotonic() < end or len(sizes) < 2:
            number = next(asked)
            record_tick(troubled, ago="1 s", duration_ms=number)
            add_run(troubled, "failed", message=f"a new one: {number}")
            poll(browser, program, tags, rounds=1)
            sizes.append(resident_bytes(shown.process.pid))
    part = max(len(sizes) // 5, 1)
    first, last = median(sizes[:part]), median(sizes[-part:])
    print(f"{len(sizes) * len(POLLED)} requests in {lasts_s} s: {first / 2**20:.1f} MB, then {last / 2**20:.1f} MB")
    assert last - first < GROWTH_BYTES


def poll(browser: httpx.Client, program: httpx.Client, tags: dict[str, str], *, rounds: int) -> None:
    """Ask for each address, as a browser or a program that has seen the last answer."""
    for path, _ in zip(cycle(POLLED), range(rounds * len(POLLED)), strict=False):
        client = program if path.startswith(("/api", "/metrics")) else browser
        answer = client.get(path, headers={"If-None-Match": tags[path]} if tags[path] else {})
        assert answer.status_code < 500, answer.text
        tags[path] = answer.headers.get("etag", "")
