"""`archisync` and `python -m archisync`: run the command line, turn every error into a message, a hint and an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from archisync.base import stdio
from archisync.base.errors import ArchisyncError, ExitCode, UsageError

GARBAGE_THRESHOLD = 100_000
"""New objects between two looks for garbage. With Python's 700, looking over what was just imported takes a twentieth of a command."""

QUIET = ("--quiet", "-q")


def script() -> None:
    """The console script: `main`, in a process of its own."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        main()
    except SystemExit as ended:
        leave(ended)


def leave(ended: SystemExit) -> NoReturn:
    """End the process. Taking the interpreter apart, module by module, takes a tenth of a command, so it is left out where nobody
    can tell: no thread is waited for, what wants to be called at the end was called, and all output is out. (mypy ends in the same way.)"""
    waited_for = [thread for thread in threading.enumerate() if not thread.daemon]
    at_once = waited_for == [threading.main_thread()] and isinstance(ended.code, int | None)
    if at_once:
        atexit._run_exitfuncs()
    unwritten = told_if_unwritten()
    code = ended.code or unwritten
    if at_once:
        os._exit(int(code))
    raise SystemExit(code) from None


def told_if_unwritten() -> ExitCode:
    """At the very end, when the command has done all that it had to: whether everything that it showed is out."""
    lost = stdio.close()
    if lost is None:
        return ExitCode.DONE
    from archisync.cli.output import Output

    Output().error(lost)
    return lost.exit_code


def main() -> None:
    """The command line. Exits with a code of `archisync.base.errors.ExitCode`; a traceback is shown only with --debug."""
    open_closed_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # wherever it is typed
    debug = len(arguments) < len(sys.argv[1:]) or bool(os.environ.get("ARCHISYNC_DEBUG"))
    try:
        check_arguments(arguments)
        arguments = quiet_first(help_last(arguments))
        code = quickly(arguments)
        if code is not None:
            sys.exit(code)
        from archisync.base.signals import remember
        from archisync.cli.main import named, root

        remember()

        if {"--install-completion", "--show-completion"} & set(arguments):
            from archisync.cli.complete import mend_zsh_script

            mend_zsh_script()
        code = root(named(arguments))(
            arguments, prog_name="archisync", standalone_mode=False
        )  # so that wrong usage comes here too, and is told like every other error
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except KeyboardInterrupt:  # before the command line's parser has begun; from then on it tells
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit:
        if type(sys.stdout).__name__ != "PacifyFlushWrapper":
            raise
        sys.exit(ExitCode.DONE)  # typer's, which says 1 when nobody reads --help to its end
    except Exception as exc:  # noqa: BLE001 - the last place where an error can be told in words
        from archisync.base.signals import is_interrupt

        if is_interrupt(exc):
            sys.exit(ExitCode.INTERRUPTED)
        if isinstance(exc, OSError) and stdio.failed_to_write(sys.stdout, exc):  # help, which typer writes by itself
            sys.exit(ExitCode.DONE)  # `leave` tells
        if debug:
            show_traceback(exc)
        if (
            type(exc).__name__ == "NoArgsIsHelpError"
        ):  # `archisync` or `archisync agent` alone: its message is the help text
            stdio.write(sys.stderr, f"{exc}\n")
            sys.exit(ExitCode.USAGE)
        error = as_archisync_error(exc)
        from archisync.cli.output import Output

        Output().error(error)
        sys.exit(error.exit_code)


def open_closed_streams() -> None:
    """Nowhere in place of a standard stream that the caller has closed (`>&-`): its number would go to the next file or connection that
    is opened, and what is said would be written there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - open as long as the process


def quickly(arguments: Sequence[str]) -> ExitCode | None:
    """What is called each minute or by every script, without the command-line library; None: not one of these."""
    if arguments == ["--version"]:
        from archisync import __version__

        stdio.write_data(sys.stdout, f"archisync {__version__}\n")
        return ExitCode.DONE
    if arguments[:1] == ["tick"]:
        from archisync.cli.ticking import typed_plainly

        return typed_plainly(arguments)
    return None


def help_last(arguments: Sequence[str]) -> list[str]:
    """`help`, `help run`, `help agent add`, as with other tools: the same as --help behind it."""
    return [*arguments[1:], "--help"] if arguments[:1] == ["help"] else list(arguments)


def quiet_first(arguments: Sequence[str]) -> list[str]:
    """--quiet, or -q, is the root's option: accepted wherever it is typed, but for behind `--`. No command has a -q of its own."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others = [word for word in arguments[:end] if word not in QUIET]
    if len(others) == end:
        return list(arguments)
    return [QUIET[0], *others, *arguments[end:]]


def show_traceback(exc: Exception) -> None:
    """On standard error, for --debug; without the passwords that libraries put into their messages."""
    import traceback

    from archisync.base.text import printable, redact

    for line in redact("".join(traceback.format_exception(exc))).splitlines():
        stdio.write(sys.stderr, printable(line) + "\n")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument that no command could use: neither a database nor a path takes it."""
    for number, argument in enumerate(arguments, 1):
        if "\0" in argument:
            raise UsageError(f"argument {number} has a NUL character", hint="leave it out")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"argument {number} is not valid UTF-8", hint="type it in UTF-8") from None


def as_archisync_error(exc: Exception) -> ArchisyncError:
    """What an exception means to the person at the terminal. psycopg and redis are looked at only if they were loaded."""
    if isinstance(exc, ArchisyncError):
        return exc
    if hasattr(exc, "format_message"):  # of typer's parser; by its shape, for its classes belong to a click of its own
        return _wrong_usage(exc)
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(exc, psycopg.Error):
            from archisync.store.database import translate

            return translate(exc)
    if "redis" in sys.modules:
        import redis

        if isinstance(exc, redis.RedisError):
            from archisync.queue.client import translate_redis_error

            return translate_redis_error(exc)
    from archisync.base.text import redact

    return ArchisyncError(
        f"a bug in archisync: {type(exc).__name__}: {redact(str(exc))[:500]}", hint="repeat with: archisync --debug …"
    )


def _wrong_usage(exc: Any) -> UsageError:
    command = exc.ctx.command_path if getattr(exc, "ctx", None) else "archisync"
    return UsageError(exc.format_message(), hint=f"{command} --help")


if __name__ == "__main__":
    script()
