"""Workers that are registered in Redis: the names that archisync's have, and who is alive."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

import redis
from rq import Worker

from archisync.base.errors import ArchisyncError, ConfigurationError
from archisync.queue.foreignkeys import workers_key
from archisync.rules.config import Config

WORKER_NAMES = "archisync.*"
"""A pattern of Redis for the names that `new_worker_name` makes."""
_PREFIX = Worker.redis_worker_namespace_prefix
_OURS = f"{_PREFIX}{WORKER_NAMES.removesuffix('*')}"
"""What the keys of archisync's own workers begin with: those that the users of `redis acl` may read."""
_NAME = re.compile(r"archisync\.(.*)\.([0-9]{1,9})\.[^.]*", re.ASCII)


def new_worker_name() -> str:
    """A name for this process. It ends in random digits, because a restarted container has the same host and process id."""
    return f"archisync.{socket.gethostname()}.{os.getpid()}.{token_hex(4)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveWorker:
    """A worker whose key in Redis has not expired. `state`: starting, started, idle, busy or suspended. `pid_namespace`: the kernel's name
    of the container that its process id counts in. `site`: its database (archisync.store.site). `child_pid`: its process that does syncs.
    `memory_bytes`: of that process, or of the worker when it has none. `seen_at`: its last sign of life. None: the worker doesn't
    say."""

    name: str
    state: str
    pid_namespace: str | None
    child_pid: int | None = None
    memory_bytes: int | None = None
    started_at: datetime | None = None
    seen_at: datetime | None = None
    site: str | None = None

    @property
    def host_and_pid(self) -> tuple[str, int] | None:
        """None for a worker that archisync did not start."""
        found = _NAME.fullmatch(self.name)
        return (found[1], int(found[2])) if found else None

    @property
    def place(self) -> str:
        """`host:pid`; the name of a worker that archisync did not start."""
        found = self.host_and_pid
        return f"{found[0]}:{found[1]}" if found else self.name

    @property
    def place_of_child(self) -> str | None:
        """The place of the process that does its syncs, as the claim of an agent names it."""
        found = self.host_and_pid
        return f"{found[0]}:{self.child_pid}" if found and self.child_pid else None


def live_workers(client: redis.Redis, queue_name: str, *, keys_begin: str = _PREFIX) -> list[LiveWorker]:
    """The live workers of the queue, by name; of those whose keys begin so.

    Entries that are no worker are left out: any application may have written them, and RQ's own `Worker.all` fails at the first one.
    """
    keys = sorted(_registered(client, queue_name, keys_begin))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        found = pipe.execute(raise_on_error=False)
    return [
        _worker(key.removeprefix(_PREFIX.encode()), hash_)
        for key, hash_ in zip(keys, found, strict=True)
        if _is_live(key, hash_)
    ]


def _registered(client: redis.Redis, queue_name: str, keys_begin: str) -> list[bytes]:
    members: Any = client.smembers(workers_key(queue_name))
    return [key for key in members if key.startswith(keys_begin.encode())]


def require_own_queue(client: redis.Redis, queue_name: str, site: str | None) -> None:
    """Raise ConfigurationError when a worker of another site takes jobs from this queue: two sites on one Redis would eat each other's."""
    workers = live_workers(client, queue_name, keys_begin=_OURS)
    others = [worker for worker in workers if site and worker.site and worker.site != site]
    if others:
        raise ConfigurationError(
            f"another site's worker takes jobs from the queue {queue_name} on this Redis: {others[0].place}",
            hint="give each site a queue of its own: ARCHISYNC_QUEUE, where its ticks and its workers run",
        )


def forget_dead_workers(client: redis.Redis, queue_name: str) -> None:
    """Take the workers that archisync started and whose key has expired off the queue's list of workers."""
    gone = [key for key in _registered(client, queue_name, _OURS) if not client.exists(key)]
    if gone:
        client.srem(workers_key(queue_name), *gone)


def overdue_note(config: Config) -> str | None:
    """A sentence, with what to type, when nobody can do what is queued: Redis is away, or no worker is alive. None when all is well, or
    when no Redis is configured here."""
    from archisync.queue.client import redis_client

    if not config.text("ARCHISYNC_REDIS_URL"):
        return None
    try:
        with redis_client(config.redis_url) as client:
            alive = live_workers(client, config.queue)
    except ArchisyncError as exc:
        return f"{exc.message} ({exc.hint})" if exc.hint else exc.message
    return None if alive else f"no worker is alive on the queue {config.queue}: archisync worker --processes 2"


def _is_live(key: bytes, found: Any) -> bool:
    """Raises NoPermissionError if the Redis user may not even read the hash of an archisync worker."""
    if isinstance(found, redis.exceptions.NoPermissionError) and b":archisync." in key:
        raise found
    return isinstance(found, dict) and bool(found)


def _worker(name: bytes, found: dict[bytes, bytes]) -> LiveWorker:
    namespace, site = found.get(b"pid_namespace"), found.get(b"site")
    return LiveWorker(
        name=_text(name),
        state=_text(found.get(b"state", b"starting")),
        pid_namespace=None if namespace is None else _text(namespace),
        child_pid=_number(found.get(b"child_pid")),
        memory_bytes=_number(found.get(b"memory_bytes")),
        started_at=_moment(found.get(b"birth")),
        seen_at=_moment(found.get(b"last_heartbeat")),
        site=None if site is None else _text(site),
    )


def _number(value: bytes | None) -> int | None:
    return int(value) if value and re.fullmatch(rb"[0-9]{1,18}", value) and int(value) else None


def _moment(value: bytes | None) -> datetime | None:
    """A time as RQ writes it, in UTC."""
    try:
        found = datetime.fromisoformat(_text(value or b""))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
