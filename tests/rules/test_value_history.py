"""The guard's rules about values over time: a year of daily life, and the history of a real company, day by day."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from archisync.rules.reasons import Rule
from archisync.rules.synctypes import SYNC_TYPES
from archisync.rules.values import parse
from tests.support.dailylife import LIFE
from tests.support.histories import replay
from tests.support.mutations import usual_changes
from tests.support.tables import TODAY, Row, table
from tests.support.weighing import verdict

WORKDAYS = 250
NORTHWIND = "ARCHISYNC_TEST_NORTHWIND"
"""A folder with the Northwind sample database as exports: AGENT/TYPE.csv."""
HISTORIES = "ARCHISYNC_TEST_HISTORIES"
"""A folder with a folder for each history: old exports `*.csv` in the order of their names, `type.toml`, and `held.txt`, the names of
exports with a known fault. A file that git has kept makes one: `git log --reverse --format=%h -- FILE`, then `git show COMMIT:FILE`."""


def a_year(type_name: str, seed: int) -> Iterator[tuple[date, list[Row], list[Row]]]:
    """Each work day's rows, after those of the day before: usual changes, a new row, and what comes once a year to many rows."""
    rng = random.Random(f"{type_name} {seed}")
    reserve = table(type_name, 120 + WORKDAYS, seed)
    rows, coming = reserve[:120], reserve[120:]
    once = {rng.randrange(WORKDAYS): life for life in LIFE if life.type_name == type_name}
    for day in range(WORKDAYS):
        new = [dict(row) for row in rows]
        usual_changes(SYNC_TYPES[type_name], new, rng)
        if day in once:
            once[day].change(new, rng)
        new.append(coming[day])
        yield TODAY, rows, new
        rows = new


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 8))])
def test_no_export_of_a_year_of_daily_life_is_held(seed: int) -> None:
    """Of one agent, with all six types; about forty mass changes are among them."""
    held = [
        (name, hold.message)
        for name in SYNC_TYPES.built_in
        for _, old, new in a_year(name, seed)
        if (hold := verdict(name, old, new, blank={})) is not None
    ]
    assert held == []


def northwind() -> Path:
    folder = os.environ.get(NORTHWIND)
    if not folder:
        pytest.skip(f"{NORTHWIND} names no folder with the Northwind exports")
    return Path(folder)


def read(file: Path) -> list[Row]:
    """The rows of an export, typed."""
    kinds = {field.name: field.kind for field in SYNC_TYPES[file.stem].fields}
    zone = ZoneInfo("Europe/Rome")
    with file.open(encoding="utf-8", newline="") as lines:
        return [
            {name: parse(kinds[name], text, "iso", zone) for name, text in row.items()} for row in csv.DictReader(lines)
        ]


def on(day: date, rows: list[Row], name: str) -> list[Row]:
    """Copies of the rows whose date has come."""
    return [dict(row) for row in rows if (value := _day(row[name])) is None or value <= day]


def _day(value: object) -> date | None:
    return value.date() if isinstance(value, datetime) else value if isinstance(value, date) else None


def history(final: dict[str, list[Row]], day: date) -> dict[str, list[Row]]:
    """The exports of an agent as they were on that day: orders are open until they are delivered, customers have what was ordered."""
    orders = on(day, final["orders"], "created_at")
    ddt = on(day, final["ddt"], "delivery_date")
    delivered = {row["order_number"] for row in ddt}
    for row in orders:
        row["status"] = "completed" if row["order_number"] in delivered else "open"
    customers = []
    for row in final["customers"]:
        mine = [order for order in orders if order["customer_id"] == row["customer_id"]]
        if mine:
            amounts = [amount for order in mine if isinstance(amount := order["total_amount"], Decimal)]
            last = max(at for order in mine if (at := _day(order["created_at"])) is not None)
            customers.append({**row, "orders_count": len(mine), "sales_amount": sum(amounts), "last_order_date": last})
    invoices = on(day, final["invoices"], "invoice_date")
    return {"orders": orders, "ddt": ddt, "customers": customers, "invoices": invoices}


@pytest.mark.slow
def test_no_day_of_a_real_companys_history_is_held() -> None:
    """From the second day on; only rules about values, for the first rows multiply from day to day."""
    held, days = [], 0
    for folder in sorted(northwind().glob("agent-*")):
        before: dict[str, list[Row]] = {}
        final = {file.stem: read(file) for file in folder.glob("*.csv")}
        for number in range(680):
            day = date(1996, 7, 4) + timedelta(days=number)
            now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
            exports = history(final, day)
            for name, rows in exports.items():
                old = before.get(name, [])
                if old and rows != old:
                    days += 1
                    hold = verdict(name, old, rows, now=now, blank={})
                    held += [(folder.name, name, day, hold.message)] if hold else []
            before = exports
    assert days > 1000
    assert held == []


@pytest.mark.slow
def test_of_a_given_history_only_known_faults_are_held() -> None:
    folders = [file.parent for file in sorted(Path(os.environ.get(HISTORIES) or os.devnull).glob("*/type.toml"))]
    if not folders:
        pytest.skip(f"{HISTORIES} names no folder with histories")
    for folder in folders:
        days = list(replay(folder))
        known = folder / "held.txt"
        expected = known.read_text("utf-8").split() if known.exists() else []
        held = [(day.export, day.hold.message) for day in days if day.hold]
        assert [export for export, _ in held] == expected, (folder.name, len(days), held)


def test_a_history_is_a_folder_of_exports_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "type.toml").write_text(
        'name = "goods"\nscope = "shared"\ninterval = 60\nkey = ["code"]\n'
        '[fields]\ncode = "identifier"\nprice = { kind = "number", labels = ["Unit price"] }\n',
        "utf-8",
    )
    for number, change in enumerate(("{}.50", "{}.55", "{}55", "{}55")):
        rows = "".join(f"P{n},{change.format(n + 10)}\n" for n in range(9))
        (tmp_path / f"day-{number}.csv").write_text(f"CODE,unit PRICE\n{rows}", "utf-8")
    found = [(day.export, day.hold and day.hold.rule) for day in replay(tmp_path)]
    assert found == [("day-1.csv", None), ("day-2.csv", Rule.RESCALED)]
