"""Agents and runs are looked for by a part of the id; where a page has not looked everywhere, it says so and goes on."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import pytest

from archisync.rules.config import Config
from archisync.store import agents, search
from archisync.store.database import Database
from archisync.web.app import application
from archisync.web.pages import runs
from tests.support.panel import inside
from tests.support.rows import add_run

FURTHER = re.compile(r'<a href="([^"]*)">(?:look further|older: look further back)</a>')
MOST = 20
ALL = ("anna", "luca", "c", *(f"c{number}" for number in range(8)))
NOT_YET = "not all ids have been looked through yet"


@pytest.fixture
def many(site: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """More agents than one page looks through."""
    monkeypatch.setattr(agents, "STEP", 2)
    monkeypatch.setattr(agents, "LOOKED_THROUGH", 4)
    for agent_id in ALL[2:]:
        agents.add(site, agent_id, name=None, whitelisted=agent_id != "c")
    return site


def shown(database_url: str, path: str) -> list[str]:
    """The page, and those to which its link "look further" leads, or the one further back."""

    async def ask() -> list[str]:
        async with inside(application(Config(environment={"ARCHISYNC_DATABASE_URL": database_url}))) as client:
            found = [(await client.get(path)).text]
            while (further := FURTHER.search(found[-1])) and len(found) < MOST:
                found.append((await client.get(unescape(further[1]))).text)
            return found

    return asyncio.run(ask())


def test_agents_are_looked_for_page_by_page_and_none_is_said_not_to_be_before(
    many: Database, database_url: str
) -> None:
    *before, last = shown(database_url, "/agents?find=nobody")
    assert 1 < len(before) < MOST
    assert all("No agent is like that so far." in page and NOT_YET in page for page in before)
    assert "No agent is like that." in last
    assert NOT_YET not in last
    first, *_ = shown(database_url, "/agents?find=luca")
    assert '<tr data-key="luca">' in first
    assert NOT_YET in first
    *before, last = shown(database_url, "/agents?only=others")
    assert ["c" if '<tr data-key="c">' in page else "" for page in (*before, last)].count("c") == 1
    assert all(NOT_YET in page for page in before)
    (page,) = shown(database_url, "/agents")
    assert page.count("<tr data-key=") == len(ALL)
    assert NOT_YET not in page


def test_a_filter_of_runs_says_when_it_means_only_ids_that_begin_with_it(many: Database, database_url: str) -> None:
    for agent_id in ("c7", "luca"):
        add_run(many, "failed", agent_id=agent_id)
    note = "these are the runs of those whose ids begin with it"
    (page,) = shown(database_url, "/runs?agent=c7")
    assert note in page
    assert page.count("<tr data-key=") == 1
    (page,) = shown(
        database_url, "/runs?agent=uc"
    )  # whoever's id has it: all runs that there are have been looked through
    assert note not in page
    assert page.count("<tr data-key=") == 1


def test_runs_are_looked_for_page_by_page_and_none_is_said_not_to_fit_before(
    site: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LOOKED_THROUGH", 6)
    monkeypatch.setattr(runs, "LISTED", 1)
    add_run(site, "failed", reason="rare", queued_at="2026-11-23 09:00+00")
    for _ in range(9):
        add_run(site, "failed", reason="usual", queued_at="2026-11-23 10:00+00")
    *before, last = shown(database_url, "/runs?reason=rare")
    assert len(before) > 1
    assert all("No run fits so far." in page and "have been looked through so far." in page for page in before)
    assert all('datetime="2026-11-23T10:00:00Z"' in page for page in before)
    assert last.count("<tr data-key=") == 1
    *before, last = shown(database_url, "/runs?reason=never")
    assert all("No run fits so far." in page for page in before)
    assert "No run fits." in last
    assert "looked through" not in last
