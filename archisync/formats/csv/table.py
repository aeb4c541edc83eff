"""CSV exports. Encoding, delimiter and line end are detected, and a truncated file is never taken for a complete one.

A CSV file has no end mark. Instead, its last byte must be a line end, every quoted cell must be closed, and the last row must
have all its cells. So only a cut exactly after a row goes unnoticed here; the guard counts the rows.

Lines end with LF or CR LF, or all of them with CR when the header line does.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from archisync.base.errors import ExportError, TruncatedError
from archisync.base.text import counted
from archisync.formats.copylines import PlainLine
from archisync.formats.csv.encoding import checked_codec, configured_codec, detected_codec, find_line_end
from archisync.formats.csv.lines import Lines, open_lines
from archisync.formats.knownlines import LineDigests
from archisync.formats.rows import CUT_OFF_HINT, BadRow, PlainLines, RawRow
from archisync.rules.config import CSV_DELIMITERS, DETECT, CsvDialect

MAX_CELL_CHARS = 1024 * 1024  # far more than the 64 KiB that a value may have, so that values.py can quarantine the row
_DELIMITERS = {delimiter: name for name, delimiter in CSV_DELIMITERS.items()}


class CsvTable:
    """A CSV file. What the dialect leaves open is detected.

    Raises ExportError when the file is visibly truncated, is not text, or has no clear header line.
    """

    def __init__(self, path: Path, dialect: CsvDialect = DETECT) -> None:
        # This limit is the process's. It is only raised, so that another module's larger limit stays.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
        self._path = path
        codec = configured_codec(path, dialect.encoding) if dialect.encoding else None
        self._line_end = find_line_end(path, codec)
        self.quoted = dialect.quoted
        self._encoding = checked_codec(path, codec) if codec else detected_codec(path)
        self.delimiter, self.labels = self._read_header(dialect.delimiter)
        self.detected = {"format": "csv", "encoding": self._encoding, "delimiter": _DELIMITERS[self.delimiter]}
        self.detected["quoting"] = "double" if dialect.quoted else "none"
        if dialect != DETECT:
            given = {"delimiter": dialect.delimiter, "encoding": dialect.encoding, "quoting": not dialect.quoted}
            self.detected["configured"] = ", ".join(name for name, value in given.items() if value)

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

    def _read(self, plain: PlainLine | None, digests: LineDigests | None) -> Iterator[RawRow | BadRow | PlainLines]:
        short: _ShortRow | None = None  # held back: if it is the last row, the file is truncated
        with open_lines(self._path, self._encoding, self._line_end, quoted=self.quoted) as lines:
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
            raise TruncatedError(f"truncated: the last row, line {short.line}, {short.reason}", hint=CUT_OFF_HINT)

    def _read_lines(
        self, lines: Lines, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        records = _records(lines, self.delimiter, quoted=self.quoted)
        next(records)  # the header
        lines.take_digests(digests)
        while True:
            if plain:
                yield from lines.plain(plain)
            record = next(records, None)
            if record is None:
                return
            yield self._row(*record, lines.digest)

    def _row(self, line: int, cells: list[str] | str, digest: bytes | None) -> RawRow | BadRow:
        if isinstance(cells, str):
            return BadRow(line, cells)
        if len(cells) == len(self.labels):
            return RawRow(line, tuple(cells), digest)
        reason = f"has {counted(len(cells), 'cell')}, the header has {len(self.labels)}"
        return _ShortRow(line, reason) if len(cells) < len(self.labels) else BadRow(line, reason)

    def _read_header(self, configured: str | None) -> tuple[str, tuple[str, ...]]:
        """The delimiter and the labels. A delimiter that isn't configured is the one that gives the most labels."""
        found: list[tuple[str, tuple[str, ...]]] = []
        refusals: list[ExportError] = []
        for delimiter in [configured] if configured else _DELIMITERS:
            try:
                found.append((delimiter, self._labels_by(delimiter)))
            except TruncatedError:
                raise
            except ExportError as exc:  # quotes look damaged when the delimiter is wrong
                refusals.append(exc)
        if not found:
            raise refusals[0]
        most = max(len(labels) for _, labels in found)
        best = [(delimiter, labels) for delimiter, labels in found if len(labels) == most]
        if most == 0:
            raise ExportError(
                "the export has no header line that can be read", hint="the first line must name the columns"
            )
        if most > 1 and len(best) > 1:
            names = " and ".join(_DELIMITERS[delimiter] for delimiter, _ in best)
            raise ExportError(
                f"the delimiter is not clear: {names} both give {most} columns",
                hint="set ARCHISYNC_CSV_DELIMITER, or quote the labels in the header line",
            )
        return best[0]

    def _labels_by(self, delimiter: str) -> tuple[str, ...]:
        """The cells of the header line under that delimiter; none when it can't be read."""
        with open_lines(self._path, self._encoding, self._line_end, quoted=self.quoted) as lines:
            _, cells = next(_records(lines, delimiter, quoted=self.quoted), (0, ""))
        return () if isinstance(cells, str) else tuple(cells)


class _ShortRow(BadRow):
    """A row with too few cells."""


def _records(lines: Lines, delimiter: str, *, quoted: bool) -> Iterator[tuple[int, list[str] | str]]:
    """The first line and the cells of each record that is not blank. A malformed record has a reason instead of cells."""
    reader = csv.reader(
        lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    while True:
        lines.start_record()
        cells: list[str] | str
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            cells = _malformed(exc, lines)
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield lines.first, cells


def _malformed(exc: csv.Error, lines: Lines) -> str:
    """The reason why the record is bad. Raises ExportError when it is unclear where the next record starts.

    Only after one pair of quotes, opened and closed, is the next line certain to be outside quotes. After more of them, a wrong
    guess would take the rest of a quoted cell for a row.
    """
    opened = lines.opened or lines.first
    if lines.ended:
        raise TruncatedError(
            f"truncated: quoted cell opened in line {opened} is never closed", hint=CUT_OFF_HINT
        ) from exc
    if "field limit" in str(exc):
        raise ExportError(
            f"a cell of the row in line {lines.first} is longer than {MAX_CELL_CHARS} characters",
            hint="look for a quote that is never closed",
        ) from exc
    if lines.opened is not None or lines.quotes > 2:
        raise ExportError(
            f"damaged quotes in line {lines.number}: it is not clear where the next row starts",
            hint="a quote inside a quoted cell must be doubled",
        ) from exc
    if "new-line" in str(exc):
        return "has a carriage return outside quotes"
    return "has text after a closing quote"
