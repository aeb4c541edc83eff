"""CSV as ERPs write it: what is understood without a setting, what is recorded of it, and what is refused with the setting to type."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.base.errors import ExportError, TruncatedError
from archisync.formats import open_table
from archisync.formats.csv.table import CsvTable
from archisync.formats.rows import BadRow, RawRow
from archisync.rules.config import DETECT, CsvDialect
from archisync.sources import Export

_KNOWN = {"format", "encoding", "delimiter", "quoting"}


def _required(labels: tuple[str, ...]) -> tuple[int, ...] | None:
    """The places of `id` and `name`."""
    bare = [label.strip("\ufeff ") for label in labels]
    return (bare.index("id"), bare.index("name")) if {"id", "name"} <= set(bare) else None


def _table(tmp_path: Path, content: bytes, dialect: CsvDialect = DETECT) -> CsvTable:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    export = Export(path=path, origin="x", suffix=".csv", size_bytes=len(content), sha256="")
    table = open_table(export, dialect, required=_required)
    assert isinstance(table, CsvTable)
    return table


def _cells(rows: Iterator[RawRow | BadRow]) -> list[tuple[str | None, ...] | str]:
    return [row.reason if isinstance(row, BadRow) else row.cells for row in rows]


@pytest.mark.parametrize(
    ("content", "recorded"),
    [
        (b"id;name\n1;a b\n2;c\n", {}),
        (b"Customers\nOctober 2025\n\nid;name\n1;a b\n2;c\n", {"title_lines": "3"}),
        (b"Customers;;\nDate;31/10/2025;;\nid;name\n1;a b\n2;c\n", {"title_lines": "2"}),
        (b"Customers;\n;\nid;name\n1;a b\n2;c\n", {"title_lines": "2"}),
        (b'"Customers; all, of them"\nid;name\n1;a b\n2;c\n', {"title_lines": "1"}),
        (b"sep=;\nid;name\n1;a b\n2;c\n", {"sep_line": "yes"}),
        (b'"sep=;"\r\nid;name\r\n1;a b\r\n2;c\r\n', {"sep_line": "yes"}),
        (b"SEP=;\nCustomers\nid;name\n1;a b\n2;c\n", {"sep_line": "yes", "title_lines": "1"}),
        (b"id;name;\n1;a b\n2;c\n", {"trailing_delimiter": "header"}),
        (b'id;name\n="1";=("a b")\n="2";"=""c"""\n', {"cells": '="text"'}),
        (b'id; name\n1; a b\n2;   c\n', {}),
        (b'id; name\n1; "a b"\n2;   c\n', {"cells": "blanks around quotes"}),
        (b'id;name\n="1" ; "a b"\n"2" ;="c" \n', {"cells": '="text", blanks around quotes'}),
        (b'"id" ;"name"  \n"1"  ;"a b"\t\r\n"2" ; c\n', {"cells": "blanks around quotes"}),
        (b"id;name\n1;a b\n2;c\n\x1a", {"line_end": "Ctrl-Z"}),
        (b"id;name\n1;a b\n2;c\n\x1a\x1a\x1a", {"line_end": "Ctrl-Z"}),
        (b"id;name\r\n1;a b\r\n2;c\r\n\x1a\r\n", {"line_end": "Ctrl-Z"}),
        (b"id;name\r\r\n1;a b\r\r\n2;c\r\r\n", {"line_end": "CR CR LF"}),
        (b"id;name\r1;a b\r2;c\r", {"line_end": "CR"}),
        ("id;name\n1;a b\n2;c\n".encode("utf-32"), {}),
        ("\ufeffid;name\r\n1;a b\r\n2;c\r\n".encode("utf-32-be"), {}),
        ("id;name\n1;a b\n2;c\n\x1a".encode("utf-16"), {"line_end": "Ctrl-Z"}),
    ],
)  # fmt: skip
def test_what_is_understood_without_a_setting(tmp_path: Path, content: bytes, recorded: dict[str, str]) -> None:
    table = _table(tmp_path, content)
    assert table.labels == ("id", "name")
    assert _cells(table.rows()) == _cells(table.rows_and_lines(None, None)) == [("1", "a b"), ("2", "c")]  # type: ignore[arg-type]
    assert {name: what for name, what in table.detected.items() if name not in _KNOWN} == recorded


def test_what_looks_like_blanks_before_quotes_inside_a_cell_is_none(tmp_path: Path) -> None:
    content = b'id;name\n1;"a; ""b"" ; ""c"" "\n2;"  ""c"""\n3;="c\n'
    assert "cells" not in _read(_table(tmp_path, content)).detected
    assert _read(_table(tmp_path, content + b'"4" ; "d"\n')).detected["cells"] == "blanks around quotes"


def test_a_delimiter_that_is_only_tried_leaves_no_trace(tmp_path: Path) -> None:
    assert "cells" not in _read(_table(tmp_path, b'id;name;c, "x"\n1;a;b\n')).detected


def _read(table: CsvTable) -> CsvTable:
    assert all(isinstance(row, RawRow) for row in table.rows())
    return table


def test_a_delimiter_at_the_end_of_every_row_is_no_cell(tmp_path: Path) -> None:
    table = _table(tmp_path, b"id;name\n1;a;\n2;b;\n")
    assert (table.labels, table.detected["trailing_delimiter"]) == (("id", "name", ""), "rows")
    assert _cells(table.rows()) == [("1", "a", ""), ("2", "b", "")]
    assert _cells(_table(tmp_path, b"id;name\n1;a;\n2;b\n3;c\n").rows()) == [
        "has 3 cells, the header has 2",
        ("2", "b"),
        ("3", "c"),
    ]
    assert _cells(_table(tmp_path, b"id;name\n1;a;\n").rows()) == ["has 3 cells, the header has 2"], "it may be shifted"
    assert _cells(_table(tmp_path, b"id;name\n1;a;\n2;b;x\n").rows()) == ["has 3 cells, the header has 2"] * 2


def test_the_required_columns_decide_between_two_delimiters(tmp_path: Path) -> None:
    table = _table(tmp_path, b"id;name;a,b,c\n1;x;1,2,3\n")
    assert (table.delimiter, table.labels) == (";", ("id", "name", "a,b,c"))


@pytest.mark.parametrize("above", [b"1;a\n", b"Agent;Rossi\n", b"1;a\n2;b\nx\n", b"Agent;Rossi\n;\n\n"])
def test_what_may_be_a_row_is_no_title(tmp_path: Path, above: bytes) -> None:
    lines = above.count(b"\n")
    with pytest.raises(
        ExportError, match=f"^line {lines + 1} has the columns, but a line above it may be a row$"
    ) as no:
        _table(tmp_path, above + b"id;name\n3;c\n")
    assert no.value.hint == f"if all above it are titles: ARCHISYNC_CSV_TITLE_LINES={lines}"
    table = _table(tmp_path, above + b"id;name\n3;c\n", CsvDialect(title_lines=lines))
    assert (table.labels, _cells(table.rows())) == (("id", "name"), [("3", "c")])
    assert (table.detected["title_lines"], table.detected["configured"]) == (str(lines), "title lines")


def test_below_more_lines_than_titles_have_no_header_is_looked_for(tmp_path: Path) -> None:
    table = _table(tmp_path, b"".join(b"%d\n" % line for line in range(40)) + b"id;name\n3;c\n")
    assert (table.labels, "title_lines" in table.detected) == (("0",), False)


def test_a_delimiter_that_is_named_and_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as refused:
        _table(tmp_path, b"sep=^\nid^name\n1^a\n")
    assert (
        refused.value.message
        == "the export names '^' as its delimiter (sep=), which is not one of comma, semicolon, tab, pipe"
    )
    assert refused.value.hint == "export it with one of these"


@pytest.mark.parametrize("end", ["", "\r", "x"])
def test_a_missing_final_line_end_is_a_question_unless_it_is_configured(tmp_path: Path, end: str) -> None:
    content = f"id;name\r\n1;a\r\n2;b{end}".encode()
    asking, told = _table(tmp_path, content), _table(tmp_path, content, CsvDialect(open_end=True))
    assert _cells(asking.rows()) == _cells(told.rows()) == [("1", "a"), ("2", f"b{end}".rstrip("\r"))]
    assert (asking.open_ended, told.open_ended) == (True, False)
    assert (told.detected["final_line_end"], told.detected["configured"]) == ("missing", "final line end")


@pytest.mark.parametrize("content", [b"id;name\n1;a\n2", b'id;name\n1;a\n2;"b', b'id;name\n1;a\n"2'])
def test_a_cut_is_noticed_although_the_final_line_end_is_optional(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TruncatedError):
        list(_table(tmp_path, content, CsvDialect(open_end=True)).rows())


_TOTALS = b'id;name\n1;a\n2;Totale\nTOTALE;\n"Totale generale";x\ntotalerg;b\n;Totale: 2\nTOTALE;;2;1.000\nTotale\n'


def test_ignored_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    table = _table(tmp_path, _TOTALS, CsvDialect(ignored=("TOTALE",)))
    assert _cells(table.rows()) == [("1", "a"), ("2", "Totale"), ("totalerg", "b")]
    assert (table.skipped, table.missing, table.detected["configured"]) == (5, 0, "ignored rows")


def test_a_short_row_before_an_ignored_one_is_only_bad(tmp_path: Path) -> None:
    table = _table(tmp_path, b"id;name\n1;a\n2\nTOTALE;2\n", CsvDialect(ignored=("totale",)))
    assert _cells(table.rows()) == [("1", "a"), "has 1 cell, the header has 2"]


def test_a_total_that_looks_cut_is_refused_with_the_setting_to_type(tmp_path: Path) -> None:
    with pytest.raises(TruncatedError) as refused:
        list(_table(tmp_path, b"id;name\n1;a\nTotale\n").rows())
    assert refused.value.hint == (
        "the transfer or the ERP's export job was cut off; export it again; "
        "if that line is a total and no row: ARCHISYNC_CSV_IGNORE_ROWS=Totale"
    )
    with pytest.raises(TruncatedError) as refused:
        list(_table(tmp_path, b"id;name\n1;a\n2\n").rows())
    assert refused.value.hint == "the transfer or the ERP's export job was cut off; export it again"


@pytest.mark.parametrize(
    ("cell", "setting"),
    [
        ("Totale: 5", "Totale"), ("(46 rows affected)", "'(* rows'"), ("2 rows selected.", "'* rows'"), ("# end", "'#'"),
        ("*** END ***", "'***'"), ("EOF", "EOF"), ("12", None), ("A-7", None), ("7a", None), ("-5", None),
    ],
)  # fmt: skip
def test_a_line_below_the_rows_is_refused_with_the_setting_that_leaves_it_out(
    tmp_path: Path, cell: str, setting: str | None
) -> None:
    content = f"id;name\n1;a\n{cell}\n".encode()
    with pytest.raises(TruncatedError) as refused:
        list(_table(tmp_path, content).rows())
    said = f"; if that line is a total and no row: ARCHISYNC_CSV_IGNORE_ROWS={setting}" if setting else ""
    assert refused.value.hint == f"the transfer or the ERP's export job was cut off; export it again{said}"
    if setting:
        table = _table(tmp_path, content, CsvDialect(ignored=tuple(shlex.split(setting))))
        assert (_cells(table.rows()), table.skipped) == ([("1", "a")], 1)


@pytest.mark.parametrize(
    ("content", "skipped"),
    [
        ("id;name\n--;----\n1;a b\n2;c\n", 1),  # sqlcmd
        (" id | name \n----+------\n 1 | a b\n 2 | c\n", 1),  # psql
        ("+----+------+\n| id | name |\n+----+------+\n| 1 | a b |\n| 2 | c |\n+----+------+\n", 2),  # mysql
        ("Customers\n---------\n|id|name|\n---------\n|1|a b|\n|2|c  |\n---------\n", 2),  # SAP
        ("|id|name|\n|--|----|\n|1|a b|\n|--|----|\n|2|c  |\n|--|----|\n", 3),
        ("id;name\n1;a b\nid;name\n2;c\n", 1),  # files that were appended
        ("id;name\n1;a b\n\fid;name\n2;c\n", 1),  # pages
        ("\ufeffid;name\n1;a b\n\ufeffid;name\n2;c\n", 1),
    ],
)
def test_lines_of_dashes_and_the_header_again_are_no_rows(tmp_path: Path, content: str, skipped: int) -> None:
    table = _table(tmp_path, content.encode())
    found = [[cell.strip() for cell in row if cell and cell.strip()] for row in _cells(table.rows())]
    assert found == [["1", "a b"], ["2", "c"]]
    assert table.skipped == skipped
    unparsed = list(table.rows_and_lines(_AnyLine(), None))  # type: ignore[arg-type]
    lines = [line for item in unparsed if not isinstance(item, RawRow | BadRow) for line in item.lines]
    assert not [line for line in lines if b"--" in line and len(line) == len(content.splitlines()[0])]
    assert b"id;name" not in lines


def test_dashes_in_a_row_are_cells(tmp_path: Path) -> None:
    assert _cells(_table(tmp_path, b"id;name\n1;a\n--;--\n-;-\n").rows()) == [("1", "a"), ("--", "--"), ("-", "-")]
    assert _cells(_table(tmp_path, b"id;name\n--;\n").rows()) == [("--", "")]


def test_a_null_of_mysql_and_postgresql_is_no_text(tmp_path: Path) -> None:
    content = b"id\tname\n1\t\\N\n2\tC:\\New\n"
    reason = "has \\N, which is NULL in files of MySQL and PostgreSQL: ARCHISYNC_CSV_QUOTING=backslash"
    assert _cells(_table(tmp_path, content).rows()) == [reason, ("2", "C:\\New")]
    assert _cells(_table(tmp_path, content, _ESCAPED).rows())[0] == ("1", "")


class _AnyLine:
    def match(self, lines: object, /) -> bool:
        return True


def test_unparsed_lines_have_no_ignored_row(tmp_path: Path) -> None:
    table = _table(tmp_path, b'id;name\n1;a\n"TOTALE";b\n\n2;c\n; Totale;\n3;d\n', CsvDialect(ignored=("Totale",)))
    found = list(table.rows_and_lines(_AnyLine(), None))  # type: ignore[arg-type]
    unparsed = [line for item in found if not isinstance(item, RawRow | BadRow) for line in item.lines]
    assert (unparsed, table.skipped) == ([b"1;a", b"", b"2;c", b"3;d"], 2)


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        (b'"1" ; "a;b" ;"c" ', ("1", "a;b", "c")),
        (b'"1";"say ""hi"" " ;  ', ("1", 'say "hi" ', "")),
        (b'" 1" ;"";""', (" 1", "", "")),
        (b'"1" x;a;b', "has text after a closing quote"),
        (b'"1" ;"a" b"', None),
        (b'"1" ;"a;b', None),
    ],
)
def test_blanks_behind_a_closing_quote_are_left_out_and_nothing_else(
    tmp_path: Path, line: bytes, cells: tuple[str, ...] | str | None
) -> None:
    table = _table(tmp_path, b"id;name;city\n" + line + b"\n2;b;c\n")
    if cells is None:
        with pytest.raises(ExportError):
            list(table.rows())
    else:
        assert _cells(table.rows()) == [cells, ("2", "b", "c")]


_ESCAPED = CsvDialect(escaped=True)


def test_backslash_escapes_are_understood_when_that_is_set(tmp_path: Path) -> None:
    """As MySQL writes them: `select … into outfile` with quotes, and without; `mysql --batch`; a last line that ends with an escape."""
    content = rb"""id;name;city
"1";"say \"hi\"";"C:\\new"
2;a\;b;\N
3;x\ty\nz;\"q
"4";"it\'s";"a\\"
5;\0a\Zb\bc;\x
"6";"d""e";""
"""
    table = _table(tmp_path, content, _ESCAPED)
    assert table.detected["quoting"] == "backslash"
    assert _cells(table.rows()) == [
        ("1", 'say "hi"', r"C:\new"),
        ("2", "a;b", ""),
        ("3", "x\ty\nz", '"q'),
        ("4", "it's", "a\\"),
        ("5", "abc", "x"),
        ("6", 'd"e', ""),
    ]


def test_without_the_setting_a_backslash_is_a_character_and_an_escaped_quote_is_refused_with_it(tmp_path: Path) -> None:
    assert _cells(_table(tmp_path, rb"id;name" + b"\n" + rb"1;C:\new" + b"\n").rows()) == [("1", r"C:\new")]
    content = rb"id;name" + b"\n" + rb'"1";"say \"hi\""' + b"\n"
    with pytest.raises(ExportError) as refused:
        list(_table(tmp_path, content).rows())
    assert refused.value.hint.endswith(r"if \" is a quote inside a cell: ARCHISYNC_CSV_QUOTING=backslash")
    assert _cells(_table(tmp_path, content, _ESCAPED).rows()) == [("1", 'say "hi"')]


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab"\\;, \t\nN0'), max_size=6), min_size=3, max_size=3), min_size=1, max_size=4
    )
)
def test_what_is_written_with_escapes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    names = {"\\": "\\\\", '"': '\\"', "\t": "\\t", "\n": "\\n"}
    quoted = [";".join('"' + "".join(names.get(sign, sign) for sign in cell) + '"' for cell in row) for row in rows]
    table = _table(tmp_path_factory.mktemp("x"), ("id;name;city\n" + "\n".join(quoted) + "\n").encode(), _ESCAPED)
    assert _cells(table.rows()) == [
        tuple(row) for row in rows if any(cell.strip() for cell in row)
    ]  # a blank one is no row
