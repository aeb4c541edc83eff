"""Log lines: one event a line on stderr, with a stable event name and ids as fields. JSON off a terminal."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from archisync.base import stdio
from archisync.base.text import printable, redact

EVENTS = {
    "agent-locked": "a run is given back: another process still talks to the ERP for its agent",
    "child-died": "a worker's child process ended in the middle of a run; a tick takes the run back",
    "delivery-failed": "a worker's child could not go on with the next delivery; another child does",
    "delivery-ignored": "a delivery came for a run that is not, or no longer, to be done",
    "heartbeat-failed": "a worker could not extend its lease; it tries again",
    "hook-misconfigured": "ARCHISYNC_HOOK can't be called",
    "job-set-aside": "something in the queue is not a run of archisync; it was not executed",
    "key-moved-aside": "a key of RQ's was of another type; it was renamed",
    "lease-lost": "another worker owns the run now; this one wrote nothing",
    "maintenance-failed": "RQ's housekeeping failed; nothing depends on it",
    "notice-delivered": "the hook took a notice",
    "notice-refused": "the hook did not take a notice; it is tried again",
    "run-finished": "a run has ended, with state, reason and message",
    "run-started": "a worker has begun a run",
    "silent-holder-ended": "the session of a worker that held an agent and said nothing was ended",
    "worker-restarted": "a worker process has crashed and is started again",
    "workers-started": "`archisync worker` has started its processes",
    "workers-stopped": "all of them have ended",
    "workers-stopping": "SIGTERM or Ctrl-C: each finishes its current run",
}
"""Every event that archisync logs. Monitoring relies on the names: one that is taken away or renamed goes into CHANGELOG.md."""


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
        stdio.write(self._stream, line + "\n")


def _clean(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    return printable(redact(str(value)))
