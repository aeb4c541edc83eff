"""PDF reports: pages per second, memory, and whether every cell is the one that was printed.

The peers are pdfplumber's table extraction, with the file opened again for each cycle, which was the system before this one; and
a loop that takes only the text of each page through pypdfium2. All of them run in one thread of this process, and speed is by
processor time, so that other work on the machine changes the ratios little.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pdfplumber
import pypdfium2

from archisync.formats import BadRow
from archisync.formats.pdf.cycles import Cycles
from archisync.formats.pdf.pages import read_pages
from archisync.formats.pdf.table import PdfTable
from archisync.rules.config import ReaderLimits
from tests.benchmarks.datapath import COLUMNS, customer
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.support.reports import cut, write_report

ROWS_PER_PAGE = 34
SLICES = cut(len(COLUMNS), 4, 4, 4, 4, 4)
MIB = 1024 * 1024
PEAK = """
import re, sys
from archisync.formats.pdf import child
child.main()
print(int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]) * 1024, file=sys.stderr)
"""


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of processor time that the work takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Report:
    """A printed report of that many customers."""

    def __init__(self, folder: Path, records: int) -> None:
        self.path = folder / f"customers-{records}.pdf"
        self.rows = [customer(number) for number in range(records)]
        self.pages = write_report(
            self.path, SLICES, [name.upper() for name in COLUMNS], self.rows, rows_per_page=ROWS_PER_PAGE
        )

    def ours(self) -> float:
        """Pages per second without the child process."""
        return self.pages / processor_s(lambda: sum(1 for _ in Cycles(read_pages(str(self.path)))))

    def ours_whole(self) -> float:
        """Pages per second with the child process, its start and its limits; by the clock."""
        return self.pages / timed(lambda: sum(1 for _ in PdfTable(self.path, ReaderLimits()).rows()))

    def bare(self) -> float:
        """Pages per second of a loop that takes the text of each page."""

        def read() -> None:
            with closing(pypdfium2.PdfDocument(self.path)) as document:
                for number in range(len(document)):
                    with closing(document[number]) as page, closing(page.get_textpage()) as text:
                        text.get_text_range()

        return self.pages / processor_s(read)

    def reopened(self, cycles: int | None = None) -> float:
        """Pages per second of pdfplumber, measured on that many cycles spread over the report, or on all of them."""
        total = self.pages // len(SLICES)
        chosen = range(total) if cycles is None else range(0, total, max(total // cycles, 1))

        def read() -> None:
            for cycle in chosen:
                with pdfplumber.open(self.path) as document:
                    for page in document.pages[cycle * len(SLICES) : (cycle + 1) * len(SLICES)]:
                        page.extract_tables()

        return len(chosen) * len(SLICES) / processor_s(read)

    def exact(self) -> float:
        """The part of the cells that are read as they were printed."""
        found = [row.cells for row in PdfTable(self.path, ReaderLimits()).rows() if not isinstance(row, BadRow)]
        right = sum(
            a == b for row, cells in zip(self.rows, found, strict=True) for a, b in zip(row, cells, strict=True)
        )
        return right / (len(self.rows) * len(COLUMNS))

    def peak_bytes(self) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(self.path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
        )
        return int(done.stderr)


def figures(settings: Settings) -> Iterator[Figure]:
    """The area's figures."""
    with tempfile.TemporaryDirectory(prefix="archisync-bench-") as folder:
        print("drawing the reports …", file=sys.stderr)
        small = Report(Path(folder), 100 if settings.quick else 1_000)
        large = Report(Path(folder), 300 if settings.quick else 10_000)
        print(f"{small.pages} and {large.pages} pages", file=sys.stderr)
        for report, target, sample in ((small, 25, None), (large, 60, 3)):
            yield from _speed(settings, report, target, sample)
        ours_large, ours_small = side_by_side(settings.rounds, large.ours, small.ours)
        yield Figure(
            name="pages/s of a large report against a small one",
            unit="pages/s",
            ours=ours_large,
            against=f"{len(small.rows)} records",
            peer=ours_small,
            ratio=ours_large / ours_small,
            target=0.8,
        )
        peak = large.peak_bytes() / MIB
        yield Figure(
            name=f"peak memory of the reader, {len(large.rows)} records",
            unit="MiB",
            ours=peak,
            against="",
            peer=None,
            ratio=peak,
            target=64,
            at_most=True,
        )
        exact = min(small.exact(), large.exact())
        yield Figure(
            name="cells equal to what was printed", unit="", ours=exact, against="", peer=None, ratio=exact, target=1
        )


def _speed(settings: Settings, report: Report, target: float, sample: int | None) -> Iterator[Figure]:
    ours, whole, peer, bare = side_by_side(
        settings.rounds, report.ours, report.ours_whole, lambda: report.reopened(sample), report.bare
    )
    name = f"PDF, customers report, {len(report.rows)} records"
    sampled = f"; peer measured on {sample} cycles" if sample else ""
    yield Figure(
        name=name,
        unit="pages/s",
        ours=ours,
        against="pdfplumber, re-opened for each cycle",
        peer=peer,
        ratio=ours / peer,
        target=target,
        note=f"{whole:.0f} by the clock, with its process{sampled}",
    )
    yield Figure(
        name=name,
        unit="pages/s",
        ours=ours,
        against="pypdfium2, the pages' text alone",
        peer=bare,
        ratio=ours / bare,
        target=0.4,
    )
