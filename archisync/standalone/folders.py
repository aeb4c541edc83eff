"""The folders of the embedded servers: private, locked while a server uses them, and temporary ones."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archisync.base.errors import BusyError, ConfigurationError
from archisync.standalone.account import Account, closed_parent, postgres_account

BUSY_TIMEOUT_S = 15.0  # the children of a killed postmaster need some seconds to notice
POLL_S = 0.02
LONGEST_PATH_BYTES = 80  # a socket's path may have 107, and "/.s.PGSQL.5432.lock" needs 19 of them
TEMPORARY_PREFIX = "archisync-"


def make_folder(folder: Path) -> None:
    """Make a missing folder for this user alone; where that is root, PostgreSQL's account may pass through."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def locked(path: Path, name: str) -> Iterator[int]:
    """The descriptor of a lock file. The lock holds until the last process that inherited the descriptor has ended.

    Raises BusyError, which calls the holder `name`, after BUSY_TIMEOUT_S.
    """
    path.touch(mode=0o600)
    with path.open("ab") as file:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise BusyError(f"{name} is already running", hint=f"fuser -v {path}")
            time.sleep(POLL_S)
        yield file.fileno()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def temporary_folder(inside: Path | None = None) -> Iterator[Path]:
    """A new folder that the servers can use whoever runs them, removed at the end. It is in `inside` if they can reach it there."""
    folder = make_temporary(postgres_account(), inside)
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make_temporary(account: Account | None, inside: Path | None = None) -> Path:
    """A new private folder whose path is short enough for a socket and whose parents the account may pass through."""
    usual = (Path(tempfile.gettempdir()).absolute(), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 — mkdtemp inside
    for parent in (*([inside] if inside else []), *usual):
        length = len(os.fsencode(parent)) + len(TEMPORARY_PREFIX) + 9  # mkdtemp adds a slash and eight characters
        if length <= LONGEST_PATH_BYTES and closed_parent(parent, account) is None:
            return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
    raise ConfigurationError("there is no temporary folder that the servers can reach", hint="export TMPDIR=/tmp")
