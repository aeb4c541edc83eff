"""`status`: a row for each type, what is wrong, and everything as JSON."""

import json
from typing import Any

import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.cli.rows import AT_NOON, NOW, add_held, add_run, add_tick, set_state
from tests.conftest import Cli

WITHOUT_REDIS = AT_NOON | {"ARCHISYNC_REDIS_URL": ""}


def test_status_shows_a_row_for_each_type_and_what_is_wrong(cli: Cli, noon: Database) -> None:
    held = add_held(noon)
    running = add_run(noon, "running", sync_type="customers", worker="host-1", started_at=NOW)
    cli("pause", "--type", "ddt", "--reason", "ERP maintenance", env=AT_NOON)
    cli("disable", "prices")
    done = cli("status", env=WITHOUT_REDIS)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0]: line.split()[1] for line in lines[1:7]} == {
        "orders": "held",
        "customers": "stale",
        "products": "stale",
        "prices": "disabled",
        "ddt": "paused",
        "invoices": "stale",
    }
    assert lines[7:] == [
        "warning: no tick has ever run: is cron calling archisync tick?",
        f"running: customers of anna on host-1 (run {running})",
        f"held: orders of anna: 60 % fewer (archisync held show {held})",
        "paused: the type ddt: ERP maintenance",
    ]


def test_status_is_healthy_only_when_nothing_is_wrong(cli: Cli, noon: Database) -> None:
    add_tick(noon, "2026-03-01T11:59:30Z")
    noon.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")
    lines = cli("status", env=WITHOUT_REDIS).stdout.splitlines()
    assert {line.split()[1] for line in lines[1:7]} == {"healthy"}
    assert lines[7:] == ["last tick: 30 s ago on host-1"]
    assert next(line for line in lines if line.startswith("orders")).endswith(f"{NOW}  2026-03-01T12:10:00Z")


def test_a_pair_that_was_never_scheduled_is_due_now(cli: Cli, noon: Database) -> None:
    noon.execute("update system.sync_state set last_slot_at = system.clock()")
    noon.execute("insert into agents.users (id, whitelisted) values ('new', true)")
    due = {line.split()[0]: line.split()[-1] for line in cli("status", env=WITHOUT_REDIS).stdout.splitlines()[1:7]}
    assert (due["orders"], due["products"]) == (NOW, "2026-03-01T12:30:00Z")


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"consecutive_failures": 1}, "failing"),
        ({"consecutive_failures": 3}, "degraded"),
        ({"last_success_at": "2026-03-01T11:40:00Z"}, "stale"),
        ({"last_success_at": "2026-03-01T11:40:01Z"}, "healthy"),
    ],
)
def test_the_word_for_a_type_is_the_worst_that_is_true(
    cli: Cli, noon: Database, columns: dict[str, Any], word: str
) -> None:
    noon.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")
    set_state(noon, **columns)
    types = json.loads(cli("status", "--json", env=AT_NOON).stdout)["types"]
    assert {t["sync_type"]: t["word"] for t in types}["orders"] == word


def test_status_warns_when_the_last_tick_is_older_than_three_minutes(cli: Cli, noon: Database) -> None:
    add_tick(noon, "2026-03-01T11:50:00Z")
    assert cli("status", env=WITHOUT_REDIS).stdout.splitlines()[7:] == [
        "warning: no tick for 10 minutes: is cron calling archisync tick?"
    ]


def test_status_in_json_has_everything(cli: Cli, noon: Database) -> None:
    add_tick(noon)
    held = add_held(noon)
    cli("pause", "--all", env=AT_NOON)
    document = json.loads(cli("status", "--json", env=AT_NOON).stdout)
    assert list(document) == [
        "schema",
        "now",
        "types",
        "last_tick",
        "tick_note",
        "worker_note",
        "running",
        "held",
        "ailing",
        "warned",
        "pauses",
    ]
    assert (document["now"], document["tick_note"]) == (NOW, None)
    assert document["last_tick"]["host"] == "host-1"
    assert [h["run_id"] for h in document["held"]] == [held]
    assert [(p["sync_type"], p["agent_id"]) for p in document["pauses"]] == [(None, None)]
    assert len(document["types"]) == 6


def test_next_due_of_a_pair_that_rests_is_the_end_of_its_rest(cli: Cli, noon: Database) -> None:
    noon.execute("update system.sync_state set last_slot_at = '2026-03-01T11:55:00Z'")
    set_state(noon, backoff_until="2026-03-01T15:00:00Z", consecutive_failures=3)

    def due() -> str:
        return next(x for x in cli("status", env=WITHOUT_REDIS).stdout.splitlines() if x.startswith("orders")).split()[
            -1
        ]

    assert due() == "2026-03-01T15:00:00Z"
    noon.execute("insert into agents.users (id, whitelisted) values ('marco', true)")
    noon.execute("update system.sync_state set last_slot_at = '2026-03-01T11:57:00Z' where agent_id = 'marco'")
    assert due() == "2026-03-01T12:07:00Z"
    cli("disable", "orders")
    assert due() == "-"


def test_the_exit_code_is_for_scripts_and_a_disabled_type_is_not_stale(cli: Cli, noon: Database) -> None:
    add_tick(noon, "2026-03-01T11:59:30Z")
    noon.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")

    def code(**env: str) -> int:
        assert cli("status", env=WITHOUT_REDIS | env).returncode == 0
        return cli("status", "--exit-code", env=WITHOUT_REDIS | env).returncode

    assert code() == ExitCode.DONE
    assert code(ARCHISYNC_REDIS_URL="redis://127.0.0.1:9/0") == ExitCode.SYNC_FAILED
    set_state(noon, last_success_at="2026-03-01T11:00:00Z", consecutive_failures=4)
    assert code() == ExitCode.SYNC_FAILED
    cli("disable", "orders")
    line = next(x for x in cli("status", env=WITHOUT_REDIS).stdout.splitlines() if x.startswith("orders"))
    assert line.split()[1:7] == ["disabled", "10", "1", "0", "0", "0"]
    assert code() == ExitCode.DONE
    cli("enable", "orders")
    set_state(noon, last_success_at=NOW, consecutive_failures=0)
    add_held(noon)
    assert code() == ExitCode.HELD
    noon.execute("delete from system.ticks")
    assert code() == ExitCode.SYNC_FAILED
