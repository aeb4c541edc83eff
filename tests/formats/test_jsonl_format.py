"""JSON Lines: the source text of numbers, bad rows, truncated files."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archisync.base.errors import ExportError
from archisync.formats import open_table
from archisync.formats.jsonl import MAX_LABELS, MAX_LINE_BYTES, JsonlTable
from archisync.formats.rows import BadRow, NestedText, NumberText, RawRow, Table
from archisync.sources import Export
from tests.support.properties import examples


def _table(tmp_path: Path, content: bytes, suffix: str = ".jsonl") -> Table:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    return open_table(Export(path=path, origin="x", suffix=suffix, size_bytes=len(content), sha256=""))


def _refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ExportError) as refused:
        list(_table(tmp_path, content).rows())
    assert refused.value.hint
    return refused.value.message


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", "", ".json"])
def test_labels_are_all_keys_in_the_order_in_which_they_first_occur(tmp_path: Path, suffix: str) -> None:
    table = _table(tmp_path, b'\xef\xbb\xbf{"b": "x", "a": null}\n\n{"c": true, "b": false}\r\n', suffix)
    assert table.labels == ("b", "a", "c")
    assert list(table.rows()) == [RawRow(1, ("x", None, None)), RawRow(3, ("false", None, "true"))]
    assert table.detected == {"format": "jsonl", "encoding": "utf-8"}


@pytest.mark.parametrize("number", ["54.280", "1e400", "-0.10", "123456789012345678901234567890", "1" * 5000])
def test_numbers_keep_their_source_text(tmp_path: Path, number: str) -> None:
    (row,) = _table(tmp_path, f'{{"n": {number}}}\n'.encode()).rows()
    assert row == RawRow(1, (number,))
    assert isinstance(row, RawRow)
    assert type(row.cells[0]) is NumberText


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": NaN}', "has NaN, which is not a JSON number"),
        (b'{"a": -Infinity}', "has -Infinity, which is not a JSON number"),
        (b'{"a": 1, "a": 2}', "has a key twice"),
        (b"[1]", "is not a JSON object"),
        (b"17", "is not a JSON object"),
        (b'{"a": 1', "is not valid JSON (Expecting ',' delimiter, column 8)"),
        (b'{"a": 1} {"a": 2}', "is not valid JSON (Extra data, column 10)"),
        (b'{"a": "\xff"}', "is not valid UTF-8"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "is nested too deeply"),
    ],
)
def test_an_unreadable_line_makes_a_bad_row_and_the_rest_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    assert list(_table(tmp_path, b'{"a": "1"}\n' + line + b'\n{"a": "2"}\n').rows()) == [
        RawRow(1, ("1",)),
        BadRow(2, reason),
        RawRow(3, ("2",)),
    ]


@pytest.mark.parametrize("value", ['{"b": 1}', "[]", '[{"c": [NaN]}]'])
def test_an_object_or_array_in_a_cell_leaves_the_other_cells_readable(tmp_path: Path, value: str) -> None:
    (row,) = _table(tmp_path, f'{{"a": {value}, "n": 5}}\n'.encode()).rows()
    assert isinstance(row, RawRow)
    assert [type(cell) for cell in row.cells] == [NestedText, NumberText]


def test_an_incomplete_last_line_means_a_truncated_file(tmp_path: Path) -> None:
    message = "truncated: line 2, the last one, is not complete"
    assert _refusal(tmp_path, b'{"a": "1"}\n{"a": "2') == message
    assert _refusal(tmp_path, b'{"a": "1"}\n{"a": "\xc3') == message
    assert _refusal(tmp_path, b'{"a": "1"}\n{"a": NaN, "b') == message


def test_a_complete_last_line_needs_no_line_end(tmp_path: Path) -> None:
    assert list(_table(tmp_path, b'{"a": "1"}').rows()) == [RawRow(1, ("1",))]


@pytest.mark.parametrize("content", [b"[1]\n", b"\n", b"{}\n"])
def test_a_file_without_any_object_is_refused(tmp_path: Path, content: bytes) -> None:
    assert _refusal(tmp_path, content) == "the export has no JSON object with a key"


def test_a_boundless_line_is_refused(tmp_path: Path) -> None:
    content = b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
    assert _refusal(tmp_path, content) == f"line 1 is longer than {MAX_LINE_BYTES} bytes"


def test_too_many_labels_are_refused(tmp_path: Path) -> None:
    content = b"".join(b'{"k%d": 1}\n' % number for number in range(MAX_LABELS + 1))
    assert _refusal(tmp_path, content) == f"the export has more than {MAX_LABELS} different keys"


def test_lone_surrogates_and_control_characters_are_kept(tmp_path: Path) -> None:
    (row,) = _table(tmp_path, rb'{"a": "x\ud800\u0000"}' + b"\n").rows()
    assert row == RawRow(1, ("x\ud800\0",))


_ROWS = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=5), "città": st.none() | st.text(max_size=5)}), min_size=1, max_size=4
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_ROWS)
def test_a_cut_at_any_byte_gives_an_error_or_whole_leading_rows(
    tmp_path: Path, rows: list[dict[str, str | None]]
) -> None:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    path = tmp_path / "cut.jsonl"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            read = list(JsonlTable(path).rows())
        except ExportError:
            continue
        assert all(isinstance(row, RawRow) for row in read)
        assert [row.cells for row in read if isinstance(row, RawRow)] == [
            tuple(row[label] for label in rows[0]) for row in rows[: len(read)]
        ]
