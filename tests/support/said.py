"""What a command said on standard error about why it ended, whether as text or as a log line."""

import json
from typing import NamedTuple


class Said(NamedTuple):
    message: str
    hint: str


def as_text(stderr: str) -> str:
    """The same with each `command-failed` and `command-said` of a log as the text that a terminal shows."""
    lines = []
    for line in stderr.splitlines():
        event = json.loads(line) if line.startswith('{"time"') else {}
        if event.get("event") == "command-failed":
            lines.append(f"error: {event['message']}")
            if event["hint"]:
                lines.append(f"hint: {event['hint']}")
        elif event.get("event") == "command-said":
            lines.append(event["message"])
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def refusal(stderr: str) -> Said:
    """The error. There must be exactly one."""
    lines = as_text(stderr).splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    hint = lines[number + 1] if lines[number + 1 :] else ""
    return Said(lines[number].removeprefix("error: "), hint.removeprefix("hint: "))
