"""An answer that may take long, for pages that are asked for every few seconds: found in a thread of its own, it serves all of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from threading import Lock, Thread
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Calls `ask` when somebody wants to know and the last answer is older than `fresh_s`. Usable from any thread."""

    def __init__(
        self, ask: Callable[[], T], *, fresh_s: float, patience_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._patience_s = patience_s
        self._clock = clock
        self._lock = Lock()
        self._question: Future[T] | None = None
        self._asked_at = 0.0
        self._last: T | None = None

    def answer(self) -> tuple[T | None, bool]:
        """The answer, and whether it is fresh: after `patience_s` without one it is the last one, or None. Raises what `ask` raises."""
        question = self._current()
        try:
            self._last = question.result(self._patience_s)
        except NoAnswerError:
            if not question.done():
                return self._last, False
            self._forget(question)  # `ask` itself ran out of time
            raise
        except Exception:
            self._forget(question)
            raise
        return self._last, True

    def _current(self) -> Future[T]:
        with self._lock:
            question = self._question
            if question is None or (question.done() and self._clock() - self._asked_at > self._fresh_s):
                question = self._question = Future()
                self._asked_at = self._clock()
                # A daemon: whoever stops the panel does not wait for a server that hangs.
                Thread(target=self._find, args=(question,), daemon=True, name="background").start()
            return question

    def _find(self, question: Future[T]) -> None:
        try:
            question.set_result(self._ask())
        except Exception as exc:  # noqa: BLE001 - it is raised where the answer is wanted
            question.set_exception(exc)

    def _forget(self, question: Future[T]) -> None:
        """What failed is asked again at once."""
        with self._lock:
            if self._question is question:
                self._question = None
