"""The ERP's paged wide reports: a table cut into slices of columns. A cycle is one page of each slice, with the same records.

Row k of all pages of a cycle together is one record; nothing but the position links them. The number of slices is found from
the headers: a cycle ends where the first page's header row comes again.
"""

import re
from collections.abc import Iterator, Sequence

from archisync.base.errors import ExportError, TruncatedError

Page = list[list[str]]

MAX_SLICES = 400
"""Pages of the longest cycle: nobody prints a thousand columns, and a cycle is kept in memory."""
FOOTER = "Count="
_NUMBER = re.compile(rf"{FOOTER}\s*([0-9]{{1,3}}(?:\.[0-9]{{3}}){{1,4}}|[0-9]{{1,15}})\s*$")
_CUT_OFF_HINT = "the download or the print was cut off; print the report again"


class Cycles:
    """The records of a report, to be iterated once. `labels` and `slices` are known at once, `cycles` counts those read so far.

    Raises TruncatedError when the last cycle lacks pages or when the pages of a cycle have different numbers of rows, and
    ExportError when a page has another header than in the first cycle. Many records may have been read by then.
    """

    def __init__(self, pages: Iterator[Page]) -> None:
        self._pages = pages
        self._first, self._next = _first_cycle(pages)
        self._headers = [page[0] for page in self._first]
        self.labels = [label for header in self._headers for label in header]
        self.slices = len(self._first)
        self.cycles = 0

    def __iter__(self) -> Iterator[list[str]]:
        cycle: list[Page] = self._first
        while cycle:
            self.cycles += 1
            yield from self._records(cycle)
            cycle = self._next_cycle()

    def _next_cycle(self) -> list[Page]:
        cycle: list[Page] = []
        page = self._next
        while page is not None:
            self._check_header(page, len(cycle))
            cycle.append(page)
            if len(cycle) == self.slices:
                self._next = next(self._pages, None)
                return cycle
            page = next(self._pages, None)
        if cycle:
            raise TruncatedError(
                f"truncated: cycle {self.cycles + 1} of the report ends after {len(cycle)} of {self.slices} pages",
                hint=_CUT_OFF_HINT,
            )
        return cycle

    def _check_header(self, page: Page, position: int) -> None:
        if page[0] != self._headers[position]:
            number = self.cycles * self.slices + position + 1
            raise ExportError(
                f"page {number} of the report has other columns than page {position + 1}",
                hint="a page is missing or stands twice, or reports were put together; print the report again",
            )

    def _records(self, cycle: list[Page]) -> Iterator[list[str]]:
        """The cycle's records, then the footer as one row, whichever slices it is in.

        The footer is taken off first, so that it can't make up for a record that one slice lacks.
        """
        slices = [page[1:] for page in cycle]
        footers = [rows.pop() if rows and is_footer(rows[-1]) else None for rows in slices]
        footed = [len(rows) for rows, footer in zip(slices, footers, strict=True) if footer]
        if footed:
            slices = [rows[:-1] if len(rows) == footed[0] + 1 and not any(rows[-1]) else rows for rows in slices]
        for position, rows in enumerate(slices):
            if len(rows) != len(slices[0]):
                first = (self.cycles - 1) * self.slices + 1
                raise TruncatedError(
                    f"truncated: page {first + position} of the report has {len(rows)} rows, page {first} of the same"
                    f" cycle has {len(slices[0])}",
                    hint=_CUT_OFF_HINT,
                )
        for parts in zip(*slices, strict=True):
            yield [cell for part in parts for cell in part]
        if footed:
            for_each = [footer or [""] * len(header) for footer, header in zip(footers, self._headers, strict=True)]
            yield [cell for part in for_each for cell in part]


def _first_cycle(pages: Iterator[Page]) -> tuple[list[Page], Page | None]:
    """The pages of the first cycle, and the page after it."""
    cycle: list[Page] = []
    for page in pages:
        if cycle and page[0] == cycle[0][0]:
            return cycle, page
        cycle.append(page)
        if len(cycle) > MAX_SLICES:
            raise ExportError(
                f"the first page's columns do not come again within {MAX_SLICES} pages of the report",
                hint="each page must begin with its columns' labels",
            )
    return cycle, None


def announced(cells: Sequence[str | None]) -> int:
    """The number of rows that the footer announces; 0 when it can't be read."""
    number = _NUMBER.match(next((cell for cell in cells if cell), ""))
    return int(number[1].replace(".", "")) if number else 0


def is_footer(cells: Sequence[str | None]) -> bool:
    """Whether the row is the report's `Count=` row."""
    return next((cell for cell in cells if cell), "").startswith(FOOTER)
