"""Ctrl-C where Python would lose it: in a function whose exceptions are only printed, while a process starts, in the body of a class.

This is for commands. Workers and `up` have handlers of their own, which note a signal and raise nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_AFTER_S = 0.05
"""By then Python has left the function that lost the interrupt."""


def remember() -> None:
    """From now on, raise a Ctrl-C again when it came in a function whose exceptions Python only prints: a destructor, or a callback
    around a fork."""
    sys.unraisablehook = _unraisable


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(AGAIN_AFTER_S, _interrupt_main)
    again.daemon = True
    again.start()


def _interrupt_main() -> None:
    """A real signal for the main thread: unlike `_thread.interrupt_main`, it also ends a system call that waits."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGINT)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold a Ctrl-C back until the block ends, and raise it there in place of any error. A child between fork and exec ignores it."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def is_interrupt(exc: BaseException) -> bool:
    """Whether the error is a Ctrl-C, or comes from one.

    Before Python 3.12 an interrupt in the body of a class becomes a RuntimeError, and code that cleans up after one may fail itself.
    """
    seen: set[int] = set()
    cause: BaseException | None = exc
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
