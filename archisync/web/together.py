"""One answer for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Whoever asks while the same is being found shares the next answer with all others who do. So no answer is older than its question,
    and however many people look at a page, the servers are asked for it by one at a time. Only for the panel's event loop."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}

    async def answer(self, question: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """What `find` finds, which begins after this call. It must not raise: an error would be shared with its traceback."""
        task = self._next.get(question)
        if task is None:
            task = self._next[question] = asyncio.create_task(self._find(question, find))
        return await asyncio.shield(task)  # whoever stops waiting takes the answer from nobody

    async def _find(self, question: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        if (before := self._begun.get(question)) is not None:
            await asyncio.wait([before])
        self._begun[question] = self._next.pop(question)
        try:
            return await find()
        finally:
            del self._begun[question]
