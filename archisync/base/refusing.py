"""The end of a child that reads an export (`archisync.formats.reader`). It imports next to nothing: each export waits for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from archisync.base.errors import ExportError, TruncatedError

EXIT_REFUSED = 3


def refusing(write: Callable[[], object]) -> NoReturn:
    """Call `write`, and end the process at once: to give back a large export's memory cell by cell takes a tenth of its time."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")  # type: ignore[union-attr]
    try:
        write()
        sys.stdout.flush()
    except ExportError as exc:
        reason = "truncated" if isinstance(exc, TruncatedError) else "unreadable"
        print(json.dumps({"reason": reason, "message": exc.message, "hint": exc.hint}), file=sys.stderr, flush=True)  # noqa: T201
        os._exit(EXIT_REFUSED)
    os._exit(0)
