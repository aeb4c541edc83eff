"""A Ctrl-C is neither lost nor taken for another error. What would interrupt the tests themselves is done in a process of its own."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from archisync.base.processes import is_running
from archisync.base.signals import held_back, is_interrupt
from tests.conftest import REPOSITORY

# Python forgets an interrupt that comes while an object goes (`Going`), or in what is called around a fork.
BEGINNING = """
import os, select, signal, sys
from archisync.base import processes, signals
def ctrl_c(): signal.raise_signal(signal.SIGINT)
class Going:
    def __del__(self): ctrl_c()
"""


def outcome(script: str) -> tuple[list[str], str]:
    """Its lines, and what it said of errors."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines(), done.stderr


def test_one_that_python_forgets_is_raised_again() -> None:
    lines, said = outcome("""
signals.remember()
try:
    Going()
    print("forgotten", flush=True)
    select.select([], [], [], 50)
    print("never")
except KeyboardInterrupt:
    print("interrupted")
""")
    assert (lines, said) == (["forgotten", "interrupted"], "")


def test_what_else_python_can_only_print_is_printed_as_before() -> None:
    lines, said = outcome("""
signals.remember()
class Wrong:
    def __del__(self): raise OSError("no room")
Wrong()
print("on")
""")
    assert lines == ["on"]
    assert "Exception ignored in" in said
    assert said.endswith("OSError: no room\n")


@pytest.mark.parametrize("group", [False, True])
def test_one_that_comes_while_a_process_is_started_ends_that(group: bool) -> None:
    lines, said = outcome(f"""
out, kept = os.pipe()
os.register_at_fork(before=ctrl_c)
try:
    options = dict(stdout=kept, preexec_fn=lambda: None, start_new_session={group})
    processes.start(["sh", "-c", "echo $$; exec sleep 60"], **options)
    print("started")
except KeyboardInterrupt:
    print("interrupted")
os.close(kept)
print(os.read(out, 100).decode() or "ended")
""")
    assert said == ""
    assert lines[0] == "interrupted"
    pid = lines[1]  # unless it was ended before it could say
    assert pid == "ended" or not is_running(int(pid))


def test_a_program_that_can_not_be_started_is_told_as_such() -> None:
    lines, _ = outcome("""
try:
    processes.start(["/nowhere/program"])
except FileNotFoundError:
    print("not found")
""")
    assert lines == ["not found"]


def test_one_that_is_held_back_replaces_the_error_that_came_of_it() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise OSError

    with pytest.raises(KeyboardInterrupt) as raised, held_back():
        fail()
    assert isinstance(raised.value.__context__, OSError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_held_back_elsewhere() -> None:
    """A worker's handler goes on being called; another thread may set none."""
    told: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
        assert told == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with held_back():
                pass
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test fails
            errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == []


def test_an_error_that_a_ctrl_c_has_become_is_known() -> None:
    in_a_class = RuntimeError("Error calling __set_name__")
    in_a_class.__cause__ = KeyboardInterrupt()
    cleaning_up = RuntimeError("cannot join thread before it is started")
    cleaning_up.__context__ = in_a_class
    assert is_interrupt(KeyboardInterrupt())
    assert is_interrupt(in_a_class)
    assert is_interrupt(cleaning_up)
    of_itself = ValueError()
    of_itself.__context__ = OSError()
    assert not is_interrupt(of_itself)
