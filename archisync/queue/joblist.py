"""The queue's list: the jobs that wait for a worker.

Only this list proves that a delivery is still to come. Job hashes and RQ's registries prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from archisync.queue.foreignkeys import queues_key

_PAGE = 10_000
"""Ids read from the list in one command."""


def rq_queue(client: redis.Redis, name: str) -> Queue:
    queue = Queue(name, connection=client, serializer=JSONSerializer)
    queue.redis_queues_keys = queues_key(name)
    return queue


def queue_length(client: redis.Redis, name: str) -> int:
    return rq_queue(client, name).count


def missing_jobs(client: redis.Redis, name: str, job_ids: Iterable[str]) -> set[str]:
    """The ids that are not in the queue's list: no worker will take them any more.

    The list is read in pages, from its end, for it may be long. Workers take from the front, and what another tick pushes at the end
    meanwhile can only show an id twice.
    """
    left = set(job_ids)
    key, offset = rq_queue(client, name).key, 0
    while left and (page := client.lrange(key, -offset - _PAGE, -offset - 1)):
        # An id that is not UTF-8 is another application's.
        left.difference_update(id_ if isinstance(id_, str) else id_.decode(errors="replace") for id_ in page)
        offset += len(page)
    return left
