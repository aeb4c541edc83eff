"""What a child has started ends with us, however we end; and the guard itself ends too."""

import os
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
    announced, watched, forgotten, *others = told.read_text().split()
    assert (announced[0] + watched[0] + forgotten[0], len({announced[1:], watched[1:], forgotten[1:]})) == ("?+-", 1)
    assert others
    assert all(line.startswith("-") for line in others)


def test_a_grandchild_ends_with_us_though_we_die_before_we_know_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "born")
    code = (
        "import os, signal\n"
        "from archisync.base import groupguard\n"
        "from archisync.base.processes import start\n"
        "def killed(group):\n"
        "    print(open('born').read(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "groupguard.watch = killed\n"
        "start(['sh', '-c', 'sleep 1000 & echo $! > born; wait'], guarded=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until_gone(int(done.stdout))


def test_a_program_that_is_not_there_leaves_no_number_behind(tmp_path: Path) -> None:
    """It may belong to others later."""
    code = (
        "import os\n"
        "from archisync.base import groupguard\n"
        "from archisync.base.processes import start\n"
        f"told = open({str(tmp_path / 'told')!r}, 'w')\n"
        "groupguard._started = lambda: os.dup(told.fileno())\n"
        "try: start(['/nowhere/to/be/found'], guarded=True)\n"
        "except FileNotFoundError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert [line[0] for line in (tmp_path / "told").read_text().split()] == ["?", "!"]
