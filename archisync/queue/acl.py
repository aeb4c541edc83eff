"""The rights that a tick and a worker need in Redis: the text of `redis acl`.

They are data, like those in `store.grants`, and limited to what we call and to the keys of one queue and its jobs: no user can push to
another application's RQ queue, whose payloads may be pickles, or change its jobs. Each rule is one that Redis 6.2 knows, and Redis 7.0,
which refuses a whole user for one command that it doesn't know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from rq.defaults import RQ_KEY_PREFIX

from archisync.base.errors import UsageError
from archisync.queue.foreignkeys import queue_key_types
from archisync.queue.job import JOB_IDS
from archisync.queue.workers import WORKER_NAMES
from archisync.store.grants import DEFAULT_PREFIX

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")


class User(StrEnum):
    TICK = "tick"
    WORKER = "worker"


MEANING = {
    User.TICK: "tick, run, held accept, status --watch, plan, metrics, doctor",
    User.WORKER: "worker",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """`keys` and `channels` are patterns."""

    commands: tuple[str, ...]
    keys: tuple[str, ...]
    channels: tuple[str, ...] = ()


_CONNECTION = ("hello", "ping", "select", "client|setname", "info")
_TRANSACTION = ("multi", "exec", "discard", "watch", "unwatch")
_MOVE_ASIDE = ("type", "rename")
"""For move_foreign_keys_aside; `rename` works within these keys only."""
# eval: a push is a script; what a script does needs the same rights.
_TICK = (
    *_CONNECTION, *_TRANSACTION, *_MOVE_ASIDE, "eval",
    "exists", "hgetall", "hset", "copy", "rpush", "lpush", "lrange", "llen", "sadd", "smembers",
)  # fmt: skip
_WORKER = (
    *_CONNECTION, *_TRANSACTION, *_MOVE_ASIDE, "client|info", "subscribe", "unsubscribe",
    "set", "get", "del", "exists", "expire", "persist",
    "hset", "hget", "hgetall", "hexists", "hincrby", "hincrbyfloat",
    "lmove", "blmove", "lpop", "lrange", "llen", "lrem", "sadd", "srem", "smembers",
    "zadd", "zrem", "zrange", "zrangebyscore", "zremrangebyscore", "zscore", "xadd",
)  # fmt: skip

COMMANDS = sorted({command.partition("|")[0] for command in (*_TICK, *_WORKER)})
"""Without each of these a server takes no jobs."""


def allowed(user: User, queue_name: str) -> Allowed:
    """The rights of a user on the keys of one queue, as RQ 3 names them."""
    k, own = RQ_KEY_PREFIX, queue_key_types(queue_name)
    shared = (*own, *(f"{key}:foreign:*" for key in own), f"{k}:job:{JOB_IDS}", f"{k}:worker:{WORKER_NAMES}")
    if user is User.TICK:
        return Allowed(commands=_TICK, keys=shared)
    by_job = (f"{k}:job::{JOB_IDS}", *(f"{k}:{what}:{JOB_IDS}" for what in ("execution", "executions", "results")))
    housekeeping = (f"{k}:clean_registries:{queue_name}", f"{k}:queue:{queue_name}:intermediate:first_seen:{JOB_IDS}")
    return Allowed(commands=_WORKER, keys=(*shared, *by_job, *housekeeping), channels=(f"{k}:pubsub:{WORKER_NAMES}",))


def acl_commands(queue_name: str, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """An `ACL SETUSER` for each user. Running it again does no harm: passwords and on/off stay as they are. Raises UsageError."""
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"{ascii(prefix)[:40]} can't begin the name of a user",
            hint="letters, digits, dot, dash, underscore, at most 40, beginning with a letter",
        )
    return [_set_user(f"{prefix}_{user}", allowed(user, queue_name)) for user in User]


def _set_user(name: str, may: Allowed) -> str:
    rules = [f"~{key}" for key in may.keys] + [f"&{channel}" for channel in may.channels]
    rules += [f"+{command}" for command in may.commands]
    return f"ACL SETUSER {name} resetkeys resetchannels nocommands {' '.join(rules)}"
