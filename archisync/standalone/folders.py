"""The folders of the embedded servers: private, locked while a server uses them, and temporary ones."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archisync.base import lockedfolders
from archisync.base.errors import BusyError, ConfigurationError
from archisync.base.otherusers import others_may_write, user_name
from archisync.standalone.account import Account, closed_parent, postgres_account

BUSY_TIMEOUT_S = 15.0  # the children of a killed postmaster need some seconds to notice
POLL_S = 0.02
LONGEST_PATH_BYTES = 80  # a socket's path may have 107, and "/.s.PGSQL.5432.lock" needs 19 of them
TEMPORARY_PREFIX = "archisync-"
LOCKED_PREFIX = "archisync-tmp-"
FILES = ("postgres", "valkey", "binaries", "archisync.env")
"""The beginnings of the names that the servers, and `archisync up`, have in a folder."""
HINT_FOLDER = "name a folder of your own that nobody else may write to: archisync up --folder ~/archisync"


def make_folder(folder: Path) -> None:
    """Make the folder, or close one of our own that is there, for this user alone; where that is root, PostgreSQL's account may pass.

    Raises ConfigurationError for a folder in which somebody else may have put something: the servers write to files and remove folders
    that are named there. Raises OSError when it can't be made.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def check_folder(folder: Path) -> None:
    """Raises ConfigurationError where somebody else may have put something into the folder, or may put another one in its place. It need
    not be there yet."""
    where = folder.resolve()
    problems = list(map(_problem_on_the_way, filter(Path.exists, where.parents)))
    if where.is_dir():
        problems += [_problem(where), *map(_problem_of_file, os.scandir(where))]
    if problem := next(filter(None, problems), None):
        raise ConfigurationError(f"the embedded servers don't use {folder}: {problem}", hint=HINT_FOLDER)


def _problem(folder: Path) -> str | None:
    """Why somebody else may have put something into the folder. One that is empty was opened by the umask alone."""
    found, me = folder.stat(), os.geteuid()
    if found.st_uid != me:
        return f"{folder} belongs to {user_name(found.st_uid)}, not to {user_name(me)}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and any(folder.iterdir()):
        return f"others may write to {folder}"
    return None


def _problem_on_the_way(parent: Path) -> str | None:
    """Why somebody else may put another folder in the place of ours."""
    found = parent.stat()
    if found.st_uid not in (0, os.geteuid()):
        return f"{parent} belongs to {user_name(found.st_uid)}, who may put another folder in its place"
    if others_may_write(found) and not found.st_mode & stat.S_ISVTX:
        return f"others may write to {parent}"
    return None


def _problem_of_file(entry: os.DirEntry[str]) -> str | None:
    if not entry.name.startswith(FILES) or _is_harmless(entry):
        return None
    return f"{entry.path} is a link, or somebody else's"


def _is_harmless(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is no link, and ours or that of PostgreSQL's account."""
    account = postgres_account()
    return not entry.is_symlink() and is_own(entry.stat(follow_symlinks=False), account)


def is_own(found: os.stat_result, account: Account | None) -> bool:
    return found.st_uid in {os.geteuid(), account.uid if account else os.geteuid()}


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
    for parent in _temporary_parents(inside):
        lockedfolders.remove_abandoned(LOCKED_PREFIX, parent)
    folder, lock = lockedfolders.make(lambda: make_temporary(postgres_account(), inside, prefix=LOCKED_PREFIX))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def fits_a_socket(folder: Path) -> bool:
    """Whether sockets may be in the folder: its path is short enough, PostgreSQL does not take it for a list (`,`), and redis-py can read
    what CLIENT INFO says of it (blanks, `=`)."""
    return re.fullmatch(r"[\w./+~@-]+", str(folder)) is not None and len(os.fsencode(folder)) <= LONGEST_PATH_BYTES


def _temporary_parents(inside: Path | None) -> tuple[Path, ...]:
    usual = (Path(tempfile.gettempdir()).absolute(), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 — mkdtemp inside
    return (*([inside] if inside else []), *usual)


def make_temporary(account: Account | None, inside: Path | None = None, *, prefix: str = TEMPORARY_PREFIX) -> Path:
    """A new private folder whose path is short enough for a socket, whose parents the account may pass through, and whose place nobody
    else can take."""
    for parent in _temporary_parents(inside):
        length = len(os.fsencode(parent)) + len(prefix) + 9  # mkdtemp adds a slash and eight characters
        if length <= LONGEST_PATH_BYTES and closed_parent(parent, account) is None and not _problem_on_the_way(parent):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise ConfigurationError("there is no temporary folder that the servers can reach", hint="export TMPDIR=/tmp")
