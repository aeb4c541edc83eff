"""The heartbeat: a thread that extends the lease of the run that this process is doing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from archisync.base.errors import ArchisyncError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.store import claims
from archisync.store.claims import ClaimedRun
from archisync.store.database import Database, connected

_STOP_TIMEOUT_S = 30


class Heartbeat:
    """Extends the lease of the current run over a connection of its own, which it opens when a run takes longer than a third of the
    lease. It stops when the lease is lost, and after the run's time limit: a tick takes back a run that hangs.

    One thread for all runs of a process, started with the first one.
    """

    def __init__(self, config: Config, log: EventLog) -> None:
        self._config = config
        self._log = log
        self._current: tuple[ClaimedRun, float] | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def beating(self, run: ClaimedRun) -> Iterator[None]:
        """Keep the run's lease alive."""
        self._current = run, monotonic()
        if self._thread is None:
            thread = threading.Thread(target=self._beat, name="archisync-heartbeat", daemon=True)
            thread.start()
            self._thread = thread  # set last: a thread that an interrupt kept from starting can't be joined
        try:
            yield
        finally:
            self._current = None

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=_STOP_TIMEOUT_S)

    def _beat(self) -> None:
        """Look twice in a third of the lease; so a run that ends in a moment need not wake this thread."""
        while not self._over.wait(self._config.lease_s / 6):
            current = self._current
            if current is None or monotonic() - current[1] < self._config.lease_s / 3:
                continue
            try:
                answer_s = self._config.lease_s / 3
                with connected(self._config.database_url, purpose="heartbeat", answer_timeout_s=answer_s) as db:
                    self._extend(db, *current)
            except ArchisyncError as exc:  # PostgreSQL is away: try again, the lease lasts for another round
                self._log.event("heartbeat-failed", run=current[0].run_id, message=exc.message, hint=exc.hint)

    def _extend(self, db: Database, run: ClaimedRun, begun: float) -> None:
        """Extend the lease until the run ends, the lease is lost, or the run's time is up."""
        extended = True
        while self._current == (run, begun):
            if extended and monotonic() - begun < self._config.run_timeout_s:
                extended = claims.heartbeat(db, run, lease_s=self._config.lease_s)
            if self._over.wait(self._config.lease_s / 3):
                return
