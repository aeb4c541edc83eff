"""Fixtures for every test: real servers, a database of the test's own, the real command.

PostgreSQL and Valkey start once, when the first test asks for them. Each test gets a copy of a migrated template database. A test that
leaves a connection to it open fails, and the message names the connection.
"""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from psycopg import sql

from archisync.base import groupguard
from archisync.rules.synctypes import SYNC_TYPES
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import Database, connected
from tests.support import leftovers, properties  # noqa: F401 - loads the profile of hypothesis
from tests.support.warm import WarmCommand

REPOSITORY = Path(__file__).parent.parent
TEMPLATE = "archisync_template"
CLIENTS_GONE_TIMEOUT_S = 5.0  # the backend of a killed client needs a moment
COMMAND_TIMEOUT_S = 120.0
MEMORY = Path("/dev/shm")
ROOM_IN_MEMORY_BYTES = 4 * 2**30
# These would change the command's output between a developer's terminal and CI.
TERMINAL_VARIABLES = frozenset(
    {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CLICOLOR", "CLICOLOR_FORCE"}
    | {"TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"}
)

# A script that starts the tests in its background has them ignore Ctrl-C, and nohup the end of the terminal. Every command that a test
# starts would inherit that.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored is signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first: one that began last would keep all but one process idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class Cli(Protocol):
    """Runs `archisync ARGS` as a user would, without a terminal; `env` is added to the environment."""

    def __call__(
        self, *args: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]: ...


def roomy_memory() -> Path | None:
    """A file system in memory with room for the tests' servers, if there is one: it copies a database of three hundred files in a tenth of
    the time that a disk's file system takes."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return None
    runs_programs = not room.f_flag & os.ST_NOEXEC  # the servers' own ones may have to be copied to it
    return MEMORY if runs_programs and room.f_bavail * room.f_frsize >= ROOM_IN_MEMORY_BYTES else None


@pytest.fixture(autouse=True)
def no_own_types() -> Iterator[None]:
    """What this process knows of a company's own sync types is of the test's own database."""
    yield
    SYNC_TYPES.set_own({})
    SYNC_TYPES.ask = lambda: None


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    """Fail the run at its end if a process that it started still runs, or, while nobody else can have left it, a folder or segment of ours
    is still there."""
    leftovers.adopt_orphans()
    before = leftovers.files()
    yield
    groupguard.stop()
    leftovers.stop_forkserver()
    left = leftovers.processes_left()
    if leftovers.is_alone():
        left += [str(path) for path in leftovers.files() - before]
    if left:
        pytest.fail(f"the tests have left behind: {'; '.join(left)[:2000]}")


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    with temporary_folder(roomy_memory()) as folder:
        yield folder


@pytest.fixture(scope="session")
def session_postgres(servers_folder: Path) -> Iterator[EmbeddedPostgres]:
    """The server that all tests share: never stop it, ask for `own_postgres` instead."""
    with EmbeddedPostgres(servers_folder, durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def session_valkey(servers_folder: Path) -> Iterator[EmbeddedValkey]:
    """The server that all tests share: never stop it, ask for `own_valkey` instead."""
    with EmbeddedValkey(servers_folder, durable=False) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this test's own, with an empty database at `.url`, to be killed and restarted.

    A commit survives `kill`, as on a real server (only a power cut would lose it).
    """
    kept = {"synchronous_commit": "on"}
    with temporary_folder(roomy_memory()) as folder, EmbeddedPostgres(folder, durable=False, settings=kept) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey of this test's own, to be killed and restarted; it comes back empty."""
    with temporary_folder(roomy_memory()) as folder, EmbeddedValkey(folder, durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def admin(session_postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """An autocommit connection that creates and drops the tests' databases."""
    with psycopg.connect(session_postgres.url, autocommit=True, application_name="conftest") as connection:
        yield connection


@pytest.fixture(scope="session")
def template(admin: psycopg.Connection, session_postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database to copy."""
    from archisync.store.migrations import migrate

    admin.execute(f"create database {TEMPLATE}")
    with connected(_url_of(session_postgres, TEMPLATE), purpose="template") as connection:
        migrate(connection, {})
    return TEMPLATE


@pytest.fixture(scope="session")
def database_names() -> Iterator[str]:
    return (f"t_{number}" for number in itertools.count(1))


@pytest.fixture
def database_url(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    with migrated_copy(admin, session_postgres, template, next(database_names)) as url:
        yield url


@contextmanager
def migrated_copy(admin: psycopg.Connection, server: EmbeddedPostgres, template: str, name: str) -> Iterator[str]:
    """The URL of a copy of the template, for as long as the block lasts; for fixtures that several tests share."""
    _create(admin, name, template)
    yield _url_of(server, name)
    _drop(admin, name)


@pytest.fixture
def empty_database_url(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, database_names: Iterator[str]
) -> Iterator[str]:
    """The URL of a database of this test's own that archisync has never seen."""
    name = next(database_names)
    _create(admin, name, "template0")
    yield _url_of(session_postgres, name)
    _drop(admin, name)


@pytest.fixture
def connection(database_url: str) -> Iterator[Database]:
    """An autocommit connection to this test's database; rows are dictionaries."""
    with connected(database_url, purpose="test") as connection:
        yield connection


@pytest.fixture
def redis_url(session_valkey: EmbeddedValkey) -> str:
    """The URL of a Valkey that is empty when the test begins."""
    with redis.Redis.from_url(session_valkey.url) as client:
        client.flushall()
    return session_valkey.url


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """The empty folder that `cli`'s ARCHISYNC_SOURCE reads, as `{agent}/{type}.csv`."""
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def warm_command() -> Iterator[WarmCommand]:
    with WarmCommand(REPOSITORY) as command:
        yield command


@pytest.fixture
def cli(database_url: str, redis_url: str, exports: Path, warm_command: WarmCommand) -> Cli:
    """The command in this test's environment, as a process of its own."""
    own = {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": str(exports / "{agent}" / "{type}.csv"),
    }

    def run(
        *args: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        whole = clean_environment() | own | dict(env or {})
        return warm_command.run(args, env=whole, stdin=stdin, timeout_s=timeout_s)

    return run


@pytest.fixture(scope="session")
def northwind() -> Path:
    """The Northwind sample exports, `{agent}/{type}.csv`, which are not part of the project."""
    given = os.environ.get("ARCHISYNC_TEST_NORTHWIND")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data" / "northwind"
    if not folder.is_dir():
        pytest.skip(f"the Northwind sample exports are not at {folder} (set ARCHISYNC_TEST_NORTHWIND)")
    return folder


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ARCHISYNC_", "PG")) and name not in TERMINAL_VARIABLES
    }


def _url_of(server: EmbeddedPostgres, database: str) -> str:
    return urlsplit(server.url)._replace(path=f"/{database}").geturl()


def _create(admin: psycopg.Connection, name: str, template: str) -> None:
    strategy = "file_copy" if roomy_memory() else "wal_log"  # the faster one of each place
    admin.execute(f"create database {name} template {template} strategy {strategy}")


def _drop(admin: psycopg.Connection, name: str) -> None:
    """Drop a test's database; fail, naming them, when clients are still connected to it."""
    left = _until_empty(lambda: _clients(admin, name), admin)
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    if left:
        pytest.fail(f"connections left open to the test's database: {', '.join(left)}")


def _until_empty(look: Callable[[], list[str]], admin: psycopg.Connection) -> list[str]:
    deadline = time.monotonic() + CLIENTS_GONE_TIMEOUT_S
    while (found := look()) and time.monotonic() < deadline:
        admin.execute("select pg_sleep(0.002)")
    return found


def _clients(admin: psycopg.Connection, name: str) -> list[str]:
    rows = admin.execute(
        "select application_name from pg_stat_activity where datname = %s and backend_type = 'client backend'", [name]
    ).fetchall()
    return [application or "(no application_name)" for (application,) in rows]
