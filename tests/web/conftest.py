"""Fixtures for the tests of the panel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync.store import agents
from archisync.store.database import Database
from tests.support.panel import Panel, panel
from tests.support.rows import record_tick


@pytest.fixture
def site(connection: Database) -> Database:
    """Two agents on the whitelist, and a tick some seconds ago."""
    for agent_id in ("anna", "luca"):
        agents.add(connection, agent_id, name=None, whitelisted=True)
    record_tick(connection)
    return connection


@pytest.fixture
def running(site: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Panel]:
    """The panel of that site, with a token for each role."""
    with panel(database_url, redis_url, tmp_path / "web.log") as found:
        yield found
