"""CSV: what is detected, which rows are bad, and that a cut file is noticed."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from archisync.base.errors import ExportError
from archisync.formats import open_table
from archisync.formats.csv.lines import MAX_LINE_CHARS
from archisync.formats.csv.records import MAX_CELL_CHARS
from archisync.formats.csv.table import CsvTable
from archisync.formats.rows import BadRow, RawRow, Table
from archisync.rules.config import CsvDialect
from archisync.sources import Export
from tests.support.properties import examples


def _export(tmp_path: Path, content: bytes, suffix: str = ".csv") -> Export:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    return Export(path=path, origin="orders", suffix=suffix, size_bytes=len(content), sha256="")


def _rows(tmp_path: Path, content: bytes) -> list[RawRow | BadRow]:
    return list(open_table(_export(tmp_path, content)).rows())


def _is_open_ended(table: Table) -> bool:
    assert isinstance(table, CsvTable)
    return table.open_ended


def _refusal(tmp_path: Path, content: bytes, suffix: str = ".csv") -> str:
    with pytest.raises(ExportError) as refused:
        list(open_table(_export(tmp_path, content, suffix)).rows())
    assert refused.value.hint
    return refused.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the export is empty (0 bytes)"),
        (b"%PDF-1.7\n", "truncated: the PDF has no end"),
        (b"<!DOCTYPE html><html>\n", "the export looks like an HTML page, probably a login page"),
        (b"\xef\xbb\xbf \r\n<html>\n", "the export looks like an HTML page, probably a login page"),
        ("<html>\n".encode("utf-16"), "the export looks like an HTML page, probably a login page"),
        (b"<?xml version='1.0'?>\n<rows/>\n", "the export is XML"),
        (b"\xef\xbb\xbf<Customers><Customer/></Customers>\n", "the export is XML"),
        (
            b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C'>\n",
            "the export looks like an HTML page, probably a login page",
        ),
        (b"<table border=1><tr><td>1</td></tr></table>\n", "the export is an HTML page with a table"),
        (b"PK\x03\x04rest\n", "the export is a zip archive"),
        (b"a\0,b\n1,2\n", "the export is binary data, not text"),
        (b"\n\n  \n", "the export has no header line that can be read"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", "", ".dat"])
def test_a_file_that_is_not_an_export_is_refused(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    assert _refusal(tmp_path, content, suffix) == message


def test_a_json_array_that_is_named_like_csv_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, b'[{"id": 1}]\n') == "the export is a JSON array, though it is named like CSV"


@pytest.mark.parametrize(
    ("encoding", "detected"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("cp1252", "cp1252")],
)
def test_the_encoding_is_detected(tmp_path: Path, encoding: str, detected: str) -> None:
    table = open_table(_export(tmp_path, "id;città\n1;Forlì\n".encode(encoding)))
    assert table.labels == ("id", "città")
    assert list(table.rows()) == [RawRow(2, ("1", "Forlì"))]
    assert table.detected == {"format": "csv", "encoding": detected, "delimiter": "semicolon", "quoting": "double"}


@pytest.mark.parametrize("suffix", [".csv", "", ".dat"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_byte_order_mark_is_read_if_it_is_configured(
    tmp_path: Path, encoding: str, bom: str, line_end: str, suffix: str
) -> None:
    content = f"{bom}id;città{line_end}1;Ċ\u0a0a{line_end}".encode(encoding)
    table = open_table(_export(tmp_path, content, suffix), CsvDialect(encoding=encoding))
    assert table.labels == ("id", "città")
    assert list(table.rows()) == [RawRow(2, ("1", "Ċ\u0a0a"))]
    cut = open_table(_export(tmp_path, content[: -2 * len(line_end)], suffix), CsvDialect(encoding=encoding))
    assert (_is_open_ended(table), _is_open_ended(cut)) == (False, True)


@pytest.mark.parametrize(
    ("content", "encoding", "message", "hint"),
    [
        ("a,b\n1,2\n".encode("utf-16-le"), "utf-16", "the export is UTF-16 without a byte order mark: set ARCHISYNC_CSV_ENCODING=utf-16-le", "or export it with the mark, or as UTF-8"),  # noqa: E501
        ("a,b\n1,2\n".encode("utf-16-be"), "utf-16", "the export is UTF-16 without a byte order mark: set ARCHISYNC_CSV_ENCODING=utf-16-be", "or export it with the mark, or as UTF-8"),  # noqa: E501
        (b"a,b\n1,2\n", "utf-16", "the export is not valid utf-16 text", "export it as UTF-8, or set ARCHISYNC_CSV_ENCODING"),
        ("\ufeffa,b\n".encode("utf-16-be"), "utf-16-le", "the export is not valid utf-16-le text", "export it as UTF-8, or set ARCHISYNC_CSV_ENCODING"),  # noqa: E501
        (b"<html>\n", "utf-16", "the export looks like an HTML page, probably a login page", "check the credentials and the session of whatever fetches the export"),  # noqa: E501
        ("<html>\n".encode("utf-16-be"), "utf-16-be", "the export looks like an HTML page, probably a login page", "check the credentials and the session of whatever fetches the export"),  # noqa: E501
    ],
)  # fmt: skip
def test_text_in_another_encoding_than_the_configured_utf16_is_refused(
    tmp_path: Path, content: bytes, encoding: str, message: str, hint: str
) -> None:
    with pytest.raises(ExportError) as refused:
        open_table(_export(tmp_path, content), CsvDialect(encoding=encoding))
    assert (refused.value.message, refused.value.hint) == (message, hint)


def test_utf16_big_endian_is_read(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"\xfe\xff" + "a,b\n1,à\n".encode("utf-16-be")) == [RawRow(2, ("1", "à"))]


def test_the_last_line_can_decide_the_encoding_of_the_whole_file(tmp_path: Path) -> None:
    content = b"a,b\n" + (b"1," + b"x" * 97 + b"\n") * 8_000 + b"2,Forl\xec\n"
    table = open_table(_export(tmp_path, content))
    assert table.detected["encoding"] == "cp1252"
    assert list(table.rows())[-1] == RawRow(8_002, ("2", "Forlì"))


def test_one_damaged_byte_does_not_turn_utf8_into_cp1252(tmp_path: Path) -> None:
    content = "a,b\n1,Forlì\n2,Cantù\n".encode() + b"3,\xff\n"
    assert _refusal(tmp_path, content) == "the export is UTF-8 text with 1 damaged byte"


@pytest.mark.parametrize(("sign", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
def test_the_delimiter_is_detected_from_the_header_outside_quotes(tmp_path: Path, sign: str, name: str) -> None:
    table = open_table(_export(tmp_path, f'"a,;|,;|"{sign}b{sign}c\n1{sign}2{sign}3\n'.encode()))
    assert table.detected["delimiter"] == name
    assert table.labels == ("a,;|,;|", "b", "c")


def test_an_ambiguous_delimiter_is_refused(tmp_path: Path) -> None:
    message = "the delimiter is not clear: comma and semicolon both give 2 columns"
    assert _refusal(tmp_path, b"id;name,surname\n1;a,b\n") == message


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".tsv"])
def test_a_csv_file_that_mentions_a_pdf_is_read_as_csv(tmp_path: Path, suffix: str) -> None:
    table = open_table(_export(tmp_path, b"id,name\n1,Stampa %PDF-1.4\n", suffix))
    assert list(table.rows()) == [RawRow(2, ("1", "Stampa %PDF-1.4"))]


def test_a_table_may_have_one_column(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"id\n1\n\n2\n") == [RawRow(2, ("1",)), RawRow(4, ("2",))]


def test_labels_are_kept_as_they_are(tmp_path: Path) -> None:
    assert open_table(_export(tmp_path, b"a,,a, B :\n")).labels == ("a", "", "a", "B :")


def test_line_numbers_count_the_lines_of_the_file(tmp_path: Path) -> None:
    content = b'\na,b\r\n1,"x\r\ny"\r\n\r\n   \r\n2,z\r\n'
    assert _rows(tmp_path, content) == [RawRow(3, ("1", "x\r\ny")), RawRow(7, ("2", "z"))]


def test_lone_carriage_returns_end_lines_when_the_header_line_ends_with_one(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"a,b\r1,2\r3,4\r") == [RawRow(2, ("1", "2")), RawRow(3, ("3", "4"))]
    assert _is_open_ended(open_table(_export(tmp_path, b"a,b\r1,2\r3,4")))


def test_rows_with_too_few_or_too_many_cells_are_bad_and_the_rest_is_read(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"a,b,c\n1\n1,2,3\n1,2,3,4\n;;\n4,5,6\n") == [
        BadRow(2, "has 1 cell, the header has 3"),
        RawRow(3, ("1", "2", "3")),
        BadRow(4, "has 4 cells, the header has 3"),
        BadRow(5, "has 1 cell, the header has 3"),
        RawRow(6, ("4", "5", "6")),
    ]


def test_a_short_last_row_means_a_truncated_file(tmp_path: Path) -> None:
    message = "truncated: the last row, line 3, has 1 cell, the header has 2"
    assert _refusal(tmp_path, b"a,b\n1,2\n3\n\n") == message


def test_a_long_last_row_is_only_bad(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"a,b\n1,2,3\n") == [BadRow(2, "has 3 cells, the header has 2")]


@pytest.mark.parametrize("content", [b"a,b\n1,2", b"a,b", b"a,b\r\n1,2\r", "a,b\n1,2".encode("utf-16")])
def test_a_missing_final_line_end_is_a_question(tmp_path: Path, content: bytes) -> None:
    assert _is_open_ended(open_table(_export(tmp_path, content)))
    assert not _is_open_ended(open_table(_export(tmp_path, content), CsvDialect(open_end=True)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_cut_in_a_character_means_a_truncated_file(tmp_path: Path, encoding: str) -> None:
    assert _refusal(tmp_path, "a,b\n1,2\n".encode(encoding)[:-1]) == "truncated: the last character is cut off"


@pytest.mark.parametrize(
    ("content", "line"), [(b'a,b\n1,"x\n2,y\n', 2), (b'a,b\n"p\nq","x\n2,y\n', 3), (b'a,"b\n1,2\n', 1)]
)
def test_a_quote_that_is_never_closed_means_a_truncated_file(tmp_path: Path, content: bytes, line: int) -> None:
    assert _refusal(tmp_path, content) == f"truncated: quoted cell opened in line {line} is never closed"


def test_text_after_a_closing_quote_makes_a_bad_row_if_the_next_row_is_certain(tmp_path: Path) -> None:
    assert _rows(tmp_path, b'a,b\n1,"x"y\n2,z\n') == [
        BadRow(2, "has text after a closing quote"),
        RawRow(3, ("2", "z")),
    ]


def test_damaged_quotes_refuse_the_export_if_the_next_row_is_uncertain(tmp_path: Path) -> None:
    message = "damaged quotes in line 2: it is not clear where the next row starts"
    assert _refusal(tmp_path, b'a,b\n"x "y" z,"1\n2",w\n') == message


def test_a_stray_carriage_return_makes_a_bad_row(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"a,b\n1\r1,2\n3,4\n") == [
        BadRow(2, "has a carriage return outside quotes"),
        RawRow(3, ("3", "4")),
    ]


def test_quotes_inside_an_unquoted_cell_are_text(tmp_path: Path) -> None:
    assert _rows(tmp_path, b'a,b\n1,5" pipe\n2,x\n') == [RawRow(2, ("1", '5" pipe')), RawRow(3, ("2", "x"))]


def test_a_nul_in_a_cell_is_kept(tmp_path: Path) -> None:
    assert _rows(tmp_path, b"a,b\n1,x\0y\n") == [RawRow(2, ("1", "x\0y"))]


def test_a_long_cell_is_read_and_a_boundless_cell_is_refused(tmp_path: Path) -> None:
    cell = b"x" * 200_000
    assert _rows(tmp_path, b"a,b\n1," + cell + b"\n") == [RawRow(2, ("1", cell.decode()))]
    message = _refusal(tmp_path, b'a,b\n1,"' + (b"x" * 1023 + b"\n") * (MAX_CELL_CHARS // 1024 + 1) + b'"\n')
    assert message == f"a cell of the row in line 2 is longer than {MAX_CELL_CHARS} characters"


def test_a_boundless_line_is_refused(tmp_path: Path) -> None:
    content = b"a,b\n" + b"," * (MAX_LINE_CHARS + 1) + b"\n"
    assert _refusal(tmp_path, content) == f"line 2 is longer than {MAX_LINE_CHARS} characters"


def test_a_table_can_be_read_again(tmp_path: Path) -> None:
    table = open_table(_export(tmp_path, b"a,b\n1,2\n"))
    assert list(table.rows()) == list(table.rows())


def test_the_cell_limit_of_the_process_is_never_lowered(tmp_path: Path) -> None:
    before = csv.field_size_limit(MAX_CELL_CHARS * 2)
    try:
        _rows(tmp_path, b"a,b\n1,2\n")
        assert csv.field_size_limit() == MAX_CELL_CHARS * 2
    finally:
        csv.field_size_limit(before)


_CELL = st.text(alphabet="ab ,;\"\n\r'€è", max_size=6)
BOTH = "è€€"
"""In cp1252, these are the bytes of one Chinese character in UTF-8."""
_ROW = st.tuples(_CELL, _CELL, _CELL).filter(lambda row: any(cell.strip() for cell in row))  # a blank row is none
_TABLE = st.lists(_ROW, max_size=4)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=_TABLE,
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_cut_at_any_byte_gives_an_error_or_whole_leading_rows(
    tmp_path: Path, rows: list[tuple[str, str, str]], encoding: str, end: str
) -> None:
    assume(encoding != "cp1252" or not any(BOTH in cell for row in rows for cell in row))  # see the test below
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("ida", "idb", "idc"), *rows])
    content = text.getvalue().encode(encoding)
    path = tmp_path / "cut.csv"
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        export = Export(path=path, origin="", suffix=".csv", size_bytes=length, sha256="")
        try:
            table = open_table(export)
            read = [row.cells for row in table.rows() if isinstance(row, RawRow)]
            if _is_open_ended(table):
                assert length < len(content)
                continue
        except ExportError:
            assert length < len(content)
            continue
        assert read == rows[: len(read)]
        assert length < len(content) or len(read) == len(rows)
        # A cut that is not detected is exactly after a row.
        kept = io.StringIO(newline="")
        csv.writer(kept, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("ida", "idb", "idc"), *read])
        whole = kept.getvalue().encode(encoding)
        assert whole.startswith(content[:length])
        line_feed = "\n".encode("utf-16-le" if encoding == "utf-16" else "ascii")
        assert whole[length:] in (b"", line_feed)  # a cut between \r and \n loses nothing


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet='ab,;"\n\r\0|\t', max_size=40).map(str.encode))
def test_any_bytes_give_rows_or_an_export_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    try:
        table = CsvTable(path)
        assert all(isinstance(row, BadRow) or len(row.cells) == len(table.labels) for row in table.rows())
    except ExportError as exc:
        assert exc.hint


def test_bytes_that_are_text_in_two_encodings_are_read_as_utf8_unless_configured(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_bytes(f"id,name\n1,{BOTH}\n".encode("cp1252"))
    export = Export(path=path, origin="", suffix=".csv", size_bytes=path.stat().st_size, sha256="")
    found, configured = open_table(export), open_table(export, CsvDialect(encoding="cp1252"))
    assert (found.detected["encoding"], list(found.rows())) == ("utf-8", [RawRow(2, ("1", "\u8000"))])
    assert (configured.detected["encoding"], list(configured.rows())) == ("cp1252", [RawRow(2, ("1", BOTH))])
