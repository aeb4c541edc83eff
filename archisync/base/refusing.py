"""The end of a child that reads an export (`archisync.formats.reader`). It imports next to nothing: each export waits for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from archisync.base.errors import ExportError, TruncatedError

EXIT_REFUSED = 3


def refusing(write: Callable[[], object]) -> int:
    """The exit code of a child that calls `write`."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")  # type: ignore[union-attr]
    try:
        write()
        sys.stdout.flush()
    except ExportError as exc:
        reason = "truncated" if isinstance(exc, TruncatedError) else "unreadable"
        print(json.dumps({"reason": reason, "message": exc.message, "hint": exc.hint}), file=sys.stderr)  # noqa: T201
        return EXIT_REFUSED
    return 0
