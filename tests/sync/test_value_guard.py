"""The guard on the values of real exports, in memory and in the database: what PostgreSQL counts is what the rules are given."""

from __future__ import annotations

import csv
import io
import random
import re
from decimal import Decimal

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import held
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.mutations import cases
from tests.support.rows import fingerprint
from tests.support.tables import Row, table
from tests.support.weighing import verdict
from tests.sync.conftest import AGENT, Deliver


def as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow("" if value is None else value for value in row.values())
    return text.getvalue()


@pytest.mark.usefixtures("compared_in")
@pytest.mark.parametrize("type_name", ["customers", "invoices", "products"])
def test_a_ruined_export_is_held_and_nothing_is_written(deliver: Deliver, connection: Database, type_name: str) -> None:
    """The rule and the numbers are those that an oracle finds without a database."""
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    agent = AGENT if SYNC_TYPES[type_name].scope == "agent" else "service-account"
    old = table(type_name, 40)
    assert deliver(as_csv(old), type_name, agent=agent).state == "succeeded"
    before = fingerprint(connection, SYNC_TYPES[type_name])
    for case in [*cases(type_name, old, 70)][::7]:
        expected = verdict(type_name, old, case.rows, blank={} if case.mutation.rule == "replaced" else None)
        run = deliver(as_csv(case.rows), type_name, agent=agent)
        assert (run.reason, run.message) == (
            (str(expected.rule), expected.message) if expected else (run.reason, run.message)
        ), case.mutation.name
        assert expected is None or fingerprint(connection, SYNC_TYPES[type_name]) == before, case.mutation.name
        if expected is None:
            deliver(as_csv(old), type_name, agent=agent)


@pytest.mark.usefixtures("compared_in")
def test_rows_that_vanish_are_none_that_a_share_is_taken_of(deliver: Deliver) -> None:
    """40 of 100 rows are gone, and of the other 60 the phone of 35 is: 58 % of those that the export has."""
    rows = [f"C{n},Name {n},06 {n}\n" for n in range(100)]
    header = "customer_id,name,phone\n"
    deliver(header + "".join(rows))
    gone = [f"C{n},Name {n},\n" for n in range(35)] + rows[35:60]
    run = deliver(header + "".join(gone))
    assert run.reason == "emptied"
    assert (run.message or "").startswith("phone: loses its value in 35 of 60 rows that have a value: 58 %")


@pytest.mark.usefixtures("compared_in")
def test_a_word_for_a_missing_value_is_a_share_of_the_empty_cells(deliver: Deliver) -> None:
    header = "customer_id,name,phone\n"
    deliver(header + "".join(f"C{n},Name {n},{'' if n < 10 else n}\n" for n in range(30)))
    run = deliver(header + "".join(f"C{n},Name {n},{'NULL' if n < 6 else '' if n < 10 else n}\n" for n in range(30)))
    assert run.message == (
        "phone: gets a word for a missing value, such as NULL, in 6 of 10 rows without a value: 60 % (at most 20 % are applied unasked)"
    )


def test_an_accepted_export_is_applied_once_and_only_that_one(deliver: Deliver, connection: Database) -> None:
    header = "product_id,name,unit_price\n"
    good = header + "".join(f"P{n},Name {n},{n + 1}.50\n" for n in range(20))
    bad = header + "".join(f"P{n},Name {n},{n + 1}50\n" for n in range(20))
    other = bad.replace("P0,Name 0,150", "P0,Name 0,1500")
    for text in (good, bad):
        run = deliver(text, "products", agent="service-account")
    assert (run.state, run.reason) == ("held", "rescaled")
    held.decide(connection, run.run_id, accept=True, by="anna", why="new currency")
    assert deliver(other, "products", agent="service-account").reason == "rescaled"
    held.decide(connection, run.run_id + 1, accept=True, by="anna", why="new currency")
    assert deliver(other, "products", agent="service-account").state == "succeeded"
    prices = connection.execute("select unit_price from shared.products where product_id = 'P1'").fetchone()
    assert prices == {"unit_price": Decimal(250)}
    assert deliver(good, "products", agent="service-account").reason == "rescaled"


def test_of_a_large_change_a_part_is_looked_at_and_the_message_says_so(deliver: Deliver) -> None:
    header = "product_id,name,unit_price\n"
    good = header + "".join(f"P{n},Name {n},{n + 1}.50\n" for n in range(6000))
    bad = header + "".join(f"P{n},Name {n},{n + 1}{'50' if n % 5 else '.50'}\n" for n in range(6000))
    deliver(good, "products", agent="service-account")
    run = deliver(bad, "products", agent="service-account")
    assert (run.state, run.reason) == ("held", "rescaled")
    assert run.message == (
        "unit_price: becomes 100 times as large in about 4800 of 6000 rows that have a value: 80 % "
        "(at most 10 % are applied unasked; estimated from 1000 of 4800 changed rows)"
    )


def test_values_in_other_rows_are_seen_in_a_large_change_too(deliver: Deliver) -> None:
    """Which no part of the rows can show. A list of new prices is none."""
    header = "product_id,name,unit_price\n"
    prices = [f"{n / 100:.2f}" for n in random.Random(0).sample(range(100, 60000), 6000)]

    def export(prices: list[str]) -> str:
        return header + "".join(f"P{n},Name {n},{price}\n" for n, price in enumerate(prices))

    deliver(export(prices), "products", agent="service-account")
    run = deliver(export(prices[1:4001] + prices[:1] + prices[4001:]), "products", agent="service-account")
    assert run.message == (
        "unit_price: has the values that it had, in other rows in 4001 of 6000 rows that have a value: 66 % "
        "(at most 20 % are applied unasked)"
    )
    raised = [f"{float(price) * 1.05:.2f}" for price in prices]
    assert deliver(export(raised), "products", agent="service-account").state == "succeeded"


def test_a_person_sees_column_share_and_three_examples(deliver: Deliver, cli: Cli, connection: Database) -> None:
    header = "product_id,name,unit_price\n"
    deliver(header + "".join(f"P{n},Name {n},{n + 1}.50\n" for n in range(20)), "products", agent="service-account")
    run = deliver(
        header + "".join(f"P{n},Name {n},{n + 1}50\n" for n in range(20)), "products", agent="service-account"
    )
    said = "unit_price: becomes 100 times as large in 20 of 20 rows that have a value: 100 % (at most 10 % are applied unasked)"
    assert run.message == said
    shown = cli("held", "show", str(run.run_id)).stdout
    lines = ["what looks wrong:", f"  rescaled  {said}"]
    lines += ["    '1.50' → '150'", "    '2.50' → '250'", "    '3.50' → '350'"]
    assert "\n".join(lines) in shown
    differing = cli("diff", "products")
    assert differing.returncode == 6
    assert "\n".join(lines) in differing.stdout


def test_values_are_in_no_column_that_a_tick_may_read(deliver: Deliver, connection: Database) -> None:
    """The message and everything else of the run and of the hold; what is withheld is tested with the roles."""
    header = "customer_id,name,phone\n"
    deliver(header + "".join(f"C{n},Secret {n},06 {n}\n" for n in range(20)))
    run = deliver(header + "".join(f"C{n},06 {n},Secret {n}\n" for n in range(20)))
    assert run.reason == "columns-swapped"
    for table_name, withheld in (("system.sync_runs", ""), ("system.held_exports", "sample changes findings")):
        text = connection.execute(
            f"select (to_jsonb(r) - %s::text[])::text as text from {table_name} r where "
            + ("id" if "runs" in table_name else "run_id")
            + " = %s",
            (withheld.split(), run.run_id),
        ).fetchone()
        assert text is not None
        assert "Secret" not in text["text"]


def test_a_threshold_is_set_for_a_rule_and_for_a_column(deliver: Deliver, cli: Cli, connection: Database) -> None:
    rows = [f"C{n},Name {n},06 {n}\n" for n in range(20)]
    header = "customer_id,name,phone\n"
    gone = header + "".join(f"C{n},Name {n},\n" for n in range(12)) + "".join(rows[12:])
    deliver(header + "".join(rows))
    assert deliver(gone).reason == "emptied"
    done = cli("guard", "set", "customers", "emptied", "60", "phone")
    assert (done.returncode, done.stdout) == (0, "customers, phone: an export is held above 60 % (emptied)\n")
    assert cli("guard", "set", "customers", "emptied", "20").returncode == 0
    shown = cli("guard", "list").stdout
    assert re.search(r"^emptied +customers +- +20$", shown, re.MULTILINE)
    assert re.search(r"^emptied +customers +phone +60$", shown, re.MULTILINE)
    assert deliver(gone).state == "succeeded"
    deliver(header + "".join(rows))
    assert cli("guard", "reset", "customers", "phone").stdout == "customers, phone: the type's thresholds\n"
    assert deliver(gone).message == (
        "phone: loses its value in 12 of 20 rows that have a value: 60 % (at most 20 % are applied unasked)"
    )
    cli("guard", "reset", "customers")
    assert "customers" not in cli("guard", "list").stdout.partition("RULE")[2]


def test_the_database_refuses_a_threshold_of_a_column_that_is_no_share(connection: Database) -> None:
    for bad in ('{"emptied": 101}', '{"emptied": -1}', '{"emptied": "x"}', "[]"):
        with pytest.raises(Exception, match="sync_settings_columns_have_shares"):
            connection.execute("update system.sync_settings set column_percents = %s::jsonb", (bad,))
