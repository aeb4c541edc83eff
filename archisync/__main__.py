"""`archisync` and `python -m archisync`: run the command line, turn every error into a message, a hint and an exit code."""

from __future__ import annotations

import os
import sys

from archisync.errors import ArchisyncError, ExitCode


def main() -> None:
    """The console script. Exits with a code of `archisync.errors.ExitCode`; a traceback is shown only with --debug."""
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("ARCHISYNC_DEBUG"))
    try:
        from archisync.cli.main import root

        root()
    except BrokenPipeError:  # the reader of our pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
    except Exception as exc:
        if debug:
            raise
        error = as_archisync_error(exc)
        from archisync.output import Output

        Output().error(error)
        sys.exit(error.exit_code)


def as_archisync_error(exc: Exception) -> ArchisyncError:
    """What an exception means to the person at the terminal. psycopg and redis are looked at only if they were loaded."""
    if isinstance(exc, ArchisyncError):
        return exc
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(exc, psycopg.Error):
            from archisync.database import translate

            return translate(exc)
    if "redis" in sys.modules:
        import redis

        if isinstance(exc, redis.RedisError):
            from archisync.queue import translate as translate_redis

            return translate_redis(exc)
    from archisync.config import redact

    return ArchisyncError(
        f"a bug in archisync: {type(exc).__name__}: {redact(str(exc))[:500]}", hint="repeat with: archisync --debug …"
    )


if __name__ == "__main__":
    main()
