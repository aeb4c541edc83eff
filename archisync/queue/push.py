"""Pushing a delivery: its jobs, up to a thousand, in one round trip.

RQ's own code writes the first job into a pipeline that is never sent; a script in Redis then writes every job as a copy of that one.
This is several times as fast as letting RQ write each job. If a release of RQ does anything for a job that is not expected
here, RQ pushes every job itself.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

from rq import Queue
from rq.job import Job
from rq.queue import EnqueueData

from archisync.queue.job import DESCRIPTION, job_id, payload, rq_job
from archisync.store.deliveries import Delivery

# Purpose: push the jobs of one delivery, all or none. Job hashes differ only in payload and description: the first gets ARGV's
# fields, the others are copies of it. A job whose hash exists was pushed by a tick that died before it could commit: it is left out.
# The list is written before the hashes: if Redis refuses a command, no hash is left that looks like a pushed job. Redis Cluster
# would refuse a script that makes up the names of keys; RQ does not work on a cluster either.
_PUSH_SCRIPT = """
local list, queues, push, prefix, description, width = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local fields, ids, payloads = {}, {}, {}
for i = 1, width do fields[i] = ARGV[4 + i] end
for i = 5 + width, #ARGV, 2 do
  if redis.call('EXISTS', prefix .. ARGV[i]) == 0 then
    ids[#ids + 1] = ARGV[i]
    payloads[#ids] = ARGV[i + 1]
  end
end
if #ids == 0 then return 0 end
redis.call('SADD', queues, list)
redis.call(push, list, unpack(ids))
local first = prefix .. ids[1]
redis.call('HSET', first, 'data', '', 'description', '', unpack(fields))
for i, id in ipairs(ids) do
  local key = prefix .. id
  if i > 1 then redis.call('COPY', first, key) end
  redis.call('HSET', key, 'data', payloads[i], 'description', description .. string.match(id, '%d+'))
end
return #ids
"""


def push_delivery(queue: Queue, delivery: Delivery, *, timeout_s: int) -> None:
    """Push the jobs of a delivery, forced ones to the front. Pushed a second time, it adds only the jobs that are gone.

    `timeout_s` bounds a whole job, in which a worker does several runs of one agent.
    """
    if not delivery.jobs:
        return
    # LPUSH puts each job before the last one: the order is turned round to come out right.
    jobs = list(reversed(delivery.jobs)) if delivery.forced else delivery.jobs
    as_rq_job = partial(rq_job, timeout_s=timeout_s, at_front=delivery.forced)
    push = "LPUSH" if delivery.forced else "RPUSH"
    fields = _common_fields(queue, as_rq_job(jobs[0]), payload(jobs[0]), push)
    if fields is None:
        queue.enqueue_many([as_rq_job(job) for job in jobs])
        return
    # Stored and not deflated: deflating takes longer than the push.
    parts = [part for job in jobs for part in (job_id(job), zlib.compress(payload(job), 0))]
    names = (push, Job.key_for(""), DESCRIPTION)
    queue.connection.eval(_PUSH_SCRIPT, 2, queue.key, queue.redis_queues_keys, *names, len(fields), *fields, *parts)


def _common_fields(queue: Queue, job: EnqueueData, data: bytes, push: str) -> list[Any] | None:
    """The fields, with their values, that RQ writes alike into the hash of every job. None if RQ does anything for the job that is not
    expected here, or writes its payload in another way."""
    with queue.connection.pipeline(transaction=False) as unsent:
        queue.enqueue_many([job], pipeline=unsent)
        commands = [command for command, _ in unsent.command_stack]
    hash_key = Job.key_for(str(job.job_id))
    fields: dict[str, Any] = {}
    others = []
    for name, *arguments in commands:
        if name == "HSET" and arguments[0] == hash_key:
            fields.update(zip(arguments[1::2], arguments[2::2], strict=True))
        else:
            others.append((name, *arguments))
    expected = [("SADD", queue.redis_queues_keys, queue.key), (push, queue.key, job.job_id)]
    own = (fields.pop("data", None), fields.pop("description", None))
    if others != expected or own != (zlib.compress(data), job.description):
        return None
    return [part for field in fields.items() for part in field]
