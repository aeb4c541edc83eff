"""What people ask costs as much as it shows: no statement walks over all pairs or all runs."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import (
    activity,
    agents,
    clock,
    health,
    history,
    interventions,
    pairs,
    queued_runs,
    search,
    ticks,
    timetable,
)
from archisync.store.database import Database, connected
from archisync.store.runs import State
from tests.benchmarks import company
from tests.conftest import migrated_copy
from tests.support.rows import whitelist_agents

AGENTS, RUNS = 4_000, 40_000
ONE = "agent-00000042"


@pytest.fixture(scope="module")
def large_url(admin: psycopg.Connection, session_postgres: EmbeddedPostgres) -> Iterator[str]:
    """16,002 pairs and 40,000 runs: too many for the planner to prefer a walk over them. Read only."""
    with migrated_copy(admin, session_postgres, "template0", "at_scale") as url:
        with connected(url, purpose="load") as db:
            company.found(db, agents=AGENTS, runs=RUNS)
        yield url


@pytest.fixture
def large(large_url: str) -> Iterator[Database]:
    with connected(large_url, purpose="test") as db:
        yield db


def scanned(plan: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end."""
    if plan["Node Type"] == "Seq Scan" and plan["Actual Loops"]:
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scanned(part)


ANY: dict[str, Any] = {
    "sync_type": None,
    "states": list(State),
    "since": None,
    "after": 0,
    "before": history.LARGEST_ID,
    "limit": 20,
}


SEARCH: dict[str, Any] = ANY | {"part": None, "reason": None, "look": 21}
WALK: dict[str, Any] = {
    "after": None,
    "part": "42",
    "caseless": "42",
    "whitelisted": True,
    "limit": 51,
    "step": agents.STEP,
    "steps": 9,
}
PAIRS: dict[str, Any] = {"after_agent": ONE, "after_type": "", "sync_type": None, "agent_id": None, "limit": 51}
SPAN: dict[str, Any] = {"since": datetime(2026, 1, 1, tzinfo=UTC), "after": RUNS - 100}


QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "health": (health.SQL_TYPE_HEALTH_UNPAUSED, {}),
    "health with a paused agent": (health.SQL_TYPE_HEALTH, {}),
    "state of a pair": (pairs.SQL_STATE, {"sync_type": "orders", "agent_id": ONE}),
    "the oldest data of a type": (health.SQL_LEAST_FRESH, {"sync_type": "orders", "limit": 50}),
    "history": (history.SQL_NEWEST, ANY),
    "history of a rare type": (history.SQL_NEWEST, ANY | {"sync_type": "prices"}),
    "history of a rare state": (history.SQL_NEWEST, ANY | {"states": ["held"]}),
    "history of the last minutes": (history.SQL_NEWEST, ANY | {"since": "2999-01-01", "after": RUNS}),
    "where a span begins": (history.SQL_ID_BEFORE, {"since": "2999-01-01"}),
    "runs of a span": (activity.SQL_OUTCOMES, SPAN | {"states": list(activity.OUTCOMES), "step": timedelta(hours=1)}),
    "the slowest of a span": (activity.SQL_SLOWEST, SPAN | {"newest": 100, "limit": 9}),
    "history of an agent": (history.SQL_NEWEST_OF_AGENT, ANY | {"agent_id": ONE}),
    "history of a pair": (history.SQL_NEWEST_OF_AGENT, ANY | {"agent_id": ONE, "sync_type": "orders"}),
    "a clock that was wrong": (clock.SQL_MEND, {}),
    "anything to do": (
        ticks.SQL_ANYTHING_TO_DO,
        {"history_days": 90, "kept_days": 30, "hook": True},
    ),
    "running": (history.SQL_RUNNING, {"limit": 100}),
    "trends": (activity.SQL_TRENDS, {"limit": 24}),
    "unhealthy pairs": (health.SQL_UNHEALTHY_PAIRS, {"limit": 100}),
    "search": (search.SQL_OF_ALL, SEARCH),
    "search for a reason": (search.SQL_OF_ALL, SEARCH | {"reason": "rare", "look": 300}),
    "search of a rare type and state": (search.SQL_OF_ALL, SEARCH | {"sync_type": "prices", "states": ["held"]}),
    "search of an agent": (search.SQL_OF_AGENTS, SEARCH | {"agent_ids": [ONE]}),
    "agents with a part": (agents.SQL_WALK, WALK),
    "some agents": (agents.SQL_THESE, {"ids": [ONE, ONE]}),
    "a page of pairs": (pairs.SQL_PAGE, PAIRS),
    "the pairs of an agent": (pairs.SQL_PAGE, PAIRS | {"agent_id": ONE}),
    "resting pairs": (
        interventions.SQL_RESTING,
        {"after_type": "", "after_time": "2000-01-01", "after_agent": "", "limit": 51},
    ),
    "failing pairs": (
        health.SQL_FAILING_PAIRS,
        {"after_type": "", "after_failures": 0, "after_agent": "", "limit": 51},
    ),
    "durations": (timetable.SQL_DURATIONS, {"limit": 100}),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_reads_no_large_table_from_end_to_end(large: Database, question: str) -> None:
    statement, params = QUESTIONS[question]
    row = large.execute("explain (analyze, format json) " + statement, params or None).fetchone()
    assert row is not None
    [explained] = row["QUERY PLAN"]
    assert not {"sync_state", "sync_runs"} & set(scanned(explained["Plan"]))


def test_a_plan_that_reads_a_large_table_from_end_to_end_is_found(large: Database) -> None:
    row = large.execute("explain (analyze, format json) select max(rows_seen) from system.sync_runs").fetchone()
    assert row is not None
    assert "sync_runs" in set(scanned(row["QUERY PLAN"][0]["Plan"]))


def read(plan: dict[str, Any], table: str, *, besides: str = "") -> int:
    """Rows of a table that a plan reads, `besides` those that one kind of step reads."""
    own = 0
    if plan.get("Relation Name") == table and plan["Node Type"] != besides:
        own = round(plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)))
    return own + sum(read(part, table, besides=besides) for part in plan.get("Plans", ()))


def test_a_search_reads_no_run_that_is_too_old_to_be_shown(large: Database) -> None:
    row = large.execute(
        "explain (analyze, format json) " + search.SQL_OF_ALL, SEARCH | {"reason": "rare", "look": 20}
    ).fetchone()
    assert row is not None
    seen = read(row["QUERY PLAN"][0]["Plan"], "sync_runs", besides="Index Only Scan")
    assert 4 * 20 - 4 <= seen <= 4 * 20 + 4  # 20 of each type, and not the last failed ones of all time


def test_a_forecast_reads_a_sample_of_many_pairs_and_says_so(large: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs() -> dict[tuple[str, bool], int]:
        found = Counter[tuple[str, bool]]()
        for group in timetable.due_groups(large, sync_type=None, agent_id=None):
            found[group.sync_type, group.about] += group.pairs
        return found

    few = {("prices", False): 1, ("products", False): 1}
    many = ("orders", "customers", "ddt", "invoices")
    assert pairs() == {**few, **{(name, False): AGENTS for name in many}}
    monkeypatch.setattr(timetable, "SAMPLED_PAGES", 60)
    found = pairs()
    assert found.keys() == {*few, *((name, True) for name in many)}
    assert all(found[name] == number for name, number in few.items())
    assert all(0.7 * AGENTS < found[name, True] < 1.4 * AGENTS for name in many), found
    params: dict[str, Any] = {"sync_type": None, "pages": 60, "whole": 100}
    row = large.execute("explain (analyze, format json) " + timetable.SQL_DUE_GROUPS, params).fetchone()
    assert row is not None
    assert read(row["QUERY PLAN"][0]["Plan"], "sync_state") <= 4 * 101 + AGENTS  # and not 4 * AGENTS


def test_what_delays_a_pair_counts_in_a_sample_as_where_all_are_read(
    large: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def due() -> Counter[tuple[str, datetime]]:
        found = Counter[tuple[str, datetime]]()
        for group in timetable.due_groups(large, sync_type=None, agent_id=None):
            found[group.sync_type, group.due_at] += group.pairs
        return found

    with large.transaction(force_rollback=True):
        large.execute(
            "update system.sync_state set backoff_until = '2999-01-01 10:00:30' where agent_id like '%1'; "
            "insert into system.pauses (agent_id, until) select id, '2999-01-02 10:00:30' from agents.users where id like '%11'; "
            "insert into system.pauses (agent_id) select id from agents.users where id like '%99'; "
            "insert into system.pauses (sync_type) values ('ddt')"
        )
        every = due()
        monkeypatch.setattr(timetable, "WHOLE", 1)
        monkeypatch.setattr(timetable, "SAMPLED_PAGES", 10**6)  # a sample of all
        assert due() == every
    assert every["orders", datetime(2999, 1, 1, 10, tzinfo=UTC)] == AGENTS * 9 // 100
    assert every["orders", datetime(2999, 1, 2, 10, tzinfo=UTC)] == AGENTS // 100
    assert sum(number for (name, _), number in every.items() if name == "orders") == AGENTS * 99 // 100
    assert not any(name == "ddt" for name, _ in every)


@pytest.mark.parametrize("resting", [True, False])
def test_naming_a_few_unhealthy_pairs_reads_only_a_few(connection: Database, resting: bool) -> None:
    whitelist_agents(connection, 400)
    connection.execute(
        "update system.sync_state set last_success_at = '2020-01-01', consecutive_failures = 3,"
        " backoff_until = case when %s then system.clock() + interval '1 hour' end",
        [resting],
    )
    connection.execute("insert into system.pauses (agent_id) select 'a' || n from generate_series(1, 10) n")
    connection.execute("analyze system.sync_state")
    row = connection.execute("explain (analyze, format json) " + health.SQL_UNHEALTHY_PAIRS, {"limit": 6}).fetchone()
    assert row is not None
    looked_at = read(row["QUERY PLAN"][0]["Plan"], "sync_state")
    assert looked_at <= 4 * (6 + 10) + 2  # six of each type, and the paused ones
    assert len(health.unhealthy_pairs(connection, limit=6)) == 6


def test_when_everything_is_late_not_all_that_is_late_is_read(connection: Database) -> None:
    whitelist_agents(connection, 5_000)
    connection.execute(
        "update system.sync_state set last_slot_at = system.clock() - interval '1 day', last_success_at = '2020-01-01'"
    )
    connection.execute("vacuum analyze system.sync_state")
    for statement in (health.SQL_TYPE_HEALTH, health.SQL_TYPE_HEALTH_UNPAUSED):
        row = connection.execute("explain (analyze, format json) " + statement).fetchone()
        assert row is not None
        assert read(row["QUERY PLAN"][0]["Plan"], "sync_state") <= 6 * 4 * (health.COUNTED + 1)
    assert {(h.past_slot, h.stale) for h in health.type_health(connection) if h.sync_type == "orders"} == {
        (health.COUNTED, health.COUNTED)
    }
    connection.execute("update system.sync_state set last_slot_at = system.clock(), last_success_at = system.clock()")
    row = connection.execute("explain (analyze, format json) " + health.SQL_TYPE_HEALTH).fetchone()
    assert row is not None
    assert (
        read(row["QUERY PLAN"][0]["Plan"], "sync_state") <= 4 * (health.COUNTED + 1) + 100
    )  # only the pairs are counted
    assert {(h.past_slot, h.stale) for h in health.type_health(connection)} == {(0, 0)}


def test_a_long_queue_that_is_not_in_the_statistics_is_not_walked(
    connection: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whitelist_agents(connection, 3_000)
    connection.execute("vacuum analyze")
    while queued_runs.insert_due(connection, limit=1_000, batch=100)[0]:
        continue
    for question, params in (
        (health.SQL_TYPE_HEALTH, {}),
        (health.SQL_TYPE_HEALTH_UNPAUSED, {}),
        (history.SQL_NEWEST, ANY),
        (history.SQL_NEWEST, ANY | {"states": ["queued"], "sync_type": "prices"}),
        (ticks.SQL_ANYTHING_TO_DO, {"history_days": 90, "kept_days": 30, "hook": True}),
    ):
        row = connection.execute("explain (analyze, format json) " + question, params or None).fetchone()
        assert row is not None
        plan = row["QUERY PLAN"][0]["Plan"]
        assert "queued_runs" not in set(scanned(plan))
        assert read(plan, "queued_runs") <= 200
    assert {h.queued for h in health.type_health(connection) if h.sync_type in ("orders", "ddt")} == {health.COUNTED}
    assert timetable.queued(connection, sync_type="ddt", agent_id=None) == ({"ddt": 3_000}, False)
    monkeypatch.setattr(timetable, "SAMPLED_PAGES", 30)
    waiting = timetable.queued(connection, sync_type="ddt", agent_id=None)
    assert waiting.about
    assert 1_500 < waiting.runs["ddt"] < 6_000
