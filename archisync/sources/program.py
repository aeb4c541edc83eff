"""A running program: its standard output is read, the end of its standard error is kept, and nothing of it outlives the `with` block.

The program leads a process group of its own, which ends with it: on a limit with SIGTERM and later SIGKILL, after the program's own end
with SIGKILL for every process that is left. A process that still holds the program's standard output by then makes the export incomplete.
The group dies with the worker, also with one that is killed; a child of its own in another session can't be reached.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Self

from archisync.base.errors import (
    AuthenticationError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
)
from archisync.base.processes import end, start
from archisync.base.text import printable, redact
from archisync.sources.unpack import BLOCK_BYTES

STOP_GRACE_S = 3.0
"""Between SIGTERM and SIGKILL: time to close an ERP session."""
OUTPUT_GRACE_S = 5.0
"""How long standard output may stay open and silent after the program's end: a filter may have something left to write."""
EXAMPLE_HINT = "for example exec:/usr/local/bin/erp-export --agent {agent} {type}"
_SHORTEST_SECRET = 4  # hiding a shorter value would hide half of the program's words
_STDERR_BYTES = 64 * 1024
_STDERR_LINES = 20
_STDERR_CHARS = 1500

_MEANING: dict[int, type[SyncError]] = {
    os.EX_NOINPUT: NoExportError,
    os.EX_NOPERM: AuthenticationError,
    **dict.fromkeys((os.EX_NOHOST, os.EX_UNAVAILABLE, os.EX_IOERR, os.EX_TEMPFAIL, 124), TransientSourceError),
    **dict.fromkeys((-signal.SIGHUP, -signal.SIGINT, -signal.SIGKILL, -signal.SIGTERM), TransientSourceError),
}
"""What an exit code or a signal means; everything else is a SourceError. `archisync.sources.exec` describes it for operators."""


class Program:
    """`origin` is its name in messages; no message shows one of the `secrets`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        origin: str,
        secrets: Collection[str],
        timeout_s: int,
        memory_bytes: int,
    ) -> None:
        self.origin = origin
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._deadline = self._output_until = monotonic() + timeout_s
        self._stderr = b""
        self._process = _started(arguments, environment, memory_bytes, origin)
        self._ended = _readable_at_end(self._process)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._open = {self._out, self._err, self._ended}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, exc: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self._process.returncode is None:
                end(self._process, *([(signal.SIGTERM, STOP_GRACE_S)] if exc is not None else []))
        finally:
            os.close(self._ended)

    def read(self, size: int, /) -> bytes:
        """The next bytes of standard output; none at its end.

        Raises TransientSourceError when the time is over, SourceError when other processes hold the output after the program's end.
        """
        while self._out in self._open:
            if self._out not in self._wait():
                continue
            block = os.read(self._out, min(size, BLOCK_BYTES))
            if block:
                self._extend_output()
                return block
            self._open.discard(self._out)
        return b""

    def require_success(self) -> None:
        """Wait for the program's end, and raise what its exit code means."""
        while self._ended in self._open:
            self._wait()
        self._drain_stderr()
        code = end(self._process)
        if code:
            raise self._failure(code)

    def require_success_if_ended(self) -> None:
        """The same, without a long wait: an exit code explains output that is cut."""
        if select.select([self._ended], [], [], 1.0 if self._out not in self._open else 0.0)[0]:
            self.require_success()

    def last_lines(self) -> list[str]:
        """The last lines on standard error, without control characters and secrets."""
        text = self._stderr.decode("utf-8", errors="replace")
        hidden = {part for value in self._secrets for part in (value, *value.splitlines())}
        for secret in sorted(hidden, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        lines = [printable(redact(line.rstrip()), limit=500) for line in text.splitlines() if line.strip()]
        return lines[-_STDERR_LINES:]

    def _wait(self) -> set[int]:
        """The descriptors that are ready; the program's end is one of them, once. Reads standard error."""
        until = min(self._deadline, self._output_until)
        ready = set(select.select(list(self._open), [], [], max(until - monotonic(), 0.0))[0])
        if not ready or monotonic() >= self._deadline:
            raise self._late()
        if self._err in ready:
            self._read_stderr()
        if self._ended in ready:
            self._open.discard(self._ended)
            self._extend_output()
        return ready

    def _extend_output(self) -> None:
        if self._ended not in self._open:
            self._output_until = monotonic() + OUTPUT_GRACE_S

    def _read_stderr(self) -> None:
        block = os.read(self._err, BLOCK_BYTES)
        if not block:
            self._open.discard(self._err)
        self._stderr = (self._stderr + block)[-_STDERR_BYTES:]

    def _drain_stderr(self) -> None:
        """Read what is left in the pipe, without waiting for other processes that hold it."""
        while self._err in self._open and select.select([self._err], [], [], 0)[0]:
            self._read_stderr()

    def _late(self) -> SyncError:
        if monotonic() < self._deadline:
            return SourceError(
                f"{self.origin} ended, but a process that it started still holds its standard output",
                hint="let the program wait for what it starts, or give that another standard output",
            )
        return TransientSourceError(
            f"{self.origin} did not end within {self._timeout_s} s{self._said()}",
            hint="run the program by hand, or raise ARCHISYNC_FETCH_TIMEOUT_S",
        )

    def _failure(self, code: int) -> SyncError:
        how = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        error_class = _MEANING.get(code, SourceError)
        return error_class(
            f"{self.origin} ended with {how}{self._said()}", hint="run the program by hand, as archisync's user"
        )

    def _said(self) -> str:
        lines = self.last_lines()
        return f": {' | '.join(lines)[-_STDERR_CHARS:]}" if lines else ", and said nothing on standard error"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _started(
    arguments: Sequence[str], environment: Mapping[str, str], memory_bytes: int, origin: str
) -> subprocess.Popen[bytes]:
    try:
        return start(
            arguments,
            memory_bytes=memory_bytes,
            guarded=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise _not_started(exc, origin) from exc


def _readable_at_end(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that becomes readable when the process ends."""
    try:
        return os.pidfd_open(process.pid)
    except OSError as exc:  # no descriptor left, or a Linux before 5.3
        end(process)
        raise TransientSourceError(f"a program can't be watched: {exc.strerror}", hint="ulimit -n; uname -r") from exc


def _not_started(exc: OSError | subprocess.SubprocessError, origin: str) -> SyncError:
    number = exc.errno if isinstance(exc, OSError) else None
    match number:
        case errno.ENOENT | errno.ENOTDIR:
            return SourceError(
                f"{origin} can't be started: there is no such program",
                hint="give its full path in ARCHISYNC_SOURCE, and look at its first line: #! names another program",
            )
        case errno.EACCES | errno.EPERM:
            return SourceError(f"{origin} can't be started: it is not executable", hint="chmod +x the program")
        case errno.ENOEXEC:
            return SourceError(f"{origin} can't be started: it is no program", hint="begin it with a #! line")
        case errno.E2BIG | errno.EINVAL | errno.ELOOP | errno.ENAMETOOLONG:
            return SourceError(f"{origin} can't be started: {os.strerror(number)}", hint=EXAMPLE_HINT)
    return TransientSourceError(
        f"{origin} can't be started: {printable(str(exc), limit=200)}", hint="free -m; ulimit -a"
    )
