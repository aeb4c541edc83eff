"""A draft of a declaration, made from an export: what is not certain stays text, and the draft can always be applied."""

import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.rules.declarations import parse_toml, read
from archisync.rules.drafting import draft
from archisync.rules.synctypes import Kind, SyncType
from archisync.rules.values import Locale


def drafted(labels: list[str], rows: list[list[str | None]], locale: Locale = "iso") -> SyncType:
    return read(parse_toml(draft("stock", "stock.csv", labels, rows, locale).encode(), "draft"), file="draft")


def kinds(values: list[str | None], locale: Locale = "iso") -> Kind:
    rows: list[list[str | None]] = [[f"K{number}", value] for number, value in enumerate(values)]
    return drafted(["code", "value"], rows, locale).field("value").kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1.5", "2", None], Kind.NUMBER),
        (["-0.30", "1e+3"], Kind.NUMBER),
        (["1.234,56", "7,00"], Kind.NUMBER),  # the other notation, which a note names
        (["50,937417", "7,0061", "51,5"], Kind.NUMBER),
        (["50,937", "7,006"], Kind.IDENTIFIER),  # three digits: it may be a list of codes, or thousands
        (["1", "2", "3"], Kind.IDENTIFIER),  # digits alone: nobody can see whether leading zeros count
        (["00123", "00124"], Kind.IDENTIFIER),
        (["20261124", "20261125"], Kind.IDENTIFIER),
        (["2026-11-24", "2026-11-25"], Kind.DATE),
        (["24/11/2026", None, "01/12/2026"], Kind.DATE),
        (["24.11.2026"], Kind.DATE),
        (["2026-11-24T18:00:00", "2026-11-25"], Kind.TIMESTAMP),
        (["24/11/2026 18:00:00"], Kind.TIMESTAMP),
        (["24/11/2026", "soon"], Kind.TEXT),
        (["1.5", "about 2"], Kind.TEXT),
        (["A-1", "B/2"], Kind.IDENTIFIER),
        (["red", "blue"], Kind.TEXT),
        (["true", "false"], Kind.TEXT),
        ([None, None], Kind.TEXT),
    ],
)
def test_a_column_is_what_every_value_of_it_is(values: list[str | None], kind: Kind) -> None:
    assert kinds(values) is kind


def test_numbers_in_the_other_notation_are_noted() -> None:
    text = draft("stock", "stock.csv", ["code", "price"], [["A1", "1.234,56"], ["A2", "0,10"]], "iso")
    assert "# Note: numbers are written as 1.234,56: set ARCHISYNC_LOCALE_STOCK=it." in text


def test_the_key_is_the_shortest_unique_set_from_the_left_and_identifiers_come_first() -> None:
    rows: list[list[str | None]] = [
        ["MI", "A1", "bolt", "5.0"], ["MI", "A2", "nut", "1.5"], ["RM", "A1", "bolts", "5.5"],
    ]  # fmt: skip
    assert drafted(["name", "code", "warehouse", "n"], [[r[2], r[1], r[0], r[3]] for r in rows]).key == ("name",)
    assert drafted(["warehouse", "code", "colour", "n"], [[r[0], r[1], "red", r[3]] for r in rows]).key == (
        "warehouse",
        "code",
    )
    assert drafted(["name", "id"], [["bolt", "7"], ["nut", "8"]]).key == ("id",)


def test_a_row_that_is_there_twice_is_one_row() -> None:
    rows: list[list[str | None]] = [["7", "bolt"], ["7", "bolt"], ["8", "bolt"]]
    assert drafted(["id", "name"], rows).key == ("id",)
    assert "tells the 2 rows of this export apart" in draft("x", "x.csv", ["id", "name"], rows, "iso")


def test_without_a_unique_set_the_first_column_is_proposed_and_the_draft_says_so() -> None:
    rows: list[list[str | None]] = [["red", None], ["red", "7"], ["red", "8"]]
    assert drafted(["colour", "n"], rows).key == ("colour",)
    said = "a guess: no set of at most three columns tells the rows of this export apart, so it will be held"
    assert said in draft("x", "x.csv", ["colour", "n"], rows, "iso")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("NUMERO ORDINE", "numero_ordine"), ("Quantità (kg)", "quantita_kg"), ("Order", "order_"), ("agent_id", "agent_id_"),
        ("2024", "n_2024"), ("价格", "field"), ("x" * 100, "x" * 59), ("ok", "ok_"),
        ("Straße", "strasse"), ("Fælles Øre", "faelles_ore"), ("Łączna", "laczna"),
    ],
)  # fmt: skip
def test_a_label_becomes_a_name_that_may_be_one(label: str, name: str) -> None:
    found = drafted([label, "key"], [["a", "K1"]])
    assert found.fields[0].name == name


def test_columns_that_can_t_be_declared_are_named() -> None:
    text = draft("x", "x.csv", ["id", "", "Name", "NAME"], [["1", "a", "b", "c"]], "iso")
    assert "# Note: a column without a usable label is ignored." in text
    assert "# Note: a second column 'NAME' is left out" in text
    assert [f.name for f in read(parse_toml(text.encode(), "x"), file="x").fields] == ["id", "name"]


CELLS = st.none() | st.text(max_size=12) | st.dates(date(1990, 1, 1)).map(str) | st.decimals(
    allow_nan=False, allow_infinity=False, places=2, min_value=Decimal(-999), max_value=Decimal(999)
).map(str)  # fmt: skip


@given(st.data())
def test_the_draft_of_any_export_can_be_read(data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=6))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(labels), max_size=len(labels)), max_size=6))
    text = draft("stock", "st\nock\x1b.csv", labels, rows, "iso")
    if re.search(r"^\[fields\]\n.", text, re.M):
        found = read(parse_toml(text.encode(), "draft"), file="draft")
        assert 1 <= len(found.key) <= 3
