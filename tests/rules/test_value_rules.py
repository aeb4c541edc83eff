"""The guard's rules about values: ruined exports are held, daily life is not. Pure: the rules with an oracle's counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from archisync.rules.reasons import Limits, Rule
from archisync.rules.synctypes import SYNC_TYPES
from tests.support.dailylife import LIFE, Life
from tests.support.mutations import MUTATIONS, cases, usual_changes
from tests.support.tables import Row, table
from tests.support.weighing import verdict


def customers(number: int, **more: object) -> list[Row]:
    return [{"customer_id": f"C{n}", "name": f"Name {n}", **more} for n in range(number)]  # type: ignore[dict-item]


def held_for(type_name: str, old: list[Row], new: list[Row], limits: Limits | None = None) -> str | None:
    hold = verdict(type_name, old, new, limits=limits)
    return str(hold.rule) if hold else None


def test_there_are_as_many_ways_to_ruin_an_export_as_were_promised() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) >= 40


@pytest.mark.parametrize(
    ("size", "share", "caught"), [(5, 100, 80), (20, 60, 95), (20, 100, 95), (200, 60, 95), (200, 100, 95)]
)
def test_ruined_exports_are_held(size: int, share: int, caught: int) -> None:
    """`python -m tests.benchmarks guarding` makes the whole table."""
    held: Counter[bool] = Counter()
    missed = []
    for name in SYNC_TYPES:
        for case in cases(name, table(name, size), share):
            hold = verdict(name, table(name, size), case.rows)
            held[hold is not None] += 1
            missed += [] if hold else [(name, case.mutation.name, case.columns)]
    assert held[True] * 100 >= held.total() * caught, missed


@pytest.mark.parametrize("life", LIFE, ids=lambda life: life.name)
@pytest.mark.parametrize("size", [5, 20, 200])
def test_daily_life_is_applied_unasked(life: Life, size: int) -> None:
    for seed in range(3):
        old = table(life.type_name, size, seed)
        new = [dict(row) for row in old]
        rng = random.Random(seed)
        usual_changes(SYNC_TYPES[life.type_name], new, rng)
        life.change(new, rng)
        assert verdict(life.type_name, old, new, blank={}) is None


def test_a_share_is_exact_and_may_be_changed_for_a_column() -> None:
    old = customers(100, phone="06 1")
    for row, n in zip(old, range(100), strict=True):
        row["phone"] = f"06 {n}"
    half = [{**row, "phone": None if n < 50 else row["phone"]} for n, row in enumerate(old)]
    more = [{**row, "phone": None if n < 51 else row["phone"]} for n, row in enumerate(old)]
    assert held_for("customers", old, half) is None
    assert held_for("customers", old, more) == "emptied"
    for limits in (Limits(columns={(Rule.EMPTIED, "phone"): 51}), Limits(columns={(Rule.EMPTIED, ""): 51})):
        assert held_for("customers", old, more, limits) is None
    of_another = Limits(columns={(Rule.EMPTIED, "fax"): 100, (Rule.EMPTIED, ""): 10})
    assert held_for("customers", old, half, of_another) == "emptied"
    assert (
        held_for("customers", old, half, Limits(columns={(Rule.EMPTIED, "phone"): 100, (Rule.EMPTIED, ""): 10})) is None
    )


def test_the_message_names_column_and_share_and_the_examples_stand_apart() -> None:
    old = [{"product_id": f"P{n}", "unit_price": Decimal(n + 1)} for n in range(10)]
    new = [{**row, "unit_price": row["unit_price"] * 100} for row in old[:9]] + old[9:]  # type: ignore[operator]
    hold = verdict("products", old, new)  # type: ignore[arg-type]
    assert hold is not None
    assert hold.message == (
        "unit_price: becomes 100 times as large in 9 of 10 rows that have a value: 90 % (at most 10 % are applied unasked)"
    )
    assert hold.findings[0].examples == (("1", "100"), ("2", "200"), ("3", "300"))


def test_a_column_that_was_always_empty_and_a_table_of_three_rows_are_not_asked_about() -> None:
    old = customers(200, fax=None, phone=None)
    assert held_for("customers", old, [{**row, "fax": "06 1"} for row in old]) is None
    few = customers(3, city="Roma")
    assert held_for("customers", few, [few[0], *({**row, "city": None} for row in few[1:])]) is None


def test_remarks_of_a_day_come_and_go() -> None:
    """A column that is emptied gets no new ones."""
    old = [{**row, "street": f"Via {n}" if n < 7 else None} for n, row in enumerate(customers(21))]
    gone = [{**row, "street": row["street"] if n > 3 else None} for n, row in enumerate(old)]
    elsewhere = [{**row, "street": f"Via {n}" if n in (8, 9) else row["street"]} for n, row in enumerate(gone)]
    assert held_for("customers", old, gone) == "emptied"
    assert held_for("customers", old, elsewhere) is None


def test_small_numbers_of_a_few_rows_come_back_by_chance() -> None:
    """Prices don't."""
    few, more = [2, 0, 3, 1, 2, 4, 6, 1, 5, 2], [1, 2, 2, 3, 1, 6, 4, 2, 2, 5]
    old: list[Row] = [{"product_id": f"P{n}", "min_quantity": Decimal(v)} for n, v in enumerate(few)]
    new: list[Row] = [{"product_id": f"P{n}", "min_quantity": Decimal(v)} for n, v in enumerate(more)]
    assert held_for("products", old, new) is None
    prices = [Decimal(n * n + 5) for n in range(10)]
    old = [{"product_id": f"P{n}", "unit_price": price} for n, price in enumerate(prices)]
    new = [{"product_id": f"P{n}", "unit_price": prices[n * 3 % 10]} for n in range(10)]
    assert held_for("products", old, new) == "rows-shuffled"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Via Po {n}", '"Via Po {n}"', "garbled"),
        ("Via Po {n}", "Via Po {n};", "garbled"),
        ("Via Po {n}", "V******", "garbled"),
        ("Via Po {n}", "{n} oP aiV", "garbled"),
        ("Via Po {n}", "Via%20Po%20{n}", "garbled"),
        ("Po {n}0 & Arno", "Po {n}0 &amp; Arno", "garbled"),
        ("Via Po {n}", "Test {n}", "garbled"),
        ("{n}1234567", "'{n}1234567", "garbled"),
        ("Via Po {n}", "Via Po {n} - Scala A", None),
        ("Via Po {n}", "(Via Po {n})", None),
        ("{n}04567890", "{n}E+05", None),
        ("{n}1234567", "{n}.12E+07", "cut-values"),
        ("{n}1234567", "{n}.99E+07", None),
        ("{n}{n}12345", "{n}12345", "cut-values"),
        ("{n}A{n}B{n}", "B{n}", "cut-values"),
        ("IT{n}2345", "{n}2345", None),
        ("+39 06 {n}", "06 {n}", None),
        ("Via Po {n}", "Via Po {n} 06 1", None),
        ("A{n}b Po {n}{n}", "A{n}b Po {n}", "cut-values"),
        ("Via Po {n}{n}", "Via Po", "constant"),
        ("Po {n}, Arno", "Corso Dante 1{n}", "constant"),
        ("", "NULL", "garbled"),
        ("", "Via Po", None),
        ("Via Po {n}", "#REF!", "garbled"),
    ],
)
def test_what_programs_write_is_told_from_what_people_write(before: str, after: str, expected: str | None) -> None:
    """A beginning that is another in each row has been lost; a common one is dropped on purpose."""
    shared = customers(9, phone="06 1")
    old = [{**row, "street": before.format(n=n + 1) or None} for n, row in enumerate(shared)]
    new = [{**row, "street": after.format(n=n + 1)} for n, row in enumerate(shared)]
    assert held_for("customers", old, new) == expected


Decimals = Callable[[Decimal], Decimal]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda n: n * 12, "rescaled"),
        (lambda n: n * 2, None),
        (lambda n: round(n / Decimal("1.22"), 2), "rescaled"),
        (lambda n: round(n * Decimal("1.2"), 2), None),
        (lambda n: round(n * Decimal("0.8"), 2), None),
        (lambda n: Decimal(str(n).replace(".", "").rstrip("0")), "rescaled"),
        (round, "cut-values"),
        (lambda n: round(n, 1), None),
        (lambda n: n % 100, "cut-values"),
        (lambda n: n - 100, None),
        (lambda n: n // 10, "rescaled"),
    ],
)
def test_what_programs_do_to_numbers_is_told_from_a_new_price_list(change: Decimals, expected: str | None) -> None:
    prices = [Decimal(10127 + 997 * n + n * n) / 100 for n in range(40)]
    old: list[Row] = [{"product_id": f"P{n}", "unit_price": price} for n, price in enumerate(prices)]
    new: list[Row] = [{"product_id": f"P{n}", "unit_price": Decimal(change(price))} for n, price in enumerate(prices)]
    assert held_for("products", old, new) == expected


def test_a_number_of_the_row_may_count_up_where_it_did() -> None:
    """A rank that moves on, or a column that is filled for the first time; not a price that was drawn down."""
    for before, expected in ((lambda n: n, None), (lambda _: None, None), (lambda n: n * n % 97, "constant")):
        old: list[Row] = [{"product_id": f"P{n}", "min_quantity": before(n)} for n in range(30)]
        assert held_for("products", old, [{**row, "min_quantity": n + 5} for n, row in enumerate(old)]) == expected


def test_dates_move_on_and_are_not_dealt_anew() -> None:
    def invoices(step: Callable[[int], int]) -> list[Row]:
        days = [date(2025, 1, 1) + timedelta(n * 37 % 211 + step(n)) for n in range(30)]
        return [{"invoice_number": f"{n}", "order_number": "1", "invoice_date": day} for n, day in enumerate(days)]

    old = invoices(lambda _: 0)
    assert held_for("invoices", old, invoices(lambda n: 8 + n * 17 % 90)) is None
    assert held_for("invoices", old, invoices(lambda n: n * 17 % 90 * (1 - n % 2 * 2))) == "dates-moved"


def test_a_yes_that_becomes_a_no_and_the_other_way_round() -> None:
    old: list[Row] = [{"product_id": f"P{n}", "discontinued": n % 3 == 0} for n in range(60)]
    opposite: list[Row] = [{**row, "discontinued": not row["discontinued"]} for row in old]
    assert verdict("products", old, opposite, blank={}).rule is Rule.REPLACED  # type: ignore[union-attr]
    by_chance: list[Row] = [{**row, "discontinued": random.Random(n).random() < 0.5} for n, row in enumerate(old)]
    assert verdict("products", old, by_chance, blank={}) is None


def test_texts_are_replaced_when_they_are_like_any_rows() -> None:
    """Not when they are translated, typed numbers, or few persons' names."""
    names = [
        "Anna Verdi",
        "Luca Neri",
        "Marco Gallo",
        "Sofia Conti",
        "Elena Greco",
        "Paolo Riva",
        "Ilaria Costa",
        "Dario Longo",
    ]
    others = [
        "Bruno Serra",
        "Carla Fiore",
        "Ugo Testa",
        "Nadia Monti",
        "Pietro Sala",
        "Rita Bruni",
        "Franco Leone",
        "Giada Poli",
    ]
    old = [{**row, "contact": f"{names[n % 8]} {n}"} for n, row in enumerate(customers(40))]
    made_up = [{**row, "contact": f"{others[n * 3 % 8]} {n * 7 % 40 + 100}"} for n, row in enumerate(old)]
    translated = [{**row, "contact": f"{others[n % 8]} {names[n % 8]}"} for n, row in enumerate(old)]
    few = [{**row, "contact": others[n % 3]} for n, row in enumerate(old)]
    assert [held_for("customers", old, new) for new in (made_up, translated, few)] == ["replaced", None, None]
    prices = [{**row, "contact": f"{n * 37 % 40},{n + 10} €"} for n, row in enumerate(old)]
    raised = [{**row, "contact": f"{n * 23 % 40 + 41},{n * 11 % 40 + 10} €"} for n, row in enumerate(old)]
    assert held_for("customers", prices, raised) is None


def test_a_yes_that_was_written_as_no_is_daily_life_and_an_empty_cell_is_not() -> None:
    old: list[Row] = [{"product_id": f"P{n}", "discontinued": n % 2 == 0} for n in range(20)]
    new: list[Row] = [{**row, "discontinued": False} for row in old]
    assert verdict("products", old, new, blank={}) is None
    hold = verdict("products", old, new, blank={"discontinued": 20})
    assert hold is not None
    assert (hold.rule, hold.findings[0].column) == (Rule.EMPTIED, "discontinued")


def test_a_text_that_is_repaired_is_applied() -> None:
    names = ["Caffè Pelù", "Città Verdi", "Nicolò Müller", "Società Forlì", "Perché no", "Tè Unità"]
    good: list[Row] = [{"customer_id": f"C{n}", "name": name} for n, name in enumerate(names)]
    damages: list[Callable[[str], str]] = [
        lambda text: text.encode().decode("cp1252", "replace"),
        lambda text: text.encode("cp1252").decode("cp850"),
        lambda text: text.encode("ascii", "replace").decode(),
    ]
    for damage in damages:
        bad: list[Row] = [{**row, "name": damage(str(row["name"]))} for row in good]
        assert held_for("customers", good, bad) == "garbled"
        assert held_for("customers", bad, good) is None


def test_times_are_read_on_the_clock_of_the_zone() -> None:
    """A day in Rome begins at 22 or 23 h UTC of the day before: day and month are exchanged there, not in UTC."""
    from zoneinfo import ZoneInfo

    rome = ZoneInfo("Europe/Rome")
    days = [date(2025, month, day) for month, day in ((1, 3), (2, 5), (4, 9), (7, 11), (10, 2))]

    def at(day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=rome).astimezone(UTC)

    old: list[Row] = [{"order_id": f"{n}", "created_at": at(day)} for n, day in enumerate(days)]
    new: list[Row] = [
        {"order_id": f"{n}", "created_at": at(d.replace(day=d.month, month=d.day))} for n, d in enumerate(days)
    ]
    hold = verdict("orders", old, new, zone=rome)
    assert hold is not None
    assert hold.rule is Rule.DATES_SWAPPED


def test_a_planned_day_may_be_shared_near_today_and_not_long_ago() -> None:
    old: list[Row] = [{"order_id": f"{n}", "delivery_date": date(2026, 5, 5) + timedelta(days=n)} for n in range(20)]
    for day, expected in ((date(2026, 5, 6), None), (date(2026, 9, 1), None), (date(2000, 1, 1), "constant")):
        assert held_for("orders", old, [{**row, "delivery_date": day} for row in old]) == expected


def test_the_reason_that_says_most_comes_first_and_the_others_are_found_too() -> None:
    old = table("customers", 200)
    new = [{**row, "name": str(row["phone"]), "phone": str(row["name"]), "street": None} for row in old]
    hold = verdict("customers", old, new)
    assert hold is not None
    assert hold.rule is Rule.COLUMNS_SWAPPED
    assert {(found.rule, found.column) for found in hold.findings} >= {
        (Rule.COLUMNS_SWAPPED, "name"),
        (Rule.COLUMNS_SWAPPED, "phone"),
        (Rule.EMPTIED, "street"),
    }
    assert hold.message.endswith("; 2 more columns look wrong")
