"""Keys of another type where RQ keeps its own: another application's data that would fail every push and every worker. They are
moved aside, never deleted."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

import redis
from redis.client import Pipeline
from rq.defaults import RQ_KEY_PREFIX

from archisync.base.log import EventLog


def shared_key_types(queue_name: str) -> dict[str, bytes]:
    """The keys that RQ 3 shares between jobs, each with its type."""
    lists = [f"{RQ_KEY_PREFIX}:queue:{queue_name}{part}" for part in ("", ":intermediate")]
    sets = [f"{RQ_KEY_PREFIX}:{part}" for part in ("queues", "workers", f"workers:{queue_name}", "groups")]
    registries = ("wip", "finished", "failed", "deferred", "ready", "scheduled", "canceled")
    sorted_sets = [f"{RQ_KEY_PREFIX}:{registry}:{queue_name}" for registry in registries]
    return dict.fromkeys(lists, b"list") | dict.fromkeys(sets, b"set") | dict.fromkeys(sorted_sets, b"zset")


def move_foreign_keys_aside(client: redis.Redis, queue_name: str, log: EventLog) -> None:
    """Rename each shared key that has another type. Called before every push and by a worker that starts."""
    expected = shared_key_types(queue_name)
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = pipe.execute()
    for (key, wanted), type_ in zip(expected.items(), found, strict=True):
        if type_ not in (b"none", wanted):
            aside = f"{key}:foreign:{token_hex(4)}"
            client.transaction(partial(_rename, key=key, wanted=wanted, aside=aside), key)
            log.event("key-moved-aside", key=key, type=str(type_, "ascii"), to=aside)


def _rename(pipe: Pipeline, *, key: str, wanted: bytes, aside: str) -> None:
    """The key is watched: nobody's push can come between the look and the rename."""
    type_ = pipe.type(key)
    pipe.multi()
    if type_ not in (b"none", wanted):
        pipe.rename(key, aside)
