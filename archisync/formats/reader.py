"""Reading an export in a child process with limits, because some files crash or exhaust the library that reads them.

The child writes the records to a file beside the export. So all of the export is read and checked before the first row is used. A child
that can't trust the export ends with exit code 3 and an object on standard error: `reason`, `message`, `hint`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from archisync.base import processes
from archisync.base.errors import ExportError, TruncatedError
from archisync.base.refusing import EXIT_REFUSED
from archisync.rules.config import ReaderLimits
from archisync.sources.spoolfolder import no_room

_TAIL_BYTES = 64 * 1024
_ADDRESS_SPACE_AT_LEAST = 256 * 1024 * 1024  # Python and the library before they read anything
_NO_ROOM = os.strerror(errno.ENOSPC)
_PASSED = ("PATH", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH")


def convert(child: Path, arguments: list[str], path: Path, limits: ReaderLimits, *, what: str) -> Path:
    """The records that the program `child` writes of an export. `what` it is, in messages: "PDF".

    Raises ExportError when the child refuses the export or passes a limit, and TransientSourceError when the disk is full.
    """
    records = path.with_name(path.name + ".records")
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment["MALLOC_ARENA_MAX"] = "1"  # each thread's own would take 64 MiB of the address space
    with records.open("wb") as out:
        try:
            done = processes.run(
                # -B: the limit of file sizes could cut a module's compiled file, which no process could import then.
                # By its file: as a module it would import the package that it is in, which takes as long as a small workbook.
                [sys.executable, "-P", "-B", str(child), str(path), *arguments],
                timeout_s=limits.timeout_s,
                memory_bytes=max(limits.memory_bytes, _ADDRESS_SPACE_AT_LEAST),
                cpu_s=limits.timeout_s,
                file_bytes=limits.output_bytes,
                env=environment,
                stdout=out,
                stderr=subprocess.PIPE,
            )
        except subprocess.TimeoutExpired:
            raise _too_long(limits, what) from None
    if _NO_ROOM in done.stderr.decode("utf-8", "replace"):
        raise no_room(f"write to the spool directory {path.parent}", path.parent.parent, _NO_ROOM)
    if done.returncode:
        raise _refusal(done.returncode, done.stderr, limits, what)
    return records


def last_line(path: Path) -> dict[str, Any]:
    """The object in the last line of the records."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL_BYTES, 0))
        found = json.loads(file.read().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def _too_long(limits: ReaderLimits, what: str) -> ExportError:
    return ExportError(
        f"the {what} could not be read within {limits.timeout_s} s",
        hint="raise ARCHISYNC_READER_TIMEOUT_S, or let the ERP write it in parts",
    )


def _refusal(code: int, said: bytes, limits: ReaderLimits, what: str) -> ExportError:
    """The error that the child's exit code and last words stand for."""
    text = said.decode("utf-8", "replace").strip()
    last = text.splitlines()[-1] if text else ""
    if code == EXIT_REFUSED:
        refusal = json.loads(last)
        kind = TruncatedError if refusal["reason"] == TruncatedError.reason else ExportError
        return kind(refusal["message"], hint=refusal["hint"])
    if code == -signal.SIGXCPU:
        return _too_long(limits, what)
    if _is_memory(last) or code in (-signal.SIGABRT, -signal.SIGTRAP):
        return ExportError(
            f"the {what} needs more than {limits.memory_bytes >> 20} MiB to be read",
            hint="raise ARCHISYNC_READER_MEMORY_BYTES if the export is as large as that",
        )
    if "File too large" in last:
        return ExportError(f"the {what} holds more than the largest export", hint="ARCHISYNC_MAX_EXPORT_BYTES")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ExportError(
        f"the {what} can't be read: its reader ended with {how} ({last[:200]})",
        hint="open it in a viewer; export it again",
    )


def _is_memory(last: str) -> bool:
    return any(word in last for word in ("MemoryError", "bad_alloc", "capacity overflow", "memory allocation"))
