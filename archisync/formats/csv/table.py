"""CSV exports. Encoding, delimiter, header and line end are detected, and a truncated file is never taken for a complete one.

A CSV file has no end mark. Instead, its last byte must be a line end (or Ctrl-Z), unless a person says that the ERP writes none; every
quoted cell must be closed, and the last row must have all its cells. So only a cut exactly after a row goes unnoticed here; the guard
counts the rows.

Lines end with LF, CR LF or CR CR LF, or all of them with CR when the header line does.
"""

from __future__ import annotations

import shlex
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import cast

from archisync.base.errors import ExportError, TruncatedError
from archisync.base.text import counted, printable
from archisync.formats.copylines import PlainLine
from archisync.formats.csv.content import Content
from archisync.formats.csv.encoding import checked_codec, configured_codec, detected_codec, find_ending
from archisync.formats.csv.header import DELIMITERS, find_header, skip_to
from archisync.formats.csv.lines import Lines, open_lines
from archisync.formats.csv.records import records
from archisync.formats.ignored import IgnoredRows, LinePattern, Without, is_rule, word_to_ignore
from archisync.formats.knownlines import LineDigests
from archisync.formats.rows import CUT_OFF_HINT, BadRow, PlainLines, RawRow, RequiredPlaces, nothing_required
from archisync.rules.config import DETECT, CsvDialect

_BEFORE_LABELS = " \t\f\ufeff"
"""What may stand before a label: blanks, a page break, the byte order mark of a file that was appended."""
_LOOKED_AT = 3
"""Rows that show whether the rows have a delimiter at their end."""


class CsvTable:
    """A CSV file. What the dialect leaves open is detected. `required` tells a header line from title lines.

    `skipped` counts the rows that the dialect says to ignore, lines of dashes, and the header where it is repeated. `open_ended`: the
    final line end is missing, so the last row may be cut off; the guard asks a person.

    Raises ExportError when the file is visibly truncated, is not text, or has no clear header line.
    """

    missing = 0

    def __init__(self, path: Path, dialect: CsvDialect = DETECT, required: RequiredPlaces = nothing_required) -> None:
        content = self._content = Content(path)
        self.skipped = 0
        self.quoted = dialect.quoted
        self._escaped = dialect.escaped
        codec = configured_codec(content, dialect.encoding) if dialect.encoding else None
        ending = find_ending(content, codec)
        self.open_ended = not (ending.closed or dialect.open_end)
        self._line_end = ending.line_end
        self._encoding = checked_codec(content, codec) if codec else detected_codec(content)
        self._header = find_header(self._opened, dialect, required)
        self._header_cells = [label.strip(_BEFORE_LABELS) for label in self._header.labels]
        self._first_label = next(((place, label) for place, label in enumerate(self._header_cells) if label), (0, ""))
        self._is_known = bool(required(self._header.labels))  # else it may be a row: of two like it, both are
        self._rule: list[str] | None = None  # the line of dashes below the header
        self._rule_line: list[bytes] = []
        self._unusual: set[str] = set()
        self.delimiter = self._header.delimiter
        self._ignored = IgnoredRows(dialect.ignored, self.delimiter) if dialect.ignored else None
        self.labels, trailing = self._without_trailing(self._header.labels)
        self._detected = {"format": "csv", "encoding": self._encoding, "delimiter": DELIMITERS[self.delimiter]}
        self._detected["quoting"] = "backslash" if dialect.escaped else "double" if dialect.quoted else "none"
        oddities = {
            "line_end": ending.unusual,
            "final_line_end": "" if ending.closed else "missing",
            "title_lines": str(self._header.titles or ""),
            "sep_line": "yes" if self._header.sep_line else "",
            "trailing_delimiter": trailing,
            "configured": ", ".join(dialect.given),
        }
        self._detected |= {name: what for name, what in oddities.items() if what}

    @property
    def detected(self) -> dict[str, str]:
        """How the file is written, as far as it has been read."""
        cells = ", ".join(sorted(self._unusual))
        return self._detected | ({"cells": cells} if cells else {})

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows after the header, without blank lines. A row with too few or too many cells is a BadRow.

        Raises ExportError when a quoted cell is never closed, when the last row is short, or when damaged quotes make it
        unclear where the next row starts.
        """
        return cast("Iterator[RawRow | BadRow]", self._read(None, None))

    def rows_and_lines(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        """The rows, with lines that match `plain` unparsed and lines that `digests` knows left out.

        A row that is one line has the line's digest. Raises SpanningRecordError when a row is several lines and known lines are
        left out, and what `rows` raises.
        """
        return self._read(plain if self._line_end == "\n" else None, digests)

    def _opened(self) -> AbstractContextManager[Lines]:
        return open_lines(self._content, self._encoding, self._line_end, quoted=self.quoted, escaped=self._escaped)

    def _read(self, plain: PlainLine | None, digests: LineDigests | None) -> Iterator[RawRow | BadRow | PlainLines]:
        self.skipped = 0
        short: _ShortRow | None = None  # held back: if it is the last row, the file is truncated
        with self._opened() as lines:
            for found in self._read_lines(lines, plain, digests):
                if short is not None:
                    yield short
                    short = None
                if isinstance(found, _ShortRow):
                    short = found
                else:
                    yield found
            if short is not None and short.line < lines.last_left_out:
                yield short
                short = None
        if short is not None:
            raise TruncatedError(
                f"truncated: the last row, line {short.line}, {short.reason}", hint=self._short_hint(short)
            )

    def _read_lines(
        self, lines: Lines, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        found = self._data(lines)
        drawn = [lines.last_line, BOM_UTF8 + lines.last_line] if self._is_known else []
        drawn += self._rule_line
        pattern: LinePattern | None = self._ignored.outside(plain) if plain and self._ignored else plain
        if pattern and any(pattern.match([line]) for line in drawn):  # seldom: labels are no numbers and dates
            pattern = Without(pattern, drawn)
        lines.take_digests(digests)
        while True:
            if pattern:
                yield from lines.plain(pattern)
            record = next(found, None)
            if record is None:
                return
            if self._is_no_row(record[1]):
                self.skipped += 1
                lines.last_left_out = lines.number
            else:
                yield self._row(*record, lines.digest)

    def _data(self, lines: Lines) -> Iterator[tuple[int, list[str] | str]]:
        """The records after the header."""
        skip_to(lines, self._header.line)
        lines.unusual = self._unusual
        found = records(lines, self.delimiter, quoted=self.quoted)
        next(found)
        return found

    def _is_no_row(self, cells: list[str] | str) -> bool:
        """Whether the record is a total, a line of dashes, or the header again.

        One of as many cells as the header is a line of dashes only below it, and where that one is repeated.
        """
        if isinstance(cells, str):
            return False
        if self._ignored and self._ignored.has(cells):
            return True
        if len(cells) < len(self._header_cells):
            return is_rule(cells)
        if cells == self._rule:
            return True
        if not self._is_known:
            return False
        place, label = self._first_label
        return cells[place].endswith(label) and [cell.strip(_BEFORE_LABELS) for cell in cells] == self._header_cells

    def _row(self, line: int, cells: list[str] | str, digest: bytes | None) -> RawRow | BadRow:
        if isinstance(cells, str):
            return BadRow(line, cells)
        if len(cells) == len(self.labels):
            return RawRow(line, tuple(cells), digest)
        reason = f"has {counted(len(cells), 'cell')}, the header has {len(self.labels)}"
        return _ShortRow(line, reason) if len(cells) < len(self.labels) else BadRow(line, reason)

    def _without_trailing(self, labels: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        """The labels of the rows' cells, where only the header or only the rows have a delimiter at their end, and which of them has it.

        One row with an empty cell too many may as well be a row whose cells are shifted; two rows say how the export is written.
        """
        rows = self._first_rows()
        widths = {len(row) for row in rows}
        if labels and not labels[-1].strip() and widths == {len(labels) - 1}:
            return labels[:-1], "header"
        if len(rows) > 1 and widths == {len(labels) + 1} and not any(row[-1].strip() for row in rows):
            return (*labels, ""), "rows"
        return labels, ""

    def _first_rows(self) -> list[Sequence[str]]:
        """The cells of the first rows, as far as they can be read."""
        rows: list[Sequence[str]] = []
        try:
            with self._opened() as lines:
                for place, (_, cells) in enumerate(islice(self._data(lines), _LOOKED_AT)):
                    if place == 0 and not isinstance(cells, str) and is_rule(cells, self._header_cells):
                        self._rule, self._rule_line = cells, [lines.last_line]
                    elif not isinstance(cells, str) and not self._is_no_row(cells):
                        rows.append(cells)
        except ExportError:  # `rows` raises it
            pass
        return rows

    def _short_hint(self, short: _ShortRow) -> str:
        with self._opened() as lines:
            skip_to(lines, short.line)
            _, cells = next(records(lines, self.delimiter, quoted=self.quoted), (0, ""))
            word = "" if isinstance(cells, str) else word_to_ignore(next((cell for cell in cells if cell.strip()), ""))
            if word:
                setting = shlex.quote(printable(word, limit=40))
                return f"{CUT_OFF_HINT}; if that line is a total and no row: ARCHISYNC_CSV_IGNORE_ROWS={setting}"
        return CUT_OFF_HINT


class _ShortRow(BadRow):
    """A row with too few cells."""
