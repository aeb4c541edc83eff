"""The wake-up call: pushing runs to RQ and reading its list. Importing this module imports redis and rq, so an idle tick
does not.

What is built on, as measured on RQ 3.0: one queue (a worker of one queue moves a job to `:intermediate` instead of popping
it), a fresh job id for every push, JSON payloads of run id and fence and nothing more, results kept for 0 s and failures for
an hour. Not built on: `unique=True`, `ttl`, `Retry`, RQ's scheduler and `WorkerPool`. Only the queue's list proves that a
delivery is still to come; job hashes and registries prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from secrets import token_hex

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.serializers import JSONSerializer

from archisync import redisurl
from archisync.config import redact
from archisync.errors import ArchisyncError, ConfigurationError, UnreachableError
from archisync.log import EventLog
from archisync.store.runs import Delivery

JOB_FUNCTION = "archisync.jobs.sync"
"""The only function that a worker of ours runs."""
FAILURE_TTL_S = 3600
CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 10
"""A server that accepts and never answers is given up after this long, and not asked again by the same tick."""
_PAGE = 10_000


def connect(url: str, *, retries: int = 0) -> redis.Redis:
    """A client that fails fast: a tick must end by itself. Nothing is sent yet. Raises ConfigurationError."""
    return redisurl.client(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=COMMAND_TIMEOUT_S,
        retry=Retry(ExponentialWithJitterBackoff(base=1, cap=10), retries),
        health_check_interval=30,
        client_name="archisync",
    )


def translate(exc: redis.RedisError) -> ArchisyncError:
    """The archisync error that says what to do about a redis error; never shows a password.

    Refused credentials are a matter of configuration: no later tick will do better. Whatever may pass is out of reach, an expired
    certificate too: a worker that starts meanwhile must be started again.
    """
    said = redact(" ".join(str(exc).split())) or type(exc).__name__
    hint = "queued runs wait in PostgreSQL; the next tick delivers them"
    if isinstance(exc, redis.exceptions.NoPermissionError):
        return ConfigurationError(f"the Redis user may not do that: {said}", hint="archisync redis acl")
    if isinstance(exc, MasterNotFoundError):
        return _no_primary(said)
    if isinstance(exc, redis.AuthenticationError):
        return ConfigurationError(f"Redis refused the credentials: {said}", hint="check ARCHISYNC_REDIS_URL")
    if "DB index" in said:
        return ConfigurationError(f"Redis has no such database: {said}", hint="check the number in ARCHISYNC_REDIS_URL")
    if isinstance(exc, redis.ResponseError):  # full, a read-only replica, a failing disk
        return UnreachableError(f"Redis takes no jobs: {said}", hint=hint)
    if "[SSL" in said:
        hint = "check rediss:// and ssl_ca_certs, ssl_certfile, ssl_keyfile in ARCHISYNC_REDIS_URL"
    return UnreachableError(f"Redis is out of reach: {said}", hint=hint)


def _no_primary(said: str) -> ArchisyncError:
    """redis-py tells in one text what each Sentinel answered."""
    if "AuthenticationError" in said:
        return ConfigurationError(
            "Sentinel refused the credentials",
            hint="check sentinel_username and sentinel_password in ARCHISYNC_REDIS_URL",
        )
    return UnreachableError(
        "Redis is out of reach: no Sentinel that answers knows the primary, or it is down",
        hint="redis-cli -h SENTINEL -p 26379 sentinel masters   (does ARCHISYNC_REDIS_URL have its name?)",
    )


@contextmanager
def connected(url: str, *, retries: int = 0) -> Iterator[redis.Redis]:
    """`connect`, closed at the end; redis errors inside come out as archisync errors."""
    client = connect(url, retries=retries)
    try:
        yield client
    except redis.RedisError as exc:
        raise translate(exc) from exc
    finally:
        client.close()


def clear_the_way(client: redis.Redis, name: str, log: EventLog) -> None:
    """Rename whatever stands where RQ keeps its own and is of another type: it would fail every push and every worker.

    Nothing is deleted. Called by whoever pushes and by a worker that starts.
    """
    expected = expected_types(name)
    with client.pipeline(transaction=False) as pipe:
        for key in expected:
            pipe.type(key)
        found = pipe.execute()
    for (key, wanted), kind in zip(expected.items(), found, strict=True):
        if kind not in (b"none", wanted):
            aside = f"{key}:foreign:{token_hex(4)}"
            client.transaction(partial(_move, key=key, wanted=wanted, aside=aside), key)
            log.event("key-moved-aside", key=key, type=str(kind, "ascii"), to=aside)


def _move(pipe: Pipeline, *, key: str, wanted: bytes, aside: str) -> None:
    """The key is watched: nobody's push can slip in between the look and the renaming."""
    kind = pipe.type(key)
    pipe.multi()
    if kind not in (b"none", wanted):
        pipe.rename(key, aside)


def expected_types(name: str) -> dict[str, bytes]:
    """The keys that RQ shares between jobs, those of rq 3."""
    lists = [f"{RQ_KEY_PREFIX}:queue:{name}{part}" for part in ("", ":intermediate")]
    sets = [f"{RQ_KEY_PREFIX}:{part}" for part in ("queues", "workers", f"workers:{name}", "groups")]
    registries = ("wip", "finished", "failed", "deferred", "ready", "scheduled", "canceled")
    sorted_sets = [f"{RQ_KEY_PREFIX}:{registry}:{name}" for registry in registries]
    return dict.fromkeys(lists, b"list") | dict.fromkeys(sets, b"set") | dict.fromkeys(sorted_sets, b"zset")


def queue(client: redis.Redis, name: str) -> Queue:
    return Queue(name, connection=client, serializer=JSONSerializer)


def push(client: redis.Redis, name: str, deliveries: Sequence[Delivery], *, timeout_s: int) -> list[tuple[int, str]]:
    """Push a batch in one round trip, forced runs to the front; (run id, job id) of each.

    `timeout_s` bounds the whole job: a worker may go on with further runs of the same agent.
    """
    forced = [d for d in deliveries if d.forced]
    jobs = [(d, f"run-{d.run_id}-{d.fence}-{token_hex(6)}") for d in deliveries if not d.forced]
    jobs += [(d, f"run-{d.run_id}-{d.fence}-{token_hex(6)}") for d in reversed(forced)]  # each goes before the last
    queue(client, name).enqueue_many(
        [
            Queue.prepare_data(
                JOB_FUNCTION,
                args=[d.run_id, d.fence],
                job_id=job_id,
                timeout=timeout_s,
                result_ttl=0,
                failure_ttl=FAILURE_TTL_S,
                description=f"archisync run {d.run_id}",
                at_front=d.forced,
            )
            for d, job_id in jobs
        ]
    )
    return [(d.run_id, job_id) for d, job_id in jobs]


def waiting_job_ids(client: redis.Redis, name: str) -> set[str]:
    """Ids in the queue's list: the deliveries that a worker will still see. Read in pages; what isn't UTF-8 is not ours."""
    ids: set[str] = set()
    key, offset = queue(client, name).key, 0
    while page := client.lrange(key, offset, offset + _PAGE - 1):
        ids.update(job_id if isinstance(job_id, str) else job_id.decode(errors="replace") for job_id in page)
        offset += len(page)
    return ids


def length(client: redis.Redis, name: str) -> int:
    return queue(client, name).count


def worker_names(client: redis.Redis, name: str) -> list[str]:
    """Names of the workers of the queue that are alive: the key of one that is not has expired."""
    from rq import Worker

    return sorted(worker.name for worker in Worker.all(queue=queue(client, name), serializer=JSONSerializer))


def worker_states(client: redis.Redis, name: str) -> list[tuple[str, str]]:
    """Of each worker that is alive, where it is (`host:pid`) and what it does: busy, idle, started or suspended."""
    from rq import Worker

    found = Worker.all(queue=queue(client, name), serializer=JSONSerializer)
    return sorted((_place(worker.name), str(worker.get_state())) for worker in found)


def _place(worker_name: str) -> str:
    """The host and process that `archisync.worker` puts into a name; a plain RQ worker's name as it is."""
    parts = worker_name.removeprefix("archisync.").rsplit(".", 2)
    return f"{parts[0]}:{parts[1]}" if worker_name.startswith("archisync.") and len(parts) == 3 else worker_name
