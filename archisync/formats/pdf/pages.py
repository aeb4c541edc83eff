"""The ruled table of each page of a PDF, as rows of cell texts. Only the child process of `archisync.formats.pdf.table` imports this.

There are two readers. `pdfcontent` is fast and refuses a page that leaves it any doubt; `pdfium` reads every page that a viewer
can show, and has the last word: the last page of each batch is read by both, and so is the first page in each font. Where the two
differ, the whole batch and all that follows are PDFium's.
"""

import fcntl
import marshal
import os
import signal
from collections.abc import Callable, Iterator
from typing import IO, NoReturn

from archisync.base.errors import ExportError
from archisync.base.processes import die_with_parent
from archisync.formats.pdf import content, pdfium

Rows = list[list[str]]

REOPEN_AFTER = 256
"""Pages after which PDFium opens the document anew: it keeps what it has parsed until the document is closed."""
BATCH = 64
"""Pages that are given out once the last of them has been read by both readers."""
DOUBTS_ALLOWED = 24
"""Pages more that the fast reader may refuse than it reads; then it is only a waste of time."""
SHARED_FROM = 48
"""Pages from which on a second process pays; it costs a fork and the transport of its rows."""
SHARE = 128
"""Pages that one of two processes reads at a time."""
PIPE_BYTES = 1 << 20


def read_pages(path: str, *, processes: int | None = None) -> Iterator[Rows]:
    """The rows of each page's table, the header row first. Raises ExportError when the file or a page can't be read.

    `processes`: a report of many pages is read by a forked process too (default: when there is a second processor).
    """
    reader = Reader(path)
    try:
        processes = processes or len(os.sched_getaffinity(0))
        if processes == 1 or reader.total < SHARED_FROM:
            yield from reader.pages(0, reader.total)
        else:
            yield from _shared(reader)
    finally:
        reader.close()


def _shared(reader: "Reader") -> Iterator[Rows]:
    """Every second share of the pages comes from a helper, in order; it waits when it is ahead of us by what a pipe holds."""
    total = reader.total
    share = min(SHARE, -(-total // 4))
    out, into = os.pipe()
    helper = os.fork()
    if helper == 0:
        _help(reader, share, into, out)
    os.close(into)
    try:
        with os.fdopen(out, "rb") as shares:
            for start in range(0, total, 2 * share):
                yield from reader.pages(start, min(start + share, total))
                for _ in range(start + share, min(start + 2 * share, total)):
                    yield _received(shares)
    finally:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)


def _help(reader: "Reader", share: int, into: int, out: int) -> NoReturn:
    """What the helper does; it never returns into the caller's frames."""
    code = 1
    try:
        os.close(out)
        die_with_parent(os.getppid())
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with os.fdopen(into, "wb") as shares:
            try:
                reader.reopen()
                for start in range(share, reader.total, 2 * share):
                    for rows in reader.pages(start, min(start + share, reader.total)):
                        marshal.dump(rows, shares)
                    shares.flush()
            except ExportError as exc:
                marshal.dump([exc.message, exc.hint], shares)
        code = 0
    finally:
        os._exit(code)


def _received(shares: IO[bytes]) -> Rows:
    try:
        received = marshal.load(shares)  # noqa: S302 - from our own process
    except (EOFError, ValueError, TypeError):
        raise ExportError(
            "the PDF can't be read: a process that read it ended",
            hint="open it in a viewer; ARCHISYNC_PDF_MEMORY_BYTES",
        ) from None
    if isinstance(received[0], str):
        raise ExportError(received[0], hint=received[1])
    rows: Rows = received
    return rows


class Reader:
    """A file that both readers have open; PDFium's word decides how many pages it has. Raises ExportError.

    `quick` opens it for the fast reader, and `careful` counts the pages that PDFium read.
    """

    def __init__(self, path: str, quick: Callable[..., content.Document] = content.Document) -> None:
        self._path = path
        self._pdfium = pdfium.Document(path)
        self.total = len(self._pdfium)
        self.careful = 0
        self._checked_fonts: set[int] = set()
        self._refused = 0
        self._fast: content.Document | None = None
        if self.total < 1:
            self.close()
            raise ExportError("the PDF has no pages", hint="print the report again")
        try:
            self._fast = quick(path, pdfium.standard_widths)
        except content.DOUBTS:
            return
        if len(self._fast) != self.total:
            self._leave_it_to_pdfium()

    def close(self) -> None:
        self._pdfium.close()
        self._leave_it_to_pdfium()

    def reopen(self) -> None:
        """Have a file position of one's own: after a fork, or to free what PDFium has kept."""
        self._pdfium.close()
        self._pdfium = pdfium.Document(self._path)

    def pages(self, start: int, end: int) -> Iterator[Rows]:
        """The rows of the pages from `start` up to `end`, counted from 0."""
        for first in range(start, end, BATCH):
            yield from self._batch(range(first, min(first + BATCH, end)))

    def _batch(self, numbers: range) -> Iterator[Rows]:
        if self._fast is None:
            yield from map(self._carefully, numbers)
            return
        found: list[Rows] = []
        last = checked = -1
        for number in numbers:
            rows, fonts = self._quickly(number)
            if rows is None:
                found.append(self._carefully(number))
                continue
            found.append(rows)
            last = number
            if not fonts <= self._checked_fonts:
                if rows != self._carefully(number):
                    break
                self._checked_fonts |= fonts
                checked = number
        else:
            if last == checked or found[last - numbers[0]] == self._carefully(last):
                yield from found
                return
        self._leave_it_to_pdfium()
        yield from map(self._carefully, numbers)

    def _quickly(self, number: int) -> tuple[Rows | None, set[int]]:
        """The rows and fonts of a page; no rows where there is doubt."""
        if self._fast is None:
            return None, set()
        try:
            rows, fonts = self._fast.rows(number)
        except content.DOUBTS:
            self._refused += 1
            if self._refused > DOUBTS_ALLOWED:
                self._leave_it_to_pdfium()
            return None, set()
        self._refused = max(self._refused - 1, 0)
        return rows, fonts

    def _carefully(self, number: int) -> Rows:
        self.careful += 1
        if self.careful % REOPEN_AFTER == 0:
            self.reopen()
        return self._pdfium.rows(number)

    def _leave_it_to_pdfium(self) -> None:
        if self._fast is not None:
            self._fast.close()
            self._fast = None
