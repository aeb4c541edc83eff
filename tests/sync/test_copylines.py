"""Lines that PostgreSQL reads unparsed give the same rows as our own parser, on any file."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archisync.base.errors import ExportError
from archisync.formats import BadRow, RawRow
from archisync.formats.copylines import PlainLine
from archisync.formats.csv.table import CsvTable
from archisync.formats.rows import PlainLines
from archisync.rules.synctypes import SYNC_TYPES, Kind, SyncType
from archisync.rules.values import Locale
from archisync.store import applied_exports
from archisync.store.database import Database
from archisync.sync.copying import Staged
from archisync.sync.records import read_records
from archisync.sync.staging import stage_all
from archisync.sync.target import Target
from tests.support.builtintypes import INVOICES, ORDERS, PRICES, PRODUCTS
from tests.support.properties import examples

ROME = ZoneInfo("Europe/Rome")
COMMON = st.sampled_from(
    ['""', "", " ", "a", "a b", "a  b", " a", "a ", "à", "\xa0", "a\xa0b", "\t", "\\N", "\\.", "x\\y", "\x7f", "'"]
)
CELLS = {
    Kind.TEXT: st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\r\n"'), max_size=6),
    Kind.IDENTIFIER: st.sampled_from(
        ["70.962", "001.234", "1.2", "C-1", "00012", "x" * 256, "x" * 257, "1.234.567", "Ü"]
    ),
    Kind.NUMBER: st.sampled_from(
        ["0", "-0", "1.50", "1,5", "1.234,56", "-12.000001", "1e3", "5.", ".5", "€ 3", "1" * 18, "007"]
    ),
    Kind.INTEGER: st.sampled_from(["0", "-7", "1.000", "1000", "9" * 17, "9" * 19, "5.0", "+3", "٣"]),
    Kind.DATE: st.sampled_from(
        [
            "2024-02-29",
            "2023-02-29",
            "2024-12-31",
            "2024-04-31",
            "31/12/2024",
            "12/31/2024",
            "29/02/2024",
            "29/02/2023",
            "1899-12-31",
            "1900-01-01",
            "2999-12-31",
            "3000-01-01",
            "0000-00-00",
            "01/02/2024",
            "2024-05-06 23:30:00Z",
            "infinity",
        ]
    ),
    Kind.TIMESTAMP: st.sampled_from(
        [
            "2024-05-06T07:08:09Z",
            "2024-05-06 07:08:09+02:00",
            "2024-10-27 02:30:00",
            "2024-03-31 02:30:00",
            "2024-05-06",
            "2024-05-06 24:00:00Z",
            "2024-05-06T07:08:60Z",
            "2024-05-06T07:08:09.123456789Z",
            "2024-05-06T07:08:09.5-14:30",
            "now",
        ]
    ),
    Kind.BOOLEAN: st.sampled_from(["true", "False", "TRUE", "1", "0", "sì", "Checked", "t", "yes", "off", "2"]),
}


PLAIN = {
    Kind.TEXT: st.sampled_from(["a", "a b", "à", "x;y", "x,y", "'"]),
    Kind.IDENTIFIER: st.sampled_from(["C-1", "00012", "Ü"]),
    Kind.NUMBER: st.sampled_from(["0", "-0", "1.50", "-12.000001", "007"]),
    Kind.INTEGER: st.sampled_from(["0", "-7", "1000"]),
    Kind.DATE: st.sampled_from(["2024-02-29", "31/12/2024", "01/02/2024", "12/11/2024", "2999-12-31"]),
    Kind.TIMESTAMP: st.sampled_from(
        ["2024-05-06T07:08:09Z", "2024-05-06 07:08:09+02:00", "2024-05-06T07:08:09.5-12:30"]
    ),
    Kind.BOOLEAN: st.sampled_from(["true", "False", "1", "0"]),
}
"""Cells of lines that need no parsing; required ones are never empty."""
ALWAYS_QUOTED = ("a b", " a", "à", "1.50", "2024-02-29", "70.962", "true", "0")
"""Cells in quotes that need none; many exports have them."""


class CarefulTable:
    """The same file, with every line parsed."""

    skipped = missing = 0

    def __init__(self, table: CsvTable) -> None:
        self.labels, self.detected, self.rows = table.labels, table.detected, table.rows


@st.composite
def files(draw: st.DrawFn) -> tuple[SyncType, Locale, str]:
    sync_type = draw(st.sampled_from([PRODUCTS, PRICES, ORDERS, INVOICES]))
    delimiter = draw(st.sampled_from(";\t|,"))
    optional = [f for f in sync_type.fields if not f.required]
    fields = [f for f in sync_type.fields if f.required] + draw(
        st.lists(st.sampled_from(optional), unique=True, max_size=6)
    )
    fields = draw(st.permutations(fields))
    labels = [f.name for f in fields] + draw(st.sampled_from([[], ["something_else"]]))
    cells = [st.one_of(CELLS[f.kind], CELLS[f.kind], COMMON) for f in fields] + [COMMON] * (len(labels) - len(fields))
    plain_cells = [PLAIN[f.kind] for f in fields] + [PLAIN[Kind.TEXT]] * (len(labels) - len(fields))
    rows = st.one_of(
        st.tuples(*cells), st.tuples(*plain_cells)
    )  # with the first alone, almost every line has an odd cell
    row = rows.map(lambda r: delimiter.join(quoted(cell, delimiter) for cell in r))
    odd = st.sampled_from(["", delimiter, 'a"b', delimiter.join(['"two\nlines"'] + ["x"] * (len(labels) - 1)), "short"])
    lines = draw(st.lists(st.one_of(row, row, row, odd), max_size=8))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return sync_type, draw(st.sampled_from(["iso", "it"])), end.join([delimiter.join(labels), *lines]) + end


def quoted(cell: str, delimiter: str) -> str:
    return f'"{cell}"' if delimiter in cell or cell in ALWAYS_QUOTED else cell


def staged(
    db: Database, sync_type: SyncType, locale: Locale, table: CsvTable | CarefulTable
) -> tuple[Staged, Any] | str:
    """What is in the stage, or why the export was refused."""
    try:
        reader = read_records(table, sync_type, locale=locale, zone=ROME)
        with db.transaction(force_rollback=True):
            applied_exports.begin_apply(db, run_id=0, sync_type=sync_type.name, agent_id="anna.bianchi")
            found = stage_all(Target(db, sync_type, "anna.bianchi", reader.layout.columns, run_id=0), reader)
            names = ", ".join(["ok", *(f.name for f in reader.layout.columns)])
            rows = db.execute(f"select {names} from archisync_stage").fetchall()
    except ExportError as exc:
        return f"{type(exc).__name__}: {exc.message}"
    return found, sorted(map(repr, rows))


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=files())
@example(file=(SYNC_TYPES["prices"], "iso", 'unit_price\tproduct_id\n"0"\t"\t"\n'))
@example(file=(SYNC_TYPES["prices"], "iso", 'product_id\tproduct_name\tunit_price\n"7"\t"a\tb"\t"1"\n'))
def test_unparsed_lines_give_the_same_rows_as_parsed_ones(
    connection: Database, tmp_path: Path, file: tuple[SyncType, Locale, str]
) -> None:
    sync_type, locale, text = file
    path = tmp_path / "export.csv"
    path.write_bytes(text.encode())
    try:
        table = CsvTable(path)
    except ExportError:
        return  # refused either way
    assert staged(connection, sync_type, locale, table) == staged(connection, sync_type, locale, CarefulTable(table))


def test_most_lines_of_an_ordinary_export_need_no_parsing(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    plain = "".join(f'{n},"Prodotto n. {n}",{n}.50,2024-05-06T07:08:09Z\r\n' for n in range(9_000))
    path.write_text(
        "product_id,name,unit_price,modified_at\r\n" + plain + '9001,"Uno ""A""",3,\r\n' + "9002,Tre,,\r\n", "utf-8"
    )
    table = CsvTable(path)
    fields = [PRODUCTS.field(name) for name in table.labels]
    pattern = PlainLine(fields, [True, True, False, False], "iso", ",", quoted=True)
    found = list(table.rows_and_lines(pattern, None))
    assert sum(len(batch.lines) for batch in found if isinstance(batch, PlainLines)) == 9_001
    assert [row.line for row in found if isinstance(row, RawRow | BadRow)] == [9_002]
    assert [batch.line for batch in found if isinstance(batch, PlainLines)][-1] == 9_003


@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=list(SYNC_TYPES))
@pytest.mark.parametrize("bad", ['a"b', "a\\b", "a\tb", "a  b", " a", "a ", "a\rb", "a\x00b", "a\u2028b", "a\xa0b"])
@pytest.mark.parametrize("cell", ["{}", '"{}"'])
def test_a_line_that_needs_care_matches_no_pattern(sync_type: SyncType, bad: str, cell: str) -> None:
    columns = [f for f in sync_type.fields if f.kind is Kind.TEXT]
    pattern = PlainLine(columns, [False] * len(columns), "iso", ",", quoted=True)
    good = ("x," * (len(columns) - 1) + cell.format("è x")).encode()
    assert pattern.match([good])
    assert not pattern.match([good, ("x," * (len(columns) - 1) + cell.format(bad)).encode()])


def test_a_quote_is_an_ordinary_character_where_cells_are_not_quoted() -> None:
    pattern = PlainLine([PRODUCTS.field("name")], [True], "iso", ",", quoted=False)
    assert pattern.match([b"x"])
    assert not pattern.match([b'"x"'])
