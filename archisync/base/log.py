"""Log lines on stderr: one event a line, with its time, a stable name and ids as fields; JSON when stderr is no terminal.

The standard error of LOGGING_COMMANDS is a log and nothing else: their errors and remarks are events too (archisync.cli.output), and so is
what libraries log (archisync.base.librarylogs).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from archisync.base import stdio
from archisync.base.text import printable, redact

EVENTS = {
    "agent-locked": "a run goes back into the queue: another process still fetches for its agent",
    "child-died": "a worker's child process ended during a run; a tick takes the run back",
    "command-said": "a remark of a command whose standard error is a log",
    "command-failed": "a command whose standard error is a log ended with an error",
    "delivery-failed": "a worker's child could not take the next delivery; another child does",
    "delivery-ignored": "a delivery came for a run that is not queued under its fence any more",
    "heartbeat-failed": "a worker could not extend its lease; it tries again",
    "hook-misconfigured": "ARCHISYNC_HOOK can't be called",
    "job-set-aside": "the queue held something that is no run of archisync; it was not executed",
    "key-moved-aside": "a key that RQ needs had the wrong type; it was renamed",
    "lease-lost": "another worker owns the run now; this worker wrote nothing",
    "library-message": "a library that archisync uses (RQ, say) warned, or an exception was caught by nobody",
    "maintenance-failed": "RQ's maintenance failed; no sync depends on it",
    "notice-delivered": "the hook accepted a notice",
    "notice-refused": "the hook did not accept a notice; it is called again later",
    "run-finished": "a run ended, with state, reason and message",
    "run-started": "a worker started a run",
    "web-failed": "a request to the panel met a bug in archisync",
    "web-refused": "somebody sent a wrong token to the panel",
    "web-request": "the panel answered a request",
    "web-started": "`archisync web` listens",
    "worker-restarted": "a worker process crashed and is started again",
    "workers-started": "`archisync worker` started its processes",
    "workers-stopped": "all worker processes ended",
    "workers-stopping": "after SIGTERM or Ctrl-C, each worker finishes its current run",
}
"""Every event that archisync logs. Monitoring relies on the names: CHANGELOG.md names each one that is removed or renamed."""
REMEDIES = frozenset(
    {
        "agent-locked", "child-died", "command-failed", "delivery-failed", "heartbeat-failed", "hook-misconfigured", "job-set-aside",
        "key-moved-aside", "lease-lost", "maintenance-failed", "notice-refused", "web-failed", "web-refused", "worker-restarted",
    }
)  # fmt: skip
"""The events of which each line has a `hint`: what a person can do about it. (So has `run-finished`, where there is something to do.)"""
LOGGING_COMMANDS = ("tick", "worker", "web", "up", "metrics")


def logging_command(arguments: Sequence[str]) -> str | None:
    """The command that the arguments name, if its standard error is a log (that of `worker list`, and of `metrics` once, is not)."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:1] == ["metrics"] and not any(argument.startswith("--serve") for argument in arguments):
        return None
    return words[0] if words and words[0] in LOGGING_COMMANDS and words[1:2] != ["list"] else None


class EventLog:
    """`event("run-finished", run=12, state="succeeded")` writes a line, with printable values and without passwords."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._json = not self._stream.isatty() if as_json is None else as_json

    def event(self, name: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
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
