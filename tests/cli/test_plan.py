"""`plan`: the coming runs and the load, as a person reads them."""

import asyncio
import json
import os

import pytest

from archisync.rules.config import Config
from archisync.store import agents, timetable
from archisync.store.database import Database
from archisync.web.app import application
from tests.cli.conftest import Typed
from tests.cli.rows import AT_NOON, NOW
from tests.conftest import Cli
from tests.support.panel import TOKEN, TOKENS, inside
from tests.support.rows import add_run, whitelist_agents


@pytest.fixture
def site(connection: Database) -> Database:
    """Two agents whose orders were last scheduled 5 and 10 minutes ago; a run took 30 s."""
    connection.execute("set archisync.now = '2026-03-01T12:00:00Z'")
    for name, minutes in (("anna", 5), ("luca", 10)):
        agents.add(connection, name, name=None, whitelisted=True)
        connection.execute(
            "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s)"
            " where sync_type = 'orders' and agent_id = %s",
            [minutes, name],
        )
    add_run(connection, "succeeded", started_at=NOW, finished_at=NOW, steps='{"total": 30000}')
    return connection


def test_plan_shows_a_chart_by_hour_and_that_workers_keep_up(cli: Cli, site: Database) -> None:
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
    assert not site.closed


def test_plan_of_one_agent_follows_intervals_pauses_and_back_off(cli: Cli, site: Database) -> None:
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
    site.execute("update system.sync_state set backoff_until = '2026-03-01T14:00:00Z' where agent_id = 'luca'")
    assert runs("luca") == [0, 0, 2]
    cli("disable", "orders")
    assert runs("luca") == [0, 0, 0]


def test_plan_counts_runs_that_are_already_queued(cli: Cli, site: Database) -> None:
    site.execute(
        "insert into system.queued_runs (sync_type, agent_id, trigger)"
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
    found = json.loads(cli("plan", "--agent", "anna", "--json", env=AT_NOON).stdout)
    assert (found["queued"], found["queued_s"]) == ({"orders": 1}, 30)


def test_plan_counts_live_workers_and_says_when_there_is_none(cli: Cli, site: Database) -> None:
    done = cli("plan", "--for", "1h", env=AT_NOON)
    assert done.returncode == 0
    assert "warning: no worker is alive: none of this would run\n" in done.stdout
    assert "note: customers, products, prices, ddt, invoices never ran: their duration is assumed\n" in done.stdout
    assert not site.closed


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--for", "0h"], 2, "error: --for 0h is out of range\nhint: allowed: up to 31d\n"),
        (["--for", "32d"], 2, "error: --for 32d is out of range\nhint: allowed: up to 31d\n"),
        (["--agent", "nobody"], 5, "error: there is no agent 'nobody'\nhint: archisync agent list\n"),
    ],
)
def test_plan_refuses_an_unknown_agent_and_a_span_out_of_range(
    cli: Cli, args: list[str], code: int, message: str
) -> None:
    done = cli("plan", *args)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)


def test_plan_without_redis_names_the_option_that_needs_none(cli: Cli, site: Database) -> None:
    away = AT_NOON | {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}
    done = cli("plan", env=away)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith("hint: archisync plan --workers 2   (asks no Redis how many are alive)\n")
    assert cli("plan", "--workers", "2", env=away).returncode == 0
    assert not site.closed


def test_what_is_estimated_is_said(
    typed: Typed, connection: Database, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many agents a sample of the pairs is read."""
    monkeypatch.setattr(timetable, "WHOLE", 0)
    monkeypatch.setattr(timetable, "SAMPLED_PAGES", 3)
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url)):
        monkeypatch.setenv(f"ARCHISYNC_{name}", value)
    whitelist_agents(connection, 100)
    said = "are estimated from a sample, since there are too many to count each"
    assert f"note: the runs {said}\n" in typed("plan", "--workers", "1")[1]
    assert said not in typed("plan", "--workers", "1", "--agent", "a1")[1]

    async def page() -> str:
        async with inside(application(Config.from_environment(dict(os.environ) | TOKENS)), TOKEN) as client:
            return (await client.get("/plan")).text

    assert f"The runs {said}." in asyncio.run(page())
