"""Every figure of `status` is right, up to its bound and beyond, and the pairs that need attention are named."""

import json
import re
from datetime import timedelta

import pytest

from archisync.observe.why import explain
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import clock, health, timetable
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.rows import count, whitelist_agents

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


def test_every_figure_of_status_is_that_of_counting_all_pairs(connection: Database) -> None:
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    whitelist_agents(connection, 500)
    connection.execute("select setseed(0.5)")
    connection.execute(SHAKE)
    expected = {row.pop("sync_type"): row for row in connection.execute(HEALTH_WITHOUT_INDEXES).fetchall()}
    found = {
        h.sync_type: {name: getattr(h, name) for name in expected["orders"]} for h in health.type_health(connection)
    }
    assert found == expected
    assert all(expected["orders"][name] for name in expected["orders"])
    assert all(h.more_than == h.about == () for h in health.type_health(connection))


def test_a_count_is_exact_at_its_bound_and_says_more_than_beyond_it(cli: Cli, connection: Database) -> None:
    whitelist_agents(connection, health.COUNTED)
    exact = cli("status").stdout.splitlines()[2].split()
    assert (exact[0], exact[3], exact[6]) == ("orders", "1000", "1000")
    connection.execute("insert into agents.users (id, whitelisted) values ('one more', true)")
    more = cli("status").stdout.splitlines()[2].split()
    assert (more[0], more[6]) == ("orders", ">1000")
    [orders] = [t for t in json.loads(cli("status", "--json").stdout)["types"] if t["sync_type"] == "orders"]
    assert (orders["stale"], orders["word"]) == (1000, "stale")
    assert {"stale", "past_slot"} <= set(orders["more_than"])


def test_agents_beyond_the_bound_are_shown_as_an_estimate(cli: Cli, connection: Database) -> None:
    whitelist_agents(connection, 3 * health.COUNTED)
    connection.execute("analyze system.sync_state")
    assert cli("status").stdout.splitlines()[2].split()[3] == "~3000"
    [orders] = [t for t in json.loads(cli("status", "--json").stdout)["types"] if t["sync_type"] == "orders"]
    assert (orders["pairs"], orders["about"]) == (3000, ["pairs"])
    assert re.search(r"^archisync_pairs\{type=\"orders\"\} 3000.0$", cli("metrics").stdout, re.M)


def test_unhealthy_pairs_are_those_that_rest_longest_then_those_stale_longest(connection: Database) -> None:
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    whitelist_agents(connection, 6)
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


def test_stale_agents_that_are_paused_hide_no_other(cli: Cli, connection: Database) -> None:
    whitelist_agents(connection, 7)
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
    unhealthy = json.loads(cli("status", "--json").stdout)["ailing"]
    assert [(pair["sync_type"], pair["agent_id"]) for pair in unhealthy] == [("orders", "a7")]


@pytest.mark.parametrize(
    ("slot_ago", "rests_for", "paused", "expected"),
    [
        (30, 220, False, 220),  # it rests beyond its slot
        (2, 3, False, 8),  # its slot comes after its rest
        (30, None, False, 0),
        (2, None, False, 8),
        (30, None, True, None),
        (30, 220, True, None),
    ],
)
def test_everybody_says_the_same_of_when_a_pair_is_next(
    connection: Database, slot_ago: int, rests_for: int | None, paused: bool, expected: int | None
) -> None:
    """Minutes from now; the interval is 10 min."""
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    whitelist_agents(connection, 1)
    connection.execute(
        "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s), consecutive_failures = 4,"
        " backoff_until = system.clock() + make_interval(mins => %s) where sync_type = 'orders'",
        [slot_ago, rests_for],
    )
    if paused:
        connection.execute("insert into system.pauses (agent_id) values ('a1')")
    now = clock.now(connection)
    at = now + timedelta(minutes=expected) if expected is not None else None
    [orders] = [found for found in health.type_health(connection) if found.sync_type == "orders"]
    assert (max(orders.next_due_at, now) if orders.next_due_at else None) == at
    assert explain(connection, SYNC_TYPES["orders"], "a1").decision.next_at == at
    groups = timetable.due_groups(connection, sync_type="orders", agent_id="a1")
    assert [group.due_at for group in groups] == [found for found in [at] if found]
    lines = [
        pair.describe(lambda moment: f"{moment:%H:%M}")
        for pair in health.unhealthy_pairs(connection, limit=9)
        if pair.sync_type == "orders"
    ]
    resting = [line for line in lines if line.startswith("resting")]
    wanted = rests_for is not None and at is not None
    assert resting == ([f"resting: orders of a1: 4 failures, next {at:%H:%M}, last ok never"] if wanted else [])
