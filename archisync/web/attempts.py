"""Wrong tokens are counted: whoever guesses is refused for a while, and the memory for it is bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic

ALLOWED = 10
"""Wrong tokens of one address in WINDOW_S. A token has at least 16 characters, so guessing is hopeless at any rate that this allows."""
WINDOW_S = 60.0
ADDRESSES = 10_000


class Attempts:
    """The wrong tokens of each address in the last minute."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Seconds until the address may try again; 0 when it may now."""
        with self._lock:
            recent = self._recent(address)
        return 0 if len(recent) < ALLOWED else max(1, round(recent[-ALLOWED] + WINDOW_S - self._clock()))

    def failed(self, address: str) -> None:
        with self._lock:
            self._wrong[address] = [*self._recent(address), self._clock()][-ALLOWED:]
            self._wrong.move_to_end(address)
            while len(self._wrong) > ADDRESSES:
                self._wrong.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - WINDOW_S
        return [at for at in self._wrong.get(address, []) if at > since]
