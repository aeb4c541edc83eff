"""The whole path on real servers: tick, queue, workers, tables; forced runs and their exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from archisync.rules.config import Config
from archisync.rules.due import decide
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.tick import tick
from archisync.store import agents, clock, history, pairs, queued_runs, runs, settings
from archisync.store.database import Database, connected
from tests.conftest import Cli
from tests.support.rows import count, drain
from tests.support.said import as_text
from tests.support.samples import SAMPLES

AGENTS = ("anna.bianchi", "luca.ferrari", "giulia.romano")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLES, tmp_path / "exports"))


@pytest.fixture
def env(exports: Path) -> dict[str, str]:
    return {"ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}


@pytest.fixture
def config(env: dict[str, str], database_url: str, redis_url: str) -> Config:
    urls = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}
    return Config.from_environment(env | urls)


@pytest.fixture
def registered(connection: Database) -> Database:
    for agent in AGENTS:
        agents.add(connection, agent, name=None, whitelisted=True)
    return connection


@pytest.fixture
def worker(cli: Cli, env: dict[str, str], database_url: str, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running `archisync worker`."""
    urls = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker"], env=os.environ | urls | env, stderr=subprocess.DEVNULL
    )
    yield process
    process.terminate()
    assert process.wait(60) == 0


def test_a_tick_and_two_workers_bring_every_export_into_its_table(
    cli: Cli, registered: Database, env: dict[str, str]
) -> None:
    first = cli("tick", "--json", env=env)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)["tick"]
    assert (summary["due"], summary["enqueued"], summary["skipped"]) == (14, 14, {})
    done = cli("worker", "--processes", "2", "--burst", env=env)
    assert done.returncode == 0, done.stderr
    assert count(registered, "select count(*) from system.sync_runs where state = 'succeeded'") == 14
    lines = sum(len((SAMPLES / a / "orders.csv").read_text("utf-8").splitlines()) - 1 for a in AGENTS)
    assert count(registered, "select count(*) from agents.orders") == lines
    assert "due 0, enqueued 0, redelivered 0, skipped 0" in cli("tick", env=env).stdout


def test_northwind_syncs_and_the_second_round_changes_nothing(
    connection: Database, northwind: Path, database_url: str, redis_url: str
) -> None:
    config = Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{northwind}/{{agent}}/{{type}}.csv",
        }
    )
    for n in range(1, 10):
        agents.add(connection, f"agent-{n}", name=None, whitelisted=True)
    assert tick(connection, config).due == 38
    assert drain(connection, config) == 38
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") == 38
    tables = ("agents.orders", "agents.ddt", "agents.invoices", "shared.products", "shared.prices")
    assert [count(connection, f"select count(*) from {t}") for t in tables] == [830, 809, 809, 77, 77]
    connection.execute("update system.sync_state set last_slot_at = null")
    tick(connection, config)
    drain(connection, config)
    second = "select sum(rows_inserted + rows_updated + rows_absent + rows_deleted) from system.sync_runs where id > 38"
    assert count(connection, second) == 0
    assert count(
        connection, "select sum(rows_unchanged) from system.sync_runs where id > 38"
    ) == 830 + 809 * 2 + 77 * 2 + count(connection, "select count(*) from agents.customers")


def test_three_hours_of_jittery_ticks_run_each_pair_on_time_and_never_twice_at_once(
    registered: Database, config: Config
) -> None:
    """A whole day of decisions is in tests/rules/test_due.py. The clocks change within these hours."""
    begin, random = datetime(2026, 3, 29, tzinfo=UTC), Random(7)
    minutes, early = 180, 0
    for minute in range(minutes):
        now = begin + timedelta(minutes=minute, seconds=random.randint(-20, 20))
        registered.execute(f"set archisync.now = '{now.isoformat()}'")
        before = {
            (r["sync_type"], r["agent_id"]): r["last_slot_at"]
            for r in registered.execute("select sync_type, agent_id, last_slot_at from system.sync_state").fetchall()
        }
        if tick(registered, config).due == 0:
            continue
        for run in history.newest(registered, state=runs.State.QUEUED, limit=1000):
            last = before[run.sync_type, run.agent_id]
            every = timedelta(minutes=SYNC_TYPES[run.sync_type].default_interval_minutes)
            early += last is not None and last + every > now
        drain(registered, config)
    assert early == 0
    assert count(registered, "select count(*) from system.sync_runs where state <> 'succeeded'") == 0
    found = registered.execute(
        "select sync_type, agent_id, count(*) as n from system.sync_runs group by 1, 2"
    ).fetchall()
    assert len(found) == 14
    for row in found:
        expected = minutes / SYNC_TYPES[row["sync_type"]].default_interval_minutes
        assert abs(row["n"] - expected) <= 1, row


def test_eight_ticks_at_once_queue_and_deliver_each_of_a_thousand_pairs_once(
    connection: Database, config: Config, database_url: str
) -> None:
    connection.execute(
        "update system.sync_settings set enabled = sync_type in ('orders', 'customers', 'ddt', 'invoices')"
    )
    connection.execute(
        "insert into agents.users (id, whitelisted) select 'a' || g, true from generate_series(1, 250) g"
    )

    def one(_: int) -> int:
        with connected(database_url, purpose="test tick") as db:
            return tick(db, config).enqueued

    with ThreadPoolExecutor(8) as pool:
        enqueued = list(pool.map(one, range(8)))
    assert sum(enqueued) == 1000
    assert count(connection, "select count(*) from system.queued_runs") == 1000
    from archisync.queue.client import redis_client
    from archisync.queue.joblist import queue_length

    with redis_client(config.redis_url) as client:
        # An agent's runs are one job; when several ticks have taken them, each has one.
        jobs = count(connection, "select count(*) from (select distinct delivery_id, job_no from system.queued_runs) j")
        assert queue_length(client, config.queue) == jobs >= 250


def test_the_statement_of_the_tick_and_the_due_rule_agree(registered: Database, config: Config) -> None:
    random = Random(11)
    registered.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    registered.execute(
        "insert into agents.users (id, whitelisted) select 'b' || g, true from generate_series(1, 200) g"
    )
    now = clock.now(registered)
    for row in registered.execute("select sync_type, agent_id from system.sync_state").fetchall():
        registered.execute(
            "update system.sync_state set last_slot_at = %s, backoff_until = %s where sync_type = %s and agent_id = %s",
            (
                random.choice([None, now - timedelta(minutes=random.randint(0, 90))]),
                random.choice([None, now + timedelta(minutes=random.randint(-30, 30))]),
                row["sync_type"],
                row["agent_id"],
            ),
        )
    settings.set_enabled(registered, SYNC_TYPES["prices"], False)
    settings.pause(registered, sync_type="ddt", agent_id="b1", until=None, reason=None, by="test")
    settings.pause(registered, sync_type=None, agent_id="b2", until=now - timedelta(1), reason=None, by="test")
    agents.set_whitelisted(registered, ["b3"], False)
    queued_runs.force(registered, "orders", "b4", by="test", why=None)
    expected = {(f.sync_type, f.agent_id) for f in pairs.active_states(registered) if decide(f, now).due}
    tick(registered, config)
    made = registered.execute(
        "select sync_type, agent_id from system.queued_runs where trigger = 'scheduled'"
    ).fetchall()
    assert {(r["sync_type"], r["agent_id"]) for r in made} == expected
    assert 50 < len(expected) < 700


def test_a_tick_that_cannot_deliver_keeps_what_is_due_and_exits_4(
    cli: Cli, registered: Database, env: dict[str, str]
) -> None:
    lost = cli("tick", env=env | {"ARCHISYNC_REDIS_URL": "unix:///nonexistent/valkey.sock"})
    assert lost.returncode == 4
    assert "error: Redis is out of reach" in as_text(lost.stderr)
    assert count(registered, "select count(*) from system.unfinished_runs where delivered_at is null") == 14
    found = cli("tick", env=env)
    assert "due 0, enqueued 14" in found.stdout


def test_a_worker_killed_in_the_middle_of_apply_leaves_the_run_to_the_next_worker(
    registered: Database, config: Config, cli: Cli, env: dict[str, str]
) -> None:
    registered.execute("update system.sync_settings set enabled = sync_type = 'customers'")
    assert cli("tick", env=env).returncode == 0
    with registered.transaction():
        registered.execute("lock table agents.customers in access exclusive mode")  # apply waits here
        urls = {"ARCHISYNC_DATABASE_URL": config.database_url, "ARCHISYNC_REDIS_URL": config.redis_url}
        process = subprocess.Popen(
            [sys.executable, "-m", "archisync", "worker"], env=os.environ | urls | env, stderr=subprocess.DEVNULL
        )
        with connected(config.database_url, purpose="watch") as watch:
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'archisync worker'"
            while count(watch, waiting) == 0:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)  # the supervisor; its workers and their children die with it
            process.wait(30)
            while count(watch, waiting):  # until PostgreSQL notices
                continue
    assert count(registered, "select count(*) from agents.customers") == 0
    later = {"PGOPTIONS": f"-c archisync.now={(datetime.now(UTC) + timedelta(seconds=600)).isoformat()}"}
    back = cli("tick", "--json", env=env | later)
    assert json.loads(back.stdout)["tick"]["reaped"] == 1
    assert cli("worker", "--burst", env=env).returncode == 0
    found = registered.execute("select state, attempt from system.sync_runs order by attempt desc").fetchall()
    assert [r["state"] for r in found] == ["succeeded"] * 3
    assert found[0]["attempt"] == 2


def test_force_waits_and_exits_with_the_code_of_the_outcome(
    cli: Cli, registered: Database, env: dict[str, str], exports: Path, worker: subprocess.Popen[bytes]
) -> None:
    agent = AGENTS[0]
    command = ("run", "orders", "--agent", agent, "--wait", "--timeout", "60")
    good = cli(*command, env=env)
    assert good.returncode == 0, good.stderr
    path = exports / agent / "orders.csv"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 3]), "utf-8")
    held = cli(*command, env=env)
    assert held.returncode == 6
    assert "held" in held.stdout
    path.unlink()
    failed = cli(*command, env=env)
    assert failed.returncode == 1
    assert "no export at" in failed.stderr
    assert count(registered, f"select count(*) from agents.orders where agent_id = '{agent}'") == len(lines) - 1


def test_force_without_a_worker_times_out_with_124_and_the_run_goes_on(
    cli: Cli, registered: Database, env: dict[str, str]
) -> None:
    late = cli("run", "orders", "--agent", AGENTS[0], "--wait", "--timeout", "0.5", env=env)
    assert late.returncode == 124
    assert "the run goes on; archisync show 1" in late.stderr
    assert history.get(registered, 1).state == "queued"


def test_force_exits_4_when_postgresql_is_out_of_reach(cli: Cli) -> None:
    away = cli("run", "orders", env={"ARCHISYNC_DATABASE_URL": "postgresql://u:hush@/x?host=/nonexistent"})
    assert away.returncode == 4
    assert "hush" not in away.stderr
    assert away.stderr.startswith("error: PostgreSQL is out of reach")


def test_force_joins_an_unfinished_run_instead_of_doubling_it(registered: Database) -> None:
    first = queued_runs.force(registered, "orders", AGENTS[0], by="a", why=None)
    second = queued_runs.force(registered, "orders", AGENTS[0], by="b", why=None)
    assert (first.joined, second.joined, second.run_id) == (False, True, first.run_id)


def test_force_inline_needs_no_redis_and_works_for_a_disabled_type(
    cli: Cli, registered: Database, env: dict[str, str]
) -> None:
    settings.set_enabled(registered, SYNC_TYPES["orders"], False)
    done = cli("run", "orders", "--agent", AGENTS[0], "--inline", env=env | {"ARCHISYNC_REDIS_URL": ""})
    assert done.returncode == 0, done.stderr
    assert "note: the type orders is disabled; this run is done anyway" in done.stderr


def test_an_agent_off_the_whitelist_gets_no_runs_and_its_queued_ones_are_skipped(
    registered: Database, config: Config
) -> None:
    tick(registered, config)
    agents.set_whitelisted(registered, [AGENTS[0]], False)
    states = registered.execute(
        "select state, reason from system.sync_runs where agent_id = %s", (AGENTS[0],)
    ).fetchall()
    assert [(r["state"], r["reason"]) for r in states] == [("skipped", "not-whitelisted")] * 4
    registered.execute("update system.sync_state set last_slot_at = null")
    assert tick(registered, config).due == 0  # the others are still queued


# What stops a queued run, and what undoes it.
UNDONE = {
    "pause": (
        "insert into system.pauses (agent_id) values ('anna.bianchi')",
        "delete from system.pauses",
    ),
    "disable": (
        "update system.sync_settings set enabled = false where sync_type = 'customers'",
        "update system.sync_settings set enabled = true where sync_type = 'customers'",
    ),
    "deny": ("update agents.users set whitelisted = false", "update agents.users set whitelisted = true"),
    "delete": ("delete from agents.users", "insert into agents.users (id, whitelisted) values ('anna.bianchi', true)"),
}


@pytest.mark.parametrize("cause", UNDONE)
@pytest.mark.parametrize("ran_before", [True, False], ids=["ran before", "never ran"])
def test_a_skipped_run_is_due_at_the_next_tick_after_its_cause_is_undone(
    connection: Database, config: Config, cause: str, ran_before: bool
) -> None:
    begin, undo = UNDONE[cause]
    agents.add(connection, AGENTS[0], name=None, whitelisted=True)
    connection.execute("update system.sync_settings set interval_minutes = 1440, enabled = sync_type = 'customers'")
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def at(minutes: int) -> int:
        connection.execute(f"set archisync.now = '{(noon + timedelta(minutes=minutes)).isoformat()}'")
        return tick(connection, config).due

    if ran_before:
        assert at(-1440) == 1
        drain(connection, config)
    assert at(1) == 1
    connection.execute(begin)
    drain(connection, config)
    assert [run.state for run in history.newest(connection)] == ["skipped", "succeeded"][: 1 + ran_before]
    assert [at(2), at(30), drain(connection, config)] == [0, 0, 0]
    connection.execute(undo)
    assert at(31) == 1
    assert history.newest(connection, limit=1)[0].slot_at == (noon if ran_before else noon + timedelta(minutes=1))
    assert at(32) == 0
    drain(connection, config)
    assert history.newest(connection, limit=1)[0].state == "succeeded"
    assert [at(33), at(1439), at(1442)] == [0, 0, 1]


def test_a_failing_pair_backs_off_visibly(registered: Database, config: Config, exports: Path, cli: Cli) -> None:
    (exports / AGENTS[0] / "orders.csv").unlink()
    for _ in range(3):
        registered.execute("update system.sync_state set last_slot_at = null, backoff_until = null")
        tick(registered, config)
        drain(registered, config)
    registered.execute("update system.sync_state set last_slot_at = null")
    told = cli("why", "orders", AGENTS[0])
    assert "it failed 3 times in a row and rests until" in told.stdout
