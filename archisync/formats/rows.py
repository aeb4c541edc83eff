"""What every format makes of an export: labels, and rows of raw cells with their line numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from archisync.formats.copylines import PlainLine
from archisync.formats.knownlines import LineDigests


class NumberText(str):
    """The source text of a number literal (JSON): its decimal sign is a dot, whatever the export's locale."""

    __slots__ = ()


class NestedText(str):
    """Stands for an object or array in a cell's place (JSON): no field can be read from it, and a column that is no field may have it."""

    __slots__ = ()


class RawRow(NamedTuple):
    """One row, as many cells as the table has labels. `line` is the physical line it starts in, counted from 1; `digest` that
    line's, where digests were asked for and the row is no more than the line."""

    line: int
    cells: tuple[str | None, ...]
    digest: bytes | None = None


class BadRow(NamedTuple):
    """A row that can't be read; the rows around it can."""

    line: int
    reason: str


class PlainLines(NamedTuple):
    """Lines that match the pattern that was asked for, each one row as it stands, in UTF-8 and without its line end; `line` is the
    first one's number, `digests` theirs where they were asked for, else empty."""

    line: int
    lines: list[bytes]
    digests: list[bytes]


class Table(Protocol):
    """An export that has been opened. Nothing to close: the file is open only while `rows()` is iterated.

    `detected` says what was found out, for the run's record: `format`, `encoding`, `delimiter`.
    """

    labels: tuple[str, ...]
    detected: dict[str, str]

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows in file order, read as they are asked for; each call starts again.

        Raises ExportError, possibly after many rows, when the export can't be trusted as a whole.
        """
        ...


@runtime_checkable
class SkippingTable(Table, Protocol):
    """A table that leaves out rows which are no records: `skipped` of them so far. `lacking`: rows that it says it has, and has
    not; known at its end."""

    skipped: int
    lacking: int


@runtime_checkable
class LineTable(Table, Protocol):
    """A table whose rows are mostly single lines of cells between delimiters."""

    delimiter: str
    quoted: bool

    def rows_and_lines(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        """The same as `rows`, but lines that are plain come unparsed, many at a time, and lines that the digests know not at all.
        Raises SpanningRecordError where that would leave out a part of a row."""
        ...
