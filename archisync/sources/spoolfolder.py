"""The private folder in which a process keeps exports while it works on them. It is removed even if the process is killed.

Each folder is locked (flock) by its process. A process that makes one first removes the folders that nobody has locked: they hold
customers' data, and a killed process can't remove its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from archisync.base.errors import TransientSourceError

PREFIX = "archisync-spool-"


class SpoolFolder:
    """A new folder of mode 0700 in Python's temporary directory (TMPDIR), until `remove`; a `with` gives its path.

    Raises TransientSourceError when it can't be made: the disk is full, or may not be written to.
    """

    def __init__(self) -> None:
        try:
            remove_abandoned()
            self.path, self._lock = _made()
        except OSError as exc:
            where = f" {tempfile.tempdir}" if tempfile.tempdir else ""
            raise TransientSourceError(
                f"cannot make a folder for the export in the temporary directory{where}: {exc.strerror or exc}",
                hint=f"df -h{where}; or set TMPDIR to a directory with room that the worker may write to",
            ) from exc

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
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def remove_abandoned() -> None:
    """Remove this user's folders that no process has locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or another process is removing it
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
