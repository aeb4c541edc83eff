"""Something happens after the n-th step of a worker. A step is one round trip to PostgreSQL: BEGIN, each statement, each block of a COPY,
COMMIT."""

from collections.abc import Callable
from typing import Any

from archisync.store.database import Database


class Steps:
    """Counts the round trips of a connection from here on, and does something after the n-th."""

    def __init__(self, db: Database, *, after: int, action: Callable[[], object]) -> None:
        self.taken = 0
        self._after, self._action = after, action
        self._real_wait = db.wait
        db.wait = self._wait  # type: ignore[method-assign]

    @property
    def happened(self) -> bool:
        return self.taken >= self._after

    def _wait(self, *args: Any, **kwargs: Any) -> Any:
        result = self._real_wait(*args, **kwargs)
        self.taken += 1
        if self.taken == self._after:
            self._action()
        return result
