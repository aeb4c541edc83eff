"""Fixtures for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync.store.database import Database
from tests.support import site
from tests.support.panel import Panel, panel


@pytest.fixture
def troubled(connection: Database) -> Database:
    """Six agents: most of their data is fresh, something is held, failing, paused, queued and running."""
    site.plant(connection)
    return connection


@pytest.fixture
def shown(troubled: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Panel]:
    """The panel of that site, with a token for each role."""
    with panel(database_url, redis_url, tmp_path / "web.log") as found:
        yield found
