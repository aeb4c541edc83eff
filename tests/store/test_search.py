"""Searching by a part of an agent's id: a bounded number of ids is looked through, and the answer says where it ended."""

from __future__ import annotations

from itertools import product

import pytest

from archisync.store import agents, search
from archisync.store.database import Database
from tests.support.rows import add_run

IDS = ("a", "ab", "abc", "b", "ba", "bab", "c", "cab", "ca7.B", "x.ab", "AB", "zab", "z")
PARTS = (None, "a", "ab", "AB", "bab", "z", "nobody", "%", "~", "A", "7.b", "a7", ".", "x.AB")
SHARED = "service-account"


@pytest.fixture
def bounded(connection: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A registry that is too large to be looked through at once."""
    monkeypatch.setattr(agents, "STEP", 2)
    monkeypatch.setattr(agents, "LOOKED_THROUGH", 4)
    for agent_id in IDS:
        agents.add(connection, agent_id, name=None, whitelisted=agent_id != "b")
    return connection


def followed(db: Database, *, limit: int, part: str | None, whitelisted: bool | None) -> list[str]:
    """Every page, by following `next`."""
    found: list[str] = []
    after: str | None = None
    for _ in range(2 * len(IDS)):
        page = agents.page(db, limit=limit, after=after, part=part, whitelisted=whitelisted)
        assert len(page.agents) <= limit
        found += [agent.agent_id for agent in page.agents]
        if (after := page.next) is None:
            return found
    raise AssertionError(f"the pages have no end: {found}")


def test_the_pages_of_a_search_have_each_agent_once_and_those_first_that_begin_with_it(bounded: Database) -> None:
    for part, whitelisted, limit in product(PARTS, (None, True, False), (1, 2, 3, 50)):
        first = part or ""
        fit = [one for one in sorted(IDS) if whitelisted in (None, one != "b") and first.lower() in one.lower()]
        expected = [one for one in fit if one >= first] + [one for one in fit if one < first]
        assert followed(bounded, limit=limit, part=part, whitelisted=whitelisted) == expected, (
            part,
            whitelisted,
            limit,
        )


def test_a_page_that_ends_before_all_ids_were_looked_through_says_so(bounded: Database) -> None:
    assert agents.page(bounded, limit=50, part="nobody") == ([], "a")  # it has begun at x.ab, and come round
    assert agents.page(bounded, limit=50, part="ba") == ([agents.agent(bounded, one) for one in ("ba", "bab")], "cab")
    assert agents.page(bounded, limit=50, part="nobody", after="b") == ([], "ca7.B")


def found(db: Database, part: str) -> tuple[list[str], bool, bool]:
    """The agents whose runs are found, whether there may be others further back, and whether it says so that they are only some."""
    page = search.search(db, agent_part=part)
    return [run.agent_id for run in page.runs], page.next is not None, page.only_beginning


def test_runs_are_those_of_ids_that_begin_with_it_where_not_all_ids_are_looked_through(bounded: Database) -> None:
    for agent_id in (*IDS, "left.ab", SHARED):
        add_run(bounded, "failed", agent_id=agent_id, sync_type="prices" if agent_id == SHARED else "orders")
    assert found(bounded, "zab") == (["zab"], False, True)
    assert found(bounded, "ab") == (["abc", "ab"], False, True)
    assert found(bounded, "service") == ([SHARED], False, True)
    # nobody's id begins with it: the newest runs are looked through, whoever's they are
    assert found(bounded, "eft") == (["left.ab"], False, False)
    assert found(bounded, "ice-acc") == ([SHARED], False, False)


def test_runs_are_those_of_every_id_that_has_it_where_all_ids_are_looked_through(
    bounded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "LOOKED_THROUGH", 100)
    for agent_id in ("zab", "ab", "cab", "z"):
        add_run(bounded, "failed", agent_id=agent_id)
    assert found(bounded, "ab") == (["cab", "ab", "zab"], False, False)
    monkeypatch.setattr(search, "MOST_AGENTS", 1)  # too many: the newest runs are looked through
    assert found(bounded, "ab") == (["cab", "ab", "zab"], False, False)
