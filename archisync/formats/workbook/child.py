"""The child process of `archisync.formats.workbook.table`: takes a workbook's file name and writes the rows of its sheets as JSON Lines.

Each line is an object with some hundred rows: `columns`, each a list of cells or one text of them with BETWEEN in between, and in `numbers`
the places of those with texts of numbers, or empty. In any other column a number is a JSON number. A date is a text in ISO form, a boolean
`true` or `false` as a text. The last line is an object: for each sheet its name, the number of its first row, where its lines begin and
end, and what is wrong with its rows.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import string
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from archisync.base.errors import ExportError
from archisync.base.refusing import refusing

if TYPE_CHECKING:
    import zipfile

BETWEEN = "\x7f"
"""A control character that JSON has no escape for. A column with it in a cell is a list."""
_ROWS_A_LINE = 500
_BLOCK_BYTES = 1 << 20
_OVERLAP_BYTES = 4096
_EXACT = 1 << 53
"""Whole numbers above it are not all different in a workbook, which has floats only."""
_NO_RESULT = re.compile(
    rb'<c(?![^>]* t="str")[^>]*>(?:<f[^>]*/>|<f[^>]*>[^<]*</f>)(?:<v></v>|<v ?/>)?</c>'  # t="str": the result is an empty text
)
_ERROR = re.compile(rb'<c\b([^>]* t="e"[^>]*)>(?:<f[^>]*/>|<f[^>]*>[^<]*</f>)?<v>([^<]*)</v>')
_RELATIONS = "xl/_rels/workbook.xml.rels"
_ALL_TO_COMPUTE = b'fullCalcOnLoad="1"'
_FEW_DIGITS = 16  # with the decimal point
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"  # an .xls, or what an .xlsx with a password is wrapped in
_AGAIN = "open it in a spreadsheet program and save it again"
_AS_ODS = (
    "save it as .xlsx; an ODS is read as LibreOffice writes it, and not with blanks between its tags, as Gnumeric does"
)
_dump = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _write() -> None:
    import python_calamine as calamine

    path, wanted = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    marks = _Marks(path)
    marks.start()  # calamine reads beside it: it lets other threads run
    sheets: list[dict[str, Any]] = []
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - calamine finds the format in the content, not in the name
            workbook = calamine.CalamineWorkbook.from_filelike(file)
            for name in _names(workbook, calamine, wanted):
                sheet = workbook.get_sheet_by_name(name)
                begin = sys.stdout.buffer.tell()
                above = sheet.start[0] if sheet.start else 0  # rows above the first cell
                for line in _lines(islice(sheet.iter_rows(), above, None)):
                    sys.stdout.buffer.write(line)
                sheets.append({"name": name, "first": above + 1, "begin": begin, "end": sys.stdout.buffer.tell()})
    except (calamine.CalamineError, ValueError, OSError) as exc:
        marks.join()
        raise _refusal(path, exc, calamine, is_ods=marks.is_ods) from exc
    bad = marks.found()
    sheets = [sheet | {"bad": bad.get("", {}) | bad.get(sheet["name"], {})} for sheet in sheets]
    sys.stdout.buffer.write(_dump({"sheets": sheets}).encode("utf-8", "replace"))


def _refusal(path: str, exc: Exception, calamine: Any, *, is_ods: bool) -> ExportError:
    """What is wrong. calamine says more of a file that is named by its format: of any other one, that it has none."""
    with open(path, "rb") as file:  # noqa: PTH123
        suffixes = (".xlsx", ".xls") if file.read(len(_OLD_OFFICE)) == _OLD_OFFICE else (".ods" if is_ods else ".xlsx",)
    for named in (path + suffix for suffix in suffixes):
        os.symlink(path, named)  # noqa: PTH211
        try:
            calamine.CalamineWorkbook.from_path(named)
        except (calamine.CalamineError, ValueError, OSError) as found:
            exc = found
        finally:
            os.unlink(named)  # noqa: PTH108
        if isinstance(exc, calamine.PasswordError):
            return ExportError("the workbook is protected by a password", hint="save it without one")
    fault = "is an ODS that can't be read" if is_ods else "is damaged"
    return ExportError(f"the workbook {fault}: {str(exc)[:200]}", hint=_AS_ODS if is_ods else _AGAIN)


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


def _lines(rows: Iterator[list[Any]]) -> Iterator[bytes]:
    while block := list(islice(rows, _ROWS_A_LINE)):
        columns: list[Any] = []
        numbers = []
        for place, column in enumerate(zip(*block, strict=True)):
            texts: Sequence[Any] = column
            if (text := _joined(column)) is None:
                kinds = set(map(type, column))
                if numbered := _numbers(column, kinds):
                    numbers.append(place)
                texts = numbered or _texts(column, kinds)
                text = _joined(texts)
            columns.append(text or texts)
        yield _dump({"numbers": numbers, "columns": columns}).encode("utf-8", "replace") + b"\n"


def _joined(column: Sequence[Any]) -> str | None:
    """The texts as one, which is written and read in half of the time; None if they are not all texts, or one has BETWEEN in it."""
    try:
        text = BETWEEN.join(column)
    except TypeError:
        return None
    return text if text.count(BETWEEN) == len(column) - 1 else None


def _numbers(column: tuple[Any, ...], kinds: set[type]) -> list[str] | None:
    """The texts of a column of numbers and empty cells, None of another one. Most have only whole numbers, or only ones of a few digits."""
    if float not in kinds or not kinds <= {float, str} or any(cell for cell in column if type(cell) is str):
        return None
    if kinds == {float} and min(column) > -_EXACT and max(column) < _EXACT:
        if all(map(float.is_integer, column)):
            return list(map(str, map(int, column)))
        texts = list(map(repr, column))
        if max(map(len, texts)) <= _FEW_DIGITS:
            return [text.removesuffix(".0") for text in texts]
    return [repr(_number(cell)) if cell != "" else "" for cell in column]


def _texts(column: tuple[Any, ...], kinds: set[type]) -> list[Any]:
    """The cells of a column of dates, or of several kinds; a number stays one."""
    if len(kinds) == 1:
        return list(map(_AS_TEXT_OR_NUMBER.get(kinds.pop(), str), column))
    return [_AS_TEXT_OR_NUMBER.get(type(cell), str)(cell) for cell in column]


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


class _Marks(threading.Thread):
    """What calamine does not say of the cells of an XLSX or ODS: it takes an error, and a formula without a result, for an empty cell."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._failure: BaseException | None = None
        self.is_ods = False
        self.bad_rows: dict[str, dict[str, str]] = {}
        """By sheet: number of the row -> what is wrong with a cell in it. `0` is the sheet as a whole."""

    def run(self) -> None:
        try:
            self._read()
        except BaseException as exc:  # noqa: BLE001 - `found` raises it
            self._failure = exc

    def found(self) -> dict[str, dict[str, str]]:
        """What is wrong, when all is read."""
        self.join()
        if self._failure is not None:
            raise self._failure
        return self.bad_rows

    def _read(self) -> None:
        import zipfile
        import zlib

        try:
            with zipfile.ZipFile(self._path) as packed:
                self.is_ods = "content.xml" in packed.namelist()
                if self.is_ods:
                    self._read_ods(packed)
                else:
                    self._read_xlsx(packed)
        except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error):
            return  # no zip archive (.xls), an .xlsb, or calamine says what is wrong

    def _read_xlsx(self, packed: zipfile.ZipFile) -> None:
        book = packed.open("xl/workbook.xml").read(_BLOCK_BYTES)
        targets = {
            _attribute(found, b"Id"): _attribute(found, b"Target").removeprefix("/xl/")
            for found in re.findall(rb"<Relationship\b[^>]*>", packed.open(_RELATIONS).read(_BLOCK_BYTES))
        }
        for found in re.findall(rb"<(?:\w+:)?sheet\b[^>]*>", book):
            part = f"xl/{targets.get(_attribute(found, b'r:id'), '')}"
            if part in packed.namelist():
                name = _unescaped(_attribute(found, b"name"))
                self.bad_rows[name] = self._bad_rows(packed, part, all_to_compute=_ALL_TO_COMPUTE in book)

    def _bad_rows(self, packed: zipfile.ZipFile, part: str, *, all_to_compute: bool) -> dict[str, str]:
        bad: dict[str, str] = {}
        with packed.open(part) as sheet:
            before = b""
            while block := before + sheet.read(_BLOCK_BYTES):
                # Most sheets of numbers and shared texts have neither byte, and one is looked for in a tenth of the time of two.
                if b"f" in block and b"<f" in block and (all_to_compute or _NO_RESULT.search(block)):
                    bad["0"] = "the workbook has formulas without results"
                for attributes, value in _ERROR.findall(block) if b"e" in block and b't="e"' in block else ():
                    cell = _attribute(attributes, b"r")
                    row = cell.lstrip(string.ascii_uppercase)
                    bad.setdefault(row if row.isdecimal() else "0", f"has the error {value.decode()} in cell {cell}")
                before = block[-_OVERLAP_BYTES:] if len(block) > _OVERLAP_BYTES else b""
        return bad

    def _read_ods(self, packed: zipfile.ZipFile) -> None:
        with packed.open("content.xml") as content:
            before = b""
            while block := before + content.read(_BLOCK_BYTES):
                if b'value-type="error"' in block:
                    self.bad_rows[""] = {"0": "the workbook has cells with errors, such as #N/A"}
                before = block[-_OVERLAP_BYTES:] if len(block) > _OVERLAP_BYTES else b""


def _unescaped(text: str) -> str:
    if "&" not in text:
        return text
    from html import unescape  # its table takes as long as some thousand rows

    return unescape(text)


def _attribute(tag: bytes, name: bytes) -> str:
    found = re.search(rb"\b" + name + rb'="([^"]*)"', tag)
    return found[1].decode("utf-8", "replace") if found else ""


if __name__ == "__main__":
    refusing(_write)
