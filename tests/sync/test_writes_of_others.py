"""What anybody else writes to agent data is noticed, also within our own transaction and by sessions in which triggers don't fire."""

from __future__ import annotations

import pytest

from archisync.store.database import Database
from tests.support.rows import count
from tests.sync.conftest import Deliver

CUSTOMERS = "customer_id,name,phone\n1,Bar,055 1\n2,Osteria,055 2\n"
ORDERS = "order_id,created_at,customer_id\n{}\n"
NOTED = "select count(*) from system.outside_changes where sync_type = 'customers'"
PHONES = "select string_agg(phone, '|' order by customer_id) as phones from agents.customers"
ON = "create trigger mine after {event} on {table} for each row execute function public.mine()"
FUNCTION = """
create function public.mine() returns trigger language plpgsql as $$ begin
  if pg_trigger_depth() = 1 then {statement}; end if;
  return null;
end $$
"""


def phones(db: Database) -> str:
    row = db.execute(PHONES).fetchone()
    assert row is not None
    return str(row["phones"])


@pytest.mark.parametrize("mine", ["orders", "customers"])
def test_what_a_trigger_of_somebody_writes_while_we_apply_is_noticed_and_repaired(
    connection: Database, deliver: Deliver, mine: str
) -> None:
    deliver(CUSTOMERS)
    deliver(CUSTOMERS)
    assert count(connection, NOTED) == 0
    connection.execute(FUNCTION.format(statement="update agents.customers set phone = 'x' where customer_id = '1'"))
    connection.execute(ON.format(event="insert", table=f"agents.{mine}"))
    if mine == "orders":
        deliver(ORDERS.format("7,2026-01-01,1"), "orders")
    else:
        deliver(CUSTOMERS + "3,Pizzeria,055 3\n")
    assert phones(connection).startswith("x|")
    assert count(connection, NOTED) == 1
    deliver(CUSTOMERS if mine == "orders" else CUSTOMERS + "3,Pizzeria,055 3\n")
    assert phones(connection).startswith("055 1|")


def test_what_a_foreign_key_of_somebody_deletes_is_noticed(connection: Database, deliver: Deliver) -> None:
    orders = ORDERS.format("7,2026-01-01,1\n8,2026-01-01,2")
    deliver(CUSTOMERS)
    deliver(orders, "orders")
    connection.execute(
        "alter table agents.orders add foreign key (agent_id, customer_id) references agents.customers on delete cascade"
    )
    gone = "customer_id,name,phone\n1,Bar,055 1\n"
    deliver(gone)
    deliver(gone)
    assert count(connection, "select count(*) from agents.orders") == 1
    assert count(connection, "select count(*) from system.outside_changes where sync_type = 'orders'") == 1


@pytest.mark.parametrize("role", ["replica", "local"])
@pytest.mark.parametrize(
    "statement",
    [
        "update agents.customers set phone = 'x' where customer_id = '1'",
        "delete from agents.customers where customer_id = '1'",
        "truncate agents.customers",
    ],
)
def test_a_session_in_which_triggers_do_not_fire_is_noticed_too(
    connection: Database, deliver: Deliver, role: str, statement: str
) -> None:
    deliver(CUSTOMERS)
    deliver(CUSTOMERS)
    connection.execute(f"set session_replication_role = {role}")
    connection.execute(statement.encode())
    connection.execute("set session_replication_role = origin")
    run = deliver(CUSTOMERS)
    assert run.reason == "applied", run.message
    assert phones(connection) == "055 1|055 2"


def test_our_own_apply_is_nobody_else(connection: Database, deliver: Deliver) -> None:
    deliver(CUSTOMERS)
    deliver(ORDERS.format("7,2026-01-01,1"), "orders")
    deliver(CUSTOMERS.replace("055 2", "055 3"))
    assert count(connection, "select count(*) from system.outside_changes") == 0
