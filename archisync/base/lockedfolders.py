"""Private folders that are removed even if the process that made them is killed.

Each folder is locked (flock) by its process. Whoever makes one first removes those of the same kind that nobody has locked: a killed
process can't remove its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def make(folder: Callable[[], Path]) -> tuple[Path, int]:
    """A folder that the function makes anew, and the descriptor of its lock; close that after removing the folder. Raises OSError."""
    while True:
        path = folder()
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def remove_abandoned(prefix: str, parent: Path) -> None:
    """Remove this user's folders with names of that beginning that no process has locked."""
    for path in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, or another process is removing it
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether a process has locked the folder."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
