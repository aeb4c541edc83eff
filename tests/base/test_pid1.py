"""As the first process of a container, a command leaves no zombie, passes signals on and ends as it would elsewhere."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", sys.executable, "-c"]
BEGIN = """
import os, pathlib, signal, subprocess, sys, time
from archisync.base.pid1 import leave_pid_1
leave_pid_1()
"""
ORPHANS = """
for _ in range(8):  # each shell leaves an orphan behind, which ends a moment later
    subprocess.run(["sh", "-c", "sleep 0.05 &"])
def states():
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:  # it has ended meanwhile
                pass
until = time.monotonic() + 20
while len(found := list(states())) > 2 and time.monotonic() < until:  # the init and this process
    time.sleep(0.01)
print(os.getpid(), len(found), found.count("Z"))
"""


def as_pid_1(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*UNSHARE, BEGIN + code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "--fork", "--pid", "--mount-proc", "true"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="only root may make a namespace of process ids",
)


def test_orphans_are_waited_for() -> None:
    done = as_pid_1(ORPHANS)
    pid, processes, zombies = done.stdout.split()
    assert (pid != "1", processes, zombies) == (True, "2", "0"), done.stderr


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)])
def test_the_exit_code_is_the_command_s(end: str, code: int) -> None:
    assert as_pid_1(end).returncode == code


def test_signals_are_passed_on() -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"asked to stop\\n"), sys.exit(5)))
print("ready", flush=True)
while True: time.sleep(1)
"""
    with subprocess.Popen([*UNSHARE, BEGIN + code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            os.kill(int(children.read_text()), signal.SIGTERM)
            assert process.stdout.read() == "asked to stop\n"
            assert process.wait() == 5
        finally:
            process.kill()


def test_any_other_process_goes_on_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + "print(os.getpid())"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().isdecimal()
