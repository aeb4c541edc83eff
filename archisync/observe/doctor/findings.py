"""Findings: what a check reports, how serious it is, and the exit code of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from archisync.base.errors import ArchisyncError, ExitCode

SHOWN = 3


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found. `hint` is what to type; `exit_code` counts only for a failure."""

    check: str
    level: Level
    message: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.SYNC_FAILED


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle(Finding):
    """A failure that kept other checks from being made. It is always shown: without it, they would seem to have found nothing."""


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def warning(check: str, message: str, hint: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, message=message, hint=hint)


def failed(check: str, message: str, hint: str, exit_code: ExitCode = ExitCode.SYNC_FAILED) -> Finding:
    return Finding(check=check, level=Level.FAILED, message=message, hint=hint, exit_code=exit_code)


def from_error(check: str, exc: ArchisyncError) -> Finding:
    return failed(check, exc.message, exc.hint, exc.exit_code)


def obstacle(check: str, exc: ArchisyncError) -> Obstacle:
    return Obstacle(check=check, level=Level.FAILED, message=exc.message, hint=exc.hint, exit_code=exc.exit_code)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """The exit code of the most serious failure: a server out of reach, then configuration, then the rest. Warnings don't count."""
    codes = {f.exit_code for f in findings if f.level is Level.FAILED}
    for code in (ExitCode.UNREACHABLE, ExitCode.CONFIGURATION):
        if code in codes:
            return code
    return ExitCode.SYNC_FAILED if codes else ExitCode.DONE


def document(findings: Sequence[Finding], code: ExitCode) -> dict[str, Any]:
    """What `doctor --json` prints. `code`: the exit code of all of them."""
    counts = {level.value: sum(f.level is level for f in findings) for level in Level}
    return {"healthy": code is ExitCode.DONE, "counts": counts, "findings": findings}


def first_few(names: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
