"""The worker's child process: it does the delivery that it was forked for, then takes more from the queue's list.

A fork, a connection to PostgreSQL and RQ's bookkeeping cost several times as much as the sync of an unchanged export. So a child does
many deliveries, one after the other. It is replaced after ARCHISYNC_WORKER_SYNCS syncs, after LIFETIME_S, when it has grown beyond
ARCHISYNC_WORKER_MEMORY_BYTES, after an error, and when the list is empty.

A child holds one delivery at a time. When it crashes, a tick takes back the run that it was doing, as it does with any silent worker's;
the other deliveries are still in the list, for the next child or another worker. The run row is the truth, so a delivery is popped for
good.
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from time import monotonic

import psycopg

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.store.database import connected, require_direct
from archisync.store.refusals import translate
from archisync.work.runner import Runner

LIFETIME_S = 300.0
"""Between two children the parent does its own housekeeping (RQ's registries)."""


class CurrentDelivery:
    """When the child began its current delivery, in memory that it shares with its parent: the parent ends a child that hangs."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def reset(self) -> None:
        self._set(0.0)

    def begin(self) -> None:
        self._set(monotonic())

    @property
    def seconds(self) -> float | None:
        """How long it has taken so far; None for the first delivery, which the parent handed over and RQ itself watches."""
        begun: float = struct.unpack("d", self._memory[:])[0]
        return monotonic() - begun if begun else None

    def _set(self, value: float) -> None:
        self._memory[:] = struct.pack("d", value)


class Child:
    """Does deliveries over one connection, which is opened for the first one. A context: its end closes the connection.

    `stopping` says whether the worker was asked to end, `others_wait` whether other agents wait for a worker.
    """

    def __init__(
        self,
        config: Config,
        log: EventLog,
        *,
        stopping: Callable[[], bool] = lambda: False,
        others_wait: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._log = log
        self._stopping = stopping
        self._others_wait = others_wait
        self._over_at = monotonic() + LIFETIME_S
        self._stack = ExitStack()
        self._done = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def do(self, delivery_id: int, job_no: int) -> None:
        """Do a delivered job: what its agent has queued. Raises ArchisyncError when PostgreSQL is broken or away."""
        try:
            self._done += self._runner.do(delivery_id, job_no)
        except psycopg.Error as exc:
            raise translate(exc) from exc

    @cached_property
    def _runner(self) -> Runner:
        config = self._config
        db = self._stack.enter_context(
            connected(config.database_url, purpose="worker", statement_timeout_s=config.run_timeout_s)
        )
        require_direct(db, silent_s=config.longest_silence_s)
        runner = Runner(db, config, self._log, stopping=self._stopping, others_wait=self._others_wait)
        return self._stack.enter_context(runner)

    @property
    def may_go_on(self) -> bool:
        """Whether this child may take another delivery."""
        return not (
            self._stopping()
            or self._done >= self._config.worker_syncs
            or monotonic() > self._over_at
            or resident_bytes() > self._config.worker_memory_bytes
        )


def resident_bytes(pid: int | str = "self") -> int:
    """The memory that a process uses now, 0 when it has just ended; where there is no /proc, the most that this one ever used."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0 if pid != "self" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
