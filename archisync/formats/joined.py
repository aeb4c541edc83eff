"""Several files that are one export (`all=1`), as one table. Each is opened, and checked for its end, by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from archisync.base.errors import ExportError
from archisync.base.text import printable
from archisync.formats.rows import BadRow, LineTable, PlainLines, RawRow, Table

if TYPE_CHECKING:
    from archisync.formats.copylines import PlainLine
    from archisync.formats.knownlines import LineDigests

_BLOCK_BYTES = 1024 * 1024
_SAME = ("format", "delimiter")
"""The encoding may differ: that of a file without accents can't be told."""
_SHOWN = 5


class JoinedTable:
    """The rows of all tables in order. Lines are counted on from one file to the next, as if they were one.

    Raises ExportError when the tables differ in their columns, or in how they are written.
    """

    def __init__(self, tables: Sequence[Table], paths: Sequence[Path]) -> None:
        self._tables = tables
        self.labels = tables[0].labels
        for number, table in enumerate(tables[1:], 2):
            self._require_same(table, number)
        self._before = [0, *accumulate(map(_count_lines, paths[:-1]))]

    @property
    def detected(self) -> dict[str, str]:
        """What was detected of all files; where they differ, each thing once."""
        ways: dict[str, dict[str, None]] = {}
        for table in self._tables:
            for name, what in table.detected.items():
                ways.setdefault(name, {})[what] = None
        return {name: ", ".join(each) for name, each in ways.items()}

    @property
    def skipped(self) -> int:
        return sum(table.skipped for table in self._tables)

    @property
    def missing(self) -> int:
        return sum(table.missing for table in self._tables)

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows of each table. Raises what its `rows` raises."""
        for table, before in zip(self._tables, self._before, strict=True):
            for row in table.rows():
                yield _moved(row, before)

    def _require_same(self, table: Table, number: int) -> None:
        if table.labels != self.labels:
            other = [
                label for label in (*table.labels, *self.labels) if (label in table.labels) != (label in self.labels)
            ]
            shown = ", ".join(printable(label, limit=40) for label in other[:_SHOWN]) or "their order"
            raise ExportError(
                f"file {number} of the export has other columns than the first: {shown}",
                hint="let the ERP write all files of a date with the same columns",
            )
        for name in _SAME:
            first, other_way = self._tables[0].detected.get(name), table.detected.get(name)
            if first != other_way:
                raise ExportError(
                    f"file {number} of the export has the {name} {other_way}, and the first has {first}",
                    hint="let the ERP write all files of a date in the same way",
                )


class JoinedLines(JoinedTable):
    """The same of tables whose rows are lines."""

    def __init__(self, tables: Sequence[LineTable], paths: Sequence[Path]) -> None:
        super().__init__(tables, paths)
        self._line_tables = tables
        self.delimiter, self.quoted = tables[0].delimiter, tables[0].quoted
        self.open_ended = any(table.open_ended for table in tables)

    def rows_and_lines(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        """See `LineTable.rows_and_lines`."""
        for table, before in zip(self._line_tables, self._before, strict=True):
            for row in table.rows_and_lines(plain, digests):
                yield row._replace(line=row.line + before) if isinstance(row, PlainLines) else _moved(row, before)


def joined(opened: Callable[[Path], Table], paths: Sequence[Path]) -> Table:
    """The table of these files. Raises what `opened` raises, and ExportError when they don't belong together."""
    tables = [opened(path) for path in paths]
    lines = [table for table in tables if isinstance(table, LineTable)]
    return JoinedLines(lines, paths) if len(lines) == len(tables) else JoinedTable(tables, paths)


def _moved(row: RawRow | BadRow, before: int) -> RawRow | BadRow:
    if isinstance(row, RawRow):
        return row._replace(line=row.line + before)
    return BadRow(row.line + before, row.reason)


def _count_lines(path: Path) -> int:
    """Line feeds in the file, as an editor counts them; UTF-16 has them too."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b""))
