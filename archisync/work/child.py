"""The worker's child ("work horse"): it does the delivery that it was forked for, and goes on with what stands in the queue's list.

A fork, a connection to PostgreSQL and RQ's bookkeeping for each delivery cost several times what the sync of an unchanged export
does. So a child serves many, one after the other, and is replaced after ARCHISYNC_WORKER_SYNCS syncs, after LIFETIME_S, when it has
grown beyond ARCHISYNC_WORKER_MEMORY_BYTES, after an error, and when the list is empty. It holds one delivery at a time: when it
crashes, only the run in its hands is lost to it, and that is taken back as any silent worker's is; what it had not begun still
stands in the list, for the next child or another worker. The run row is the truth, so a delivery is popped for good.
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType

import psycopg

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.store.database import Database, connected, require_direct, translate
from archisync.work.runner import Workplace, serve

LIFETIME_S = 300.0
"""The parent does its own housekeeping (RQ's registries) between two children."""


class Progress:
    """When the child began its current delivery, in memory that it shares with its parent: the parent ends a child that hangs."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def reset(self) -> None:
        self._set(0.0)

    def begin(self) -> None:
        self._set(monotonic())

    @property
    def seconds(self) -> float | None:
        """Of the current delivery; None while it is the one that the parent handed over, which RQ watches."""
        begun: float = struct.unpack("d", self._memory[:])[0]
        return monotonic() - begun if begun else None

    def _set(self, value: float) -> None:
        self._memory[:] = struct.pack("d", value)


class Horse:
    """Serves deliveries over one connection; a context, which closes it. `stopping` says that the worker was asked to end."""

    def __init__(self, config: Config, log: EventLog, *, stopping: Callable[[], bool]) -> None:
        self._config = config
        self._log = log
        self._stopping = stopping
        self._over_at = monotonic() + LIFETIME_S
        self._stack = ExitStack()
        self._place = self._stack.enter_context(Workplace(config, log))
        self._db: Database | None = None
        self._done = 0

    def __enter__(self) -> Horse:
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def serve(self, run_id: int, fence: int) -> None:
        """Do a delivered run and the agent's next ones. Raises what a broken or absent database raises."""
        try:
            self._done += serve(
                self._connection(), self._config, self._log, run_id, fence, stopping=self._stopping, place=self._place
            )
        except psycopg.Error as exc:
            raise translate(exc) from exc

    def _connection(self) -> Database:
        if self._db is None:
            self._db = self._stack.enter_context(
                connected(self._config.database_url, purpose="worker", statement_timeout_s=self._config.run_timeout_s)
            )
            require_direct(self._db)
        return self._db

    @property
    def may_go_on(self) -> bool:
        """Whether another delivery may be taken from the list."""
        return not (
            self._stopping()
            or self._done >= self._config.worker_syncs
            or monotonic() > self._over_at
            or resident_bytes() > self._config.worker_memory_bytes
        )


def resident_bytes() -> int:
    """Memory of this process that is in use now; where the kernel doesn't tell, the most that it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
