"""What every format makes of an export: labels, and rows of raw cells with their line numbers."""

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable


class NumberText(str):
    """The source text of a number literal (JSON): its decimal sign is a dot, whatever the export's locale."""

    __slots__ = ()


class RawRow(NamedTuple):
    """One row, as many cells as the table has labels. `line` is the physical line it starts in, counted from 1."""

    line: int
    cells: tuple[str | None, ...]


class BadRow(NamedTuple):
    """A row that can't be read; the rows around it can."""

    line: int
    reason: str


class PlainLines(NamedTuple):
    """Whole lines that match the pattern that was asked for, `rows` of them, each one row as it stands; `line` is the first
    one's number."""

    line: int
    rows: int
    text: str


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
    """A table that leaves out rows which are no records: `skipped` of them so far."""

    skipped: int


@runtime_checkable
class LineTable(Table, Protocol):
    """A table whose rows are mostly single lines of cells between delimiters, without quotes."""

    delimiter: str

    def rows_and_lines(self, plain: re.Pattern[str]) -> Iterator[RawRow | BadRow | PlainLines]:
        """The same as `rows`, but lines that match `plain` as they stand come unparsed, many at a time."""
        ...
