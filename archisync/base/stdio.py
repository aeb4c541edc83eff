"""Writing to a standard stream whose reader may have gone (`| head -1`, a logger that died), or whose disk may be full.

What a command does never depends on it: talk and log lines that can't be written are dropped, and data that can't be written is told
at the very end, when the command has done all that it had to.
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
"""Why standard output lacks something. Module state: the stream belongs to the whole process, too."""


def write(stream: TextIO, text: str) -> None:
    """Write talk or a log line, and flush. Once nobody reads any more, it and all later ones are dropped; on a full disk, the next one
    may find room again."""
    with suppress(OSError):
        _write(stream, text)


def write_data(stream: TextIO, text: str) -> None:
    """Write data, and flush. After what can't be written nothing else is, so that no piece is left out of the middle; `close` tells."""
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
    """Let whatever is still to be written, also by the interpreter when it ends, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def took_not(stream: TextIO, exc: OSError) -> bool:
    """Whether an error that somebody else's writing has raised (the command-line library's help) comes from this stream: it is asked."""
    if exc.errno in _NO_ROOM:
        write_data(stream, "\n")
    return bool(_lost)


def close() -> OutputError | None:
    """Flush the standard streams for the last time; the error to tell if standard output lacks something.

    What is left of the talk goes nowhere: the interpreter would change the exit code for it.
    """
    with suppress(ValueError):  # closed already
        _flush(sys.stdout, _lost)
        _flush(sys.stderr, [])
    if not _lost:
        return None
    return OutputError(
        f"standard output can't be written: {_lost[0].strerror}",
        hint="df -h   (whatever else the command does is done)",
    )


def _flush(stream: TextIO, lost: list[OSError]) -> None:
    try:
        stream.flush()
    except OSError as exc:
        discard(stream)
        if not isinstance(exc, BrokenPipeError):
            lost.append(exc)
