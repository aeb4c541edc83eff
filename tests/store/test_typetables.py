"""The table of a sync type: its declaration decides columns, key, indexes and triggers, whatever its fields are called."""

import pytest
from hypothesis import HealthCheck, given, settings

from archisync.rules.reservedwords import BOOKKEEPING as BOOKKEEPING_NAMES
from archisync.rules.synctypes import Scope, SyncType
from archisync.store import typetables
from archisync.store.database import Database
from tests.support.builtintypes import ORDERS, PRICES
from tests.support.declarations import sync_types
from tests.support.properties import examples

PRICES_TABLE = """\
create table "shared"."prices" (
  "product_id" text not null,
  "account_code" text not null default '',
  "valid_from" date,
  "quantity_from" numeric not null default '0',
  "product_name" text,
  "unit_price" numeric not null,
  "currency" text,
  "price_unit" text,
  "account_description" text,
  "valid_to" date,
  "quantity_to" numeric,
  "inserted_at" timestamptz not null default system.clock(),
  "updated_at" timestamptz not null default system.clock(),
  "run_id" bigint default nullif(current_setting('archisync.run_id', true), '')::bigint,
  "absent_since" timestamptz,
  "line_digest" uuid,
  unique nulls not distinct ("product_id", "account_code", "valid_from", "quantity_from")
)"""


def test_the_statement_that_makes_a_table_is_written_for_people(connection: Database) -> None:
    assert typetables.create(PRICES)[0].as_string(connection) == PRICES_TABLE


def test_an_agents_table_has_the_agent_first_and_an_index_for_each_distinct_field(connection: Database) -> None:
    table, index, *triggers = [statement.as_string(connection) for statement in typetables.create(ORDERS)]
    assert table.splitlines()[1:3] == [
        "  agent_id text not null default nullif(current_setting('archisync.agent_id', true), ''),",
        '  "order_id" text not null,',
    ]
    assert table.splitlines()[-2] == '  primary key ("agent_id", "order_id")'
    assert index == 'create index on "agents"."orders" ("agent_id", "order_number") where "order_number" is not null'
    made = [t.split()[2] for t in triggers if t.startswith("create ")]
    assert made == list(typetables.TRIGGERS)


def test_the_bookkeeping_columns_have_one_list_of_names() -> None:
    assert tuple(typetables.BOOKKEEPING) == BOOKKEEPING_NAMES


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(30))
@given(sync_types())
def test_every_type_that_can_be_declared_has_a_table(connection: Database, type_: SyncType) -> None:
    with connection.transaction(force_rollback=True):
        for statement in typetables.create(type_):
            connection.execute(statement)
        rows = connection.execute(
            "select attname as name, format_type(atttypid, null) as type, attnotnull as filled from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 order by attnum",
            [type_.table],
        ).fetchall()
    columns = {row["name"]: row["type"].replace("timestamp with time zone", "timestamptz") for row in rows}
    fields = {field.name: typetables.COLUMN_TYPE[field.kind] for field in type_.fields}
    agent = {"agent_id": "text"} if type_.scope is Scope.AGENT else {}
    assert list(columns) == [*agent, *fields, *BOOKKEEPING_NAMES]
    assert columns.items() >= (agent | fields).items()
    empty = {row["name"] for row in rows if not row["filled"]} - set(BOOKKEEPING_NAMES)
    assert empty == {f.name for f in type_.fields if not f.required and f.empty is None} - (
        set(type_.key) - set(type_.nullable_key)
    )
