"""Fixtures for the tests of commands."""

import sys
from collections.abc import Callable

import pytest

from archisync.__main__ import main
from archisync.store.database import Database
from tests.cli.rows import NOW
from tests.conftest import TERMINAL_VARIABLES

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Runs a command that needs no server, in this process: `typed("run", "--help")` is its exit code, standard output and error."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # `main` sets it; pytest needs its own again
    for name in TERMINAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["archisync", *arguments])
        code = main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def noon(connection: Database) -> Database:
    """A session whose clock stands at noon, in a database with one agent, anna, on the whitelist."""
    connection.execute(f"set archisync.now = '{NOW}'")
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    return connection
