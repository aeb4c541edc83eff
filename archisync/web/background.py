"""An answer that may take long, for pages that are asked for every few seconds: found in a thread of its own, it serves all of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from threading import Lock
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
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._lock = Lock()
        self._question: Future[T] | None = None
        self._asked_at = 0.0
        self._last: T | None = None

    def answer(self) -> tuple[T | None, bool]:
        """The answer, and whether it is fresh: after `patience_s` without one it is the last one, or None. Raises what `ask` raises."""
        with self._lock:
            question = self._question
            if question is None or (question.done() and self._clock() - self._asked_at > self._fresh_s):
                question = self._question = self._pool.submit(self._ask)
                self._asked_at = self._clock()
        try:
            self._last = question.result(self._patience_s)
        except NoAnswerError:
            return self._last, False
        return self._last, True

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
