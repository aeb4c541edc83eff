"""`plan`: the coming timetable as a person reads it."""

import json

import pytest

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli

AT_NOON = {"PGOPTIONS": "-c archisync.now=2026-03-01T12:00:00Z"}


@pytest.fixture
def noon(connection: Database) -> Database:
    """Two agents whose orders were last scheduled 5 and 10 minutes ago; a run took 30 s."""
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    for name, minutes in (("anna", 5), ("luca", 10)):
        agents.add(connection, name, name=None, whitelisted=True)
        connection.execute(
            "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s)"
            " where sync_type = 'orders' and agent_id = %s",
            [minutes, name],
        )
    connection.execute(
        "insert into system.sync_runs (sync_type, agent_id, trigger, state, started_at, finished_at, steps)"
        " values ('orders', 'anna', 'scheduled', 'succeeded', system.clock(), system.clock(), '{\"total\": 30000}')"
    )
    return connection


def test_plan_shows_a_chart_by_hour_and_that_workers_keep_up(cli: Cli, noon: Database) -> None:
    done = cli("plan", "--for", "2h", "--type", "orders", "--workers", "1", env=AT_NOON)
    assert (done.returncode, done.stderr) == (0, "")
    bar = "#" * 30
    assert done.stdout == (
        "HOUR (UTC)            RUNS  MINUTES OF WORK  LOAD  LEFT OVER  CHART\n"
        f"2026-03-01T12:00:00Z  12    6.0              10%   0.0        {bar}\n"
        f"2026-03-01T13:00:00Z  12    6.0              10%   0.0        {bar}\n"
        "1 worker; a run takes: orders 30 s\n"
        "the workers keep up\n"
    )
    assert not noon.closed


def test_plan_of_one_agent_follows_intervals_pauses_and_back_offs(cli: Cli, noon: Database) -> None:
    def runs(agent: str) -> list[int]:
        done = cli("plan", "--for", "3h", "--agent", agent, "--type", "orders", "--json", env=AT_NOON)
        return [hour["runs"].get("orders", 0) for hour in json.loads(done.stdout)["hours"]]

    assert runs("anna") == [6, 6, 6]
    cli("interval", "set", "orders", "30", env=AT_NOON)
    assert runs("anna") == [2, 2, 2]
    cli("pause", "--agent", "anna", "--until", "90m", env=AT_NOON)
    assert runs("anna") == [0, 1, 2]
    cli("pause", "--type", "orders", env=AT_NOON)
    assert runs("anna") == [0, 0, 0]
    cli("resume", "--type", "orders", env=AT_NOON)
    noon.execute("update system.sync_state set backoff_until = '2026-03-01T14:00:00Z' where agent_id = 'luca'")
    assert runs("luca") == [0, 0, 2]
    cli("disable", "orders")
    assert runs("luca") == [0, 0, 0]


def test_plan_counts_what_is_queued_and_says_so(cli: Cli, noon: Database) -> None:
    noon.execute(
        "insert into system.sync_runs (sync_type, agent_id, trigger)"
        " select 'orders', 'a' || n, 'scheduled' from generate_series(1, 400) n"
        " union all select 'orders', 'anna', 'forced'"
    )
    done = cli("plan", "--for", "1h", "--type", "orders", "--workers", "1", env=AT_NOON)
    assert done.stdout.splitlines()[1:] == [
        "2026-03-01T12:00:00Z  12    6.0              344%  146.5      " + "#" * 30,
        "1 worker; a run takes: orders 30 s",
        "already queued: 401 orders; 200.5 min of work for the first hours",
        "warning: 1 worker can't keep up from Sun 01 12:00 to the end of the plan: up to 146 min of work waits; 4 workers are enough",
    ]
    cli("pause", "--type", "orders", env=AT_NOON)  # all but the forced one will be skipped
    assert "already queued: 1 orders; 0.5 min of work" in cli("plan", "--workers", "1", env=AT_NOON).stdout
    told = json.loads(cli("plan", "--agent", "anna", "--json", env=AT_NOON).stdout)
    assert (told["queued"], told["queued_s"]) == ({"orders": 1}, 30)


def test_plan_counts_the_workers_that_live_and_says_when_there_is_none(cli: Cli, noon: Database) -> None:
    done = cli("plan", "--for", "1h", env=AT_NOON)
    assert done.returncode == 0
    assert "warning: no worker is alive: none of this would run\n" in done.stdout
    assert "note: customers, products, prices, ddt, invoices never ran: their duration is assumed\n" in done.stdout
    assert not noon.closed


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--for", "0h"], 2, "error: --for 0h is out of range\nhint: allowed: up to 31d\n"),
        (["--for", "32d"], 2, "error: --for 32d is out of range\nhint: allowed: up to 31d\n"),
        (["--agent", "nobody"], 5, "error: there is no agent 'nobody'\nhint: archisync agent list\n"),
    ],
)
def test_plan_refuses_what_it_can_t_answer(cli: Cli, args: list[str], code: int, told: str) -> None:
    done = cli("plan", *args)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", told)


def test_plan_without_redis_says_how_to_do_without_it(cli: Cli, noon: Database) -> None:
    away = AT_NOON | {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}
    done = cli("plan", env=away)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith("hint: archisync plan --workers 2   (asks no Redis how many are alive)\n")
    assert cli("plan", "--workers", "2", env=away).returncode == 0
    assert not noon.closed
