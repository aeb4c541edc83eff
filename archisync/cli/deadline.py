"""The last resort against a wait that never ends: a thread that ends the whole process, with an honest message.

Every wait has a bound of its own (statements, Redis commands); a peer that sends a byte now and then outlives them all. A
thread, and not a signal: it needs nothing to be undone, nobody can catch it, and a tick may be killed anywhere.
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
    """After `seconds` inside the block: print `error` and leave the process with its exit code."""
    timer = threading.Timer(seconds, _end, [error])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(error: ArchisyncError) -> None:
    Output().error(error)
    os._exit(error.exit_code)
