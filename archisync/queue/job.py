"""The form of a job: a wake-up call for one delivery of one run. Its payload is the run's id and fence, and nothing more.

Measured on RQ 3.0 and built on: one queue (its worker moves a job to `:intermediate` instead of popping it), a new job id for every
delivery, JSON payloads, results kept for 0 s and failures for an hour. Not used, because each can block or lose a run:
`unique=True`, `ttl`, `Retry`, RQ's scheduler and `WorkerPool`.
"""

from __future__ import annotations

from rq import Queue
from rq.queue import EnqueueData

JOB_FUNCTION = "archisync.work.job.sync"
"""The only function that a worker of archisync runs."""
FAILURE_TTL_S = 3600
DESCRIPTION = "archisync run "
"""Followed by the run's id."""


def job_id(run_id: int, fence: int, delivery_id: int) -> str:
    """The job id of one delivery of a run: the same when the delivery is pushed again, another for the run's next delivery."""
    return f"run-{run_id}-{fence}-{delivery_id}"


def payload(run_id: int, fence: int) -> bytes:
    """The JSON that RQ writes for the job: function, instance, arguments, named arguments."""
    return f'["{JOB_FUNCTION}", null, [{run_id}, {fence}], {{}}]'.encode()


def rq_job(run_id: int, fence: int, *, delivery_id: int, timeout_s: int, at_front: bool) -> EnqueueData:
    """The job as RQ's `enqueue_many` takes it."""
    return Queue.prepare_data(
        JOB_FUNCTION,
        args=[run_id, fence],
        job_id=job_id(run_id, fence, delivery_id),
        timeout=timeout_s,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_S,
        description=f"{DESCRIPTION}{run_id}",
        at_front=at_front,
    )
