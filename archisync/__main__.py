"""`archisync` and `python -m archisync`: run the typed command, and turn every error into a message, a hint and an exit code."""

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
"""New objects between two garbage collections. Python's 700 makes it search all that was just imported: a twentieth of a command's time."""

QUIET = ("--quiet", "-q")
COMPLETION = frozenset({"--install-completion", "--show-completion"})


def script() -> NoReturn:
    """The console script."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    end_process(main())


def end_process(code: int) -> NoReturn:
    """Show whether output was lost, and end the process.

    Python's own clean-up takes a tenth of a command's time, so it is left out when nobody depends on it: when no other thread must be
    waited for. (mypy ends in the same way.)
    """
    main_thread = threading.main_thread()
    is_alone = all(thread.daemon or thread is main_thread for thread in threading.enumerate())
    if is_alone:
        atexit._run_exitfuncs()
    code = flush_output(code)
    if is_alone:
        os._exit(code)
    sys.exit(code)


def flush_output(code: int) -> int:
    """Flush the standard streams. If data was lost, show why; the exit code says so too, unless the command failed anyway."""
    lost = stdio.close()
    if lost is None:
        return code
    from archisync.cli.output import Output

    Output().error(lost)
    return code or lost.exit_code


def main() -> int:
    """Run the typed command and return its exit code, one of `archisync.base.errors.ExitCode`. Errors are shown, not raised."""
    open_closed_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # wherever it is typed
    debug = len(arguments) < len(sys.argv[1:]) or bool(os.environ.get("ARCHISYNC_DEBUG"))
    try:
        return run(arguments)
    except KeyboardInterrupt:  # while typer is imported; later it is typer that returns the code
        return ExitCode.INTERRUPTED
    except SystemExit as ended:  # typer's: completion, or --help whose reader left early, for which typer says 1
        reader_left = type(sys.stdout).__name__ == "PacifyFlushWrapper"
        return ExitCode.DONE if reader_left else int(ended.code or 0)
    except Exception as exc:  # noqa: BLE001 - the last place where an error can be put into words
        return show_error(exc, debug=debug)


def run(arguments: Sequence[str]) -> int:
    """Run one command. Raises its errors, typer's among them."""
    check_arguments(arguments)
    arguments = quiet_first(help_last(arguments))
    if "ARCHISYNC_FOLDER" in os.environ or any(argument.startswith("--folder") for argument in arguments):
        from archisync.cli.folder import use_folder  # most commands name no folder

        arguments = use_folder(arguments)
    code = run_quickly(arguments)
    return run_with_typer(arguments) if code is None else code


def run_quickly(arguments: Sequence[str]) -> ExitCode | None:
    """Run what cron and scripts call all the time, without importing typer. None: `arguments` are something else."""
    if arguments == ["--version"]:
        from archisync import __version__

        stdio.write_data(sys.stdout, f"archisync {__version__}\n")
        return ExitCode.DONE
    if arguments[:1] == ["tick"]:
        from archisync.cli.quicktick import run_plain_tick

        return run_plain_tick(arguments)
    return None


def run_with_typer(arguments: Sequence[str]) -> int:
    from archisync.base import signals
    from archisync.cli.root import named_command, root_command

    signals.remember()
    if COMPLETION.intersection(arguments):
        from archisync.cli.completion import mend_zsh_script

        mend_zsh_script()
    command = root_command(named_command(arguments))
    code = command(arguments, prog_name="archisync", standalone_mode=False)  # not standalone: it raises wrong usage
    return code if isinstance(code, int) else ExitCode.DONE


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller closed (`>&-`). Otherwise the next file or connection gets its number, and
    output is written into that."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - open as long as the process


def help_last(arguments: Sequence[str]) -> list[str]:
    """`help`, `help run` and `help agent add` as `--help`, `run --help` and `agent add --help`."""
    return [*arguments[1:], "--help"] if arguments[:1] == ["help"] else list(arguments)


def quiet_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with --quiet first, where typer expects it. It may be typed anywhere before `--`; no command has a -q of its own."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others = [word for word in arguments[:end] if word not in QUIET]
    if len(others) == end:
        return list(arguments)
    return [QUIET[0], *others, *arguments[end:]]


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument that no command can use, because neither PostgreSQL nor a path takes it."""
    for number, argument in enumerate(arguments, 1):
        if "\0" in argument:
            raise UsageError(f"argument {number} has a NUL character", hint="leave it out")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"argument {number} is not valid UTF-8", hint="type it in UTF-8") from None


def show_error(exc: Exception, *, debug: bool) -> ExitCode:
    """Show an error, and return its exit code."""
    from archisync.base.signals import is_interrupt

    if is_interrupt(exc):
        return ExitCode.INTERRUPTED
    if isinstance(exc, OSError) and stdio.failed_to_write(sys.stdout, exc):  # help, which typer writes itself
        return ExitCode.DONE  # `flush_output` shows the error
    if (
        type(exc).__name__ == "NoArgsIsHelpError"
    ):  # `archisync` or `archisync agent` alone; the message is the help text
        stdio.write(sys.stderr, f"{exc}\n")
        return ExitCode.USAGE
    from archisync.cli.output import Output

    error = as_archisync_error(exc)
    Output().error(error, traceback=_traceback(exc) if debug else None)
    return error.exit_code


def _traceback(exc: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(exc))


def as_archisync_error(exc: Exception) -> ArchisyncError:
    """The error as an ArchisyncError, with a message and a hint. An error that nobody expected is called a bug."""
    if isinstance(exc, ArchisyncError):
        return exc
    if hasattr(exc, "format_message"):  # typer's parser; its classes belong to a click of its own
        return _wrong_usage(exc)
    return _as_server_error(exc) or _bug(exc)


def _wrong_usage(exc: Any) -> UsageError:
    command = exc.ctx.command_path if getattr(exc, "ctx", None) else "archisync"
    return UsageError(exc.format_message(), hint=f"{command} --help")


def _as_server_error(exc: Exception) -> ArchisyncError | None:
    """An error of psycopg or redis in words. What was never imported can't have raised it."""
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(exc, psycopg.Error):
            from archisync.store.refusals import translate

            return translate(exc)
    if "redis" in sys.modules:
        import redis

        if isinstance(exc, redis.RedisError):
            from archisync.queue.client import translate_redis_error

            return translate_redis_error(exc)
    return None


def _bug(exc: Exception) -> ArchisyncError:
    from archisync.base.text import redact

    return ArchisyncError(
        f"a bug in archisync: {type(exc).__name__}: {redact(str(exc))[:500]}", hint="repeat with: archisync --debug …"
    )


if __name__ == "__main__":
    script()
