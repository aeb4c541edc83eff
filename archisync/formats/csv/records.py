"""The records of a CSV file: one or several physical lines as a list of cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import cache

from archisync.base.errors import ExportError, TruncatedError
from archisync.formats.csv.escapes import shown
from archisync.formats.csv.lines import Lines
from archisync.formats.rows import CUT_OFF_HINT

MAX_CELL_CHARS = 1024 * 1024  # far more than the 64 KiB that a value may have, so that values.py can quarantine the row
_DOS_END = "\x1a"
"""Ctrl-Z, with which programs of the DOS age end a text. A line of it alone is blank."""
_EXCEL_TEXT = re.compile(r'="(.*)"|=\("(.*)"\)', re.DOTALL)
_NULL = "\\N"
_IS_NULL = "has \\N, which is NULL in files of MySQL and PostgreSQL: ARCHISYNC_CSV_QUOTING=backslash"
EXCEL, SPACED = '="text"', "blanks around quotes"
"""What is noted of a record in `Lines.unusual`."""


def records(lines: Lines, delimiter: str, *, quoted: bool) -> Iterator[tuple[int, list[str] | str]]:
    """The first line and the cells of each record that has a cell which is not blank. A malformed record has a reason instead of cells.

    Blanks between a delimiter and a cell are left out, so a quote after them opens the cell; those after a closing quote too.
    `="00123"`, which keeps Excel from reading a number, is the text in the quotes.
    """
    # This limit is the process's. It is only raised, so that another module's larger limit stays.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        strict=True,
        skipinitialspace=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    while True:
        lines.start_record()
        cells: list[str] | str
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            cells = _with_blanks_after_quotes(lines, delimiter) or _malformed(exc, lines)
        else:
            if lines.spaced and SPACED not in lines.unusual:
                _note_blanks_before_quotes(lines, delimiter)
        if lines.excel and not isinstance(cells, str):
            cells = [_unwrapped(cell, lines) if cell.startswith("=") else cell for cell in cells]
        if lines.has_escapes and not isinstance(cells, str):
            cells = [shown(cell) for cell in cells]
        elif "\\" in lines.text and _NULL in cells:
            cells = _IS_NULL
        if isinstance(cells, str) or any(cell.strip().strip(_DOS_END) for cell in cells):
            yield lines.first, cells


def _with_blanks_after_quotes(lines: Lines, delimiter: str) -> list[str]:
    """The cells of a record of one line in which only blanks are between a closing quote and a delimiter; none if that is not so."""
    found = _loose_cells(lines, delimiter)
    if found:
        lines.unusual.add(SPACED)
    return [cell[2] if cell[1] is None else cell[1].replace('""', '"') for cell in found]


def _note_blanks_before_quotes(lines: Lines, delimiter: str) -> None:
    if f"{delimiter} " not in lines.text and not lines.text.startswith(" "):
        return
    if any(cell[1] is not None and cell[0].startswith(" ") for cell in _loose_cells(lines, delimiter)):
        lines.unusual.add(SPACED)


def _loose_cells(lines: Lines, delimiter: str) -> list[re.Match[str]]:
    """The cells of a record of one line, with blanks around quotes; none if something else is beside the quotes."""
    if lines.lines != 1 or lines.opened is not None or len(lines.text) > MAX_CELL_CHARS:
        return []
    text = lines.text.rstrip("\r\n")
    pattern = _loose_cell(delimiter)
    cells: list[re.Match[str]] = []
    place = -1
    while place < len(text):
        found = pattern.match(text, place + 1)
        if found is None:
            return []
        cells.append(found)
        place = found.end()
    return cells


@cache
def _loose_cell(delimiter: str) -> re.Pattern[str]:
    end = re.escape(delimiter)
    blanks = "[ \t]*" if delimiter != "\t" else " *"
    return re.compile(rf'(?: *"((?:[^"]|"")*)"{blanks}| *((?:[^" \r{end}][^\r{end}]*)?))(?={end}|\Z)')


def _unwrapped(cell: str, lines: Lines) -> str:
    found = _EXCEL_TEXT.fullmatch(cell.rstrip())
    if found is None:
        return cell
    lines.unusual.add(EXCEL)
    return (found[1] or found[2] or "").replace('""', '"')


def _malformed(exc: csv.Error, lines: Lines) -> str:
    """The reason why the record is bad. Raises ExportError when it is unclear where the next record starts.

    Only after one pair of quotes, opened and closed, is the next line certain to be outside quotes. After more of them, a wrong
    guess would take the rest of a quoted cell for a row.
    """
    opened = lines.opened or lines.first
    if lines.ended:
        raise TruncatedError(
            f"truncated: quoted cell opened in line {opened} is never closed",
            hint=f"{CUT_OFF_HINT}; {_quoting_hint(lines)}",
        ) from exc
    if "field limit" in str(exc):
        raise ExportError(
            f"a cell of the row in line {lines.first} is longer than {MAX_CELL_CHARS} characters",
            hint="look for a quote that is never closed",
        ) from exc
    if lines.opened is not None or lines.quotes > 2:
        raise ExportError(
            f"damaged quotes in line {lines.number}: it is not clear where the next row starts",
            hint=f"a quote inside a quoted cell must be doubled; {_quoting_hint(lines)}",
        ) from exc
    if "new-line" in str(exc):
        return "has a carriage return outside quotes"
    return "has text after a closing quote"


def _quoting_hint(lines: Lines) -> str:
    if lines.has_backslash_quotes:
        return 'if \\" is a quote inside a cell: ARCHISYNC_CSV_QUOTING=backslash'
    return "if a quote is a character like any other: ARCHISYNC_CSV_QUOTING=none"
