"""Child processes: nothing of one is left when it has been ended, and it gets the time to stop that the caller allows."""

import os
import signal
import subprocess
from pathlib import Path
from time import monotonic

import pytest

from archisync.base.processes import end, run, start
from tests.support.processes import GONE_TIMEOUT_S, wait_until_gone


def ready(script: str) -> subprocess.Popen[bytes]:
    """A shell that runs the script, which has written a line."""
    child = start(["sh", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_child_leads_a_session_of_its_own() -> None:
    child = ready("echo ready; exec sleep 1000")
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
    assert end(child) == -signal.SIGKILL


def test_run_returns_the_output_and_ends_what_the_program_left_behind(tmp_path: Path) -> None:
    script = f"sleep 1000 >/dev/null 2>&1 & echo $! > {tmp_path}/left; cat; echo failed >&2; exit 5"
    done = run(["sh", "-c", script], content=b"some text", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"some text", b"failed\n")
    wait_until_gone(int((tmp_path / "left").read_text()))


def test_run_ends_a_program_that_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sh", "-c", f"echo $$ > {tmp_path}/self; exec sleep 1000"], timeout_s=0.2)
    wait_until_gone(int((tmp_path / "self").read_text()))


def test_child_may_stop_in_its_own_way_and_the_rest_of_its_group_is_killed(tmp_path: Path) -> None:
    ignoring = f"sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/ignoring; echo ready; exec sleep 1000'"
    child = ready(f"trap 'exit 7' TERM; {ignoring} & while :; do sleep 0.02; done")
    assert end(child, (signal.SIGTERM, GONE_TIMEOUT_S)) == 7
    wait_until_gone(int((tmp_path / "ignoring").read_text()))


def test_child_that_ignores_every_step_is_killed_after_the_last_one() -> None:
    child = ready("trap '' INT TERM; echo ready; exec sleep 1000")
    started = monotonic()
    assert end(child, (signal.SIGINT, 0.1), (signal.SIGTERM, 0.1)) == -signal.SIGKILL
    assert 0.2 <= monotonic() - started < GONE_TIMEOUT_S
    assert child.stdout is not None
    assert child.stdout.closed


def test_child_that_has_ended_already_keeps_its_exit_code() -> None:
    child = ready("echo ready; exit 3")
    assert child.wait() == 3
    assert end(child, (signal.SIGTERM, GONE_TIMEOUT_S)) == 3


def test_limits_hold_for_the_child() -> None:
    limits = run(["sh", "-c", "ulimit -c; ulimit -v; ulimit -t"], memory_bytes=1 << 30, cpu_s=7, stdout=subprocess.PIPE)
    assert limits.stdout.split() == [b"0", b"1048576", b"7"]
