"""The child process of `archisync.formats.workbook.table`: takes a workbook's file name and writes the rows of its sheets as JSON Lines.

Each line is a list of rows, each row a list of cells. The last line is an object: for each sheet its name, the number of its first row,
and where its lines begin and end. A number is a JSON number, a date a text in ISO form, a boolean `true` or `false` as a text.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from archisync.base.errors import ExportError
from archisync.formats.reader import refusing

_ROWS_A_LINE = 500
_BLOCK_BYTES = 1 << 20
_OVERLAP_BYTES = 4096
_EXACT = 1 << 53
"""Whole numbers above it are not all different in a workbook, which has floats only."""
_NO_RESULT = re.compile(
    rb'<c(?![^>]* t="str")[^>]*>(?:<f[^>]*/>|<f[^>]*>[^<]*</f>)(?:<v></v>|<v ?/>)?</c>'  # t="str": the result is an empty text
)
_ALL_TO_COMPUTE = b'fullCalcOnLoad="1"'
_FEW_DIGITS = 16  # with the decimal point
_AGAIN = "open it in a spreadsheet program and save it again"
_dump = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _write() -> None:
    import python_calamine as calamine

    path, wanted = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    _require_results(path)
    sheets = []
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - calamine finds the format in the content, not in the name
            workbook = calamine.CalamineWorkbook.from_filelike(file)
            for name in _names(workbook, calamine, wanted):
                sheet = workbook.get_sheet_by_name(name)
                begin = sys.stdout.buffer.tell()
                for line in _lines(sheet.to_python()):
                    sys.stdout.buffer.write(line)
                first = sheet.start[0] + 1 if sheet.start else 1
                sheets.append({"name": name, "first": first, "begin": begin, "end": sys.stdout.buffer.tell()})
    except calamine.PasswordError:
        raise ExportError("the workbook is protected by a password", hint="save it without one") from None
    except (calamine.CalamineError, ValueError, OSError) as exc:
        raise ExportError(f"the workbook is damaged: {str(exc)[:200]}", hint=_AGAIN) from exc
    sys.stdout.buffer.write(_dump({"sheets": sheets}).encode("utf-8", "replace"))


def _names(workbook: Any, calamine: Any, wanted: str | None) -> list[str]:
    """The sheets to read: the wanted one, or every visible sheet with cells. Raises ExportError."""
    visible = [
        sheet.name
        for sheet in workbook.sheets_metadata
        if sheet.typ == calamine.SheetTypeEnum.WorkSheet and sheet.visible == calamine.SheetVisibleEnum.Visible
    ]
    if wanted is None:
        return visible
    if wanted not in workbook.sheet_names:
        raise ExportError(
            f"the workbook has no sheet {wanted!r}; its sheets are {', '.join(map(repr, workbook.sheet_names[:20]))}",
            hint="correct ARCHISYNC_SHEET",
        )
    return [wanted]


def _lines(rows: list[list[Any]]) -> Iterator[bytes]:
    for at in range(0, len(rows), _ROWS_A_LINE):
        columns = [_converted(column) for column in zip(*rows[at : at + _ROWS_A_LINE], strict=True)]
        yield _dump(list(zip(*columns, strict=True))).encode("utf-8", "replace") + b"\n"


def _converted(column: tuple[Any, ...]) -> tuple[Any, ...] | list[Any]:
    """The column with numbers, texts and None only."""
    kinds = set(map(type, column))
    if kinds <= {str, type(None)}:
        return column
    convert = _AS_TEXT_OR_NUMBER
    return [convert.get(type(cell), str)(cell) for cell in column]


def _number(number: float) -> float | int:
    """A whole number where each whole number is exact; else with the 15 digits that spreadsheets show: 0.1 + 0.2 is 0.3."""
    if not -_EXACT < number < _EXACT:
        return number
    if number.is_integer():
        return int(number)
    return number if len(repr(number)) <= _FEW_DIGITS else float(format(number, ".15g"))


def _same(cell: Any) -> Any:
    return cell


_AS_TEXT_OR_NUMBER: dict[type, Callable[[Any], Any]] = {
    float: _number,
    bool: lambda cell: "true" if cell else "false",
    datetime.date: datetime.date.isoformat,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.time: datetime.time.isoformat,
    **dict.fromkeys((int, str, type(None)), _same),
}


def _require_results(path: str) -> None:
    """Raise ExportError for formulas whose results nobody has computed: a program wrote the workbook, and no spreadsheet opened it."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
            with packed.open("xl/workbook.xml") as book:
                marks = [re.compile(b"<f[ >]")] if _ALL_TO_COMPUTE in book.read(_BLOCK_BYTES) else [_NO_RESULT]
            for name in names:
                with packed.open(name) as sheet:
                    before = b""
                    while block := before + sheet.read(_BLOCK_BYTES):
                        if b"<f" in block and any(mark.search(block) for mark in marks):
                            raise ExportError("the workbook has formulas without results", hint=_AGAIN)
                        before = block[-_OVERLAP_BYTES:] if len(block) > _OVERLAP_BYTES else b""
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error):
        return  # no zip archive (.xls), no XLSX, or calamine says what is wrong


if __name__ == "__main__":
    sys.exit(refusing(_write))
