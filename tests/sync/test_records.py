"""From a table's rows to typed records: labels match exactly, bad rows are named by line and field, nothing is guessed."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.base.errors import ConfigurationError, ExportError
from archisync.formats.rows import BadRow, NumberText, RawRow
from archisync.rules.labels import fold_label
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.rules.values import Locale
from archisync.sync.labels import MissingColumnError, map_labels
from archisync.sync.records import Quarantined, Record, RecordReader, read_records
from tests.support.builtintypes import CUSTOMERS, INVOICES, ORDERS, PRICES, PRODUCTS

ROME = ZoneInfo("Europe/Rome")


class ListTable:
    """A table in memory; its rows are numbered from line 2."""

    skipped = missing = 0

    def __init__(self, labels: Sequence[str], rows: Sequence[Sequence[str | None] | BadRow]) -> None:
        self.labels = tuple(labels)
        self.detected: dict[str, str] = {}
        self._rows = rows

    def rows(self) -> Iterator[RawRow | BadRow]:
        for line, row in enumerate(self._rows, 2):
            yield row if isinstance(row, BadRow) else RawRow(line, tuple(row))


def reader(
    sync_type: SyncType, labels: Sequence[str], *rows: Sequence[str | None] | BadRow, locale: Locale = "iso"
) -> RecordReader:
    return read_records(ListTable(labels, rows), sync_type, locale=locale, zone=ROME)


def read(
    sync_type: SyncType, labels: Sequence[str], *rows: Sequence[str | None] | BadRow, locale: Locale = "iso"
) -> list[Record | Quarantined]:
    return list(reader(sync_type, labels, *rows, locale=locale))


def names(sync_type: SyncType, labels: Sequence[str]) -> dict[str, int]:
    layout = map_labels(labels, sync_type)
    return {field.name: position for field, position in zip(layout.columns, layout.positions, strict=True)}


# -- labels


@pytest.mark.parametrize(
    ("label", "folded"),
    [
        ("  numero   ordine : ", "NUMERO ORDINE"),
        ("Città", "CITTA"),
        ("CITTA\u0300", "CITTA"),
        ("all\u2019attenzione di:", "ALL'ATTENZIONE DI"),
        ("order_id", "ORDER_ID"),
        ("SCONTO %", "SCONTO %"),
        ("CITTA'", "CITTA"),
        ("Quantita\u2019 da:", "QUANTITA DA"),
        ("unita` di misura", "UNITA DI MISURA"),
        ("a:b", "A:B"),
        ("", ""),
    ],
)
def test_labels_are_compared_folded(label: str, folded: str) -> None:
    assert fold_label(label) == folded


@given(st.text(max_size=20))
def test_folding_a_folded_label_changes_nothing(label: str) -> None:
    assert fold_label(fold_label(label)) == fold_label(label)


@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=SYNC_TYPES)
def test_every_name_and_alias_finds_its_field_and_no_other(sync_type: SyncType) -> None:
    required = [field.name for field in sync_type.fields]
    for field in sync_type.fields:
        for label in (field.name, *field.aliases):
            labels = [label if name == field.name else name for name in required]
            assert names(sync_type, labels)[field.name] == required.index(field.name)


@pytest.mark.parametrize(
    "label", ["customer id", "customer-id", "xcustomer_id", "customer_id2", "ID CLIENTI", "CLIENTE"]
)
def test_a_label_matches_as_a_whole_or_not_at_all(label: str) -> None:
    layout = map_labels(["ID", "NOME", label], CUSTOMERS)
    assert layout.ignored == (label,)


def test_the_order_of_the_columns_does_not_matter() -> None:
    straight = read(ORDERS, ["order_id", "created_at", "status"], ["1", "2026-01-31", "open"])
    turned = read(ORDERS, ["status", "created_at", "order_id"], ["open", "2026-01-31", "1"])
    assert straight == turned


def test_key_fields_come_first_then_the_fields_that_have_a_column() -> None:
    layout = map_labels(["payment_terms", "order_number", "", "extra", "invoice_number"], INVOICES)
    assert [field.name for field in layout.columns] == ["invoice_number", "order_number", "payment_terms"]
    assert layout.positions == (4, 1, 0)
    assert layout.ignored == ("extra",)  # a column without a label is ignored silently


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["customer_id", "name", "Name:"], "the export has two columns 'Name:'"),
        (["customer_id", "NOME", "RAGIONE SOCIALE"], "columns 'NOME' and 'RAGIONE SOCIALE' both stand for name"),
        (["customer_id", "ID", "name"], "columns 'customer_id' and 'ID' both stand for customer_id"),
    ],
)
def test_two_columns_of_one_field_are_refused_and_named(labels: list[str], message: str) -> None:
    with pytest.raises(ExportError) as refused:
        map_labels(labels, CUSTOMERS)
    assert (refused.value.message, refused.value.reason) == (message, "unreadable")
    assert refused.value.hint == "remove one of them from the ERP's export"


def test_unknown_labels_may_repeat() -> None:
    assert map_labels(["ID", "NOME", "x", "x"], CUSTOMERS).ignored == ("x", "x")


@pytest.mark.parametrize(
    ("sync_type", "labels", "missing"),
    [
        (CUSTOMERS, ["customer_id"], "name"),
        (CUSTOMERS, ["x"], "customer_id, name"),
        (ORDERS, ["order_id", "created"], "created_at"),
        (INVOICES, ["invoice_number"], "order_number"),
        (PRICES, ["valid_from"], "product_id, unit_price"),
    ],
)
def test_a_missing_required_column_is_named_with_the_columns_there_are(
    sync_type: SyncType, labels: list[str], missing: str
) -> None:
    with pytest.raises(MissingColumnError) as refused:
        map_labels(labels, sync_type)
    there = ", ".join(repr(label) for label in labels)
    assert refused.value.message == f"the export has no column for {missing}; its columns are {there}"
    assert refused.value.reason == "missing-column"


def test_many_hostile_labels_are_cut_and_escaped_in_the_message() -> None:
    with pytest.raises(MissingColumnError) as refused:
        map_labels(["\x1b[31m", "x" * 1000, *map(str, range(100))], CUSTOMERS)
    assert "\x1b" not in refused.value.message
    assert f"'{'x' * 40}'…" in refused.value.message
    assert refused.value.message.endswith(" and 62 more")


def test_extra_aliases_win_and_an_empty_one_ignores_a_column() -> None:
    layout = map_labels(["ID", "Kunde", "NOME"], CUSTOMERS, {"kunde": "name", "nome:": ""})
    assert [field.name for field in layout.columns] == ["customer_id", "name"]
    assert (layout.positions, layout.ignored) == ((0, 1), ("NOME",))


def test_an_extra_alias_for_an_unknown_field_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError) as refused:
        map_labels(["ID", "NOME"], CUSTOMERS, {"X": "nome"})
    assert refused.value.message == "the column 'X' is assigned to 'nome', which is no field of customers"


# -- rows


def test_each_cell_is_parsed_by_the_kind_of_its_field() -> None:
    labels = ["product_id", "name", "unit_price", "discontinued", "modified_at"]
    (record,) = read(PRODUCTS, labels, ["70.962", " Vite  M6 ", "1.234,50", "Sì", "31/01/2026 10:00"], locale="it")
    moment = datetime(2026, 1, 31, 9, tzinfo=UTC)
    assert record == Record(2, ("70962", "Vite M6", Decimal("1234.50"), True, moment))


def test_empty_cells_are_null_except_booleans_and_key_parts_with_a_default() -> None:
    (price,) = read(PRICES, ["product_id", "unit_price", "valid_from", "currency"], ["1", "2", "", " "])
    assert price == Record(2, ("1", "", None, Decimal(0), Decimal(2), None))
    (invoice,) = read(INVOICES, ["invoice_number", "order_number", "closed"], ["1", "2", None])
    assert invoice == Record(2, ("1", "2", False))


@pytest.mark.parametrize(
    ("row", "field", "reason", "key", "keyless"),
    [
        (["", "Uno", "2026-01-31"], "customer_id", "is empty", None, True),
        ([None, "Uno", ""], "customer_id", "is empty", None, True),
        (["\0", "Uno", ""], "customer_id", "is empty", None, True),
        (["1", " ", ""], "name", "is empty", ("1",), False),
        (["1", "Uno", "31/02/2026"], "last_order_date", "'31/02/2026' is an impossible date or time", ("1",), False),
        (["x" * 300, "Uno", ""], "customer_id", f"'{'x' * 40}'… is longer than 256 characters", None, False),
        (["1", "x" * 65_537, ""], "name", "is longer than 64 KiB", ("1",), False),
    ],
)
def test_a_bad_row_is_quarantined_with_line_field_reason_and_its_key(
    row: list[str | None], field: str, reason: str, key: tuple[str] | None, keyless: bool
) -> None:
    records = reader(CUSTOMERS, ["customer_id", "name", "last_order_date"], ["0", "Zero", ""], row, ["2", "Due", ""])
    assert list(records) == [
        Record(2, ("0", "Zero", None)),
        Quarantined(3, field, reason, key, keyless),
        Record(4, ("2", "Due", None)),
    ]
    assert (records.seen, records.quarantined) == (3, 1)


def test_the_key_of_a_bad_row_is_known_only_when_all_its_parts_are_readable() -> None:
    labels = ["unit_price", "quantity_from", "valid_from", "product_id"]
    bad_price, bad_part = read(PRICES, labels, ["x", "5", "2026-01-31", "1"], ["1", "x", "2026-01-31", "1"])
    assert bad_price == Quarantined(2, "unit_price", "'x' is not a number", ("1", "", date(2026, 1, 31), Decimal(5)))
    assert bad_part == Quarantined(3, "quantity_from", "'x' is not a number", None)


def test_a_row_that_no_format_could_read_is_quarantined_as_a_whole() -> None:
    assert read(CUSTOMERS, ["ID", "NOME"], BadRow(17, "has 1 cell, the header has 2")) == [
        Quarantined(17, None, "has 1 cell, the header has 2", None)
    ]


def test_control_characters_are_removed_and_counted_also_in_bad_rows() -> None:
    records = reader(CUSTOMERS, ["ID", "NOME"], ["1", "a\x1bb\0"], ["\x07", "c"])
    assert list(records) == [Record(2, ("1", "ab")), Quarantined(3, "customer_id", "is empty", None, True)]
    assert records.control_characters_removed == 3


def test_counting_starts_again_with_each_iteration() -> None:
    records = reader(CUSTOMERS, ["ID", "NOME"], ["1", "a\0"], ["", "b"])
    assert list(records) == list(records)
    assert (records.seen, records.quarantined, records.control_characters_removed) == (2, 1, 1)


@pytest.mark.parametrize("locale", ["iso", "it"])
def test_a_json_number_has_a_decimal_point_whatever_the_locale(locale: Locale) -> None:
    row = ["1", "Uno", NumberText("1234.5"), NumberText("3")]
    assert read(CUSTOMERS, ["ID", "NOME", "sales_amount", "orders_count"], row, locale=locale) == [
        Record(2, ("1", "Uno", 3, Decimal("1234.5")))
    ]


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("54.28", "'54.28' is an identifier written as a number that is not whole; write it as text"),
        ("1e3", "'1e3' is an identifier written as a number that is not whole; write it as text"),
        ("-1", "'-1' is an identifier written as a number that is not whole; write it as text"),
        ("7" * 5000, f"'{'7' * 40}'… is longer than 256 characters"),
    ],
)
def test_an_identifier_written_as_a_float_is_refused(literal: str, reason: str) -> None:
    (bad,) = read(CUSTOMERS, ["ID", "NOME"], [NumberText(literal), "Uno"])
    assert bad == Quarantined(2, "customer_id", reason, None)


def test_a_whole_json_number_is_an_identifier() -> None:
    assert read(CUSTOMERS, ["ID", "NOME"], [NumberText("70962"), "Uno"]) == [Record(2, ("70962", "Uno"))]


_CELLS = st.none() | st.text(max_size=12) | st.sampled_from(["1", "Uno", "31/01/2026", "12.50", "si"])


@given(st.sampled_from(list(SYNC_TYPES.values())), st.data())
def test_any_cells_give_a_full_record_or_a_quarantined_row_with_a_reason(
    sync_type: SyncType, data: st.DataObject
) -> None:
    labels = [field.name for field in sync_type.fields]
    row = st.lists(_CELLS, min_size=len(labels), max_size=len(labels))
    not_blank = row.filter(lambda cells: any(c.isalnum() for cell in cells for c in cell or ""))
    rows = data.draw(st.lists(not_blank, max_size=4))
    records = reader(sync_type, labels, *rows)
    for line, record in enumerate(records, 2):
        assert record.line == line
        if isinstance(record, Record):
            assert len(record.values) == len(labels)
            required = {f.name: v for f, v in zip(records.layout.columns, record.values, strict=True) if f.required}
            assert None not in required.values()
        else:
            assert record.field in labels
            assert record.reason.isprintable()
    assert records.seen == len(rows)


@given(st.permutations([field.name for field in ORDERS.fields]))
def test_the_order_of_columns_never_changes_a_record(order: list[str]) -> None:
    cells = {name: "31/01/2026" if name.endswith(("_at", "_date")) else "7" for name in order}
    (found,) = read(ORDERS, order, [cells[name] for name in order])
    straight = [field.name for field in ORDERS.fields]
    assert [found] == read(ORDERS, straight, [cells[name] for name in straight])
