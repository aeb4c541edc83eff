"""What a test run leaves behind: processes that it started, however deep, and folders and segments in temporary places."""

import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from archisync.base.lockedfolders import is_locked

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
GONE_TIMEOUT_S = 10.0
_PLACES = (Path(tempfile.gettempdir()), Path("/dev/shm"))
_NAMES = ("archisync-*", "PostgreSQL.*")


def adopt_orphans() -> None:
    """From here on every process that this one starts stays its descendant, whoever of its parents ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stop_forkserver() -> None:
    """End the two processes that multiprocessing keeps for tests that kill their children; it has no public way to."""
    from multiprocessing import forkserver, resource_tracker

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def processes_left() -> list[str]:
    """The descendants of this process that go on running after some seconds. Those that have ended are waited for."""
    until = time.monotonic() + GONE_TIMEOUT_S
    while True:
        running = [pid for pid in _descendants(os.getpid()) if not _reaped(pid)]
        if not running or time.monotonic() > until:
            return [f"{pid}: {command}" for pid in running if (command := _command(pid))]
        time.sleep(0.05)


def files() -> set[Path]:
    """Our folders and PostgreSQL's segments in the temporary places, but for those in use."""
    found = {path for place in _PLACES for name in _NAMES for path in place.glob(name)}
    return {path for path in found if not is_locked(path)}


def is_alone() -> bool:
    """Whether nobody else on this machine runs archisync or its tests, whose files these may be."""
    family = {os.getpid(), *_ancestors(), *_descendants(os.getpid())}
    others = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return not any(word in _command(pid) for pid in others if pid not in family for word in ("archisync", "pytest"))


def _descendants(pid: int) -> Iterator[int]:
    for task in _entries(Path(f"/proc/{pid}/task")):
        for child in _text(task / "children").split():
            yield int(child)
            yield from _descendants(int(child))


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 1:
        yield pid
        pid = int(_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[1])


def _reaped(pid: int) -> bool:
    """Whether it was a child of ours that has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _command(pid: int) -> str:
    """Empty for a process that has ended."""
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
