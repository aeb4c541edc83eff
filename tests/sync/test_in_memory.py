"""A small difference is found in memory: with every type and every kind of value the outcome is that of comparing in the database."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Kind, Scope, SyncType
from archisync.store.database import Database
from archisync.store.runs import Counts, Run
from archisync.store.typetables import COLUMN_TYPE
from archisync.sync import inmemory
from tests.support.properties import examples
from tests.support.rows import BOOKKEEPING, count, forget_exports
from tests.sync.conftest import AGENT, Deliver

VALUES = {
    Kind.TEXT: ["", "a", "A", "à", "b  b", "10", "9", "null", 'say "x"'],
    Kind.IDENTIFIER: ["", "7", "007", "9", "10", "a"],
    Kind.NUMBER: ["", "0", "-0", "1", "1.0", "1.50", "-2.5", "1234567.125", "1000"],
    Kind.INTEGER: ["", "0", "7", "12"],
    Kind.DATE: ["", "2026-03-01", "01/03/2026", "2026-12-31"],
    Kind.TIMESTAMP: [
        "",
        "2026-03-01 12:00:00",
        "2026-07-01T12:00:00",
        "2026-03-01 12:00:00.5",
        "2026-03-01 13:00:00+02:00",
    ],
    Kind.BOOLEAN: ["", "true", "false"],
}
KEYS = {Kind.IDENTIFIER: ["1", "2", "03"], Kind.DATE: VALUES[Kind.DATE][:2], Kind.NUMBER: ["", "1.0", "1"]}
OUTSIDE = ["", "", "", "null", "infinity"]

Rows = list[list[str]]


@st.composite
def several(draw: st.DrawFn) -> tuple[SyncType, list[tuple[Rows, str, str]]]:
    """A type, and exports of it with how each run is triggered and what somebody else writes to the table afterwards."""
    sync_type = SYNC_TYPES[draw(st.sampled_from(list(SYNC_TYPES)))]
    cells = [
        st.sampled_from((KEYS if field.name in sync_type.key else VALUES)[field.kind]) for field in sync_type.fields
    ]
    rows = st.lists(st.tuples(*cells).map(list), min_size=1, max_size=5)
    export = st.tuples(rows, st.sampled_from(["scheduled", "forced"]), st.sampled_from(OUTSIDE))
    return sync_type, draw(st.lists(export, min_size=2, max_size=4))


def text_of(sync_type: SyncType, rows: Rows) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[field.name for field in sync_type.fields], *rows])
    return out.getvalue()


def write_outside(db: Database, sync_type: SyncType, what: str) -> None:
    """Change a value of the first row that is not part of its key: to nothing, or to one that only PostgreSQL can express."""
    optional = [f for f in sync_type.fields if not f.required and f.name not in sync_type.key]
    name = next((f.name for f in optional if f.kind is Kind.DATE or what == "null"), None)
    if what and name:
        db.execute(
            f"update {sync_type.table} set {name} = nullif(%s, 'null')::{COLUMN_TYPE[sync_type.field(name).kind]}"
            f" where ctid = (select ctid from {sync_type.table} order by {', '.join(sync_type.key)} limit 1)",
            [what],
        )


def outcomes(
    deliver: Deliver, db: Database, sync_type: SyncType, deliveries: Sequence[tuple[Rows, str, str]]
) -> list[tuple[Any, ...]]:
    """What each export comes to, from an empty table on: state, reason, counts, warnings, what a person sees of a hold, and the table."""
    for statement in (sync_type.table, "system.sync_runs cascade", "system.outside_changes"):
        db.execute(f"truncate {statement}")
    forget_exports(db)
    agent_id = SHARED_AGENT if sync_type.scope is Scope.SHARED else AGENT
    found = []
    for rows, trigger, outside in deliveries:
        run = deliver(text_of(sync_type, rows), sync_type.name, agent=agent_id, trigger=trigger)
        held = db.execute(
            "select rule, message, rows_valid, sample, planned, changes from system.held_exports where run_id = %s",
            [run.run_id],
        ).fetchall()
        table = db.execute(
            f"select to_jsonb(t) - %s::text[] as row, absent_since is not null as absent from {sync_type.table} t order by 1",
            [list(BOOKKEEPING)],
        ).fetchall()
        warnings = [(w["code"], w["count"], w.get("rows")) for w in run.warnings]
        said = "unchanged" if (run.reason or "").startswith("unchanged") else (run.reason, run.message)
        found.append((run.state, said, run.counts, warnings, held, table))
        write_outside(db, sync_type, outside)
    return found


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=several())
def test_a_type_compared_in_memory_has_the_outcome_of_the_database(
    deliver: Deliver,
    connection: Database,
    monkeypatch: pytest.MonkeyPatch,
    exports: Path,
    drawn: tuple[SyncType, list[tuple[Rows, str, str]]],
) -> None:
    (exports / SHARED_AGENT).mkdir(exist_ok=True)  # an agent that needs no registration
    sync_type, deliveries = drawn
    in_memory = outcomes(deliver, connection, sync_type, deliveries)
    with monkeypatch.context() as patched:
        patched.setattr(inmemory, "MOST_ROWS", -1)
        in_database = outcomes(deliver, connection, sync_type, deliveries)
    for delivery, (small, large) in enumerate(zip(in_memory, in_database, strict=True)):
        assert small == large, (sync_type.name, delivery)


@pytest.fixture(params=["memory", "database"])
def _compared_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "database":
        monkeypatch.setattr(inmemory, "MOST_ROWS", -1)


def warnings_of(run: Run) -> list[tuple[str, int]]:
    return [(warning["code"], warning["count"]) for warning in run.warnings]


HEADER = "customer_id,name,last_order_date\n"
CUSTOMERS = HEADER + "C1,Uno,2026-03-01\nC2,Due,2026-03-02\n"


@pytest.mark.usefixtures("_compared_in")
@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 BC"])
def test_a_date_that_only_postgresql_can_express_is_repaired(
    deliver: Deliver, connection: Database, value: str
) -> None:
    deliver(CUSTOMERS)
    connection.execute("update agents.customers set last_order_date = %s where customer_id = 'C2'", [value])
    assert deliver(CUSTOMERS).counts == Counts(seen=2, updated=1, unchanged=1)
    assert count(connection, "select count(*) from agents.customers where last_order_date = '2026-03-02'") == 1


@pytest.mark.usefixtures("_compared_in")
def test_only_good_rows_that_are_identical_count_as_repeated(deliver: Deliver) -> None:
    deliver(CUSTOMERS)
    good = "".join(f"C{n},Name {n},\n" for n in range(10, 15))
    bad = deliver(CUSTOMERS + good + "C2,Due,never\nC2,Due,never\nC3,,\nC3,,\n")
    assert (bad.state, warnings_of(bad)) == ("succeeded", [("quarantined", 4)])
    conflicting = deliver(CUSTOMERS + "C3,Tre,\nC3,Drei,\nC3,Drei,\nC3,Tre,\n")
    assert (conflicting.reason, warnings_of(conflicting)) == ("duplicate-keys", [("repeated-rows", 2)])


@pytest.mark.usefixtures("_compared_in")
def test_a_known_line_beside_a_bad_row_of_its_key_is_looked_at(deliver: Deliver) -> None:
    """Whether its order is known, for example."""
    known = "ddt_number,order_number,delivery_date\nD1,12,2026-03-01\n"
    assert warnings_of(deliver(known, "ddt")) == [("unknown-orders", 1)]
    beside = deliver(known + "D1,12,never\n", "ddt")
    assert (beside.counts, warnings_of(beside)) == (
        Counts(seen=2, unchanged=1, quarantined=1),
        [("quarantined", 1), ("unknown-orders", 1)],
    )


@pytest.mark.usefixtures("_compared_in")
def test_a_table_in_several_parts_is_compared_as_one(deliver: Deliver, connection: Database) -> None:
    """Rows of different parts may have the same place in their part."""
    rows = [f"C{n},Name {n},\n" for n in range(8)]
    deliver(HEADER + "".join(rows))
    connection.execute("set session_replication_role = replica")
    connection.execute("create table agents.customers_part () inherits (agents.customers)")
    connection.execute(
        "with moved as (delete from agents.customers where customer_id >= 'C4' returning *)"
        " insert into agents.customers_part select * from moved"
    )
    connection.execute("reset session_replication_role")
    places = "select count(*) - count(distinct ctid) from agents.customers"
    assert count(connection, places) == 4
    changed = [*rows[:1], "C1,Another,\n", *rows[2:6], "C6,New name,\n"]
    assert deliver(HEADER + "".join(changed)).counts == Counts(seen=7, updated=2, unchanged=5, absent=1)
    names = connection.execute(
        "select customer_id, name, absent_since is null as here from agents.customers order by 1"
    )
    assert [(row["name"], row["here"]) for row in names] == [
        ("Name 0", True), ("Another", True), *((f"Name {n}", True) for n in range(2, 6)), ("New name", True), ("Name 7", False),
    ]  # fmt: skip
