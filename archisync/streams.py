"""Writing to a standard stream whose reader may have gone: `| head -1`, a logger that died."""

from __future__ import annotations

import os
from typing import TextIO


def write(stream: TextIO, text: str) -> None:
    """Write and flush. Once nobody reads any more, the text and all later ones are dropped: what a command does, and its exit code,
    must not depend on who looks on."""
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
