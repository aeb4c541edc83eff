"""`interval`, `enable`, `disable`: each says what it did, and a refused change changes nothing."""

import json
import subprocess

import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.conftest import Cli

ALLOWED = "hint: allowed: a whole number of minutes from 5 to 1440\n"
TYPES = "orders, customers, products, prices, ddt, invoices"


def settings(db: Database) -> list[dict[str, object]]:
    return db.execute("select * from system.sync_settings order by sync_type").fetchall()


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("type_name", "minutes", "message"),
    [
        ("orders", "3", f"error: the interval 3 is out of range\n{ALLOWED}"),
        ("orders", "4", f"error: the interval 4 is out of range\n{ALLOWED}"),
        ("orders", "1441", f"error: the interval 1441 is out of range\n{ALLOWED}"),
        ("orders", "99999999999999999999", f"error: the interval 99999999999999999999 is out of range\n{ALLOWED}"),
        ("orders", "ten", f"error: the interval 'ten' is not a whole number\n{ALLOWED}"),
        ("orders", "10.5", f"error: the interval '10.5' is not a whole number\n{ALLOWED}"),
        ("orders", "", f"error: the interval '' is not a whole number\n{ALLOWED}"),
        ("orders", "١٠", f"error: the interval '\\u0661\\u0660' is not a whole number\n{ALLOWED}"),
        ("order", "10", f"error: there is no sync type 'order'\nhint: did you mean orders? allowed: {TYPES}\n"),
        ("", "10", f"error: there is no sync type ''\nhint: allowed: {TYPES}\n"),
    ],
)
def test_a_wrong_interval_names_what_is_allowed_and_changes_nothing(
    cli: Cli, connection: Database, type_name: str, minutes: str, message: str
) -> None:
    before = settings(connection)
    assert said(cli("interval", "set", type_name, minutes)) == (ExitCode.USAGE, "", message)
    assert settings(connection) == before


@pytest.mark.parametrize("minutes", [5, 15, 1440])
def test_interval_change_leaves_other_types_alone(cli: Cli, connection: Database, minutes: int) -> None:
    before = {row["sync_type"]: row for row in settings(connection)}
    assert said(cli("interval", "set", "orders", str(minutes))) == (0, f"orders: every {minutes} min\n", "")
    after = {row["sync_type"]: row for row in settings(connection)}
    assert after.pop("orders")["interval_minutes"] == minutes
    del before["orders"]
    assert after == before


def test_reset_of_one_type_leaves_the_others(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    assert said(cli("interval", "reset", "orders")) == (0, "orders: every 10 min\n", "")
    minutes = {row["sync_type"]: row["interval_minutes"] for row in settings(connection)}
    assert minutes == {"orders": 10, "customers": 77, "products": 77, "prices": 77, "ddt": 77, "invoices": 77}


def test_reset_of_all_types_puts_them_back_to_the_defaults_of_the_environment(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    done = cli("interval", "reset", "--all", env={"ARCHISYNC_INTERVAL_ORDERS": "12"})
    assert done.stdout.splitlines() == [
        "orders: every 12 min",
        "customers: every 15 min",
        "products: every 30 min",
        "prices: every 60 min",
        "ddt: every 20 min",
        "invoices: every 20 min",
    ]
    minutes = {row["sync_type"]: row["interval_minutes"] for row in settings(connection)}
    assert minutes == {"orders": 12, "customers": 15, "products": 30, "prices": 60, "ddt": 20, "invoices": 20}


def test_a_bare_reset_changes_nothing_off_a_terminal(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    before = settings(connection)
    message = (
        "error: which type? without one: put the intervals of all types back; nothing was done\n"
        "hint: archisync interval reset TYPE   (or --all)\n"
    )
    assert said(cli("interval", "reset")) == (ExitCode.USAGE, "", message)
    both = "error: --all goes without a type\nhint: archisync interval reset --all\n"
    assert said(cli("interval", "reset", "orders", "--all")) == (ExitCode.USAGE, "", both)
    assert settings(connection) == before


def test_reset_of_an_empty_type_is_refused_and_does_not_mean_all(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    before = settings(connection)
    message = f"error: there is no sync type ''\nhint: allowed: {TYPES}\n"
    assert said(cli("interval", "reset", "")) == (ExitCode.USAGE, "", message)
    assert settings(connection) == before


def test_intervals_are_listed_as_a_plain_table_and_as_json(cli: Cli) -> None:
    cli("interval", "set", "orders", "25")
    cli("disable", "prices")
    table = cli("interval", "list").stdout.splitlines()
    assert table[0].split() == ["TYPE", "MINUTES", "DEFAULT", "ENABLED", "CHANGED"]
    assert [line.split()[:4] for line in table[1:]] == [
        ["orders", "25", "10", "yes"],
        ["customers", "15", "15", "yes"],
        ["products", "30", "30", "yes"],
        ["prices", "60", "60", "no"],
        ["ddt", "20", "20", "yes"],
        ["invoices", "20", "20", "yes"],
    ]
    document = json.loads(cli("interval", "list", "--json").stdout)
    assert document["schema"] == 1
    assert [(i["sync_type"], i["interval_minutes"], i["enabled"]) for i in document["intervals"]][:4] == [
        ("orders", 25, True),
        ("customers", 15, True),
        ("products", 30, True),
        ("prices", 60, False),
    ]


def test_disable_and_enable_change_one_type(cli: Cli, connection: Database) -> None:
    assert said(cli("disable", "prices")) == (0, "prices: disabled\n", "")
    assert [row["sync_type"] for row in settings(connection) if not row["enabled"]] == ["prices"]
    assert said(cli("enable", "prices")) == (0, "prices: enabled\n", "")
    assert all(row["enabled"] for row in settings(connection))
