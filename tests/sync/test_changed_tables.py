"""Somebody alters a table of agent data: the run names the column and what to type, and so does doctor."""

from __future__ import annotations

import pytest

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store.database import Database
from archisync.sync.preview import preview
from tests.conftest import Cli
from tests.support.doctor import examine
from tests.sync.conftest import AGENT, Deliver

KNOWN = "customer_id,name,phone,city\n1,Bar,055 1,Milano\n"
NEW = KNOWN + "2,Osteria,055 2,Torino\n"
CHANGES = {
    "alter table agents.customers drop column phone": (
        "the table agents.customers lacks the column phone, which somebody has dropped or renamed",
        "alter table agents.customers add column phone text",
    ),
    "alter table agents.customers rename column line_digest to digest": (
        "the table agents.customers lacks the column line_digest, which somebody has dropped or renamed",
        "alter table agents.customers add column line_digest uuid",
    ),
    "alter table agents.customers alter column phone type integer using length(phone)": (
        "the column phone of agents.customers is of type integer, not text",
        "alter table agents.customers alter column phone type text using phone::text::text",
    ),
    "alter table agents.customers add column region_code text; update agents.customers set region_code = 'x';"
    " alter table agents.customers alter column region_code set not null": (
        "the column region_code of agents.customers must be filled, and no export has it",
        "alter table agents.customers alter column region_code drop not null   (or give it a default)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_column_that_was_changed_is_named_with_what_to_type(
    connection: Database, csv_config: Config, deliver: Deliver, cli: Cli, change: str
) -> None:
    message, hint = CHANGES[change]
    assert deliver(KNOWN).state == "succeeded"
    connection.execute(change.encode())
    run = deliver(NEW)
    assert (run.state, run.reason, run.message, run.hint) == ("failed", "configuration", message, hint)
    if "lacks" in message:  # else nothing is wrong before something is written
        with pytest.raises(ConfigurationError) as found:
            preview(connection, csv_config, SYNC_TYPES["customers"], AGENT)
        assert (found.value.message, found.value.hint) == (message, hint)
    code, findings = examine(cli, "--only", "tables")
    assert (code, [tuple(one) for one in findings["tables"]]) == (3, [("failed", message, hint)])
    connection.execute(hint.split("   (")[0].encode())
    assert deliver(NEW).state == "succeeded"
    assert examine(cli, "--only", "tables")[0] == 0


def test_what_changes_nothing_for_an_export_is_left_alone(connection: Database, deliver: Deliver, cli: Cli) -> None:
    deliver(KNOWN)
    connection.execute(
        "alter table agents.customers add column note text, add column since date not null default now()"
    )
    connection.execute("create index on agents.customers (city)")
    assert deliver(NEW).state == "succeeded"
    assert examine(cli, "--only", "tables")[0] == 0


def test_a_table_that_is_gone_is_named(connection: Database, deliver: Deliver) -> None:
    deliver(KNOWN)
    connection.execute("drop table agents.customers")
    run = deliver(NEW)
    assert (run.state, run.message) == ("failed", "there is no table agents.customers")
