"""What every format gives of an export: labels, and rows of raw cells with their line numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from archisync.base.errors import ExportError

if TYPE_CHECKING:
    from archisync.formats.copylines import PlainLine
    from archisync.formats.knownlines import LineDigests

CUT_OFF_HINT = "the transfer or the ERP's export job was cut off; export it again"

RequiredPlaces: TypeAlias = Callable[[tuple[str, ...]], tuple[int, ...] | None]
"""The places of the columns that each row must fill, under these labels; None when the labels lack one of them."""


def nothing_required(labels: tuple[str, ...]) -> tuple[int, ...] | None:
    """Any line can be the header."""
    return ()


def may_be_row(cells: Sequence[str], labels: Sequence[str], required: Sequence[int]) -> bool:
    """Whether cells above these labels may be data, and no title: they fill the required places and more than half of all columns."""
    filled = sum(1 for cell in cells if cell.strip())
    wanted = sum(1 for label in labels if label.strip())
    return len(cells) == len(labels) and 2 * filled > wanted and all(cells[place].strip() for place in required)


def title_or_row(number: int) -> ExportError:
    """The refusal of an export whose line of that number has the columns, below a line that may be data."""
    return ExportError(
        f"line {number} has the columns, but a line above it may be a row",
        hint=f"if all above it are titles: ARCHISYNC_CSV_TITLE_LINES={number - 1}",
    )


def unmarked_utf16(encoding: str) -> ExportError:
    """The refusal of an export in UTF-16 that does not say in which order its bytes are. `encoding` looks right."""
    return ExportError(  # the setting is in the message, because a held export keeps no hint
        f"the export is UTF-16 without a byte order mark: set ARCHISYNC_CSV_ENCODING={encoding}",
        hint="or export it with the mark, or as UTF-8",
    )


class NumberText(str):
    """The source text of a JSON number. Its decimal sign is a dot in every locale."""

    __slots__ = ()


class NestedText(str):
    """The cell of a JSON object or array. No field can be read from it, but a column that is ignored may have it."""

    __slots__ = ()


class RawRow(NamedTuple):
    """One row, with as many cells as the table has labels. `line` is the line in which the row starts, counted from 1.

    `digest` is the digest of that line, if digests are wanted and the row is that line alone.
    """

    line: int
    cells: tuple[str | None, ...]
    digest: bytes | None = None


class BadRow(NamedTuple):
    """A row that can't be read, while the rows around it can."""

    line: int
    reason: str


class PlainLines(NamedTuple):
    """Lines that COPY can read as they are, each of them one row, in UTF-8 and without line ends. `line` is the first one's number.

    `digests` has the digest of each line, or is empty when digests are not wanted.
    """

    line: int
    lines: list[bytes]
    digests: list[bytes]


class Table(Protocol):
    """An opened export. There is nothing to close: the file is open only while `rows()` is iterated.

    `detected` is recorded with the run: `format`, and what else was detected so far, such as `encoding` and `delimiter`. `skipped`: rows
    left out so far that are no records. `missing`: how many more rows the table announces than it has, which is known after the last row.
    """

    labels: tuple[str, ...]

    @property
    def detected(self) -> Mapping[str, str]: ...
    @property
    def skipped(self) -> int: ...
    @property
    def missing(self) -> int: ...

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows in file order. They are read as they are needed, and each call starts from the first.

        Raises ExportError, possibly after many rows, when some part of the export can't be trusted.
        """
        ...


@runtime_checkable
class LineTable(Table, Protocol):
    """A table in which most rows are single lines of cells between delimiters. `open_ended`: the last one may be cut off."""

    delimiter: str
    quoted: bool
    open_ended: bool

    def rows_and_lines(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        """The rows, with lines that match `plain` unparsed, many at a time, and lines that `digests` knows left out.

        Raises SpanningRecordError when a row is several lines and known lines are left out.
        """
        ...
