"""PDF reports: pages per second against pdfplumber's table extraction with the file opened again for each cycle, which is how the
system read them that failed its users; memory of the reader; and whether every cell is the one that was printed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pdfplumber

from archisync.formats import BadRow
from archisync.formats.pdf.cycles import Cycles
from archisync.formats.pdf.pages import read_pages
from archisync.formats.pdf.table import PdfTable
from archisync.rules.config import PdfLimits
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


class Report:
    """A printed report of that many customers."""

    def __init__(self, folder: Path, records: int) -> None:
        self.path = folder / f"customers-{records}.pdf"
        self.rows = [customer(number) for number in range(records)]
        self.pages = write_report(
            self.path, SLICES, [name.upper() for name in COLUMNS], self.rows, rows_per_page=ROWS_PER_PAGE
        )

    def ours(self) -> float:
        """Pages per second, in this process."""
        return self.pages / timed(lambda: sum(1 for _ in Cycles(read_pages(str(self.path)))))

    def ours_whole(self) -> float:
        """The same with the child process, its start and its limits."""
        return self.pages / timed(lambda: sum(1 for _ in PdfTable(self.path, PdfLimits()).rows()))

    def reopened(self, cycles: int | None = None) -> float:
        """Pages per second of the reference, of that many cycles spread over the report (all of them when None)."""
        total = self.pages // len(SLICES)
        chosen = range(total) if cycles is None else range(0, total, max(total // cycles, 1))

        def read() -> None:
            for cycle in chosen:
                with pdfplumber.open(self.path) as document:
                    for page in document.pages[cycle * len(SLICES) : (cycle + 1) * len(SLICES)]:
                        page.extract_tables()

        return len(chosen) * len(SLICES) / timed(read)

    def exact(self) -> float:
        """Part of the cells that are what was printed."""
        found = [row.cells for row in PdfTable(self.path, PdfLimits()).rows() if not isinstance(row, BadRow)]
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
        ours, whole, peer = side_by_side(settings.rounds, small.ours, small.ours_whole, small.reopened)
        yield _against(f"{len(small.rows)} records", ours, peer, 60, f"{whole:.0f} with its process's start")
        ours_large, whole_large, peer_large, again = side_by_side(
            settings.rounds, large.ours, large.ours_whole, lambda: large.reopened(3), small.ours
        )
        yield _against(
            f"{len(large.rows)} records",
            ours_large,
            peer_large,
            200,
            f"reference sampled; {whole_large:.0f} with its process's start",
        )
        yield Figure(
            name="pages/s of a large report against a small one",
            unit="pages/s",
            ours=ours_large,
            against=f"{len(small.rows)} records",
            peer=again,
            ratio=ours_large / again,
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


def _against(what: str, ours: float, peer: float, target: float, note: str) -> Figure:
    return Figure(
        name=f"PDF, customers report, {what}",
        unit="pages/s",
        ours=ours,
        against="pdfplumber, re-opened for each cycle",
        peer=peer,
        ratio=ours / peer,
        target=target,
        note=note,
    )
