"""Printed reports from the file to the table: every sync type, Italian numbers and dates, cells that hold several fields."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Field, Kind, Scope, SyncType
from archisync.store import agents, runs
from archisync.store.database import Database
from tests.support.builtintypes import DDT
from tests.support.reports import cut, write_report
from tests.support.rows import sync as sync_now

AGENT = "anna.bianchi"
ROME = ZoneInfo("Europe/Rome")
Sync = Callable[..., runs.Run]

# What is printed and what is stored; {} and n are the row's number.
SAMPLES: dict[Kind, tuple[str, Callable[[int], Any]]] = {
    Kind.TEXT: ("Città {} & perché", lambda n: f"Città {n} & perché"),
    Kind.IDENTIFIER: ("7{}.962", lambda n: f"7{n}962"),
    Kind.NUMBER: ("-1.2{},65 €", lambda n: Decimal(f"-12{n}.65")),
    Kind.INTEGER: ("1.8{}", lambda n: int(f"18{n}")),
    Kind.DATE: ("07/11/20{}", lambda n: date(2000 + n, 11, 7)),
    Kind.TIMESTAMP: ("07/11/20{} 16:30:05", lambda n: datetime(2000 + n, 11, 7, 16, 30, 5, tzinfo=ROME)),
    Kind.BOOLEAN: ("Sì", lambda n: True),
}
NUMBERS = range(10, 34)


@pytest.fixture
def sync(connection: Database, database_url: str, exports: Path) -> Sync:
    """Draw a report of a sync type and sync it. The options are those of `write_report`."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    config = Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.pdf"}
    )

    def run(sync_type: SyncType, header: list[str], rows: list[list[str]], **options: Any) -> runs.Run:
        agent = AGENT if sync_type.scope is Scope.AGENT else SHARED_AGENT
        (exports / agent).mkdir(exist_ok=True)
        path = exports / agent / f"{sync_type.name}.pdf"
        write_report(path, slices(header), header, rows, rows_per_page=10, **options)
        return sync_now(connection, config, sync_type.name, agent)

    return run


def slices(header: list[str]) -> list[list[int]]:
    return cut(len(header), 4, 4, 4, 4, 4)


def label(field: Field) -> str:
    return field.aliases[0] if field.aliases else field.name.upper()


@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=lambda sync_type: sync_type.name)
def test_every_field_of_every_type_is_stored(sync: Sync, connection: Database, sync_type: SyncType) -> None:
    rows = [[SAMPLES[field.kind][0].format(number) for field in sync_type.fields] for number in NUMBERS]
    run = sync(sync_type, [label(field) for field in sync_type.fields], rows, footer=True)
    assert run.counts is not None, run.message
    assert (run.state, run.counts.inserted) == ("succeeded", len(NUMBERS)), run.message
    names = [field.name for field in sync_type.fields]
    found = connection.execute(
        f"select {', '.join(names)} from {sync_type.table} order by {sync_type.key[0]}"
    ).fetchall()
    expected = [{field.name: SAMPLES[field.kind][1](number) for field in sync_type.fields} for number in NUMBERS]
    assert found == expected
    assert run.export is not None
    assert run.export["detected"]["format"] == "pdf"
    assert {w["code"]: w["count"] for w in run.warnings}["skipped-rows"] == 1


def test_two_columns_with_one_label_and_a_tracking_cell_are_read(sync: Sync, connection: Database) -> None:
    header = ["ID", "NUMERO DDT", "NUMERO ORDINE", "NOME CONSEGNA", "NOME CONSEGNA", "NUMERO TRACKING"]
    rows = [
        ["1", "DDT/1", "ORD/1", "Rossi", "Via Roma 1", '<a href="https://evil.example/1">FedEx 4452aB</a>'],
        ["2", "DDT/2", "ORD/2", "Verdi", "", "991"],
        ["0", "", "", "", "", ""],
    ]
    run = sync(DDT, header, rows, column_width=120)
    assert run.counts is not None, run.message
    assert (run.state, run.counts.inserted) == ("succeeded", 2), run.message
    found = connection.execute(
        "select delivery_name, delivery_address, courier, tracking_number, tracking_url from agents.ddt order by ddt_number"
    ).fetchall()
    assert [tuple(row.values()) for row in found] == [
        ("Rossi", "Via Roma 1", "fedex", "4452aB", "https://www.fedex.com/fedextrack/?trknbr=4452aB"),
        ("Verdi", None, None, "991", None),
    ]


@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=lambda sync_type: sync_type.name)
def test_columns_may_move_and_more_columns_may_come(sync: Sync, sync_type: SyncType) -> None:
    rows = [[SAMPLES[field.kind][0].format(number) for field in sync_type.fields] for number in NUMBERS]
    header = [label(field) for field in sync_type.fields]
    sync(sync_type, header, rows)
    moved = [*range(len(header) - 1, len(header) // 2, -1), *range(len(header) // 2 + 1)]
    run = sync(
        sync_type,
        ["NUOVA", *(header[at] for at in moved), "ALTRA"],
        [["a", *(row[at] for at in moved), "b"] for row in rows],
    )
    assert run.counts is not None, run.message
    assert (run.state, run.counts.unchanged, run.counts.updated) == ("succeeded", len(NUMBERS), 0), run.message
    assert {w["code"]: w["count"] for w in run.warnings}["ignored-columns"] == 2


def damages(slices: int) -> dict[str, tuple[dict[str, list[int]], str]]:
    """The options that damage a report of three cycles, and the reason of the hold."""
    return {
        "no last page": ({"drop_pages": [3 * slices - 1]}, "truncated"),
        "no page in a cycle": ({"drop_pages": [2 * slices + 1]}, "unreadable"),
        "no row at a page's end": ({"shorten_pages": [slices]}, "truncated"),
    }


@pytest.mark.parametrize("damage", damages(1))
@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=lambda sync_type: sync_type.name)
def test_a_damaged_report_is_held_and_changes_nothing(
    sync: Sync, connection: Database, sync_type: SyncType, damage: str
) -> None:
    rows = [[SAMPLES[field.kind][0].format(number) for field in sync_type.fields] for number in NUMBERS]
    header = [label(field) for field in sync_type.fields]
    options, reason = damages(len(slices(header)))[damage]
    sync(sync_type, header, rows)
    run = sync(sync_type, header, rows, **options)
    assert (run.state, run.reason) == ("held", reason)
    found = connection.execute(f"select 1 from {sync_type.table} where absent_since is null").fetchall()
    assert len(found) == len(rows)


def test_a_report_without_a_required_column_is_held(sync: Sync) -> None:
    run = sync(SYNC_TYPES["customers"], ["ID", "CITTÀ"], [["1", "Roma"]])
    assert (run.state, run.reason) == ("held", "missing-column")


def test_no_row_becomes_absent_when_the_footer_announces_more_rows_than_there_are(
    sync: Sync, connection: Database
) -> None:
    sync_type = SYNC_TYPES["customers"]
    rows = [[SAMPLES[field.kind][0].format(number) for field in sync_type.fields] for number in NUMBERS]
    header = [label(field) for field in sync_type.fields]
    sync(sync_type, header, rows, footer=True)
    cycle = len(slices(header))
    changed = [[row[0], f"{row[1]} e figli", *row[2:]] for row in rows]
    for _ in range(3):  # the same bytes confirm nothing, and each run has the warning
        run = sync(sync_type, header, changed, footer=True, drop_pages=range(cycle, 2 * cycle))
        assert run.counts is not None, run.message
        assert (run.state, run.reason, run.counts.seen) == ("succeeded", "applied-with-warnings", 14), run.message
        assert (run.counts.absent, run.counts.deleted) == (0, 0)
        assert {w["code"]: w["count"] for w in run.warnings} == {"skipped-rows": 1, "lacking-rows": 10}
    found = connection.execute("select count(*) as n, count(absent_since) as gone from agents.customers").fetchone()
    assert found == {"n": len(NUMBERS), "gone": 0}
    run = sync(sync_type, header, [row for row in changed if row[0] != rows[0][0]], footer=True)
    assert run.counts is not None, run.message
    assert (run.reason, run.counts.updated, run.counts.absent) == ("applied-with-warnings", 10, 1), run.message
