"""The rights that a tick and a worker need in Redis: the text of `redis acl`.

They are data, like those in `store.grants`, and limited to the keys of one queue: no user can push to another application's RQ queue,
whose payloads may be pickles. RQ's own scripts, `KEYS`, `FLUSHALL`, `CONFIG SET` and all other keys are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from rq.defaults import RQ_KEY_PREFIX

from archisync.base.errors import UsageError
from archisync.queue.foreignkeys import shared_key_types
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


_CONNECTION = ("hello", "ping", "select", "client|setname", "client|setinfo", "info")
_TRANSACTION = ("multi", "exec", "discard", "watch", "unwatch")
_MOVE_ASIDE = ("type", "rename")
"""For move_foreign_keys_aside; `rename` works within these keys only."""
# eval: a push is a script; what a script does needs the same rights.
_TICK = (
    *_CONNECTION, *_TRANSACTION, *_MOVE_ASIDE, "config|get",
    "sadd", "hset", "copy", "rpush", "lpush", "lrange", "llen", "smembers", "exists", "hgetall", "hget", "srem",
    "eval",
)  # fmt: skip
_WORKER = (
    *_CONNECTION, *_TRANSACTION, *_MOVE_ASIDE, "client|info", "client|list",
    "set", "get", "del", "exists", "expire", "persist",
    "hset", "hget", "hgetall", "hexists", "hincrby", "hincrbyfloat", "hdel",
    "lmove", "blmove", "lpop", "lrange", "llen", "lrem", "lpos", "rpush", "lpush",
    "sadd", "srem", "smembers", "scard",
    "zadd", "zrem", "zrange", "zrangebyscore", "zremrangebyscore", "zscore", "zcard",
    "xadd", "subscribe", "unsubscribe",
)  # fmt: skip


def allowed(user: User, queue_name: str) -> Allowed:
    """The rights of a user on the keys of one queue, as RQ 3 names them."""
    k, own = RQ_KEY_PREFIX, shared_key_types(queue_name)
    shared = (*own, *(f"{key}:foreign:*" for key in own), f"{k}:job:*", f"{k}:worker:{WORKER_NAMES}")
    if user is User.TICK:
        return Allowed(commands=_TICK, keys=shared)
    housekeeping = (f"{k}:clean_registries:{queue_name}", f"{k}:clean_groups", f"{k}:rl-keys")
    by_id = (f"{k}:execution:*", f"{k}:executions:*", f"{k}:results:*")
    return Allowed(commands=_WORKER, keys=(*shared, *housekeeping, *by_id), channels=(f"{k}:pubsub:{WORKER_NAMES}",))


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
