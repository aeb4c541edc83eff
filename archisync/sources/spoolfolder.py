"""The folder that a process keeps exports in while it works on them: private, and gone again also when the process was killed.

Each has its process's lock (flock) on it. A process that makes one first removes those that nobody has locked: they hold customers' data,
and a killed process can't clean up after itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "archisync-spool-"


class SpoolFolder:
    """A new empty folder of mode 0700 in Python's temporary directory (TMPDIR), until `remove`; as a context, its path. Raises OSError when
    it can't be made."""

    def __init__(self) -> None:
        remove_abandoned()
        self.path, self._lock = _made()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _made() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # it was taken for abandoned between the two steps
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def remove_abandoned() -> None:
    """Remove this user's folders that no process has locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or another process removes it at the same time
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
