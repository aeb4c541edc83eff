"""What the tests of bad input share: one database, on which each case has an agent of its own, and the command line in this process."""

import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest

from archisync.__main__ import main
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store.database import Database, connected
from tests.conftest import migrated_copy
from tests.faults.badinput.site import Said


@pytest.fixture(scope="module")
def shared_url(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[str]:
    with migrated_copy(admin, session_postgres, template, next(database_names)) as url:
        yield url


@pytest.fixture(scope="module")
def db(shared_url: str) -> Iterator[Database]:
    with connected(shared_url, purpose="test") as connection:
        yield connection


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared_url: str) -> Callable[..., Said]:
    """The command line in this process: `typed("run", "orders")`."""
    monkeypatch.setenv("ARCHISYNC_DATABASE_URL", shared_url)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["archisync", *arguments])
        capsys.readouterr()
        code = main()
        out, err = capsys.readouterr()
        return Said(code=code, stdout=out, stderr=err)

    return run
