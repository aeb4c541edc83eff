"""Writing to standard streams whose reader may be gone (`| head -1`, a logger that died) or whose disk may be full.

That never changes what a command does. Messages and log lines that can't be written are dropped; data that can't be written is an error
at the very end, when the command has done its work.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO

from archisync.base.errors import OutputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_lost: list[OSError] = []
"""Why standard output is incomplete. It is a global because the stream belongs to the whole process, too."""

_discarded: set[int] = set()
"""Descriptors of streams that `discard` was called for."""


def write(stream: TextIO, text: str) -> None:
    """Write a message or log line, and flush. Without a reader, it and all later ones are dropped; on a full disk, only this one."""
    with suppress(OSError):
        _write(stream, text)


def write_data(stream: TextIO, text: str) -> None:
    """Write data, and flush. After the first piece that can't be written, all others are dropped, so that none is missing in the middle;
    `close` returns the error."""
    try:
        _write(stream, text)
    except OSError as exc:
        discard(stream)
        _lost.append(exc)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Send everything that is still written to the stream, also by the ending interpreter, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    _discarded.add(stream.fileno())


def is_discarded(stream: TextIO) -> bool:
    """Whether nothing that is written to the stream arrives any more: its reader is gone, or its disk is full."""
    return stream.fileno() in _discarded


def failed_to_write(stream: TextIO, exc: OSError) -> bool:
    """Whether an error in a library that writes by itself comes from this stream; a test write decides."""
    if exc.errno in _NO_ROOM:
        write_data(stream, "\n")
    return bool(_lost)


def close() -> OutputError | None:
    """Flush the standard streams for the last time; the error to show if standard output is incomplete.

    Unwritten messages on standard error are dropped: otherwise the interpreter would change the exit code.
    """
    with suppress(ValueError):  # closed already
        _flush(sys.stdout, _lost)
        _flush(sys.stderr, [])
    if not _lost:
        return None
    return OutputError(
        f"standard output can't be written: {_lost[0].strerror}",
        hint="df -h   (the command itself has done its work)",
    )


def _flush(stream: TextIO, lost: list[OSError]) -> None:
    try:
        stream.flush()
    except OSError as exc:
        discard(stream)
        if not isinstance(exc, BrokenPipeError):
            lost.append(exc)
