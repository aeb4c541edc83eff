"""What people ask costs what it shows: no statement walks over all pairs or all runs, and every bounded count tells the truth."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import activity, claims, clock, health, history, pairs, queued_runs, ticks, timetable
from archisync.store.database import Database, connected
from archisync.store.runs import State
from tests.benchmarks import company
from tests.conftest import Cli, migrated_copy
from tests.support.rows import count

AGENTS, RUNS = 4_000, 40_000
ONE = "agent-00000042"


@pytest.fixture(scope="module")
def large_url(admin: psycopg.Connection, session_postgres: EmbeddedPostgres) -> Iterator[str]:
    """16,002 pairs and 40,000 runs: enough for a plan that walks over them to show in its buffers. Read only."""
    with migrated_copy(admin, session_postgres, "template0", "at_scale") as url:
        with connected(url, purpose="load") as db:
            company.found(db, agents=AGENTS, runs=RUNS)
        yield url


@pytest.fixture
def large(large_url: str) -> Iterator[Database]:
    with connected(large_url, purpose="test") as db:
        yield db


def scanned(plan: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from one end to the other, once or more."""
    if plan["Node Type"] == "Seq Scan" and plan["Actual Loops"]:
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scanned(part)


ANY: dict[str, Any] = {"sync_type": None, "states": list(State), "since": None, "after": 0, "limit": 20}
SPAN: dict[str, Any] = {"since": datetime(2026, 1, 1, tzinfo=UTC), "after": RUNS - 100}
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "health": (health.SQL_TYPE_HEALTH, {}),
    "state of a pair": (pairs.SQL_STATE, {"sync_type": "orders", "agent_id": ONE}),
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
    "running": (claims.SQL_RUNNING, {"limit": 100}),
    "trends": (activity.SQL_TRENDS, {"limit": 24}),
    "attention": (health.SQL_UNHEALTHY_PAIRS, {"limit": 100}),
    "durations": (timetable.SQL_DURATIONS, {"limit": 100}),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_reads_no_large_table_from_end_to_end(large: Database, question: str) -> None:
    statement, params = QUESTIONS[question]
    row = large.execute("explain (analyze, format json) " + statement, params or None).fetchone()
    assert row is not None
    [explained] = row["QUERY PLAN"]
    assert not {"sync_state", "sync_runs"} & set(scanned(explained["Plan"]))


def test_a_plan_that_does_is_found(large: Database) -> None:
    row = large.execute("explain (analyze, format json) select max(rows_seen) from system.sync_runs").fetchone()
    assert row is not None
    assert "sync_runs" in set(scanned(row["QUERY PLAN"][0]["Plan"]))


HEALTH_WITHOUT_INDEXES = """
select t.sync_type,
       count(*) filter (where st.active) as pairs,
       count(*) filter (where st.active and (st.last_slot_at is null
                        or st.last_slot_at <= system.clock() - make_interval(mins => s.interval_minutes))) as past_slot,
       count(*) filter (where st.active and (st.last_success_at is null or st.last_success_at > system.clock() + interval '1 minute'
                        or st.last_success_at <= system.clock() - 2 * make_interval(mins => s.interval_minutes))) as stale,
       count(*) filter (where st.active and st.consecutive_failures > 0) as failing,
       count(*) filter (where st.active and st.consecutive_failures >= 3) as degraded,
       count(*) filter (where st.active and st.backoff_until > system.clock()) as backing_off,
       max(st.last_success_at) filter (where st.active) as newest_success_at,
       case when bool_or(st.last_slot_at is null) filter (where st.active) then system.clock()
            else min(st.last_slot_at + make_interval(mins => s.interval_minutes)) filter (where st.active) end as next_due_at
  from system.sync_state st join system.sync_types t using (sync_type) join system.sync_settings s using (sync_type)
 group by 1
"""
SHAKE = """
update system.sync_state set active = agent_id = 'service-account' or random() < 0.8,
       last_slot_at = case when random() < 0.9 then system.clock() - random() * interval '40 minutes' end,
       last_success_at = case when random() < 0.9 then system.clock() - random() * interval '2 hours'
                              + random() * interval '10 minutes' end,
       consecutive_failures = greatest(0, (random() * 8)::int - 4),
       backoff_until = case when random() < 0.2 then system.clock() + (random() - 0.5) * interval '1 hour' end
"""


def test_every_figure_of_status_is_what_counting_all_pairs_gives(connection: Database) -> None:
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    connection.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, 500) n"
    )
    connection.execute("select setseed(0.5)")
    connection.execute(SHAKE)
    expected = {row.pop("sync_type"): row for row in connection.execute(HEALTH_WITHOUT_INDEXES).fetchall()}
    found = {
        h.sync_type: {name: getattr(h, name) for name in expected["orders"]} for h in health.type_health(connection)
    }
    assert found == expected
    assert all(expected["orders"][name] for name in expected["orders"])
    assert all(h.more_than == h.about == () for h in health.type_health(connection))


def with_agents(db: Database, number: int) -> None:
    db.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, %s) n", [number]
    )


def test_a_count_at_its_bound_is_exact_and_beyond_it_says_that_there_are_more(cli: Cli, connection: Database) -> None:
    with_agents(connection, health.COUNTED)
    exact = cli("status").stdout.splitlines()[2].split()
    assert (exact[0], exact[3], exact[6]) == ("orders", "1000", "1000")
    connection.execute("insert into agents.users (id, whitelisted) values ('one more', true)")
    more = cli("status").stdout.splitlines()[2].split()
    assert (more[0], more[6]) == ("orders", ">1000")
    [orders] = [t for t in json.loads(cli("status", "--json").stdout)["types"] if t["sync_type"] == "orders"]
    assert (orders["stale"], orders["word"]) == (1000, "stale")
    assert {"stale", "past_slot"} <= set(orders["more_than"])


def test_agents_beyond_the_bound_are_an_estimate_that_says_so(cli: Cli, connection: Database) -> None:
    with_agents(connection, 3 * health.COUNTED)
    connection.execute("analyze system.sync_state")
    assert cli("status").stdout.splitlines()[2].split()[3] == "~3000"
    [orders] = [t for t in json.loads(cli("status", "--json").stdout)["types"] if t["sync_type"] == "orders"]
    assert (orders["pairs"], orders["about"]) == (3000, ["pairs"])
    assert re.search(r"^archisync_pairs\{type=\"orders\"\} 3000.0$", cli("metrics").stdout, re.M)


def test_the_newest_runs_are_those_of_a_walk_over_all_runs(connection: Database) -> None:
    connection.execute("insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, 9) n")
    connection.execute("select setseed(0.5)")
    connection.execute("""
        insert into system.sync_runs (sync_type, agent_id, state, trigger, queued_at, finished_at)
        select (array['orders', 'customers', 'ddt'])[1 + (random() * 2)::int], 'a' || 1 + (random() * 8)::int,
               (array['succeeded', 'failed', 'held', 'skipped'])[1 + (random() * 3)::int], 'scheduled',
               timestamptz '2026-03-01 12:00Z' + n * interval '1 minute', timestamptz '2026-03-01 12:02Z' + n * interval '1 minute'
          from generate_series(1, 600) n""")
    connection.execute("""
        insert into system.sync_runs (sync_type, agent_id, state, trigger, queued_at) values
          ('orders', 'a1', 'queued', 'scheduled', '2026-03-02'), ('ddt', 'a1', 'running', 'scheduled', '2026-03-02')""")
    for sync_type in (None, "orders", "ddt", "prices"):
        for agent_id in (None, "a1", "a2", "nobody"):
            for state in (None, State.FAILED, State.QUEUED, State.SUCCEEDED):
                for since in (None, datetime(2026, 3, 1, 20, tzinfo=UTC)):
                    rows = connection.execute(
                        "select id from system.sync_runs where (%(t)s::text is null or sync_type = %(t)s)"
                        " and (%(a)s::text is null or agent_id = %(a)s) and (%(s)s::text is null or state = %(s)s)"
                        " and (%(since)s::timestamptz is null or queued_at >= %(since)s) order by id desc limit 7",
                        {"t": sync_type, "a": agent_id, "s": state, "since": since},
                    ).fetchall()
                    found = history.newest(
                        connection,
                        sync_type=sync_type,
                        agent_id=agent_id,
                        state=state,
                        since=since,
                        limit=7,
                    )
                    assert [run.run_id for run in found] == [row["id"] for row in rows]


def test_the_live_view_names_the_pairs_that_rest_longest_and_those_stale_longest(connection: Database) -> None:
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    with_agents(connection, 6)
    connection.execute("update system.sync_state set last_success_at = system.clock()")
    for agent_id, failures, minutes in (("a1", 3, 20), ("a2", 5, 90), ("a3", 4, 40)):
        connection.execute(
            "update system.sync_state set consecutive_failures = %s, backoff_until = system.clock() + make_interval(mins => %s)"
            " where sync_type = 'orders' and agent_id = %s",
            [failures, minutes, agent_id],
        )
    for agent_id, hours in (("a4", 1), ("a5", 9)):
        connection.execute(
            "update system.sync_state set last_success_at = system.clock() - make_interval(hours => %s)"
            " where sync_type = 'ddt' and agent_id = %s",
            [hours, agent_id],
        )
    assert [(p.agent_id, p.consecutive_failures) for p in health.unhealthy_pairs(connection, limit=9)] == [
        ("a2", 5), ("a3", 4), ("a1", 3), ("a5", 0), ("a4", 0),
    ]  # fmt: skip
    assert [p.agent_id for p in health.unhealthy_pairs(connection, limit=2)] == ["a2", "a3"]
    assert count(connection, "select count(*) from system.sync_state where backoff_until is not null") == 3


def test_paused_agents_that_are_stale_hide_no_other_one(cli: Cli, connection: Database) -> None:
    with_agents(connection, 7)
    connection.execute("update system.sync_state set last_success_at = system.clock()")
    for number in range(1, 8):
        connection.execute(
            "update system.sync_state set last_success_at = system.clock() - make_interval(hours => %s) where agent_id = %s"
            " and sync_type = 'orders'",
            [3 if number == 7 else 100, f"a{number}"],
        )
    for number in range(1, 7):
        scope = ["--agent", f"a{number}"] + (["--type", "orders"] if number % 2 else [])
        assert cli("pause", *scope).returncode == 0
    told = json.loads(cli("status", "--json").stdout)["ailing"]
    assert [(pair["sync_type"], pair["agent_id"]) for pair in told] == [("orders", "a7")]


def read(plan: dict[str, Any], table: str) -> int:
    """Rows of a table that a plan looked at."""
    own = 0
    if plan.get("Relation Name") == table:
        own = int(plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)))
    return own + sum(read(part, table) for part in plan.get("Plans", ()))


@pytest.mark.parametrize("resting", [True, False])
def test_naming_a_few_pairs_of_a_broken_erp_looks_at_a_few(connection: Database, resting: bool) -> None:
    with_agents(connection, 400)
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
    assert looked_at <= 4 * (6 + 10) + 2  # of each type six, and what is paused
    assert len(health.unhealthy_pairs(connection, limit=6)) == 6


def test_queued_runs_are_counted_and_listed_whatever_delivers_them(connection: Database) -> None:
    with_agents(connection, 60)
    connection.execute("insert into system.deliveries (forced) select false from generate_series(1, 5)")
    connection.execute("""
        insert into system.sync_runs (sync_type, agent_id, state, trigger, queued_at, delivery_id)
        select t.name, 'a' || n, 'queued', 'scheduled', timestamptz '2026-03-01 12:00Z' + n * interval '1 minute',
               case when n <= 50 then (select min(id) from system.deliveries) + (n - 1) / 10 end
          from generate_series(1, 60) n join (values ('orders', 1), ('ddt', 3), ('invoices', 70)) t(name, every) on n % t.every = 0""")
    queued = {h.sync_type: h.queued for h in health.type_health(connection)}
    assert queued == {"orders": 60, "ddt": 20, "invoices": 0, "customers": 0, "products": 0, "prices": 0}
    for sync_type in (None, "orders", "ddt", "invoices"):
        for since in (None, datetime(2026, 3, 1, 12, 45, tzinfo=UTC)):
            for limit in (3, 17, 100):
                rows = connection.execute(
                    "select id from system.sync_runs where (%(t)s::text is null or sync_type = %(t)s)"
                    " and (%(since)s::timestamptz is null or queued_at >= %(since)s) order by id desc limit %(limit)s",
                    {"t": sync_type, "since": since, "limit": limit},
                ).fetchall()
                found = history.newest(
                    connection, sync_type=sync_type, agent_id=None, state=State.QUEUED, since=since, limit=limit
                )
                assert [run.run_id for run in found] == [row["id"] for row in rows]


def test_a_long_queue_that_no_statistics_know_of_is_not_walked(connection: Database) -> None:
    with_agents(connection, 3_000)
    connection.execute("vacuum analyze")
    while queued_runs.insert_due(connection, limit=1_000, batch=100)[0]:
        continue
    for question, params in (
        (health.SQL_TYPE_HEALTH, {}),
        (history.SQL_NEWEST, ANY),
        (history.SQL_NEWEST, ANY | {"states": ["queued"], "sync_type": "prices"}),
        (ticks.SQL_ANYTHING_TO_DO, {"history_days": 90, "kept_days": 30, "hook": True}),
    ):
        row = connection.execute("explain (analyze, format json) " + question, params or None).fetchone()
        assert row is not None
        assert "sync_runs" not in set(scanned(row["QUERY PLAN"][0]["Plan"]))
    assert {h.queued for h in health.type_health(connection) if h.sync_type in ("orders", "ddt")} == {health.COUNTED}
