"""PDF reports (extra `pdf`), read by a child process with limits (archisync.formats.reader)."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

from archisync.base.errors import ConfigurationError, TruncatedError
from archisync.formats.reader import convert, last_line
from archisync.formats.rows import BadRow, RawRow
from archisync.rules.config import ReaderLimits

_TAIL_BYTES = 2048


class PdfTable:
    """A paged wide report.

    Raises ConfigurationError without the extra, ExportError when any part of the report can't be trusted, and
    TransientSourceError when the disk is full.
    """

    skipped = missing = 0

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        if importlib.util.find_spec("pypdfium2") is None:
            raise ConfigurationError(
                "the export is a PDF report, and the library that reads it is not installed",
                hint="pip install 'archisync[pdf]'",
            )
        _require_complete(path)
        self._records = convert(Path(__file__).with_name("child.py"), [], path, limits, what="PDF")
        with self._records.open(encoding="utf-8") as file:
            self.labels = tuple(json.loads(file.readline()))
        numbers = last_line(self._records)
        self.detected = {"format": "pdf", **{name: str(number) for name, number in numbers.items()}}

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The records in the report's order; `line` is the number of the record, counted from 1."""
        with self._records.open(encoding="utf-8") as file:
            next(file)
            for number, text in enumerate(file, 1):
                if text.startswith("["):
                    yield RawRow(number, tuple(json.loads(text)))


def _require_complete(path: Path) -> None:
    """Refuse a cut file: PDFium repairs it as far as it can, and would return fewer pages without an error."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
        end = tail.rfind(b"%%EOF")
        start = tail.rfind(b"startxref", 0, end if end >= 0 else None)
        if end < 0 or start < 0:
            raise TruncatedError(
                "truncated: the PDF has no end", hint="the download or the print was cut off; fetch the report again"
            )
        offset = tail[start + len(b"startxref") : end].strip()
        file.seek(min(int(offset), size) if offset.isdigit() else size)
        head = file.read(64).lstrip()
    if not (head.startswith(b"xref") or b" obj" in head):
        raise TruncatedError(
            "truncated: bytes are missing in the middle of the PDF (its table of contents is not where it says)",
            hint="fetch the report again",
        )
