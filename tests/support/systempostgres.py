"""The PostgreSQL that the operating system has (Debian's 15, say), beside the embedded one: an older release, as people install it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from archisync.base.processes import end, run, start
from archisync.standalone.account import give, postgres_account, process_options
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda folder: int(folder.parent.name))
needs_system_postgres = pytest.mark.skipif(
    PROGRAMS is None, reason="postgresql is not installed (apt-get install postgresql)"
)

needs_italian_postgres = pytest.mark.skipif(
    PROGRAMS is None or not Path(f"/usr/share/locale/it/LC_MESSAGES/postgres-{PROGRAMS.parent.name}.mo").exists(),
    reason="no PostgreSQL that speaks Italian is installed",
)


@contextmanager
def system_postgres(*more: str, language: str = "C") -> Iterator[str]:
    """The URL of the database `postgres` of a server of the test's own, as its superuser. `more`: settings. It speaks `language`, if its
    translations are installed."""
    assert PROGRAMS is not None
    account = postgres_account()
    with temporary_folder() as folder:
        give(folder, account)
        data = folder / "data"
        options = process_options(account) | {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        made = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        assert run([str(PROGRAMS / "initdb"), "-D", str(data), *made], **options).returncode == 0
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
        settings += [
            word
            for setting in (f"lc_messages={'C' if language == 'C' else 'C.UTF-8'}", *more)
            for word in ("-c", setting)
        ]
        options["env"] |= {"LANGUAGE": language}
        server = start([str(PROGRAMS / "postgres"), "-D", str(data), *settings], **options)
        try:
            url = f"postgresql://postgres@/postgres?host={folder}"
            while not _answers(url):
                assert server.poll() is None
            yield url
        finally:
            end(server, *EmbeddedPostgres.stop_signals)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
