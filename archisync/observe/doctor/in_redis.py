"""Checks that ask Redis: the server, whether it keeps the queue, and the workers that are registered there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archisync.base.errors import ArchisyncError, ExitCode
from archisync.observe.doctor.findings import Finding, failed, obstacle, ok, warning
from archisync.rules.config import Config

if TYPE_CHECKING:
    import redis

    from archisync.queue.workers import LiveWorker

OLDEST_REDIS = (6, 2)
"""RQ takes jobs with LMOVE."""


def check_server(client: redis.Redis, _: Config) -> Iterator[Finding]:
    info: dict[str, Any] = client.info("server")
    yield judge_redis_version(str(info.get("valkey_version") or info["redis_version"]))


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


def _has_snapshots(client: redis.Redis) -> bool:
    """Whether Redis saves by itself; True for a server that hides CONFIG, as managed ones do."""
    import redis

    try:
        return bool(dict(client.config_get("save")).get("save", "?"))
    except redis.ResponseError:
        return True


def judge_persistence(*, append_only: bool, snapshots: bool) -> Finding:
    if append_only or snapshots:
        return ok("persistence", f"Redis keeps its data ({'append-only file' if append_only else 'snapshots'})")
    hint = "nothing is lost (the next ticks deliver again); to keep the queue: CONFIG SET appendonly yes"
    return warning("persistence", "Redis forgets the queue when it restarts", hint)


def check_workers(client: redis.Redis, config: Config) -> Iterator[Finding]:
    from archisync.queue.workers import live_workers

    workers = live_workers(client, config.queue)
    if workers:
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
