"""What libraries log, Python's warnings, and exceptions in threads that nobody caught: each is one event of our log."""

from __future__ import annotations

import logging
import threading
import traceback

from archisync.base.log import EventLog

LONGEST_TRACEBACK = 1900
"""In characters, of its end: that says what happened. An event's text has at most 2000."""


def collect(log: EventLog) -> None:
    """From now on they are events of `log`, in this process and in its children. Libraries are heard from WARNING on."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(log)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _uncaught


def _uncaught(lost: threading.ExceptHookArgs) -> None:
    value = lost.exc_value or lost.exc_type()
    logging.getLogger(lost.thread.name if lost.thread else "a thread").error(
        f"{lost.exc_type.__name__}: {value}", exc_info=(lost.exc_type, value, lost.exc_traceback)
    )


class _Handler(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that don't fit the text
            text = str(record.msg)
        message, _, more = text.partition("\n")  # RQ has its tracebacks in the text
        if isinstance(record.exc_info, tuple) and record.exc_info[0]:
            more += "".join(traceback.format_exception(*record.exc_info))
        self._log.event(
            "library-message",
            level=record.levelname.lower(),
            logger=record.name,
            message=message,
            traceback=more[-LONGEST_TRACEBACK:] or None,
        )
