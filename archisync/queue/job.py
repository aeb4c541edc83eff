"""The form of a job: a wake-up call for one agent. Its payload is the delivery and the job's number there, and nothing more.

Measured on RQ 3.0 and built on: one queue (its worker moves a job to `:intermediate` instead of popping it), a new job id for every
delivery, JSON payloads, results kept for 0 s and failures for an hour. Not used, because each can block or lose a run:
`unique=True`, `ttl`, `Retry`, RQ's scheduler and `WorkerPool`.
"""

from __future__ import annotations

import re

from rq import Queue
from rq.queue import EnqueueData

from archisync.rules.config import AGENT_BOUND_S, Config
from archisync.store.deliveries import JobKey

JOB_FUNCTION = "archisync.work.job.sync"
"""The only function that a worker of archisync runs."""
FAILURE_TTL_S = 3600
JOB_IDS = "agent-*"
"""A pattern of Redis for the ids that `job_id` makes."""
_JOB_ID = re.compile("agent-([0-9]{1,18})-([0-9]{1,9})", re.ASCII)
DESCRIPTION = "archisync delivery "
"""Followed by the delivery's id."""


def job_id(job: JobKey) -> str:
    """RQ's id of a job: the same when its delivery is pushed again, another for the agent's next delivery."""
    return f"agent-{job.delivery_id}-{job.job_no}"


def named_job(id_: str) -> JobKey | None:
    """The job that an id of ours names; None for any other id."""
    found = _JOB_ID.fullmatch(id_)
    return JobKey(int(found[1]), int(found[2])) if found else None


def job_timeout_s(config: Config) -> int:
    """The last resort: a worker may begin the agent's last run just before its time is up."""
    return AGENT_BOUND_S + config.run_timeout_s + 60


def payload(job: JobKey) -> bytes:
    """The JSON that RQ writes for the job: function, instance, arguments, named arguments."""
    return f'["{JOB_FUNCTION}", null, [{job.delivery_id}, {job.job_no}], {{}}]'.encode()


def rq_job(job: JobKey, *, timeout_s: int, at_front: bool) -> EnqueueData:
    """The job as RQ's `enqueue_many` takes it."""
    return Queue.prepare_data(
        JOB_FUNCTION,
        args=[job.delivery_id, job.job_no],
        job_id=job_id(job),
        timeout=timeout_s,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_S,
        description=f"{DESCRIPTION}{job.delivery_id}",
        at_front=at_front,
    )
