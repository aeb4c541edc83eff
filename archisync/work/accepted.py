"""Which jobs of the queue a worker accepts: archisync's own, and no others.

Anyone with access to Redis can write a job. Whatever is not a run of archisync, or brings more than a run, is set aside with a log
line: it is not executed, and it does not stop the worker. A job whose id is not one of ours may be another application's, from another
queue: nothing of it is read or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job

from archisync.base.log import EventLog
from archisync.queue.job import JOB_FUNCTION, named_job
from archisync.store.deliveries import JobKey

SET_ASIDE_S = 3600
LONGEST_PAYLOAD_BYTES = 1024
"""Compressed. Ours have about 60 bytes."""
LONGEST_REASON = 300
HINT_FOREIGN = (
    "somebody else writes to archisync's queue: archisync redis acl keeps others out, ARCHISYNC_QUEUE names another"
)

_NEVER_OURS = (
    "_success_callback_name",
    "_failure_callback_name",
    "_stopped_callback_name",
    "_dependency_ids",
    "rate_limit_key",
    "repeats_left",
    "retries_left",
    "webhooks",
)
"""What RQ would call, send or queue for whoever wrote the job. Our jobs have none of it."""


class ForeignJobError(Exception):
    """The job is not ours and is never run."""


class SyncJob(Job):
    """A job that can be restored only if it is `archisync.work.job.sync` with two whole numbers, in JSON, and nothing else.

    For RQ's worker and housekeeping, any other job does not exist.
    """

    do: Callable[[int, int], None] | None = None
    """A child of ours does the delivery with this, on its open connection, instead of calling `archisync.work.job.sync`."""

    def _execute(self) -> Any:
        return self.do(*self.args) if self.do else super()._execute()

    @classmethod
    def fetch(cls, id: str, connection: redis.Redis | None = None, serializer: Any = None) -> Job:
        if named_job(id) is None:
            raise _not_ours(id)
        try:
            return super().fetch(id, connection=connection, serializer=serializer)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as exc:
            _set_aside(connection, id, exc)
            raise NoSuchJobError(f"set aside: {id}") from exc

    def restore(self, raw_data: Any) -> Any:
        if len(raw_data.get(b"data", b"")) > LONGEST_PAYLOAD_BYTES:
            raise ForeignJobError("its payload is too long")
        super().restore(raw_data)
        if (
            self.func_name != JOB_FUNCTION
            or self.instance is not None
            or self.kwargs != {}
            or not isinstance(self.args, list)
            or [type(part) for part in self.args] != [int, int]
        ):
            raise ForeignJobError("it is not a run of archisync")
        for name in _NEVER_OURS:
            if getattr(self, name, None):
                raise ForeignJobError(f"it brings {name.strip('_').replace('_', ' ')}")


def _set_aside(connection: redis.Redis | None, job_id: str, exc: Exception) -> None:
    """Keep the job for an hour, so that a person can look at it. If it was a run's delivery, a tick pushes that run again."""
    if connection is not None:
        connection.expire(Job.key_for(job_id), SET_ASIDE_S)
    EventLog().event("job-set-aside", job=job_id, because=reason_of(exc), hint=HINT_FOREIGN)


def _not_ours(job_id: str) -> NoSuchJobError:
    because = "ForeignJobError: its id is not one of archisync's"
    EventLog().event("job-set-aside", job=job_id, because=because, hint=HINT_FOREIGN)
    return NoSuchJobError(f"not ours: {job_id}")


def reason_of(exc: Exception) -> str:
    """The error in one line for the log."""
    return f"{type(exc).__name__}: {exc}"[:LONGEST_REASON]


class SyncQueue(Queue):
    """A queue that drops from `:intermediate` what can't be run."""

    @classmethod
    def lmove(cls, connection: redis.Redis, queue_key: str, timeout: int | None) -> Any:
        """Make the job's id printable: RQ decodes it unguarded, and an id that is not UTF-8 would end the worker."""
        moved = super().lmove(connection, queue_key, timeout)
        if moved is None:
            return None
        shown = moved[1].decode(errors="backslashreplace")
        if shown.encode() != moved[1]:
            connection.lrem(f"{queue_key}:intermediate", 0, moved[1])
        return queue_key, shown

    @classmethod
    def _fetch_dequeued_job(  # type: ignore[override]  # passes on whatever RQ passes
        cls, connection: redis.Redis, queue_key: str, job_id: str, **kwargs: Any
    ) -> Any:
        found = super()._fetch_dequeued_job(connection, queue_key, job_id, **kwargs)
        if found is None:
            connection.lrem(f"{queue_key}:intermediate", 0, job_id)
        return found

    def popped(self) -> Generator[JobKey, None, None]:
        """The jobs in the list, one after the other. Each is popped for good; what can't be run is set aside.

        A job's id names it, so its hash is not read. Close the generator: that deletes the last job's hash. The round trip that asks for
        the next job deletes the others.
        """
        spent: list[str] = []
        try:
            while popped := self._pop(spent):
                id_ = popped.decode(errors="backslashreplace")
                if (job := named_job(id_)) is None:
                    _not_ours(id_)
                    continue
                spent.append(Job.key_for(id_))
                yield job
        finally:
            if spent:
                self.connection.delete(*spent)

    def _pop(self, spent: list[str]) -> bytes | None:
        with self.connection.pipeline(transaction=False) as pipe:
            for key in spent:
                pipe.delete(key)
            pipe.lpop(self.key)
            popped: bytes | None = pipe.execute()[-1]
        spent.clear()
        return popped
