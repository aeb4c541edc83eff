"""PDF reports (extra `pdf`), read by a child process with limits, because a PDF may crash or exhaust the library that reads it.

The child writes the records to a file beside the export. So the whole report is read and each of its cycles checked before the
first row is used.
"""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archisync.base import processes
from archisync.base.errors import ConfigurationError, ExportError, TransientSourceError, TruncatedError
from archisync.formats.pdf.child import EXIT_REFUSED
from archisync.formats.rows import BadRow, RawRow
from archisync.rules.config import PdfLimits

_TAIL_BYTES = 2048
_ADDRESS_SPACE_AT_LEAST = 256 * 1024 * 1024  # Python and PDFium before they read a page
_NO_ROOM = os.strerror(errno.ENOSPC)
_PASSED = ("PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH")


class PdfTable:
    """A paged wide report.

    Raises ConfigurationError without the extra, ExportError when any part of the report can't be trusted, and
    TransientSourceError when the disk is full.
    """

    def __init__(self, path: Path, limits: PdfLimits) -> None:
        if importlib.util.find_spec("pypdfium2") is None:
            raise ConfigurationError(
                "the export is a PDF report, and the library that reads it is not installed",
                hint="pip install 'archisync[pdf]'",
            )
        _require_complete(path)
        self._records = path.with_name(path.name + ".records")
        _convert(path, self._records, limits)
        with self._records.open(encoding="utf-8") as file:
            self.labels = tuple(json.loads(file.readline()))
        numbers = _last_line(self._records)
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


def _convert(path: Path, records: Path, limits: PdfLimits) -> None:
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    memory = max(limits.memory_bytes, _ADDRESS_SPACE_AT_LEAST)
    with records.open("wb") as out:
        try:
            child = processes.run(
                # -B: the limit of file sizes could cut a module's compiled file, which no process could import then.
                [sys.executable, "-P", "-B", "-m", "archisync.formats.pdf.child", str(path)],
                timeout_s=limits.timeout_s,
                memory_bytes=memory,
                cpu_s=limits.timeout_s,
                file_bytes=limits.output_bytes,
                env=environment,
                stdout=out,
                stderr=subprocess.PIPE,
            )
        except subprocess.TimeoutExpired:
            raise _too_long(limits) from None
    if _NO_ROOM in child.stderr.decode("utf-8", "replace"):
        raise TransientSourceError(
            f"cannot write to the spool directory {path.parent}: {_NO_ROOM}", hint=f"df -h {path.parent}"
        )
    if child.returncode:
        raise _refusal(child.returncode, child.stderr, limits)


def _too_long(limits: PdfLimits) -> ExportError:
    return ExportError(
        f"the PDF could not be read within {limits.timeout_s} s",
        hint="raise ARCHISYNC_PDF_TIMEOUT_S, or print the report in parts",
    )


def _refusal(code: int, said: bytes, limits: PdfLimits) -> ExportError:
    """The error that the child's exit code and last words stand for."""
    lines = said.decode("utf-8", "replace").strip().splitlines() or [""]
    if code == EXIT_REFUSED:
        refusal = json.loads(lines[-1])
        kind = TruncatedError if refusal["reason"] == TruncatedError.reason else ExportError
        return kind(refusal["message"], hint=refusal["hint"])
    if code == -signal.SIGXCPU:
        return _too_long(limits)
    if "MemoryError" in lines[-1] or "bad_alloc" in lines[-1] or code in (-signal.SIGABRT, -signal.SIGTRAP):
        return ExportError(
            f"the PDF needs more than {limits.memory_bytes >> 20} MiB to be read",
            hint="raise ARCHISYNC_PDF_MEMORY_BYTES if the report is as large as that",
        )
    if "File too large" in lines[-1]:
        return ExportError("the PDF holds more than the largest export", hint="ARCHISYNC_MAX_EXPORT_BYTES")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ExportError(
        f"the PDF can't be read: its reader ended with {how} ({lines[-1][:200]})",
        hint="open it in a viewer; print the report again",
    )


def _last_line(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        last = file.read().splitlines()[-1]
    numbers = json.loads(last)
    assert isinstance(numbers, dict)
    return numbers
