"""Pages of a company with a million agents: each costs what it costs with a hundred."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

import psycopg
import pytest

from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store.database import connected
from tests.benchmarks import company
from tests.conftest import migrated_copy
from tests.support.panel import Panel, panel, signed_in

AGENTS = int(os.environ.get("ARCHISYNC_TEST_AGENTS", "1000000"))
RUNS_OF_ONE = 10
TIMES = 9
MOST = 2.0
FLOOR_MS = 25.0
"""Below it, what a page costs is not what it asks."""
SAMPLED_MS = {"/plan": 150.0}
"""A page that reads a sample with many agents, and with a few all that there is."""
PAGES = (
    "/", "/types/orders", "/types/prices", "/failing", "/agents", "/agents?find=0042", "/agent?id=agent-00000042", "/runs",
    "/runs?state=failed", "/runs?type=orders&agent=00000042", "/runs?reason=no-export&since=1h",
    "/pair?type=orders&agent=agent-00000042", "/held", "/settings", "/audit", "/plan", "/ask/pause?type=orders",
)  # fmt: skip


@pytest.mark.soak
def test_a_page_costs_the_same_with_a_million_agents(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    took = {}
    for agents in (100, AGENTS):
        with migrated_copy(admin, session_postgres, "template0", f"pages_{agents}") as url:
            with connected(url, purpose="load", answer_timeout_s=3600) as db:
                company.found(db, agents=agents, runs=agents * RUNS_OF_ONE)
            with panel(url, redis_url, tmp_path / f"{agents}.log") as found:
                took[agents] = _measure(found, tmp_path / f"{agents}.log")
    few, many = took[100], took[AGENTS]
    print(json.dumps({page: (few[page], many[page]) for page in PAGES}, indent=1))
    allowed = {page: SAMPLED_MS.get(page, MOST * max(few[page], FLOOR_MS)) for page in PAGES}
    assert {page: (few[page], many[page]) for page in PAGES if many[page] > allowed[page]} == {}


def _measure(found: Panel, log: Path) -> dict[str, float]:
    """The median of what each page took on the server, in milliseconds."""
    took = {}
    with signed_in(found) as client:
        for page in PAGES:
            client.get(page)
            done = len(log.read_text().splitlines())
            for _ in range(TIMES):
                assert client.get(page).status_code == 200
            took[page] = median(json.loads(line)["ms"] for line in log.read_text().splitlines()[done:])
    return took
