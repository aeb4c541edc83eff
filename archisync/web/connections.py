"""Connections to PostgreSQL for requests: few, kept open, and replaced when they break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, LifoQueue
from threading import BoundedSemaphore

import psycopg

from archisync.base.errors import UnreachableError
from archisync.rules.config import Config
from archisync.store import synctypes
from archisync.store.database import Database, connect
from archisync.store.refusals import translate

PLACES = 8
"""Connections at most: whoever looks must not take PostgreSQL's last ones from the workers."""
WAIT_S = 5.0
ANSWER_TIMEOUT_S = 10
"""A person waits no longer for a page."""


class Connections:
    """`with connections.database() as db`: a connection for one request. Usable from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places = BoundedSemaphore(PLACES)
        self._free: LifoQueue[Database] = LifoQueue()

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Raises database errors as archisync errors; UnreachableError when all places stay taken."""
        if not self._places.acquire(timeout=WAIT_S):
            raise UnreachableError("PostgreSQL is too slow: all connections of the panel are in use", hint="try again")
        try:
            db = self._take()
            try:
                yield db
            finally:
                self._give_back(db)
        except psycopg.Error as exc:
            raise translate(exc) from exc
        finally:
            self._places.release()

    def close(self) -> None:
        """Close those that are free."""
        while (db := self._next_free()) is not None:
            db.close()

    def _take(self) -> Database:
        if (db := self._next_free()) is not None:
            try:
                synctypes.load(db)  # a tenth of a millisecond; the server may have gone and come back
            except psycopg.Error:
                db.close()
                self.close()  # the others have lost it, too, and each could take as long to say so
            else:
                return db
        timeout_s = min(ANSWER_TIMEOUT_S, self._config.database_timeout_s)
        db = connect(self._config.database_url, purpose="web", answer_timeout_s=timeout_s)
        try:
            synctypes.load(db)
        except psycopg.Error:
            db.close()
            raise
        return db

    def _give_back(self, db: Database) -> None:
        if db.closed or db.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
            db.close()
        else:
            self._free.put(db)

    def _next_free(self) -> Database | None:
        try:
            return self._free.get_nowait()
        except Empty:
            return None
