"""What happens to good exports in a year, in many rows at once: each of them must be applied unasked."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from archisync.rules.labels import strip_accents
from tests.support.tables import TODAY, Row


class Life(NamedTuple):
    """`change` changes the rows in place."""

    name: str
    type_name: str
    change: Callable[[list[Row], random.Random], None]


def _all(name: str, change: Callable[[Any, random.Random], Any]) -> Callable[[list[Row], random.Random], None]:
    def apply(rows: list[Row], rng: random.Random) -> None:
        for row in rows:
            if row[name] is not None:
                row[name] = change(row[name], rng)

    return apply


def _for_some(change: Callable[[Any], Any]) -> Callable[[Any, random.Random], Any]:
    return lambda value, rng: change(value) if rng.random() < 0.3 else value


def _fill(name: str, value: Any) -> Callable[[list[Row], random.Random], None]:
    def apply(rows: list[Row], _: random.Random) -> None:
        for row in rows:
            row[name] = value

    return apply


def _both(*changes: Callable[[list[Row], random.Random], None]) -> Callable[[list[Row], random.Random], None]:
    def apply(rows: list[Row], rng: random.Random) -> None:
        for change in changes:
            change(rows, rng)

    return apply


def _settle(rows: list[Row], _: random.Random) -> None:
    for row in rows:
        row["settled_amount"], row["remaining_amount"] = row["total_amount"], Decimal(0)
        row["last_settlement_date"], row["closed"] = TODAY, True


def _exchange_settled(rows: list[Row], _: random.Random) -> None:
    """What was to be paid is paid: the settled amount becomes what remained."""
    for row in rows:
        row["settled_amount"], row["remaining_amount"] = row["remaining_amount"], Decimal(0)


def _cleared(name: str) -> Callable[[list[Row], random.Random], None]:
    def apply(rows: list[Row], rng: random.Random) -> None:
        filled = [row for row in rows if row[name] is not None]
        for row in rng.sample(filled, len(filled) * 30 // 100):
            row[name] = None

    return apply


def _renamed(rows: list[Row], _: random.Random) -> None:
    for row in rows:
        if row["city"] == "Forlì":
            row["city"] = "Forlì-Cesena"


def _handed_over(rows: list[Row], _: random.Random) -> None:
    del rows[: len(rows) * 40 // 100]


def _recoded(name: str, codes: str) -> Callable[[list[Row], random.Random], None]:
    def apply(rows: list[Row], _: random.Random) -> None:
        values = sorted({str(row[name]) for row in rows if row[name] is not None})
        for row in rows:
            if row[name] is not None:
                row[name] = f"{codes}{values.index(str(row[name])) + 1}"

    return apply


def _price(low: int, high: int) -> Callable[[list[Row], random.Random], None]:
    return _all("unit_price", lambda price, rng: round(price * (100 + rng.randint(low, high)) / 100, 2))


LIFE = [
    Life("all orders closed", "orders", _fill("status", "chiuso")),
    Life("a new code for each status", "orders", _recoded("status", "S")),
    Life("a discount for all", "orders", _fill("discount_percent", Decimal(20))),
    Life("delivered in one day", "orders", _fill("delivery_date", TODAY)),
    Life("all completed in one day", "orders", _both(_fill("completion_date", TODAY), _fill("status", "consegnato"))),
    Life("deliveries a day later", "orders", _all("delivery_date", lambda d, _: d + timedelta(days=1))),
    Life("deliveries a week later", "ddt", _all("delivery_date", lambda d, _: d + timedelta(days=7))),
    Life("another courier for all", "ddt", _fill("courier", "GLS")),
    Life("terms for all", "customers", _fill("delivery_terms", "porto franco")),
    Life("all of one type", "customers", _fill("customer_type", "D")),
    Life("sales at the year's end", "customers", _both(_fill("sales_amount", Decimal(0)), _fill("orders_count", 0))),
    Life("all ordered once more", "customers", _all("orders_count", lambda n, _: n + 1)),
    Life("a prefix for phones", "customers", _all("phone", lambda t, _: f"+39 {t}")),
    Life("phones without blanks", "customers", _all("phone", lambda t, _: t.replace(" ", ""))),
    Life("names in capitals", "customers", _all("name", lambda t, _: t.upper())),
    Life("names without capitals", "customers", _all("name", lambda t, _: t.lower())),
    Life("names without accents", "customers", _all("name", lambda t, _: strip_accents(t))),
    Life("a town renamed", "customers", _renamed),
    Life("contacts dealt anew", "customers", _all("contact", lambda _, rng: rng.choice(["Anna", "Luca", "Marco", "Sara"]))),
    Life("extensions dropped", "customers", _all("phone", lambda t, _: t.rsplit(" ", 1)[0])),
    Life("a part of the fax numbers cleared", "customers", _cleared("fax")),
    Life("a part of the phone numbers cleared", "customers", _cleared("phone")),
    Life("handed to another agent", "customers", _handed_over),
    Life("countries spelled as codes", "customers", _all("country", lambda _t, _: "IT")),
    Life("all invoices settled", "invoices", _settle),
    Life("what remained is paid", "invoices", _exchange_settled),
    Life("other terms for all", "invoices", _fill("payment_terms", "60 gg d.f.")),
    Life("due in one day", "invoices", _fill("due_date", TODAY + timedelta(days=30))),
    Life("all closed", "invoices", _fill("closed", True)),
    Life("prices 3 to 8 % up", "products", _price(3, 8)),
    Life("prices 5 % up", "products", _price(5, 5)),
    Life("prices doubled", "products", _price(100, 100)),
    Life("prices in dollars", "prices", _both(_price(9, 9), _fill("currency", "USD"))),
    Life("a season starts", "products", _fill("discontinued", False)),
    Life("stock is empty", "products", _fill("units_in_stock", Decimal(0))),
    Life("an inventory", "products", _all("units_in_stock", lambda n, rng: max(Decimal(0), n + rng.randint(-9, 9)))),
    Life("an inventory of everything", "products", _all("units_in_stock", lambda _, rng: Decimal(rng.randint(0, 400)))),
    Life("all touched", "products", _all("modified_at", lambda t, _: t.replace(year=2026, month=5, day=4, hour=6))),
    Life("new units", "products", _recoded("unit", "U")),
    Life("new groups", "products", _both(_recoded("group_code", "GR"), _recoded("group_name", "Gruppo "))),
    Life("mails at a new domain", "customers", _all("email", lambda t, _: f"{t.split('@')[0]}@azienda.example")),
    Life("phones with other numbers for some", "customers", _all("phone", _for_some(lambda t: f"049 {t[::-1]}"))),
    Life("descriptions translated", "products", _all("description", lambda t, _: f"Ground and roasted goods {t.split()[-1]}")),
    Life("streets spelled in short", "customers", _all("street", lambda t, _: t.replace("Via ", "V. ").replace("Piazza ", "P.za "))),
    Life("a sale of 20 %", "products", _price(-20, -20)),
    Life("a sale that ends", "products", _price(25, 25)),
    Life("prices in steps of ten cents", "products", _all("unit_price", lambda p, _: round(p, 1))),
    Life("half of the goods are back", "products", _all("discontinued", lambda b, rng: b and rng.random() < 0.5)),
    Life("dates of invoices corrected for some", "invoices", _all("invoice_date", _for_some(lambda d: d - timedelta(days=d.day)))),
    Life("contracts a year longer", "prices", _all("valid_to", lambda d, _: d.replace(year=d.year + 1, day=min(d.day, 28)))),
    Life("a new price list", "prices", _price(-4, 9)),
]  # fmt: skip
