"""JSON Lines: the source text of numbers, bad rows, truncated files."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archisync.base.errors import ExportError
from archisync.formats import open_table
from archisync.formats.jsonl import MAX_LABELS, MAX_LINE_BYTES, JsonlTable
from archisync.formats.rows import BadRow, NestedText, NumberText, RawRow, RequiredPlaces, Table, nothing_required
from archisync.sources import Export
from tests.support.properties import examples


def _table(
    tmp_path: Path, content: bytes, suffix: str = ".jsonl", required: RequiredPlaces = nothing_required
) -> Table:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    export = Export(path=path, origin="x", suffix=suffix, size_bytes=len(content), sha256="")
    return open_table(export, required=required)


def _id_required(labels: tuple[str, ...]) -> tuple[int, ...] | None:
    return (labels.index("id"),) if "id" in labels else None


def _refusal(tmp_path: Path, content: bytes, required: RequiredPlaces = nothing_required) -> str:
    with pytest.raises(ExportError) as refused:
        list(_table(tmp_path, content, required=required).rows())
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


@pytest.mark.parametrize("value", ["{}", "[]", '[{"c": [NaN]}]'])
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


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b'{"value":[{"id":1},{"id":2}]}', "value"),
        (b'{"status": "a \\" {[", "page": 1, "d": {"next": null, "results": [{"id": 1}]}}\n', "results"),
        (b'\xef\xbb\xbf{\n  "total": 2,\n  "data": [\n{"id": 1},\n{"id": 2}\n]\n}\n', "data"),
    ],
)
def test_rows_inside_an_object_are_refused_with_the_way_to_take_them_out(
    tmp_path: Path, content: bytes, key: str
) -> None:
    assert _refusal(tmp_path, content, _id_required) == f"the export is a JSON object with the rows in it, in '{key}'"


def test_rows_with_arrays_in_them_are_rows(tmp_path: Path) -> None:
    order = b'{"lines": [{"sku": 1}], "id": 1}\n'
    for content in (order, order * 2):
        assert _table(tmp_path, content, required=_id_required).labels == ("lines", "id")
        if content != order:
            assert _table(tmp_path, content, required=lambda labels: None).labels == ("lines", "id")


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


# --- an array, and objects in objects --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".json", "", ".jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        b'[{"a": 1, "b": "x"},\n{"a": 2.50, "b": null}]',
        b'\xef\xbb\xbf [\n {"a": 1,\n "b": "x"}\n,\n {"a": 2.50, "b": null}\n]\n\n',
        b'[{"a":1,"b":"x"},{"a":2.50}]',
    ],
)
def test_an_array_of_objects_is_read_like_lines(tmp_path: Path, content: bytes, suffix: str) -> None:
    table = _table(tmp_path, content, suffix)
    assert (table.labels, table.detected["format"]) == (("a", "b"), "json")
    rows = list(table.rows())
    assert [row.cells for row in rows if isinstance(row, RawRow)] == [("1", "x"), ("2.50", None)]
    assert [row.line for row in rows] == [
        content[: content.index(key)].count(b"\n") + 1 for key in (b'{"a": 1', b'{"a": 2') if key in content
    ] or [1, 1]


def test_an_element_that_is_no_object_makes_a_bad_row(tmp_path: Path) -> None:
    assert list(_table(tmp_path, b'[{"a": "1"},\n7, [1], {"a": NaN}, {"a": 1, "a": 2}]').rows()) == [
        RawRow(1, ("1",)),
        BadRow(2, "is not a JSON object"),
        BadRow(2, "is not a JSON object"),
        BadRow(2, "has NaN, which is not a JSON number"),
        BadRow(2, "has a key twice"),
    ]


def test_a_large_array_is_read_in_parts(tmp_path: Path) -> None:
    rows = [{"id": number, "name": "è" * (number % 300)} for number in range(5_000)]
    content = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    assert len(content) > 1_000_000
    read = [row.cells for row in _table(tmp_path, content, ".json").rows() if isinstance(row, RawRow)]
    assert read == [(str(row["id"]), row["name"]) for row in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}] x', "the export goes on after its JSON array, in line 1"),
        (b'[{"a": 1}\n{"a": 2}]', "the JSON array can't be read from line 2 on: there is no comma after an object"),
        (b'[{"a": 1}, {"b": nonsense and more of it}]', "the JSON array can't be read from line 1 on: Expecting value"),
        (b'[{"a": ' + b"[" * 100_000, "the JSON array can't be read from line 1 on: it is nested too deeply"),
        (b'[{"a": "\xff"}]', "the export is not valid utf-8 text"),
        (b"[]", "the export has no JSON object with a key"),
    ],
)
def test_an_array_that_can_not_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert _refusal(tmp_path, content) == message


def test_an_object_of_an_array_may_not_be_boundless(tmp_path: Path) -> None:
    content = b'[{"a": "' + b"x" * (3 * MAX_LINE_BYTES) + b'"}]'
    assert _refusal(tmp_path, content).startswith("the JSON array can't be read from line 1 on: ")


def test_an_array_that_is_cut_at_any_byte_is_truncated(tmp_path: Path) -> None:
    content = b'[{"a": "x", "n": 1.5, "b": true},\n {"a": "\xc3\xa8", "n": 20, "o": {"k": null}}]'
    for length in range(2, len(content)):
        message = _refusal(tmp_path, content[:length])
        assert message.startswith(("truncated: the JSON array is not closed", "the export is not valid utf-8")), length


def test_an_object_in_an_object_has_labels_with_a_dot(tmp_path: Path) -> None:
    content = b'{"id": "1", "customer": {"id": 7, "name": {"last": "x"}, "tags": [1]}}\n{"id": "2", "customer": null}\n'
    table = _table(tmp_path, content)
    assert table.labels == ("id", "customer", "customer.id", "customer.name", "customer.name.last", "customer.tags")
    first, second = table.rows()
    assert isinstance(first, RawRow)
    assert isinstance(second, RawRow)
    assert (first.cells[2], first.cells[4]) == ("7", "x")
    assert second.cells == ("2", None, None, None, None, None)
