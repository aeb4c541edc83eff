"""The program source: `exec:` and a command line, whose standard output is the export (it may be gzip).

There is no shell: the line is split into arguments once, by the rules of a POSIX shell's quoting, and `{agent}` and `{type}`
are filled into each argument by itself. The program also gets them as ARCHISYNC_AGENT and ARCHISYNC_TYPE, and beside that only
PATH, HOME, LANG, TZ and what ARCHISYNC_EXEC_ENV names; never archisync's own settings.

What its end means (sysexits.h):

    0                  the export is complete
    66                 there is no such export (EX_NOINPUT)
    68, 69, 74, 75     try again in a moment (EX_NOHOST, EX_UNAVAILABLE, EX_IOERR, EX_TEMPFAIL)
    124                the same: timeout(1) ended it
    77                 wrong credentials (EX_NOPERM)
    any other          refused, however complete the output looks
    SIGHUP, SIGINT, SIGKILL, SIGTERM: try again, somebody (or the kernel, for want of memory) stopped it; other signals: refused

The program leads a process group of its own, which ends with it: on a limit with SIGTERM and then SIGKILL; after its own end
with SIGKILL for whoever is left. A process that still holds the program's standard output after its end makes the export
incomplete. The program itself dies with the worker; a child of its own that has gone to another session is out of reach.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import PurePath
from time import monotonic
from types import TracebackType
from typing import Self

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
)
from archisync.base.processes import end, start
from archisync.base.text import printable, redact
from archisync.rules.config import Config
from archisync.sources.interface import Export, Request
from archisync.sources.spool import BLOCK_BYTES, spool
from archisync.sources.template import fill, has_placeholder

STOP_GRACE_S = 3.0
"""Between SIGTERM and SIGKILL: time to close an ERP session."""
OUTPUT_GRACE_S = 5.0
"""How long the output may stay open in silence after the program's end: a filter may have something left to write."""
_PASSED = ("PATH", "HOME", "LANG", "TZ")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_SHORTEST_SECRET = 4  # a shorter value would blot out half of the program's words
_STDERR_BYTES = 64 * 1024
_STDERR_LINES = 20
_STDERR_CHARS = 1500
_EXAMPLE_HINT = "for example exec:/usr/local/bin/erp-export --agent {agent} {type}"

_MEANING: dict[int, type[SyncError]] = {
    os.EX_NOINPUT: NoExportError,
    os.EX_NOPERM: AuthenticationError,
    **dict.fromkeys((os.EX_NOHOST, os.EX_UNAVAILABLE, os.EX_IOERR, os.EX_TEMPFAIL, 124), TransientSourceError),
    **dict.fromkeys((-signal.SIGHUP, -signal.SIGINT, -signal.SIGKILL, -signal.SIGTERM), TransientSourceError),
}


class ExecSource:
    """Runs a program of the operator's for each export."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raises ConfigurationError for a command line or a list of variables that can't be understood."""
        _arguments(template)
        _environment(config)
        _ = config.exec_memory_bytes, config.fetch_timeout_s

    def fetch(self, request: Request) -> Export:
        """Run the program to its end. Raises as described at `Source.fetch`."""
        template = _arguments(request.template)
        arguments = [fill(argument, request) for argument in template]
        passed = _environment(request.config)
        own = {"ARCHISYNC_AGENT": request.agent_id, "ARCHISYNC_TYPE": request.sync_type}
        origin = f"exec:{printable(PurePath(arguments[0]).name, limit=100)}"
        with Program(arguments, passed | own, request.config, origin) as program:
            try:
                spooled = spool(program, request, origin=origin, damaged_hint="run the program by hand")
            except ExportError:
                program.require_success_if_ended()
                raise
            try:
                program.require_success()
            except BaseException:
                spooled.path.unlink(missing_ok=True)
                raise
        stderr = _last_lines(program.stderr, passed)
        return Export(
            path=spooled.path,
            origin=origin,
            suffix="",
            size_bytes=spooled.size_bytes,
            sha256=spooled.sha256,
            details={"stderr": stderr} if stderr else {},
        )


def _arguments(template: str) -> list[str]:
    """The command line as a list, its placeholders unfilled. Raises ConfigurationError."""
    try:
        arguments = shlex.split(template.partition(":")[2])
    except ValueError as exc:
        raise ConfigurationError(f"the program's command line can't be split: {exc}", hint=_EXAMPLE_HINT) from exc
    if not arguments or not arguments[0]:
        raise ConfigurationError("the source is exec: without a program", hint=_EXAMPLE_HINT)
    if _ASSIGNMENT.fullmatch(arguments[0]):
        raise ConfigurationError(
            "the source sets a variable before the program, and there is no shell to do it",
            hint="export the variable and name it in ARCHISYNC_EXEC_ENV",
        )
    if has_placeholder(arguments[0]):
        raise ConfigurationError("the source's program has a placeholder in its name", hint=_EXAMPLE_HINT)
    return arguments


def _environment(config: Config) -> dict[str, str]:
    """What the program gets of our environment. Raises ConfigurationError."""
    wanted = [*_PASSED, *config.exec_env.replace(",", " ").split()]
    for name in wanted:
        if not _NAME.fullmatch(name) or name.upper().startswith("ARCHISYNC"):
            shown = re.sub(r"=.*", "=***", name[:80])
            raise ConfigurationError(
                f"ARCHISYNC_EXEC_ENV has {shown!a}, which is no variable that a program may get",
                hint="names, or beginnings of names with a star: ERP_TOKEN,ODBC*  (none of archisync's own)",
            )
    ours = [url for name in ("DATABASE", "REDIS") if (url := config.text(f"ARCHISYNC_{name}_URL"))]
    return {
        name: value
        for name, value in config.environment.items()
        if any(_matches(name, pattern) for pattern in wanted)
        and not name.startswith("ARCHISYNC")
        and not any(url in value for url in ours)
    }


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _last_lines(stderr: bytes, passed: Mapping[str, str]) -> list[str]:
    """The last lines that the program wrote for people, fit to be shown: without control characters and passwords."""
    text = stderr.decode("utf-8", errors="replace")
    values = [value for name, value in passed.items() if name not in _PASSED]
    secrets = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    lines = [printable(redact(line.rstrip()), limit=500) for line in text.splitlines() if line.strip()]
    return lines[-_STDERR_LINES:]


class Program:
    """A running program. Leaving the `with` ends its whole group, whatever state it is in."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], config: Config, origin: str) -> None:
        self._origin = origin
        self._environment = environment
        self._timeout_s = config.fetch_timeout_s
        self._deadline = monotonic() + self._timeout_s
        self._output_until = self._deadline
        self.stderr = b""
        self._process = _start(arguments, environment, config.exec_memory_bytes, origin)
        self._ended = _end_of(self._process)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._open = {self._out, self._err, self._ended}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self._process.returncode is None:
                end(self._process, *([(signal.SIGTERM, STOP_GRACE_S)] if kind is not None else []))
        finally:
            os.close(self._ended)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the standard output; none at its end. Keeps the end of the standard error meanwhile.

        Raises TransientSourceError when the time is over, SourceError when others hold the output after the program's end.
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
        """Wait for the program's end; raise what its exit code means unless that is 0."""
        while self._ended in self._open:
            self._wait()
        self._drain()
        code = end(self._process)
        if code:
            raise self._failure(code)

    def require_success_if_ended(self) -> None:
        """The same without waiting long: a program that failed half-way explains output that is cut."""
        if select.select([self._ended], [], [], 1.0 if self._out not in self._open else 0.0)[0]:
            self.require_success()

    def _wait(self) -> set[int]:
        """The descriptors that something happened on, the program's end among them once; standard error is read here."""
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
        """After the program's end its output may stay silent for a moment only."""
        if self._ended not in self._open:
            self._output_until = monotonic() + OUTPUT_GRACE_S

    def _late(self) -> SyncError:
        if monotonic() < self._deadline:
            return SourceError(
                f"{self._origin} ended, but a process that it started still holds its standard output",
                hint="let the program wait for what it starts, or give that another standard output",
            )
        return TransientSourceError(
            f"{self._origin} did not end within {self._timeout_s} s{self._said()}",
            hint="run the program by hand, or raise ARCHISYNC_FETCH_TIMEOUT_S",
        )

    def _read_stderr(self) -> None:
        block = os.read(self._err, BLOCK_BYTES)
        if not block:
            self._open.discard(self._err)
        self.stderr = (self.stderr + block)[-_STDERR_BYTES:]

    def _drain(self) -> None:
        """What is left in the pipe of the standard error, without waiting for those who may still hold it."""
        while self._err in self._open and select.select([self._err], [], [], 0)[0]:
            self._read_stderr()

    def _failure(self, code: int) -> SyncError:
        how = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        kind = _MEANING.get(code, SourceError)
        return kind(
            f"{self._origin} ended with {how}{self._said()}", hint="run the program by hand, as archisync's user"
        )

    def _said(self) -> str:
        lines = _last_lines(self.stderr, self._environment)
        return f": {' | '.join(lines)[-_STDERR_CHARS:]}" if lines else ", and said nothing on standard error"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _start(
    arguments: list[str], environment: Mapping[str, str], memory_bytes: int, origin: str
) -> subprocess.Popen[bytes]:
    try:
        return start(  # the operator's own command, without a shell
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            memory_bytes=memory_bytes,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise _not_started(exc, origin) from exc


def _end_of(process: subprocess.Popen[bytes]) -> int:
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
            return SourceError(f"{origin} can't be started: {os.strerror(number)}", hint=_EXAMPLE_HINT)
    return TransientSourceError(
        f"{origin} can't be started: {printable(str(exc), limit=200)}", hint="free -m; ulimit -a"
    )
