"""Other accounts: nobody for tests that run as root, and roles of PostgreSQL."""

import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from archisync.store.database import Database


def as_other_user(action: Callable[[], None]) -> None:
    """Run `action` in a child process that has become nobody. An exception in it is printed and fails the test."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 — the child must never return into pytest
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


SETPRIV = shutil.which("setpriv") or ""
needs_program_of_root = pytest.mark.skipif(
    os.geteuid() != 0 or not SETPRIV, reason="only root can make a program that becomes root"
)


def program_of_root(folder: Path, script: str) -> str:
    """A command that runs the shell script with root's user ids only, like sudo: who started it may not signal it."""
    become_root = folder / "sudo"
    shutil.copy(SETPRIV, become_root)
    become_root.chmod(0o4755)
    folder.chmod(0o755)
    return f"{become_root} --reuid 0 sh -c '{script}'"


@contextmanager
def logged_in_as(db: Database, database_url: str, role: str) -> Iterator[str]:
    """The database's URL for a new role without any right, which is dropped at the end."""
    db.execute(f"drop role if exists {role}".encode())
    db.execute(f"create role {role} login".encode())
    try:
        yield urlsplit(database_url)._replace(netloc=role + "@").geturl()
    finally:
        db.execute(f"drop owned by {role}".encode())
        db.execute(f"drop role {role}".encode())
