"""One agent's export, delivered and synced in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from archisync.rules.config import Config
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import Run
from archisync.sync import inmemory
from tests.support.rows import sync

AGENT = "anna.bianchi"


class Deliver(Protocol):
    """Writes the text as an export and syncs it; a forced run compares every row. Returns the run as it ended."""

    def __call__(self, text: str, sync_type: str = "customers", *, agent: str = AGENT, trigger: str = ...) -> Run: ...


@pytest.fixture
def csv_config(database_url: str, exports: Path) -> Config:
    return Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}
    )


@pytest.fixture
def deliver(connection: Database, csv_config: Config, exports: Path) -> Deliver:
    def run(text: str, sync_type: str = "customers", *, agent: str = AGENT, trigger: str = "scheduled") -> Run:
        file = exports / agent / f"{sync_type}.csv"
        if not file.parent.exists():
            agents.add(connection, agent, name=None, whitelisted=True)
            file.parent.mkdir()
        file.write_text(text, "utf-8", newline="")
        return sync(connection, csv_config, sync_type, agent, trigger=trigger)

    return run


@pytest.fixture(params=["memory", "database"])
def compared_in(request: pytest.FixtureRequest) -> Iterator[str]:
    """A larger difference than fits into memory goes through the stage; here any does."""
    before = inmemory.MOST_ROWS
    if request.param == "database":
        inmemory.MOST_ROWS = -1
    yield request.param
    inmemory.MOST_ROWS = before
