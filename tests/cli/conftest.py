"""Fixtures for the tests of commands."""

import pytest

from archisync.store.database import Database
from tests.cli.rows import NOW


@pytest.fixture
def noon(connection: Database) -> Database:
    """A session whose clock stands at noon, in a database with one agent, anna, on the whitelist."""
    connection.execute(f"set archisync.now = '{NOW}'")
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    return connection
