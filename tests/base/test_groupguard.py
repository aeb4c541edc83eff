"""What a child has started ends with us, however we end; and the guard itself ends too."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.processes import wait_until_gone

STARTS = """
import os, signal, subprocess, sys
from archisync.base import groupguard
from archisync.base.processes import end, start
child = start(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, guarded=True)
print(child.stdout.readline().decode().strip(), flush=True)
print(open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(), flush=True)
"""


@pytest.mark.parametrize(
    "death",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.abort()",
        "os._exit(3)",
        "sys.exit(0)",
        "os.fork() or os._exit(0); os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getppid(), 0); end(child); child = start(['sh', '-c', 'sleep 1000'], guarded=True); print(child.pid, flush=True);"
        " os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_a_grandchild_ends_with_us_however_we_end(death: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{STARTS}{death}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 3, done.stderr  # the grandchild, the guard, the child
    for pid in pids:
        wait_until_gone(pid)


def test_a_group_that_has_ended_is_nobody_s_any_more(tmp_path: Path) -> None:
    """Its number may belong to others by then."""
    told = tmp_path / "told"
    spy = (
        "from archisync.base import groupguard\n"
        f"told = open({str(told)!r}, 'w')\n"
        "groupguard._started = lambda: os.dup(told.fileno())\n"
        "end(start(['true'], guarded=True))\n"
        "end(start(['true']))\n"
    )
    code = "import os\nfrom archisync.base.processes import end, start\n" + spy
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    first, *others = told.read_text().split()
    assert others[0] == first.replace("+", "-")
    assert all(line.startswith("-") for line in others)


def test_a_guard_that_somebody_killed_is_replaced(tmp_path: Path) -> None:
    code = f"""{STARTS}
guard = next(int(p) for p in open(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read().split() if int(p) != child.pid)
os.kill(guard, signal.SIGKILL); os.waitpid(guard, 0)
other = start(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, guarded=True)
third = start(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, guarded=True)
print("third", third.stdout.readline().decode().strip(), flush=True)
os.killpg(child.pid, signal.SIGKILL); os.killpg(other.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until_gone(int(done.stdout.split("third")[1]))
