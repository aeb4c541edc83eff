"""Somebody deletes the settings of a type with SQL: it has the defaults again, and every command knows it."""

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, settings
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.rows import count

AGENT = "anna.bianchi"
GONE = {
    "one row": "delete from system.sync_settings where sync_type = 'orders'",
    "all rows": "delete from system.sync_settings",
    "truncated": "truncate system.sync_settings",
    "where triggers don't fire": "set session_replication_role = replica; delete from system.sync_settings where sync_type = 'orders';"
    " set session_replication_role = origin",
}


@pytest.mark.parametrize("how", GONE)
def test_a_type_whose_settings_are_deleted_has_the_defaults_again(connection: Database, cli: Cli, how: str) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute(
        "update system.sync_settings set interval_minutes = 77, enabled = false where sync_type = 'orders'"
    )
    connection.execute(GONE[how].encode())
    found = {one.sync_type: (one.interval_minutes, one.enabled) for one in settings.all_settings(connection)}
    assert list(found) == list(SYNC_TYPES)
    assert found["orders"] == (SYNC_TYPES["orders"].default_interval_minutes, True)
    assert cli("why", "orders", AGENT).stdout.startswith(f"orders of {AGENT}: it is due")
    assert cli("disable", "orders").stdout == "orders: disabled\n"
    assert count(connection, "select count(*) from system.sync_settings where not enabled") == 1
    assert [line.split()[:3] for line in cli("status").stdout.splitlines() if line.startswith("orders")] == [
        ["orders", "disabled", "10"]
    ]
    assert cli("run", "orders", "--agent", AGENT).returncode == 0


def test_every_type_s_default_interval_is_in_the_database(connection: Database) -> None:
    rows = connection.execute("select sync_type, default_minutes from system.sync_types").fetchall()
    assert {row["sync_type"]: row["default_minutes"] for row in rows} == {
        name: kind.default_interval_minutes for name, kind in SYNC_TYPES.items()
    }


def test_settings_that_are_restored_in_the_transaction_that_deletes_them_are_as_they_were(connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    with connection.transaction():
        connection.execute("create temp table kept on commit drop as select * from system.sync_settings")
        connection.execute("delete from system.sync_settings")
        connection.execute("insert into system.sync_settings select * from kept")
    assert {one.interval_minutes for one in settings.all_settings(connection)} == {77}
