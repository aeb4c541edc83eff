"""The guard on real exports: what it holds, what a person sees and decides, and the thresholds."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import held, runs
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.rows import count, fingerprint
from tests.support.rows import sync as sync_now
from tests.sync.conftest import AGENT, Deliver

HEADER = "customer_id,name,phone,city,email\n"
Sync = Callable[[str], runs.Run]


def rows(*numbers: int, key: str = "C", version: str = "") -> str:
    return HEADER + "".join(
        f"{key}{n},Name {n}{version},06 {n}{version},Roma {n}{version},{n}{version}@x.it\n" for n in numbers
    )


@pytest.fixture
def sync(connection: Database, deliver: Deliver) -> Sync:
    """Deliver an export of customers and force a sync of it, at noon."""
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    return lambda export: deliver(export, trigger="forced")


def test_rewritten_keys_are_held_although_the_count_does_not_drop(sync: Sync, connection: Database) -> None:
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
    assert (shifted.state, shifted.reason) == ("held", "columns-swapped")
    assert count(connection, "select count(*) from agents.customers where name like 'Name%'") == 10


@pytest.mark.parametrize("first", [True, False], ids=["first load", "known rows"])
def test_an_export_of_which_most_rows_are_rejected_is_held_until_accepted(
    sync: Sync, connection: Database, first: bool
) -> None:
    if not first:
        assert sync(rows(*range(10))).state == "succeeded"
    before = fingerprint(connection, SYNC_TYPES["customers"])
    bad = rows(*range(4)) + "".join(f"C{n},,06 {n},Roma,{n}@x.it\n" for n in range(4, 10))
    run = sync(bad)
    assert (run.state, run.reason) == ("held", "quarantined")
    assert run.message == "6 of 10 rows of the export were rejected: 60 % (at most 50 % are applied unasked)"
    assert fingerprint(connection, SYNC_TYPES["customers"]) == before
    held.decide(connection, run.run_id, accept=True, by="mrossi", why="the ERP has no names for old customers")
    assert sync(bad).state == "succeeded"


def test_an_export_with_more_than_ten_times_the_known_rows_is_held(sync: Sync, connection: Database) -> None:
    assert sync(rows(*range(10))).state == "succeeded"
    run = sync(rows(*range(1001)))
    assert (run.state, run.reason) == ("held", "row-growth")
    assert run.message == "the export has 1001 rows, 10 are known: more than 10 times as many"
    assert count(connection, "select count(*) from agents.customers") == 10
    assert sync(rows(*range(1000))).state == "succeeded"


@pytest.mark.parametrize(("fields", "state"), [("name", "succeeded"), ("name,phone", "held")])
def test_the_only_field_may_change_in_every_row_and_two_of_two_may_not(sync: Sync, fields: str, state: str) -> None:
    def export(version: int) -> str:
        values = ",".join(f"{field} {version}" for field in fields.split(","))
        return f"customer_id,{fields}\n" + "".join(f"C{n},{values}\n" for n in range(10))

    assert sync(export(1)).state == "succeeded"
    assert sync(export(2)).state == state


def test_a_row_with_half_of_its_fields_changed_does_not_count_as_rewritten(sync: Sync) -> None:
    def export(first: str, second: str) -> str:
        return HEADER + "".join(f"C{n},{first},{first},{second},{second}\n" for n in range(10))

    assert sync(export("a", "b")).state == "succeeded"
    assert sync(export("x", "b")).state == "succeeded"
    assert sync(export("y", "b").replace("b,b\n", "b,z\n")).reason == "planned-rewrites"


def test_an_absent_row_that_comes_back_changed_does_not_count_as_rewritten(sync: Sync) -> None:
    """The guard counted it as gone before."""
    sync(rows(*range(10)))
    sync(rows(*range(5)))
    back = sync(rows(*range(5)) + rows(*range(5, 10), version="x").removeprefix(HEADER))
    assert back.counts == runs.Counts(seen=10, updated=5, unchanged=5, restored=5)


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
    stopped = sync(rows(*range(20)))
    assert stopped.reason == "row-drop"
    assert cli("held", "accept", str(stopped.run_id), "--why", "sold", "--no-run").returncode == 0
    assert sync(rows(*range(20))).state == "succeeded"
    assert sync(rows(*range(15))).state == "succeeded"


def test_held_show_lists_what_would_vanish_and_change(sync: Sync, cli: Cli) -> None:
    sync(rows(*range(10)))
    stopped = sync(rows(0, 1).replace("Name 1", "Other 1"))
    shown = cli("held", "show", str(stopped.run_id))
    assert shown.returncode == 0
    for line in ("  C2\n", "  C1  name: 'Name 1' → 'Other 1'\n", f"archisync held accept {stopped.run_id} --why"):
        assert line in shown.stdout
    found = json.loads(cli("held", "show", str(stopped.run_id), "--json").stdout)["held"]
    assert {what: n for what, n in found["planned"].items() if n} == {"known": 10, "vanishing": 8, "changed": 1}
    assert found["changes"] == [{"key": ["C1"], "fields": {"name": ["Name 1", "Other 1"]}}]


def test_a_number_written_with_another_scale_is_no_change(sync: Sync, connection: Database) -> None:
    header = "customer_id,name,sales_amount\n"
    sync(header + "".join(f"C{n},Name {n},1.5\n" for n in range(10)))
    sync(header + "C0,Name 0,1.50\nC1,Other,1.50\nC2,,\n")
    row = connection.execute("select changes from system.held_exports").fetchone()
    assert row == {"changes": [{"key": ["C1"], "fields": {"name": ["Name 1", "Other"]}}]}


def test_a_threshold_is_set_for_one_type_and_reset(sync: Sync, cli: Cli, connection: Database) -> None:
    sync(rows(*range(10)))
    done = cli("guard", "set", "customers", "drop", "80")
    assert (done.returncode, done.stdout) == (0, "customers: an export is held above 80 % (drop)\n")
    assert cli("guard", "set", "customers", "delete", "80").returncode == 0
    assert sync(rows(0, 1)).state == "succeeded"
    listed = json.loads(cli("guard", "list", "--json").stdout)["guard"]
    assert {"sync_type": "customers", "drop": 80, "delete": 80, "rewrite": 50, "columns": {}} in listed
    assert {"sync_type": "orders", "drop": 50, "delete": 50, "rewrite": 50, "columns": {}} in listed
    bare = cli("guard", "reset")
    assert (bare.returncode, bare.stderr.splitlines()[-1]) == (2, "hint: archisync guard reset TYPE   (or --all)")
    assert cli("guard", "reset", "--all").returncode == 0
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
        (("customers", "drop", "10", "phone"), "drop is a share of rows, not of a column"),
        (("customers", "emptied", "10", "telephone"), "customers has no column 'telephone'"),
    ],
)
def test_a_threshold_that_is_not_allowed_changes_nothing(
    cli: Cli, connection: Database, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("guard", "set", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert count(connection, "select count(*) from system.sync_settings where drop_percent = 50") == 6


def test_the_thresholds_of_a_column_that_there_is_not_are_not_put_back(cli: Cli, connection: Database) -> None:
    done = cli("guard", "reset", "customers", "telephone")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: customers has no column 'telephone'")
    assert count(connection, "select count(*) from system.audit") == 0


def test_the_database_refuses_a_share_above_100(connection: Database) -> None:
    with pytest.raises(Exception, match="sync_settings_drop_is_a_share"):
        connection.execute("update system.sync_settings set drop_percent = 101")


def test_a_first_export_with_only_bad_rows_is_held_and_its_lines_are_kept(sync: Sync, connection: Database) -> None:
    run = sync(HEADER + "1,,,,\n2,,,,\n")
    assert (run.state, run.reason) == ("held", "all-rejected")
    assert run.message == "all 2 rows of the export were rejected"
    assert [row["line"] for row in run.warnings[0]["rows"]] == [2, 3]
    assert count(connection, "select count(*) from agents.customers") == 0


def test_an_unlikely_export_is_held_although_the_table_was_emptied(sync: Sync, connection: Database) -> None:
    assert sync(rows(*range(10))).state == "succeeded"
    connection.execute("delete from agents.customers")
    run = sync(rows(1, 2))
    assert (run.state, run.reason) == ("held", "row-drop")
    row = connection.execute("select sample, changes from system.held_exports").fetchone()
    assert row == {"sample": [], "changes": []}  # no row is there that could vanish or change
    assert run.message == "the export has 2 rows, 10 are known: 80 % fewer (at most 50 % are applied unasked)"
    assert count(connection, "select count(*) from agents.customers") == 0


ACCEPTED = ("held", "accept")
REJECTED = ("held", "reject")


def decide(cli: Cli, what: tuple[str, ...], run: runs.Run) -> str:
    done = cli(*what, str(run.run_id), "--why", "asked the branch", *(["--no-run"] if what == ACCEPTED else []))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


INTERFERENCE = {
    "inserted": "insert into agents.customers (agent_id, customer_id, name)"
    " select 'anna.bianchi', 'X' || n, 'x' from generate_series(1, 500) n",
    "updated": "update agents.customers set name = 'Another' where customer_id = 'C0'",
    "deleted": "delete from agents.customers where customer_id = 'C9'",
    "a-sync": "update system.sync_state set data_version = data_version + 1",
    "used": "update system.held_exports set used_by_run = run_id",
}


@pytest.mark.parametrize("statement", INTERFERENCE.values(), ids=list(INTERFERENCE))
@pytest.mark.parametrize("before", [False, True], ids=["after-the-decision", "before-it"])
def test_an_acceptance_covers_what_the_person_saw_and_nothing_else(
    sync: Sync, connection: Database, cli: Cli, statement: str, before: bool
) -> None:
    sync(rows(*range(10)))
    stopped = sync(rows(0, 1))
    if before and "held_exports" not in statement:
        connection.execute(statement.encode())
        decide(cli, ACCEPTED, stopped)
    else:
        decide(cli, ACCEPTED, stopped)
        connection.execute(statement.encode())
    table = fingerprint(connection, SYNC_TYPES["customers"])
    again = sync(rows(0, 1))
    assert (again.state, again.reason) == ("held", "row-drop")
    assert fingerprint(connection, SYNC_TYPES["customers"]) == table
    assert sync(rows(0, 1)).state == "held"


@pytest.mark.parametrize(("moment", "state"), [("2026-05-06T11:59:59Z", "succeeded"), ("2026-05-06T12:00:00Z", "held")])
def test_an_acceptance_lasts_24_hours(sync: Sync, connection: Database, moment: str, state: str) -> None:
    sync(rows(*range(10)))
    held.decide(connection, sync(rows(0, 1)).run_id, accept=True, by="anna", why="asked")
    connection.execute(f"set archisync.now = '{moment}'".encode())
    assert sync(rows(0, 1)).state == state


def test_an_acceptance_does_not_cover_another_export(sync: Sync, cli: Cli) -> None:
    sync(rows(*range(10)))
    decide(cli, ACCEPTED, sync(rows(0, 1)))
    assert sync(rows(0, 2)).reason == "row-drop"
    assert sync(rows(0, 1)).counts == runs.Counts(seen=2, unchanged=2, absent=8)


def test_an_acceptance_does_not_cover_another_reading_of_the_same_bytes(
    sync: Sync, connection: Database, csv_config: Config, cli: Cli
) -> None:
    sync(rows(*range(10)))
    decide(cli, ACCEPTED, sync(rows(0, 1)))
    swapped = '{"name": "phone", "phone": "name"}'
    config = Config(environment={**csv_config.environment, "ARCHISYNC_ALIASES_CUSTOMERS": swapped})
    assert sync_now(connection, config, "customers", AGENT).state == "held"
    assert count(connection, "select count(*) from agents.customers where name like 'Name%'") == 10


def test_a_diff_shows_an_accepted_export_as_applied_and_leaves_the_acceptance_unused(
    sync: Sync, cli: Cli, exports: Path
) -> None:
    sync(rows(*range(10)))
    stopped = sync(rows(0, 1))
    env = {"ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}
    assert cli("diff", "customers", "--agent", AGENT, env=env).returncode == 6
    decide(cli, ACCEPTED, stopped)
    for _ in range(2):
        done = cli("diff", "customers", "--agent", AGENT, env=env)
        assert done.returncode == 0, done.stderr
        assert f"(held run {stopped.run_id})" in done.stdout + done.stderr
    assert sync(rows(0, 1)).state == "succeeded"


def test_a_decision_may_be_changed_until_it_is_used(sync: Sync, cli: Cli) -> None:
    sync(rows(*range(10)))
    stopped = sync(rows(0, 1))
    decide(cli, ACCEPTED, stopped)
    decide(cli, REJECTED, stopped)
    again = sync(rows(0, 1))
    assert again.state == "held"
    decide(cli, ACCEPTED, stopped)  # by the run that the person knows
    applied = sync(rows(0, 1))
    assert applied.state == "succeeded"
    over = cli(*REJECTED, str(again.run_id), "--why", "oops")
    assert over.returncode == 2
    assert over.stderr == (
        f"error: the export of run {again.run_id} is accepted already by {applied.warnings[0]['message'].split()[-4]},"
        f" and was applied by run {applied.run_id}\nhint: archisync held show {again.run_id}\n"
    )


def test_a_rejected_export_is_not_asked_about_again(sync: Sync, connection: Database, cli: Cli) -> None:
    sync(rows(*range(10)))
    stopped = sync(rows(0, 1))
    decide(cli, REJECTED, stopped)
    again = sync(rows(0, 1))
    assert again.state == "held"
    assert cli("held", "list").stderr == "nothing is held\n"
    shown = cli("held", "show", str(again.run_id)).stdout
    assert re.search(r"decision +rejected by \S+: asked the branch\n", shown)
    assert f"archisync held accept {again.run_id} --why" in shown
    assert sync(rows(0, 2)).state == "held"  # another export is another question
    assert count(connection, "select count(*) from system.held_exports where decision is null") == 1
    assert sync(rows(0, 1)).state == "held"
    assert count(connection, "select count(*) from system.held_exports where decision is null") == 1


def test_a_decision_may_name_an_earlier_run_that_held_the_same_export(sync: Sync, cli: Cli) -> None:
    sync(rows(*range(10)))
    first, second = sync(rows(0, 1)), sync(rows(0, 1))
    told = decide(cli, ACCEPTED, first)
    assert f"note: the same export as in run {first.run_id} was held again in run {second.run_id}\n" in told
    assert f"the export of run {second.run_id} is accepted for 24 hours\n" in told
    other = sync(rows(0, 2))
    refused = cli(*ACCEPTED, str(second.run_id), "--why", "x")
    assert (refused.returncode, refused.stderr) == (
        2,
        f"error: the export of run {second.run_id} was replaced by that of run {other.run_id}\n"
        f"hint: archisync held show {other.run_id}\n",
    )


UNKNOWN = {
    "not text": ("\0\1\2", "unreadable", None),
    "a column is missing": ("name\nBar\n", "missing-column", None),
    "a key twice": ("customer_id,name\n1,Bar\n1,Osteria\n2,Caffè\n", "duplicate-keys", 2),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_nobody_knows_of_a_held_export_is_not_said_to_be_nothing(
    sync: Sync, connection: Database, what: str
) -> None:
    text, rule, valid = UNKNOWN[what]
    sync("customer_id,name\n1,Bar\n2,Caffè\n")
    run = sync(text)
    assert (run.state, run.reason) == ("held", rule)
    found = held.held_export(connection, run.run_id)
    assert (found.rows_valid, found.planned) == (valid, {})
