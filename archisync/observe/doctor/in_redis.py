"""Checks that ask Redis: the server, whether it keeps the queue, and the workers that are registered there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archisync.base.errors import ArchisyncError, ExitCode
from archisync.observe.doctor.findings import Finding, failed, first_few, obstacle, ok, warning
from archisync.rules.config import Config

if TYPE_CHECKING:
    import redis

    from archisync.queue.workers import LiveWorker

OLDEST_REDIS = (6, 2)
"""RQ takes jobs with LMOVE."""


def check_server(client: redis.Redis, _: Config) -> Iterator[Finding]:
    info: dict[str, Any] = client.info("server")
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        hint = "one Redis or Valkey, or one primary that Sentinels name: RQ does not work on a cluster"
        yield failed("redis", "this Redis is a cluster, which takes no jobs", hint, ExitCode.CONFIGURATION)
    elif lacking := _lacking(client):
        hint = "Redis 6.2 or newer, or Valkey, without rename-command"
        yield failed(
            "redis", f"Redis lacks commands that jobs need: {first_few(lacking)}", hint, ExitCode.CONFIGURATION
        )
    else:
        yield judge_redis_version(str(info.get("valkey_version") or info["redis_version"]))


def _lacking(client: redis.Redis) -> list[str]:
    """The commands of a tick and of a worker that the server does not have; empty where the user may not ask."""
    from archisync.queue.acl import COMMANDS

    if _may(client, "command") is False:
        return []
    known: Any = client.command()
    return [name for name in COMMANDS if name not in known]


def judge_redis_version(version: str) -> Finding:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < OLDEST_REDIS:
        return failed("redis", f"Redis {version} is too old", "Redis 6.2 or newer is needed", ExitCode.CONFIGURATION)
    return ok("redis", f"Redis {version} answers")


def check_eviction(client: redis.Redis, _: Config) -> Iterator[Finding]:
    info: dict[str, Any] = client.info("memory")
    yield judge_eviction(str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0)))


def judge_eviction(policy: str, maxmemory_bytes: int) -> Finding:
    """A policy that evicts drops accepted jobs silently. `volatile-…` takes only keys with an expiry: the workers' own."""
    if policy == "noeviction":
        return ok("eviction", "Redis evicts nothing (maxmemory-policy noeviction)")
    hint = "CONFIG SET maxmemory-policy noeviction   (and in redis.conf, or in the provider's console)"
    if not policy.startswith("allkeys-"):
        return warning("eviction", f"maxmemory-policy is {policy}", hint)
    message = f"Redis may drop queued jobs: maxmemory-policy is {policy}"
    if maxmemory_bytes:
        return failed("eviction", message, hint, ExitCode.CONFIGURATION)
    return warning("eviction", message, hint)


def check_persistence(client: redis.Redis, _: Config) -> Iterator[Finding]:
    info: dict[str, Any] = client.info("persistence")
    yield judge_persistence(append_only=bool(info.get("aof_enabled")), snapshots=_has_snapshots(client))


def _has_snapshots(client: redis.Redis) -> bool | None:
    """Whether Redis saves by itself; None for a server or a user that may not ask, as the users of `redis acl`."""
    import redis

    if _may(client, "config", "get", "save") is False:
        return None
    try:
        return bool(dict(client.config_get("save")).get("save", "?"))
    except redis.ResponseError:
        return None


def judge_persistence(*, append_only: bool, snapshots: bool | None) -> Finding:
    if append_only or snapshots:
        return ok("persistence", f"Redis keeps its data ({'append-only file' if append_only else 'snapshots'})")
    if snapshots is None:
        return ok("persistence", "Redis has no append-only file; whether it makes snapshots, this user may not ask")
    hint = "nothing is lost (the next ticks deliver again); to keep the queue: CONFIG SET appendonly yes"
    return warning("persistence", "Redis forgets the queue when it restarts", hint)


def check_access(client: redis.Redis, _: Config) -> Iterator[Finding]:
    """Whether the user has only the rights of `redis acl`. Not asked of a Unix socket: there, the account that opens it counts."""
    if "path" in client.connection_pool.connection_kwargs:
        return
    may = {what: _may(client, *words) for what, words in _TOO_MUCH.items()}
    if all(answer is None for answer in may.values()):
        return
    wide = [what for what, answer in may.items() if answer]
    if wide:
        hint = "archisync redis acl   (commands that make users with few rights; ARCHISYNC_REDIS_URL then names one)"
        yield warning("redis-access", f"the Redis user may do more than archisync needs: {', '.join(wide)}", hint)
    else:
        yield ok("redis-access", "the Redis user has few rights")


_TOO_MUCH = {
    "read and change other applications' keys": ("hset", "another:key", "field", "value"),
    "empty the server (FLUSHALL)": ("flushall",),
    "read passwords and change settings (CONFIG)": ("config", "get", "requirepass"),
}


def _may(client: redis.Redis, *command: str) -> bool | None:
    """Whether this user may do that, without trying it, which Redis would note as an attack. None if Redis can't say (before 7.0)."""
    import redis

    try:
        return bool(client.eval("return redis.acl_check_cmd(unpack(ARGV)) and 1 or 0", 0, *command))
    except redis.exceptions.NoPermissionError:  # not even a script
        return False
    except redis.ResponseError:
        return None


def check_workers(client: redis.Redis, config: Config) -> Iterator[Finding]:
    from archisync.queue.workers import live_workers

    workers = live_workers(client, config.queue)
    sites = {worker.site: worker.place for worker in workers if worker.site}
    if len(sites) > 1:
        hint = "give each site a queue of its own: ARCHISYNC_QUEUE, where its ticks and its workers run"
        places = ", ".join(sorted(sites.values()))
        message = f"workers of {len(sites)} sites take jobs from the queue {config.queue}: {places}"
        yield failed("workers", message, hint, ExitCode.CONFIGURATION)
    elif workers:
        yield ok("workers", f"{len(workers)} alive on the queue {config.queue}")
    else:
        yield failed("workers", f"no worker is alive on the queue {config.queue}", "archisync worker --processes 2")


def check_worker_here(client: redis.Redis, config: Config) -> Iterator[Finding]:
    """For a liveness probe: Redis lists a worker of this host (of this container), and its process exists."""
    from archisync.queue.workers import live_workers

    host = socket.gethostname()
    if any(_is_here(worker, host) for worker in live_workers(client, config.queue)):
        yield ok("worker-here", f"a worker of {host} is alive")
    else:
        yield failed("worker-here", f"no worker of {host} is alive", "archisync worker")


def _is_here(worker: LiveWorker, host: str) -> bool:
    """Redis lists a killed worker for two more minutes, so its process is looked for too. A process id of another pid namespace, as in
    another container of the pod, says nothing here; then Redis is believed."""
    from archisync.base.processes import is_running, pid_namespace

    place = worker.host_and_pid
    if place is None or place[0] != host:
        return False
    return worker.pid_namespace is None or worker.pid_namespace != pid_namespace() or is_running(place[1])


CHECKS: Mapping[str, Callable[[redis.Redis, Config], Iterator[Finding]]] = {
    "redis": check_server,
    "redis-access": check_access,
    "eviction": check_eviction,
    "persistence": check_persistence,
    "workers": check_workers,
    "worker-here": check_worker_here,
}
ONLY_ON_REQUEST = frozenset({"worker-here"})


def examine(config: Config, wanted: frozenset[str]) -> Iterator[Finding]:
    from archisync.queue.client import redis_client

    try:
        with redis_client(config.redis_url) as client:
            for name, check in CHECKS.items():
                if name in wanted:
                    yield from check(client, config)
    except ArchisyncError as exc:
        yield obstacle("redis", exc)
