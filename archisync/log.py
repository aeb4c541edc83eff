"""Log lines: one event a line on stderr, with a stable event name and ids as fields. JSON off a terminal."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from archisync import streams
from archisync.config import redact
from archisync.text import printable


class EventLog:
    """`event("run-finished", run=12, state="succeeded")`. Values are made printable and lose their passwords."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._json = not self._stream.isatty() if as_json is None else as_json

    def event(self, name: str, **fields: Any) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        clean = {key: _clean(value) for key, value in fields.items() if value is not None}
        if self._json:
            line = json.dumps({"time": now, "event": name, **clean}, ensure_ascii=False)
        else:
            line = f"{now[11:19]} {name} " + " ".join(f"{key}={value}" for key, value in clean.items())
        streams.write(self._stream, line + "\n")


def _clean(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    return printable(redact(str(value)))
