"""Workbooks: XLSX, XLSM, XLSB, XLS and ODS (extra `workbook`), read by calamine in a child process with limits.

The table is the sheet whose header has the columns that the sync type requires, on the first line or below title lines. Hidden rows count,
a formula is its result, and only the first of merged cells has a value. A cell that is a number is written with a decimal point,
whatever the locale: `1000.0` for an identifier is 1000, and one that is not whole, or is above 2^53, is refused with its row.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from archisync.base.errors import ConfigurationError, ExportError
from archisync.formats.ignored import IgnoredRows
from archisync.formats.reader import convert, last_line
from archisync.formats.rows import BadRow, NumberText, RawRow, RequiredPlaces, may_be_row, title_or_row
from archisync.formats.workbook.child import BETWEEN
from archisync.rules.config import CsvDialect, ReaderLimits

_MOST_TITLES = 30
_DECODE = json.JSONDecoder(parse_int=NumberText, parse_float=NumberText).decode


def _number(text: str) -> str:
    """The cell of a column of numbers, which may be empty."""
    return NumberText(text) if text else ""


class _Sheet(NamedTuple):
    """`first` is the number of its first row; its lines are between the two places of the file with the records. `bad`: the number of a
    row -> what is wrong with it; `0` is the sheet as a whole."""

    name: str
    first: int
    begin: int
    end: int
    bad: dict[str, str]


class _Header(NamedTuple):
    sheet: _Sheet
    row: int
    labels: tuple[str, ...]


class WorkbookTable:
    """One sheet of a workbook.

    Raises ConfigurationError without the extra, and ExportError when the workbook can't be read, or it isn't clear which sheet is meant.
    """

    missing = 0

    def __init__(
        self, path: Path, limits: ReaderLimits, sheet: str, dialect: CsvDialect, required: RequiredPlaces
    ) -> None:
        if importlib.util.find_spec("python_calamine") is None:
            raise ConfigurationError(
                "the export is a workbook, and the library that reads it is not installed",
                hint="pip install 'archisync[workbook]'",
            )
        self.skipped = 0
        self._ignored = IgnoredRows(dialect.ignored) if dialect.ignored else None
        arguments = [sheet] if sheet else []
        self._records = convert(Path(__file__).with_name("child.py"), arguments, path, limits, what="workbook")
        sheets = [_Sheet(**found) for found in last_line(self._records)["sheets"]]
        self._header = self._find_header(sheets, dialect.title_lines, required)
        if fault := self._header.sheet.bad.get("0"):
            raise ExportError(fault, hint="correct it, and save it with a spreadsheet program")
        self.labels = self._header.labels
        self.detected = {"format": "workbook", "sheet": self._header.sheet.name}
        if self._header.row > 1:
            self.detected["title_lines"] = str(self._header.row - 1)

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows below the header, without blank ones; `line` is the number of the row in the sheet."""
        self.skipped = 0
        bad = {int(number): fault for number, fault in self._header.sheet.bad.items()}
        for number, cells in self._rows_of(self._header.sheet):
            if number <= self._header.row:
                continue
            if self._ignored and self._ignored.has(cells):
                self.skipped += 1
            elif fault := bad.get(number):
                yield BadRow(number, fault)
            else:
                yield RawRow(number, cells)

    def _rows_of(self, sheet: _Sheet) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The numbers and cells of the rows that are not blank."""
        number = sheet.first - 1
        with self._records.open("rb") as file:
            file.seek(sheet.begin)
            while file.tell() < sheet.end:
                part = _DECODE(file.readline().decode())
                columns = [c.split(BETWEEN) if isinstance(c, str) else c for c in part["columns"]]
                for place in map(int, part["numbers"]):
                    columns[place] = map(NumberText if all(columns[place]) else _number, columns[place])
                for cells in zip(*columns, strict=True):
                    number += 1
                    if any(cells):
                        yield number, cells

    def _find_header(self, sheets: list[_Sheet], title_lines: int, required: RequiredPlaces) -> _Header:
        tops = {sheet.name: self._top(sheet, title_lines) for sheet in sheets}
        found = [header for top in tops.values() if (header := _with_required(top, required)) is not None]
        if len(found) > 1:
            names = " and ".join(repr(header.sheet.name) for header in found)
            raise ExportError(f"the sheets {names} both have the columns", hint="say which: ARCHISYNC_SHEET")
        if found:
            return found[0]
        if below := [header for top in tops.values() for header in top if required(header.labels) is not None]:
            raise title_or_row(below[0].row)
        first = [top[0] for top in tops.values() if top]
        if not first:
            raise ExportError("the workbook has no cells", hint="look whether the ERP's export job ran to its end")
        if len(first) > 1:
            raise ExportError(
                f"none of the sheets {', '.join(repr(header.sheet.name) for header in first[:20])} has the columns",
                hint="say which one is the export: ARCHISYNC_SHEET",
            )
        return first[0]  # reading its labels says what is missing

    def _top(self, sheet: _Sheet, title_lines: int) -> list[_Header]:
        """The first rows, each as the header that it may be; the one after `title_lines`, if they are configured."""
        top: list[_Header] = []
        for number, cells in self._rows_of(sheet):
            if number > title_lines:
                top.append(_Header(sheet, number, tuple(map(str, cells))))
            if len(top) > (0 if title_lines else _MOST_TITLES):
                break
        return top


def _with_required(top: list[_Header], required: RequiredPlaces) -> _Header | None:
    """The first row that has the required columns, if no row above it may be a row of data."""
    for at, header in enumerate(top):
        places = required(header.labels)
        if places is not None:
            return None if any(may_be_row(row.labels, header.labels, places) for row in top[:at]) else header
    return None
