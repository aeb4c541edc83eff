"""Workbooks: which sheet and which line is the header, what a cell becomes, and what is refused."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from archisync.base.errors import ExportError
from archisync.formats import open_table
from archisync.formats.rows import BadRow, NumberText, RawRow, Table
from archisync.rules.config import DEFAULT_READER_LIMITS, DETECT, Config, CsvDialect, ReaderLimits
from archisync.sources import Export
from archisync.store import agents
from archisync.store.database import Database
from tests.support.rows import sync

pytest.importorskip("python_calamine")
xlsxwriter = pytest.importorskip("xlsxwriter")

HEAD = ["id", "name"]
ROWS = [HEAD, ["1", "a"], ["2", "b"]]


def _required(labels: tuple[str, ...]) -> tuple[int, ...] | None:
    return (labels.index("id"), labels.index("name")) if {"id", "name"} <= set(labels) else None


def _write(path: Path, *sheets: tuple[str, list[list[Any]]], options: dict[str, Any] | None = None) -> Path:
    book = xlsxwriter.Workbook(str(path), options or {})
    day = book.add_format({"num_format": "yyyy-mm-dd"})
    moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    for name, rows in sheets:
        sheet = book.add_worksheet(name)
        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                style = moment if isinstance(cell, datetime) else day if isinstance(cell, date) else None
                sheet.write(row, column, cell, *([style] if style else []))
    book.close()
    return path


def _table(
    path: Path, dialect: CsvDialect = DETECT, limits: ReaderLimits = DEFAULT_READER_LIMITS, sheet: str = ""
) -> Table:
    export = Export(path=path, origin="x", suffix=".xlsx", size_bytes=path.stat().st_size, sha256="")
    return open_table(export, dialect, limits, _required, sheet=sheet)


def _refusal(path: Path, **more: Any) -> tuple[str, str]:
    with pytest.raises(ExportError) as refused:
        _table(path, **more)
    return refused.value.message, refused.value.hint


def test_the_sheet_with_the_columns_is_read_below_its_titles(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "b", ("Notes", [["id"]]), ("Data", [["Customers"], [], ["October"], *ROWS, [], ["3", "c"]])
    )
    table = _table(path)
    assert (table.labels, table.detected) == (
        ("id", "name"),
        {"format": "workbook", "sheet": "Data", "title_lines": "3"},
    )
    assert list(table.rows()) == [RawRow(5, ("1", "a")), RawRow(6, ("2", "b")), RawRow(8, ("3", "c"))]
    assert list(table.rows()) == list(table.rows())


def test_cells_become_texts_and_numbers(tmp_path: Path) -> None:
    cells = [
        1000.0,
        0.1 + 0.2,
        -5,
        2.0**53 - 1,
        2.0**53 + 2,
        54.28,
        date(2025, 12, 31),
        datetime(2025, 12, 31, 10, 30),  # noqa: DTZ001 - a spreadsheet knows no zone
        True,
        "1.250,50",
    ]
    path = _write(tmp_path / "b", ("S", [[*HEAD, *map(str, range(len(cells)))], ["1", "a", *cells]]))
    (row,) = _table(path).rows()
    assert isinstance(row, RawRow)
    assert row.cells[2:] == (
        "1000", "0.3", "-5", "9007199254740991", "9007199254740994.0", "54.28", "2025-12-31", "2025-12-31T10:30:00", "true", "1.250,50",
    )  # fmt: skip
    assert [type(cell) is NumberText for cell in row.cells[2:]] == [True] * 6 + [False] * 4


def test_no_character_in_a_cell_moves_another_one(tmp_path: Path) -> None:
    texts = ["a\x7fb", "\x7f", '"', "\\", "two\nlines", "\u2028", "", "\x1f"]
    rows = [[str(number), "x", text] for number, text in enumerate(texts)]
    path = _write(tmp_path / "b", ("S", [[*HEAD, "more"], *rows]))
    assert [row.cells for row in _table(path).rows() if isinstance(row, RawRow)] == [tuple(row) for row in rows]


def test_cells_that_begin_further_down_keep_the_numbers_of_their_rows(tmp_path: Path) -> None:
    path = _write(tmp_path / "b", ("S", [[], [], [], *([None, None, *row] for row in ROWS)]))
    table = _table(path)
    assert (table.labels, list(table.rows())) == (("id", "name"), [RawRow(5, ("1", "a")), RawRow(6, ("2", "b"))])


def test_dates_count_from_1904_where_the_workbook_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "b", ("S", [HEAD, ["1", date(2025, 12, 31)]]), options={"date_1904": True})
    assert list(_table(path).rows()) == [RawRow(2, ("1", "2025-12-31"))]


def test_hidden_rows_count_and_merged_cells_have_one_value(tmp_path: Path) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "b"))
    sheet = book.add_worksheet("S")
    for row, cells in enumerate(ROWS):
        sheet.write_row(row, 0, cells)
    sheet.set_row(1, None, None, {"hidden": True})
    sheet.merge_range(3, 0, 4, 0, "3")
    sheet.write(3, 1, "c")
    sheet.write(4, 1, "d")
    book.close()
    assert list(_table(tmp_path / "b").rows()) == [
        RawRow(2, ("1", "a")), RawRow(3, ("2", "b")), RawRow(4, ("3", "c")), RawRow(5, ("", "d")),
    ]  # fmt: skip


def test_totals_are_left_out_as_in_csv(tmp_path: Path) -> None:
    table = _table(_write(tmp_path / "b", ("S", [*ROWS, ["Totale", "2"]])), CsvDialect(ignored=("totale",)))
    assert [row.line for row in table.rows()] == [2, 3]
    assert getattr(table, "skipped", 0) == 1


def test_a_row_above_the_labels_needs_a_setting(tmp_path: Path) -> None:
    path = _write(tmp_path / "b", ("S", [["Agent", "Rossi"], *ROWS]))
    assert _refusal(path) == (
        "line 2 has the columns, but a line above it may be a row",
        "if all above it are titles: ARCHISYNC_CSV_TITLE_LINES=1",
    )
    assert _table(path, CsvDialect(title_lines=1)).labels == ("id", "name")


def test_two_sheets_with_the_columns_need_a_setting(tmp_path: Path) -> None:
    path = _write(tmp_path / "b", ("A", ROWS), ("B", [HEAD, ["9", "z"]]))
    assert _refusal(path) == ("the sheets 'A' and 'B' both have the columns", "say which: ARCHISYNC_SHEET")
    assert list(_table(path, sheet="B").rows()) == [RawRow(2, ("9", "z"))]
    assert _refusal(path, sheet="C") == (
        "the workbook has no sheet 'C'; its sheets are 'A', 'B'",
        "correct ARCHISYNC_SHEET",
    )


def test_an_error_in_a_cell_is_no_empty_cell(tmp_path: Path) -> None:
    path = _write(tmp_path / "whole", ("S", [*ROWS, ["3", "c"]]), ("Other & more", [["x"], ["y"]]))
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b", "w") as out:
        for name in whole.namelist():
            content = whole.read(name).replace(b'fullCalcOnLoad="1"', b"")  # as a spreadsheet program saves it
            if name == "xl/worksheets/sheet1.xml":
                content = re.sub(rb'<c r="B3" t="s"><v>\d+</v>', b'<c r="B3" t="e"><f>NA()</f><v>#N/A</v>', content)
            if name == "xl/worksheets/sheet2.xml":
                content = re.sub(rb'<c r="A2" t="s"><v>\d+</v>', b'<c r="A2"><f>1+1</f><v></v>', content)
            out.writestr(name, content)
    assert list(_table(tmp_path / "b").rows()) == [
        RawRow(2, ("1", "a")), BadRow(3, "has the error #N/A in cell B3"), RawRow(4, ("3", "c")),
    ]  # fmt: skip
    assert _refusal(tmp_path / "b", sheet="Other & more")[0] == "the workbook has formulas without results"


def _without_end(path: Path) -> None:
    _write(path, ("S", ROWS))
    path.write_bytes(path.read_bytes()[:-40])


def _far_cells(path: Path) -> None:
    _write(path, ("S", [HEAD]))
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet("S")
    sheet.write(0, 0, "id")
    sheet.write(1_048_575, 16_383, "x")
    book.close()


def _formula(path: Path) -> None:
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet("S")
    sheet.write_row(0, 0, HEAD)
    sheet.write_row(1, 0, ["1", "=1+1"])
    book.close()


def _no_cells(path: Path) -> None:
    _write(path, ("S", []))


def _other_columns(path: Path) -> None:
    _write(path, ("A", [["x"]]), ("B", [["y"]]))


def _bomb(path: Path) -> None:
    """A sheet of 4 GiB of blanks."""
    _write(path.with_suffix(".small"), ("S", ROWS))
    with zipfile.ZipFile(path.with_suffix(".small")) as small, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in small.namelist():
            if not name.endswith("sheet1.xml"):
                out.writestr(name, small.read(name))
        with out.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(small.read("xl/worksheets/sheet1.xml").replace(b"</worksheet>", b""))
            for _ in range(512):
                sheet.write(b" " * (1 << 20))
            sheet.write(b"</worksheet>")


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (_without_end, "the export is a zip archive", "export it as CSV"),
        (_far_cells, "the workbook needs more than 256 MiB to be read", "raise ARCHISYNC_READER_MEMORY_BYTES if"),
        (_formula, "the workbook has formulas without results", "correct it, and save it with a spreadsheet program"),
        (_no_cells, "the workbook has no cells", "look whether the ERP's export job ran to its end"),
        (_other_columns, "none of the sheets 'A', 'B' has the columns", "say which one is the export: ARCHISYNC_SHEET"),
    ],
)
def test_what_can_not_be_read_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str, hint: str) -> None:
    make(tmp_path / "b")
    found = _refusal(tmp_path / "b", limits=ReaderLimits(memory_bytes=256 << 20))
    assert (found[0], found[1].startswith(hint)) == (message, True)


_ODS = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">
<office:body><office:spreadsheet>
<table:table table:name="S">{rows}</table:table></office:spreadsheet></office:body></office:document-content>
"""


_MANIFEST = (
    '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">{}</manifest:manifest>'
)


def _ods(path: Path, between: str, manifest: str = "") -> Path:
    """The rows as an ODS with that between its tags."""
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    rows = [["<table:table-row>", *(cell.format(text) for text in row), "</table:table-row>"] for row in ROWS]
    content = _ODS.format(rows=between.join(tag for row in rows for tag in row))
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        packed.writestr("content.xml", content.replace("\n<", between + "<"))
        packed.writestr("META-INF/manifest.xml", _MANIFEST.format(manifest))
    return path


def test_an_ods_with_blanks_between_its_tags_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert list(_table(_ods(tmp_path / "a", "")).rows()) == [RawRow(2, ("1", "a")), RawRow(3, ("2", "b"))]
    message, hint = _refusal(_ods(tmp_path / "b", "\n  "))
    assert message.startswith("the workbook is an ODS that can't be read: ")
    assert hint.startswith("save it as .xlsx; an ODS is read as LibreOffice writes it")


def _locked_ods(path: Path) -> None:
    entry = '<manifest:file-entry manifest:full-path="content.xml"><manifest:encryption-data/></manifest:file-entry>'
    _ods(path, "", entry)


def _locked_xlsx(path: Path) -> None:
    """A compound file (MS-CFB) with the stream in which Office keeps what it has encrypted."""
    free, end = 0xFFFFFFFF, 0xFFFFFFFE
    head = struct.pack("<8s16xHHHHH6xIIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6,
                       0, 1, 1, 0, 4096, end, 0, end, 0, 0)  # fmt: skip
    table = struct.pack("<128I", 0xFFFFFFFD, end, *[free] * 126)
    entries = b""
    for name, kind, child in (("Root Entry", 5, 1), ("EncryptedPackage", 2, free), ("", 0, free), ("", 0, free)):
        text = name.encode("utf-16-le")
        size = len(text) + 2 if name else 0
        entries += struct.pack("<64sHBBIII36xIQ", text, size, kind, 1, free, free, child, end if kind else 0, 0)
    path.write_bytes(head + struct.pack("<108I", *[free] * 108) + table + entries)


@pytest.mark.parametrize("make", [_locked_ods, _locked_xlsx])
def test_a_workbook_with_a_password_is_not_called_damaged(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "b")
    assert _refusal(tmp_path / "b") == ("the workbook is protected by a password", "save it without one")
    assert {path.name for path in tmp_path.iterdir()} == {"b", "b.records"}


def test_a_cut_or_damaged_workbook_gives_rows_or_an_export_error(tmp_path: Path) -> None:
    whole = _write(tmp_path / "b", ("S", ROWS)).read_bytes()
    path = tmp_path / "damaged"
    for place in range(0, len(whole), len(whole) // 12):
        for damaged in (whole[:place], whole[:place] + b"\xff" * 8 + whole[place + 8 :]):
            path.write_bytes(damaged)
            try:
                assert list(_table(path).rows()) == [RawRow(2, ("1", "a")), RawRow(3, ("2", "b"))]
            except ExportError as exc:
                assert exc.hint


def test_a_workbook_is_synced_like_any_other_export(connection: Database, database_url: str, tmp_path: Path) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    head = ["ID CLIENTE", "RAGIONE SOCIALE", "CITTA'", "FATTURATO", "DATA ULTIMO ORDINE"]
    rows = [
        ["00017", "Bar", "Roma", 1250.5, date(2025, 12, 31)],
        [1000.0, "Due", "", "x", None],
        [54.28, "Tre", "", 1, None],
    ]
    _write(tmp_path / "customers.xlsx", ("Clienti", [["Elenco clienti"], head, *rows]))
    config = Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{tmp_path}/{{type}}.xlsx"}
    )
    run = sync(connection, config, "customers", "anna")
    assert (run.state, [w["rows"] for w in run.warnings if w["code"] == "quarantined"]) == (
        "succeeded",
        [
            [
                {"line": 4, "field": "sales_amount", "reason": "'x' is not a number"},
                {
                    "line": 5,
                    "field": "customer_id",
                    "reason": "'54.28' is an identifier written as a number that is not whole; write it as text",
                },
            ]
        ],
    )
    found = connection.execute(
        "select customer_id, city, sales_amount, last_order_date from agents.customers"
    ).fetchall()
    assert [tuple(row.values()) for row in found] == [("00017", "Roma", Decimal("1250.5"), date(2025, 12, 31))]
    assert run.export is not None
    assert run.export["detected"] == {
        "format": "workbook",
        "sheet": "Clienti",
        "title_lines": "1",
        "labels": "CITTA' for city",
    }
