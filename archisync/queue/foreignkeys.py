"""Keys of another type where RQ keeps its own: another application's data that would fail every push and every worker. They are
moved aside, never deleted."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

import redis
from redis.client import Pipeline
from rq.defaults import RQ_KEY_PREFIX

from archisync.base.log import EventLog

HINT = "another application uses archisync's names: give one of them another Redis database, or set ARCHISYNC_QUEUE"


def queue_key_types(queue_name: str) -> dict[str, bytes]:
    """The keys of one queue, each with its type. RQ 3 has others that all applications of a server share; they are not used."""
    lists = [f"{RQ_KEY_PREFIX}:queue:{queue_name}{part}" for part in ("", ":intermediate")]
    sets = [queues_key(queue_name), workers_key(queue_name)]
    sorted_sets = [f"{RQ_KEY_PREFIX}:{registry}:{queue_name}" for registry in ("wip", "finished", "failed")]
    return dict.fromkeys(lists, b"list") | dict.fromkeys(sets, b"set") | dict.fromkeys(sorted_sets, b"zset")


def queues_key(queue_name: str) -> str:
    """Where RQ notes that this queue exists, in place of its `rq:queues`, which has the queues of all applications."""
    return f"{RQ_KEY_PREFIX}:queues:{queue_name}"


def workers_key(queue_name: str) -> str:
    """The workers of this queue. RQ's `rq:workers` has those of all applications."""
    return f"{RQ_KEY_PREFIX}:workers:{queue_name}"


def move_foreign_keys_aside(client: redis.Redis, queue_name: str, log: EventLog) -> None:
    """Rename each key that has another type. Called before every push and by a worker that starts."""
    expected = queue_key_types(queue_name)
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = pipe.execute()
    for (key, wanted), type_ in zip(expected.items(), found, strict=True):
        if type_ not in (b"none", wanted):
            aside = f"{key}:foreign:{token_hex(4)}"
            client.transaction(partial(_rename, key=key, wanted=wanted, aside=aside), key)
            log.event("key-moved-aside", key=key, type=str(type_, "ascii"), to=aside, hint=HINT)


def _rename(pipe: Pipeline, *, key: str, wanted: bytes, aside: str) -> None:
    """The key is watched: nobody's push can come between the look and the rename."""
    type_ = pipe.type(key)
    pipe.multi()
    if type_ not in (b"none", wanted):
        pipe.rename(key, aside)
