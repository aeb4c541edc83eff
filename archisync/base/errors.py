"""The error tree and the exit-code table: one class for each reaction.

    ArchisyncError
    ├── UsageError             2   what was typed is not allowed: type something else
    ├── ConfigurationError     3   fix the environment or the schema
    │   └── SchemaError        3   run `archisync db migrate`
    ├── UnreachableError       4   PostgreSQL or Redis does not answer: try again later
    ├── NotFoundError          5   no such agent, run or held export
    ├── BusyError              7   the same thing is already running elsewhere
    ├── OutputError           74   standard output could not be written: make room
    ├── WaitTimeoutError     124   --timeout passed: the run itself goes on
    └── SyncError              1   a sync failed
        ├── TransientSourceError   try again at once, then in later ticks
        ├── NotSettledError        the export is not settled: the run is *skipped*, and its slot comes again
        ├── SourceError            the source answered, and trying again at once is useless
        │   ├── AuthenticationError  wrong credentials, or a login page instead of an export
        │   ├── NoExportError        no such export
        │   └── PluginError          a source plug-in is broken
        ├── ExportError            the export can't be trusted: the run is *held*, nothing is written
        │   └── TruncatedError     the export ends before it is complete
        └── LeaseLostError         another worker owns the run now: stop, and write nothing

Every error has `message` (what happened), `hint` (the next command to type) and `exit_code`, and survives pickling.
Never put a connection string into a message without `archisync.base.text.redact`.
"""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What `archisync` returns to the shell. A test compares the README's table with this class."""

    DONE = 0
    SYNC_FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    NOT_FOUND = 5
    HELD = 6
    BUSY = 7
    BUG = 70  # sysexits.h EX_SOFTWARE: neither the user nor the ERP can correct it
    OUTPUT = 74  # sysexits.h EX_IOERR
    TIMEOUT = 124  # as timeout(1)
    INTERRUPTED = 130  # 128 + SIGINT


EXIT_CODE_MEANING: dict[ExitCode, str] = {
    ExitCode.DONE: "done (also: nothing was due)",
    ExitCode.SYNC_FAILED: "the sync failed; of `type diff`: the two declarations differ",
    ExitCode.USAGE: "wrong usage",
    ExitCode.CONFIGURATION: "configuration or schema is missing or wrong",
    ExitCode.UNREACHABLE: "PostgreSQL or Redis is out of reach",
    ExitCode.NOT_FOUND: "no such agent, run or held export",
    ExitCode.HELD: "the export is held for a person to decide",
    ExitCode.BUSY: "already running elsewhere",
    ExitCode.BUG: "a bug in archisync",
    ExitCode.OUTPUT: "done, but standard output could not be written (a full disk)",
    ExitCode.TIMEOUT: "--timeout passed (the run goes on)",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C (a run that was waited for goes on)",
}


class ArchisyncError(Exception):
    """The root of every error that archisync raises on purpose."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))

    def with_hint(self, hint: str) -> Self:
        """The same error with another hint."""
        return type(self)(self.message, hint=hint)


def _rebuild(error_class: type[ArchisyncError], message: str, hint: str) -> ArchisyncError:
    return error_class(message, hint=hint)


class UsageError(ArchisyncError):
    exit_code = ExitCode.USAGE


class ConfigurationError(ArchisyncError):
    exit_code = ExitCode.CONFIGURATION


class SchemaError(ConfigurationError):
    pass


class UnreachableError(ArchisyncError):
    exit_code = ExitCode.UNREACHABLE


class NotFoundError(ArchisyncError):
    exit_code = ExitCode.NOT_FOUND


class BusyError(ArchisyncError):
    exit_code = ExitCode.BUSY


class OutputError(ArchisyncError):
    exit_code = ExitCode.OUTPUT


class WaitTimeoutError(ArchisyncError):
    exit_code = ExitCode.TIMEOUT


class SyncError(ArchisyncError):
    """A sync failed. `reason` is the machine-readable word in the run's row."""

    exit_code = ExitCode.SYNC_FAILED
    reason = "error"


class TransientSourceError(SyncError):
    """The source may answer in a moment: a timeout, a reset, a file that changed while it was read.

    `retry_after_s`: the wait that the source asked for, if it did.
    """

    reason = "source-unavailable"

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_transient, (self.message, self.hint, self.retry_after_s))


def _rebuild_transient(message: str, hint: str, retry_after_s: float | None) -> TransientSourceError:
    return TransientSourceError(message, hint=hint, retry_after_s=retry_after_s)


class NotSettledError(SyncError):
    """The export is younger than it must be to be read. Nothing is wrong: a later run reads it."""

    reason = "not-settled"


class SourceError(SyncError):
    """The source answered, and trying again at once is useless: no permission, an answer that is no export."""

    reason = "source-refused"


class AuthenticationError(SourceError):
    """The source does not accept our credentials, or shows a login page."""

    reason = "authentication"


class NoExportError(SourceError):
    """The source works, but has no such export."""

    reason = "no-export"


class PluginError(SourceError):
    """A source plug-in can't be loaded or breaks the contract. Only the types that use it fail."""

    reason = "source-plugin"


class ExportError(SyncError):
    """The export as a whole can't be trusted: unreadable, truncated, without a required column."""

    exit_code = ExitCode.HELD
    reason = "unreadable"


class TruncatedError(ExportError):
    """The export ends before it is complete: a cut-off download, an unfinished write."""

    reason = "truncated"


class LeaseLostError(SyncError):
    """The run has a newer fence: another worker owns it."""

    reason = "lease-lost"
