"""`why`: each reason why a pair is, or is not, running now, in words and as JSON."""

import json
import re

import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.cli.rows import AT_NOON, NOW, add_held, add_run, add_tick, set_state
from tests.conftest import Cli
from tests.support.rows import add_claim

NO_REDIS = {"ARCHISYNC_REDIS_URL": ""}
NO_TICK = "note: no tick has ever run: is cron calling archisync tick?\n"


def _why(cli: Cli, *args: str) -> tuple[int, str]:
    done = cli("why", *args, env=AT_NOON | NO_REDIS)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_why_says_that_it_is_due_now(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    assert _why(cli, "orders", "anna") == (
        0,
        "orders of anna: it is due: it has never been scheduled; the next tick queues it\n",
    )
    assert _why(cli, "products") == (
        0,
        "products of service-account: it is due: it has never been scheduled; the next tick queues it\n",
    )


def test_why_says_when_the_next_run_is(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    set_state(noon, last_slot_at="2026-03-01T11:56:00Z")
    assert _why(cli, "orders", "anna") == (
        0,
        "orders of anna: its interval of 10 min has not passed; due at 2026-03-01T12:06:00Z\n"
        "next at 2026-03-01T12:06:00Z\n",
    )


def test_why_says_since_when_a_run_is_queued_or_running_and_where(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    set_state(noon, last_slot_at="2026-03-01T11:59:00Z")
    run_id = add_run(noon, "queued", queued_at="2026-03-01T11:59:00Z")
    assert _why(cli, "orders", "anna")[1].splitlines()[0] == (
        f"orders of anna: run {run_id} is queued since 2026-03-01T11:59:00Z"
    )
    add_claim(noon, "anna", run_id=run_id, worker="host-1", run_started_at="2026-03-01T11:59:30Z")
    assert _why(cli, "orders", "anna")[1].splitlines()[0] == (
        f"orders of anna: run {run_id} is running on host-1 since 2026-03-01T11:59:30Z"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["disable", "orders"], "the type orders is disabled"),
        (["pause", "--agent", "anna"], "the agent anna is paused until somebody resumes"),
    ],
)
def test_why_says_that_a_queued_run_will_be_skipped_unless_it_was_forced(
    cli: Cli, noon: Database, args: list[str], words: str
) -> None:
    add_tick(noon)
    set_state(noon, last_slot_at=NOW)
    run_id = add_run(noon, "queued", queued_at=NOW)
    cli(*args)
    waits = f"orders of anna: run {run_id} is queued since {NOW}"
    assert _why(cli, "orders", "anna") == (0, f"{waits}, but a worker will skip it: {words}\n")
    assert json.loads(_why(cli, "orders", "anna", "--json")[1])["next_at"] is None
    noon.execute("update system.queued_runs set trigger = 'forced'")
    assert _why(cli, "orders", "anna") == (0, f"{waits}\n")


def test_why_says_that_the_type_is_disabled(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    cli("disable", "orders")
    assert _why(cli, "orders", "anna") == (0, "orders of anna: the type orders is disabled\n")


def test_why_says_that_the_agent_is_not_on_the_whitelist(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    cli("agent", "deny", "anna")
    assert _why(cli, "orders", "anna") == (0, "orders of anna: the agent anna is not on the whitelist\n")


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ([], "everything"),
        (["--type", "orders"], "the type orders"),
        (["--agent", "anna"], "the agent anna"),
        (["--type", "orders", "--agent", "anna"], "orders of anna"),
    ],
)
def test_why_says_what_is_paused_and_until_when(cli: Cli, noon: Database, scope: list[str], words: str) -> None:
    add_tick(noon)
    cli("pause", *(scope or ["--all"]), "--until", "1h", "--reason", "ERP maintenance", env=AT_NOON)
    assert _why(cli, "orders", "anna") == (
        0,
        f"orders of anna: {words} is paused until 2026-03-01T13:00:00Z (ERP maintenance)\n"
        "next at 2026-03-01T13:00:00Z\n",
    )


def test_why_says_until_when_the_pair_rests(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    set_state(noon, consecutive_failures=3, backoff_until="2026-03-01T12:40:00Z")
    assert _why(cli, "orders", "anna") == (
        0,
        "orders of anna: it failed 3 times in a row and rests until 2026-03-01T12:40:00Z\n"
        "next at 2026-03-01T12:40:00Z\n"
        "note: to try again now: archisync retry orders --agent anna\n"
        "note: to end its rest: archisync rest end orders --agent anna\n",
    )


def test_why_adds_that_its_last_runs_failed(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    set_state(noon, consecutive_failures=1)
    assert _why(cli, "orders", "anna")[1].splitlines()[1:] == [
        "note: its last run failed: archisync history orders --agent anna",
        "note: to try again now: archisync retry orders --agent anna",
    ]
    run_id = add_run(noon, "failed", message="the ERP said no", hint="set ARCHISYNC_X")
    assert _why(cli, "orders", "anna")[1].splitlines()[2] == (
        f"note: run {run_id} failed: the ERP said no (hint: set ARCHISYNC_X) (archisync show {run_id})"
    )


def test_why_and_status_add_that_no_worker_is_alive_or_redis_is_away(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    alone = "no worker is alive on the queue archisync: archisync worker --processes 2"
    assert cli("why", "orders", "anna", env=AT_NOON).stdout.splitlines()[1:] == [f"note: {alone}"]
    assert f"warning: {alone}\n" in cli("status", env=AT_NOON).stdout
    away = AT_NOON | {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}
    (note,) = cli("why", "orders", "anna", env=away).stdout.splitlines()[1:]
    assert note.startswith("note: Redis is out of reach")
    assert note.removeprefix("note: ") in cli("status", env=away).stdout


def test_why_adds_that_an_export_is_held(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    run_id = add_held(noon)
    assert _why(cli, "orders", "anna")[1].splitlines()[1:] == [
        f"note: an export of it is held since run {run_id}: archisync held show {run_id}"
    ]


def test_why_adds_that_nobody_calls_tick(cli: Cli, noon: Database) -> None:
    assert _why(cli, "orders", "anna")[1].endswith(NO_TICK)
    add_tick(noon, "2026-03-01T11:57:00Z")
    assert "note:" not in _why(cli, "orders", "anna")[1]
    add_tick(noon, "2026-03-01T11:53:00Z")
    assert _why(cli, "orders", "anna")[1].endswith("note: no tick for 7 minutes: is cron calling archisync tick?\n")


def test_why_of_an_unknown_agent_answers_and_exits_5(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    assert _why(cli, "orders", "nobody") == (ExitCode.NOT_FOUND, "orders of nobody: there is no agent nobody\n")


@pytest.mark.parametrize("args", [["orders"], ["orders", ""]])
def test_why_of_an_agent_type_needs_an_agent(cli: Cli, args: list[str]) -> None:
    done = cli("why", *args)
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.USAGE,
        "",
        "error: orders are fetched for each agent: which one?\nhint: archisync why orders AGENT\n",
    )


def test_why_answers_in_json(cli: Cli, noon: Database) -> None:
    set_state(noon, last_slot_at="2026-03-01T11:56:00Z")
    run_id = add_held(noon)
    assert json.loads(_why(cli, "orders", "anna", "--json")[1]) == {
        "schema": 1,
        "sync_type": "orders",
        "agent_id": "anna",
        "reason": "not-yet",
        "message": "its interval of 10 min has not passed; due at 2026-03-01T12:06:00Z",
        "next_at": "2026-03-01T12:06:00Z",
        "now": NOW,
        "held_run": run_id,
        "notes": [
            f"an export of it is held since run {run_id}: archisync held show {run_id}",
            "no tick has ever run: is cron calling archisync tick?",
        ],
    }


def test_why_names_the_run_that_a_tick_queued(cli: Cli, noon: Database) -> None:
    assert cli("tick").returncode == 0
    assert re.match(r"orders of anna: run \d+ is queued since ", cli("why", "orders", "anna").stdout)


def test_an_id_is_quoted_in_a_command_to_type(cli: Cli, noon: Database) -> None:
    hostile = "anna;$(touch x)"
    noon.execute("insert into agents.users (id, whitelisted) values (%s, true)", [hostile])
    noon.execute(
        "update system.sync_state set consecutive_failures = 4, backoff_until = system.clock() + interval '1 h' where agent_id = %s",
        [hostile],
    )
    noon.execute("update system.sync_state set backoff_until = null where sync_type = 'orders'")
    add_tick(noon)
    assert (
        f"note: its last 4 runs failed: archisync history orders --agent '{hostile}'\n"
        in _why(cli, "orders", hostile)[1]
    )
    assert (
        f"(archisync why customers '{hostile}'; to end the rest: archisync retry customers --agent '{hostile}')"
        in cli("status", env=AT_NOON).stdout
    )
    assert f"hint: did you mean '{hostile}'? " in cli("agent", "show", "anna;$(touch y)").stderr
