"""The program source: `exec:` and a command line. The program's standard output is the export; it may be gzip.

There is no shell: the line is split into arguments once, by the quoting rules of a POSIX shell, and `{agent}` and `{type}` are filled into
each argument. The program also gets them as ARCHISYNC_AGENT and ARCHISYNC_TYPE. Of the environment it gets PATH, HOME, LANG, TZ and what
ARCHISYNC_EXEC_ENV names, but no settings of archisync.

What its end means (sysexits.h):

    0                  the export is complete
    66                 there is no such export (EX_NOINPUT)
    68, 69, 74, 75     try again in a moment (EX_NOHOST, EX_UNAVAILABLE, EX_IOERR, EX_TEMPFAIL)
    124                the same: timeout(1) ended it
    77                 wrong credentials (EX_NOPERM)
    any other          refused, however complete the output looks
    SIGHUP, SIGINT, SIGKILL, SIGTERM: try again, because somebody stopped it, or the kernel for lack of memory; other signals: refused
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from archisync.base.errors import ConfigurationError, ExportError
from archisync.base.text import printable
from archisync.rules.config import Config
from archisync.sources.interface import Export, Request
from archisync.sources.program import EXAMPLE_HINT, Program
from archisync.sources.spool import Spooled, spool
from archisync.sources.template import fill, has_placeholder

_PASSED = ("PATH", "HOME", "LANG", "TZ")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


class ExecSource:
    """Runs a program of the operator's for each export."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for a command line or a list of variables that makes no sense."""
        _arguments(template)
        _environment(config)
        _ = config.exec_memory_bytes, config.fetch_timeout_s

    def fetch(self, request: Request) -> Export:
        """Run the program to its end. Raises as described at `Source.fetch`."""
        config = request.config
        arguments = [fill(argument, request) for argument in _arguments(request.template)]
        passed = _environment(config)
        program = Program(
            arguments,
            passed | {"ARCHISYNC_AGENT": request.agent_id, "ARCHISYNC_TYPE": request.sync_type},
            origin=f"exec:{printable(PurePath(arguments[0]).name, limit=100)}",
            secrets=[value for name, value in passed.items() if name not in _PASSED],
            timeout_s=config.fetch_timeout_s,
            memory_bytes=config.exec_memory_bytes,
        )
        with program:
            spooled = _output(program, request)
        stderr = program.last_lines()
        return Export(
            path=spooled.path,
            origin=program.origin,
            suffix=spooled.suffix or "",
            size_bytes=spooled.size_bytes,
            sha256=spooled.sha256,
            details={"stderr": stderr} if stderr else {},
        )


def _arguments(template: str) -> list[str]:
    """The command line as a list, with its placeholders. Raises ConfigurationError."""
    try:
        arguments = shlex.split(template.partition(":")[2])
    except ValueError as exc:
        raise ConfigurationError(f"the program's command line can't be split: {exc}", hint=EXAMPLE_HINT) from exc
    if not arguments or not arguments[0]:
        raise ConfigurationError("the source is exec: without a program", hint=EXAMPLE_HINT)
    if _ASSIGNMENT.fullmatch(arguments[0]):
        raise ConfigurationError(
            "the source sets a variable before the program, and there is no shell to do it",
            hint="export the variable and name it in ARCHISYNC_EXEC_ENV",
        )
    if has_placeholder(arguments[0]):
        raise ConfigurationError("the source's program has a placeholder in its name", hint=EXAMPLE_HINT)
    return arguments


def _environment(config: Config) -> dict[str, str]:
    """The part of our environment that the program gets. Raises ConfigurationError."""
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


def _output(program: Program, request: Request) -> Spooled:
    """The whole output of a program that succeeds; leaves no file when it does not."""
    try:
        spooled = spool(program, request, origin=program.origin, damaged_hint="run the program by hand")
    except ExportError:
        program.require_success_if_ended()
        raise
    try:
        program.require_success()
    except BaseException:
        spooled.path.unlink(missing_ok=True)
        raise
    return spooled
