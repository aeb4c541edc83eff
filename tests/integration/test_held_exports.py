"""The guard on real exports: what it holds, what a person sees of it and decides, and its thresholds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archisync.config import Config
from archisync.database import Database
from archisync.store import agents, runs
from archisync.synctypes import SYNC_TYPES
from tests.conftest import Cli
from tests.rows import count, fingerprint
from tests.rows import sync as sync_now

AGENT = "anna.bianchi"
HEADER = "customer_id,name,phone,city,email\n"
Sync = Callable[[str], runs.Run]


def rows(*numbers: int, key: str = "C", version: str = "") -> str:
    return HEADER + "".join(
        f"{key}{n},Name {n}{version},06 {n}{version},Roma {n}{version},{n}{version}@x.it\n" for n in numbers
    )


@pytest.fixture
def sync(connection: Database, database_url: str, exports: Path) -> Sync:
    """Deliver an export of customers and sync it."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    (exports / AGENT).mkdir()
    config = Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}
    )

    def run(export: str) -> runs.Run:
        (exports / AGENT / "customers.csv").write_text(export, "utf-8")
        return sync_now(connection, config, "customers", AGENT)

    return run


def test_rewritten_keys_show_no_drop_in_the_count_and_are_held(sync: Sync, connection: Database) -> None:
    assert sync(rows(*range(10))).state == "succeeded"
    before = fingerprint(connection, SYNC_TYPES["customers"])
    run = sync(rows(*range(10), key="NEW"))
    assert (run.state, run.reason) == ("held", "planned-deletes")
    assert run.message == "10 of 10 known rows would vanish: 100 % (at most 50 % are applied unasked)"
    assert fingerprint(connection, SYNC_TYPES["customers"]) == before


def test_a_shifted_column_is_held_and_a_changed_one_is_not(sync: Sync, connection: Database) -> None:
    assert sync(rows(*range(10))).state == "succeeded"
    one_field = sync(rows(*range(10)).replace("06 ", "02 "))
    assert (one_field.state, one_field.counts and one_field.counts.updated) == ("succeeded", 10)
    shifted = sync(HEADER + "".join(f"C{n},06 {n},Roma {n},{n}@x.it,Name {n}\n" for n in range(10)))
    assert (shifted.state, shifted.reason) == ("held", "planned-rewrites")
    assert count(connection, "select count(*) from agents.customers where name like 'Name%'") == 10


def test_repeated_drops_below_the_threshold_are_held_by_the_highest_count_of_seven_days(
    sync: Sync, connection: Database
) -> None:
    assert sync(rows(*range(100))).state == "succeeded"
    assert sync(rows(*range(60))).state == "succeeded"
    again = sync(rows(*range(40)))
    assert (again.state, again.reason) == ("held", "high-water")
    connection.execute("set archisync.now = '2026-05-12T12:00:00Z'")
    assert sync(rows(*range(40))).reason == "high-water"  # the seventh day still counts
    connection.execute("set archisync.now = '2026-05-13T12:00:00Z'")
    assert sync(rows(*range(40))).state == "succeeded"


def test_an_acceptance_forgets_the_high_counts(sync: Sync, connection: Database, cli: Cli) -> None:
    sync(rows(*range(100)))
    held = sync(rows(*range(20)))
    assert held.reason == "row-drop"
    assert cli("held", "accept", str(held.run_id), "--why", "sold", "--no-run").returncode == 0
    assert sync(rows(*range(20))).state == "succeeded"
    assert sync(rows(*range(15))).state == "succeeded"


def test_held_show_tells_what_would_vanish_and_change(sync: Sync, cli: Cli) -> None:
    sync(rows(*range(10)))
    held = sync(rows(0, 1).replace("Name 1", "Other 1"))
    shown = cli("held", "show", str(held.run_id))
    assert shown.returncode == 0
    for line in ("  C2\n", "  C1  name: 'Name 1' → 'Other 1'\n", f"archisync held accept {held.run_id} --why"):
        assert line in shown.stdout
    found = json.loads(cli("held", "show", str(held.run_id), "--json").stdout)["held"]
    assert {what: n for what, n in found["planned"].items() if n} == {"known": 10, "vanishing": 8, "changed": 1}
    assert found["changes"] == [{"key": ["C1"], "fields": {"name": ["Name 1", "Other 1"]}}]


def test_a_threshold_is_set_for_one_type_and_reset(sync: Sync, cli: Cli, connection: Database) -> None:
    sync(rows(*range(10)))
    done = cli("guard", "set", "customers", "drop", "80")
    assert (done.returncode, done.stdout) == (0, "customers: an export is held above 80 % (drop)\n")
    assert cli("guard", "set", "customers", "delete", "80").returncode == 0
    assert sync(rows(0, 1)).state == "succeeded"
    listed = json.loads(cli("guard", "list", "--json").stdout)["guard"]
    assert {"sync_type": "customers", "drop": 80, "delete": 80, "rewrite": 50} in listed
    assert {"sync_type": "orders", "drop": 50, "delete": 50, "rewrite": 50} in listed
    assert cli("guard", "reset").returncode == 0
    assert (
        count(connection, "select count(*) from system.sync_settings where drop_percent = 50 and delete_percent = 50")
        == 6
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("customers", "drop", "101"), "the share '101' is not a percentage"),
        (("customers", "drop", "-1"), "hint"),
        (("customers", "drop", "half"), "the share 'half' is not a percentage"),
        (("customer", "drop", "10"), "customers"),
        (("customers", "everything", "10"), "hint"),
    ],
)
def test_a_threshold_that_is_not_allowed_changes_nothing(
    cli: Cli, connection: Database, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("guard", "set", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert count(connection, "select count(*) from system.sync_settings where drop_percent = 50") == 6


def test_the_database_refuses_a_share_above_100(connection: Database) -> None:
    with pytest.raises(Exception, match="sync_settings_drop_is_a_share"):
        connection.execute("update system.sync_settings set drop_percent = 101")


def test_a_first_export_without_one_good_row_is_held_with_its_lines(sync: Sync, connection: Database) -> None:
    run = sync(HEADER + "1,,,,\n2,,,,\n")
    assert (run.state, run.reason) == ("held", "all-rejected")
    assert run.message == "all 2 rows of the export were rejected"
    assert [row["line"] for row in run.warnings[0]["rows"]] == [2, 3]
    assert count(connection, "select count(*) from agents.customers") == 0


def test_an_export_that_looks_unlikely_over_an_emptied_table_is_held(sync: Sync, connection: Database) -> None:
    assert sync(rows(*range(10))).state == "succeeded"
    connection.execute("delete from agents.customers")
    run = sync(rows(1, 2))
    assert (run.state, run.reason) == ("held", "row-drop")
    row = connection.execute("select sample, changes from system.held_exports").fetchone()
    assert row == {"sample": [], "changes": []}  # nothing is there to vanish or to change
    assert run.message == "the export has 2 rows, 10 are known: 80 % fewer (at most 50 % are applied unasked)"
    assert count(connection, "select count(*) from agents.customers") == 0
