"""The last resort against a wait that never ends: a thread that ends the process with an honest message.

Every wait has its own limit (statements, Redis commands), but a peer that sends a byte now and then outlives them all. It is a thread and
not a signal because nobody can catch it and nothing must be undone: a tick may be killed at any point.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from archisync.base.errors import ArchisyncError
from archisync.cli.output import Output


@contextmanager
def ends_within(seconds: float, error: ArchisyncError) -> Iterator[None]:
    """If the block takes longer than `seconds`, show `error` and end the process with its exit code."""
    timer = threading.Timer(seconds, _end_process, [error])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_process(error: ArchisyncError) -> None:
    Output().error(error)
    os._exit(error.exit_code)
