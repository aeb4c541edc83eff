"""The ERP's paged wide reports: a grid cut into vertical slices, one page each; a block of rows takes one page of every slice.

Row k of every page of such a cycle is one record; only the position links them. How many slices there are is found from the
headers: the cycle ends where the first page's header row comes again.
"""

import re
from collections.abc import Iterator, Sequence

from archisync.base.errors import ExportError, TruncatedError

Page = list[list[str]]

MAX_SLICES = 400
"""A longer cycle is none: nobody prints a thousand columns, and a cycle is kept in memory."""
FOOTER = "Count="
_NUMBER = re.compile(rf"{FOOTER}\s*([0-9]{{1,3}}(?:\.[0-9]{{3}}){{1,4}}|[0-9]{{1,15}})\s*$")
_CUT_OFF_HINT = "the download or the print was cut off; print the report again"


class Cycles:
    """The records of a report. `labels` are known before the first record is read; the numbers grow while it is iterated.

    Raises TruncatedError when the pages are no whole number of cycles or a cycle's pages differ in their rows, ExportError
    when a header changes on the way; both possibly after many records.
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
        """The footer, wherever it stands, comes last and as one row; it counts for no slice's rows and hides no missing one."""
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
    """The pages of the first cycle, and the one after it."""
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
    """How many rows the footer says that there are; 0 when it says nothing that can be read."""
    number = _NUMBER.match(next((cell for cell in cells if cell), ""))
    return int(number[1].replace(".", "")) if number else 0


def is_footer(cells: Sequence[str | None]) -> bool:
    """Whether the row is the report's `Count=` line."""
    return next((cell for cell in cells if cell), "").startswith(FOOTER)
