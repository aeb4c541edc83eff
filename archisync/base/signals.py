"""Ctrl-C where Python loses it: where an exception is printed and forgotten, while a process is started, in the body of a class.

Workers and `up` have handlers of their own, which note a signal and raise nothing; all this is for the other commands.
"""

from __future__ import annotations

import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_AFTER_S = 0.05
"""By then Python is out of whatever forgot the interrupt."""


def remember() -> None:
    """From here on a Ctrl-C is raised again that came in a function whose exceptions Python prints and forgets: one that is called when
    an object goes, or around a fork."""
    sys.unraisablehook = _unraisable


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    if not issubclass(told.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(told)
        return
    again = threading.Timer(AGAIN_AFTER_S, interrupt_main)
    again.daemon = True
    again.start()


@contextmanager
def held_back() -> Iterator[None]:
    """A Ctrl-C that comes meanwhile is raised at the end, in place of whatever error. In a child between fork and exec it is nothing."""
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
    """Whether it is a Ctrl-C, or an error that one has become: before 3.12 Python makes a RuntimeError of it in the body of a class, and
    what cleans up may stumble over what was only half done."""
    seen: set[int] = set()
    cause: BaseException | None = exc
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
