"""A Ctrl-C is neither lost nor taken for another error. What would interrupt the test run itself happens in a process of its own."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from archisync.base.processes import is_running
from archisync.base.signals import held_back, is_interrupt
from tests.conftest import REPOSITORY

# Python loses an interrupt that comes in a destructor (`Going`) or in a callback around a fork.
BEGINNING = """
import os, select, signal, sys
from archisync.base import processes, signals
def ctrl_c(): signal.raise_signal(signal.SIGINT)
class Going:
    def __del__(self): ctrl_c()
"""


def outcome(script: str) -> tuple[list[str], str]:
    """The script's lines on standard output, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines(), done.stderr


def test_interrupt_that_python_loses_is_raised_again_and_ends_a_waiting_call() -> None:
    lines, said = outcome("""
signals.remember()
try:
    Going()
    print("lost", flush=True)
    select.select([], [], [], 50)
    print("never")
except KeyboardInterrupt:
    print("interrupted")
""")
    assert (lines, said) == (["lost", "interrupted"], "")


def test_other_lost_exceptions_are_printed_as_before() -> None:
    lines, said = outcome("""
signals.remember()
class Wrong:
    def __del__(self): raise OSError("no room")
Wrong()
print("on")
""")
    assert lines == ["on"]
    assert "Exception ignored" in said
    assert said.endswith("OSError: no room\n")


def test_interrupt_while_a_process_starts_ends_that_process() -> None:
    lines, said = outcome("""
out, kept = os.pipe()
os.register_at_fork(before=ctrl_c)
try:
    processes.start(["sh", "-c", "echo $$; exec sleep 60"], stdout=kept)
    print("started")
except KeyboardInterrupt:
    print("interrupted")
os.close(kept)
print(os.read(out, 100).decode() or "ended")
""")
    assert said == ""
    assert lines[0] == "interrupted"
    pid = lines[1]  # or nothing, if it was ended before it could write
    assert pid == "ended" or not is_running(int(pid))


def test_missing_program_raises_the_error_of_popen() -> None:
    lines, _ = outcome("""
try:
    processes.start(["/nowhere/program"])
except FileNotFoundError:
    print("not found")
""")
    assert lines == ["not found"]


def test_interrupt_that_was_held_back_replaces_the_error_of_the_block() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise OSError

    with pytest.raises(KeyboardInterrupt) as raised, held_back():
        fail()
    assert isinstance(raised.value.__context__, OSError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_only_the_default_handler_of_the_main_thread_is_held_back() -> None:
    """A worker's handler is still called; another thread may not set a handler."""
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with held_back():
                pass
        except BaseException as exc:  # noqa: BLE001 - any error fails the test
            errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == []


def test_error_that_comes_from_an_interrupt_is_recognised() -> None:
    in_a_class = RuntimeError("Error calling __set_name__")
    in_a_class.__cause__ = KeyboardInterrupt()
    cleaning_up = RuntimeError("cannot join thread before it is started")
    cleaning_up.__context__ = in_a_class
    assert is_interrupt(KeyboardInterrupt())
    assert is_interrupt(in_a_class)
    assert is_interrupt(cleaning_up)
    unrelated = ValueError()
    unrelated.__context__ = OSError()
    assert not is_interrupt(unrelated)
