"""The real command in a process that starts warm: it is forked from one that has already imported everything.

Python and its imports are most of the time of most commands, and the tests type more than a thousand of them. A command that starts warm is
a process like any other, with a pid, environment, streams and exit code of its own. Only its start-up is left out; the tests of that start
Python themselves.

    with WarmCommand(folder) as command:
        done = command.run(["status"], env=environment, timeout_s=60)

Three processes take part: the imported one, which forks an attendant for each command; the attendant, which forks the command, waits for
it and reports its exit code; the command.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn, Self

IMPORTED_IN_FUNCTIONS = ("httpx", "psycopg", "redis", "rich.console", "rich.live", "rich.table", "rq", "tenacity")
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_")
"""How the names of variables begin that Python reads only when it starts."""


class WarmCommand:
    """The imported process, for as long as the block lasts. Commands run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=self._folder, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.wait()

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: str = "",
        stdout: int | None = None,
        stderr: int | None = None,
        timeout_s: float,
        started: Callable[[int], None] = lambda _: None,
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` of `archisync ARGUMENTS` gives. Output to a descriptor of the caller's is not returned.

        Calls `started` with the command's process id. Raises subprocess.TimeoutExpired once the command is killed.
        """
        with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            given.write(stdin)
            given.seek(0)
            streams = (
                given.fileno(),
                out.fileno() if stdout is None else stdout,
                err.fileno() if stderr is None else stderr,
            )
            code = self.run_on(streams, arguments, env=env, timeout_s=timeout_s, started=started)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())

    def run_on(
        self,
        streams: tuple[int, int, int],
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout_s: float,
        started: Callable[[int], None] = lambda _: None,
    ) -> int:
        """The exit code of `archisync ARGUMENTS` with these files as its standard streams. Raises as `run` does."""
        if starts_differently(env):
            stdin, stdout, stderr = streams
            command = [sys.executable, "-m", "archisync", *arguments]
            return subprocess.run(
                command, cwd=self._folder, env=env, stdin=stdin, stdout=stdout, stderr=stderr, timeout=timeout_s, check=False
            ).returncode  # fmt: skip
        channel, theirs = socket.socketpair()
        with channel, theirs:
            socket.send_fds(self._control, [b"command"], [theirs.fileno(), *streams])
            theirs.close()
            channel.sendall(json.dumps([list(arguments), dict(env)]).encode())
            channel.shutdown(socket.SHUT_WR)
            with channel.makefile() as answers:
                pid = int(answers.readline())
                channel.settimeout(timeout_s)
                try:
                    started(pid)
                    return int(answers.readline())
                except BaseException as exc:
                    os.kill(pid, signal.SIGKILL)
                    if isinstance(exc, TimeoutError):
                        raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None
                    raise


def starts_differently(env: Mapping[str, str]) -> bool:
    """Whether Python itself would start differently in that environment, so that the command has to start from nothing."""
    return any(name.startswith(READ_AT_START) and os.environ.get(name) != value for name, value in env.items())


# --- the imported process ---------------------------------------------------------------------------------------------


def main(control: int) -> None:
    """Fork an attendant for each command, until the tests are over."""
    import_everything()
    with socket.socket(fileno=control) as requests:
        while fds := socket.recv_fds(requests, 16, 4)[1]:
            if os.fork() == 0:
                requests.close()
                attend(*fds)
            for fd in fds:
                os.close(fd)
            reap()


def import_everything() -> None:
    import archisync

    names = [module.name for module in pkgutil.walk_packages(archisync.__path__, "archisync.")]
    for name in (*IMPORTED_IN_FUNCTIONS, *names):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def reap() -> None:
    """Take leave of the attendants that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def attend(channel: int, *streams: int) -> NoReturn:
    """Fork the command, report its pid, and in the end its exit code."""
    with open(channel, closefd=False) as asked:
        arguments, env = json.load(asked)
    pid = os.fork()
    if pid == 0:
        os.close(channel)
        become(arguments, env, streams)
    for stream in streams:
        os.close(stream)
    os.write(channel, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(channel, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def become(arguments: Sequence[str], env: Mapping[str, str], streams: Sequence[int]) -> NoReturn:
    """Turn this process into the command, in a session of its own: a signal to its process group does not reach the tests."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = ["archisync", *arguments]
    from archisync.__main__ import script

    script()
    raise AssertionError("the command came back")


if __name__ == "__main__":
    main(int(sys.argv[1]))
