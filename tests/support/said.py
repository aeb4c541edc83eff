"""What a command said on standard error about why it ended, whether as text or as a log line."""

import json
from typing import NamedTuple


class Said(NamedTuple):
    message: str
    hint: str


def refusal(stderr: str) -> Said:
    """The error of `error: …` and `hint: …`, or of the log event `command-failed`. There must be exactly one."""
    lines = stderr.splitlines()
    told = [Said(line.removeprefix("error: "), hint.removeprefix("hint: "))
            for line, hint in zip(lines, [*lines[1:], ""], strict=True) if line.startswith("error: ")]  # fmt: skip
    events = [json.loads(line) for line in lines if line.startswith("{")]
    told += [Said(event["message"], event["hint"]) for event in events if event["event"] == "command-failed"]
    (only,) = told
    return only
