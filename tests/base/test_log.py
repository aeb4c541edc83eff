"""Log lines: JSON when standard error is no terminal, with event names that are listed in one place."""

import io
import json
import re
from pathlib import Path

import archisync
from archisync.base.log import EVENTS, EventLog

SOURCES = sorted(Path(archisync.__file__).parent.rglob("*.py"))


def test_events_in_the_code_are_exactly_those_that_are_listed() -> None:
    logged = {name for path in SOURCES for name in re.findall(r"\.event\(\s*\"([^\"]+)\"", path.read_text("utf-8"))}
    assert logged == set(EVENTS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", name) for name in EVENTS)


def test_every_event_name_is_a_literal() -> None:
    calls = [call for path in SOURCES for call in re.findall(r"\.event\(\s*(\S)", path.read_text("utf-8"))]
    assert set(calls) == {'"'}


def test_line_without_a_terminal_is_one_json_object() -> None:
    stream = io.StringIO()
    EventLog(stream).event("run-finished", run=7, message="two\nlines \x1b[31m", url="redis://:s3cret@h/0", reason=None)
    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("message").isprintable()
    assert line == {"event": "run-finished", "run": 7, "url": "redis://:***@h/0"}


def test_line_on_a_terminal_is_for_people() -> None:
    stream = io.StringIO()
    EventLog(stream, as_json=False).event("run-started", run=7, agent="anna")
    assert re.fullmatch(r"\d\d:\d\d:\d\d run-started run=7 agent=anna\n", stream.getvalue())
