"""Other accounts: nobody for tests that run as root, and roles of PostgreSQL."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

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
