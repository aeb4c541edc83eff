"""PgBouncer in front of a test's database."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from archisync.standalone.folders import temporary_folder

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")


@contextmanager
def pgbouncer(database_url: str, *, mode: str = "transaction", ignore: str = "") -> Iterator[str]:
    """The URL of `database_url`'s database behind a PgBouncer of the test's own with two server connections."""
    assert PGBOUNCER is not None
    where = urlsplit(database_url)
    server, name = parse_qs(where.query), where.path.strip("/")
    with temporary_folder() as folder:
        folder.chmod(0o777)  # it drops root, and makes its socket here
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = host={server['host'][0]} port={server['port'][0]} dbname={name} user=postgres\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = 2\nignore_startup_parameters = {ignore}\n",
            "utf-8",
        )
        # The server's socket folder may be closed to others, so PgBouncer runs as the owner of that folder.
        owner = Path(server["host"][0]).stat().st_uid
        with (
            allowed_to_connect(database_url, owner),
            subprocess.Popen(
                [PGBOUNCER, "--quiet", folder / "pgbouncer.ini"],
                user=owner if os.geteuid() == 0 else None,
                group=owner if os.geteuid() == 0 else None,
                extra_groups=[] if os.geteuid() == 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process,
        ):
            url = f"postgresql://postgres@/{name}?host={folder}&port=6432"
            try:
                while not _answers(url):
                    assert process.poll() is None
                yield url
            finally:
                process.kill()


@contextmanager
def allowed_to_connect(database_url: str, uid: int) -> Iterator[None]:
    """While the block lasts, the account may connect to the server: it takes only the user who has started it."""
    with psycopg.connect(database_url, autocommit=True, client_encoding="utf8") as db:
        row = db.execute("show ident_file").fetchone()
        assert row is not None
        file = Path(row[0])
        before = file.read_text("utf-8")
        file.write_text(f'{before}archisync "{pwd.getpwuid(uid).pw_name}" all\n', "utf-8")
        db.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            file.write_text(before, "utf-8")
            db.execute("select pg_reload_conf()")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
