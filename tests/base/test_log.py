"""Log lines: JSON when standard error is no terminal, with event names that are listed in one place."""

import ast
import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import archisync
from archisync.base import librarylogs
from archisync.base.log import EVENTS, LOGGING_COMMANDS, REMEDIES, EventLog, logging_command

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


def test_each_line_about_what_a_person_can_mend_has_a_hint() -> None:
    assert set(EVENTS) >= REMEDIES
    without = []
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "event":
                (name, *_) = call.args
                assert isinstance(name, ast.Constant)
                if name.value in REMEDIES and "hint" not in [keyword.arg for keyword in call.keywords]:
                    without.append((path.name, name.value))
    assert without == []


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["tick"], "tick"), (["tick", "--dry-run"], "tick"),
        (["--quiet", "worker", "--burst"], "worker"), (["web", "--listen", "8080"], "web"), (["status"], None),
        (["run", "orders", "tick"], None), (["worker", "list"], None), ([], None), (["up"], "up"),
        (["metrics"], None), (["metrics", "--serve", "9400"], "metrics"), (["metrics", "--serve=9400"], "metrics"),
    ],
)  # fmt: skip
def test_a_command_whose_standard_error_is_a_log(words: list[str], command: str | None) -> None:
    assert logging_command(words) == command
    assert command is None or command in LOGGING_COMMANDS


@pytest.fixture
def collected() -> Iterator[io.StringIO]:
    """What libraries say from here on; afterwards the process is as it was."""
    root, hook = logging.getLogger(), threading.excepthook
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    librarylogs.collect(EventLog(stream))
    yield stream
    root.handlers[:], threading.excepthook = before[0], hook
    root.setLevel(before[1])
    logging.captureWarnings(False)


def events(stream: io.StringIO) -> list[dict[str, str]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {event["event"] for event in found} <= {"library-message"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", event["time"]) for event in found)
    return found


def test_what_a_library_logs_is_an_event(collected: io.StringIO) -> None:
    logging.getLogger("rq.worker").warning("Worker %s: 'two\nlines' of %s", "w", "redis://:s3cret@h/0")
    logging.getLogger("rq.worker").info("not heard")
    mine = next(handler for handler in logging.getLogger().handlers if handler.__module__ == librarylogs.__name__)
    mine.emit(logging.makeLogRecord({"msg": "%d", "args": ("no number",), "levelname": "ERROR"}))
    (first, second) = events(collected)
    assert (first["logger"], first["level"], first["message"]) == ("rq.worker", "warning", "Worker w: 'two")
    assert first["traceback"] == "lines' of redis://:***@h/0"
    assert (second["level"], second["message"]) == ("error", "%d")


def test_the_end_of_a_traceback_is_kept(collected: io.StringIO) -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError("what happened")
        deep(n - 1)

    try:
        deep(50)
    except ValueError:
        logging.getLogger("rq.worker").exception("failed")
    (event,) = events(collected)
    assert event["message"] == "failed"
    assert event["traceback"].rstrip().endswith("ValueError: what happened")


def test_a_warning_and_an_exception_that_nobody_caught_are_events(collected: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)

    def fail() -> None:
        raise ZeroDivisionError("by nought")

    thread = threading.Thread(target=fail, name="some-thread")
    thread.start()
    thread.join()
    (first, second) = events(collected)
    assert (first["logger"], "DeprecationWarning: soon gone" in first["message"]) == ("py.warnings", True)
    assert (second["logger"], second["message"]) == ("some-thread", "ZeroDivisionError: by nought")
    assert "in fail" in second["traceback"]
