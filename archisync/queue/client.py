"""The wake-up call: pushing runs to RQ and reading its list. Importing this module imports redis and rq, so an idle tick
does not.

What is built on, as measured on RQ 3.0: one queue (a worker of one queue moves a job to `:intermediate` instead of popping
it), a fresh job id for every delivery, JSON payloads of run id and fence and nothing more, results kept for 0 s and failures for
an hour. Not built on: `unique=True`, `ttl`, `Retry`, RQ's scheduler and `WorkerPool`. Only the queue's list proves that a
delivery is still to come; job hashes and registries prove nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError
from rq import Queue, Worker
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.queue import EnqueueData
from rq.serializers import JSONSerializer

from archisync.base.errors import ArchisyncError, ConfigurationError, UnreachableError
from archisync.base.log import EventLog
from archisync.base.text import redact
from archisync.queue import url as redisurl
from archisync.store.deliveries import Delivery

JOB_FUNCTION = "archisync.work.job.sync"
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
    if isinstance(exc, redis.exceptions.NoPermissionError) or "ACL failure in script" in said:
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


def job_id(run_id: int, fence: int, delivery_id: int) -> str:
    """The same delivery of a run always has the same id, a later one another."""
    return f"run-{run_id}-{fence}-{delivery_id}"


# Purpose: the jobs of one delivery, all or none. RQ has written one of them (ARGV's fields, see `_template`); the others differ in
# payload and description, and are copies of the first, which is faster than to write all fields of each. A job that is there
# already was pushed by a tick that died before it could say so: it is not queued twice.
# The list comes first: where a command is refused, no hash is left that would be taken for such a job. The names of the hashes are
# made here, which a Redis Cluster would refuse; RQ does not work on one either.
_STAMP = """
local list, queues, push, prefix, described, width = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local job, ids, payloads = {}, {}, {}
for i = 1, width do job[i] = ARGV[4 + i] end
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
redis.call('HSET', first, 'data', '', 'description', '', unpack(job))
for i, id in ipairs(ids) do
  local key = prefix .. id
  if i > 1 then redis.call('COPY', first, key) end
  redis.call('HSET', key, 'data', payloads[i], 'description', described .. string.match(id, '%d+'))
end
return #ids
"""
_STAMPED = frozenset({"data", "description"})
_DESCRIBED = "archisync run "
_PAYLOAD = b'["archisync.work.job.sync", null, [%d, %d], {}]'


def push(q: Queue, delivery: Delivery, *, timeout_s: int) -> None:
    """Push a delivery in one round trip, forced runs to the front.

    RQ's own code writes one job into a pipeline that is never sent, and a script in Redis writes all jobs like it: several times
    as fast as RQ is with each. What RQ does there must be what is known of it here; if a release of RQ does anything else, it
    pushes every job by itself. `timeout_s` bounds the whole job: a worker may go on with further runs of the same agent.
    """
    if not delivery.runs:
        return
    # each forced run goes before the last
    runs = list(reversed(delivery.runs)) if delivery.forced else delivery.runs
    first = _prepared(*runs[0], delivery=delivery, timeout_s=timeout_s)
    fields = _template(q, first, _PAYLOAD % runs[0], _push_command(delivery))
    if fields is None:
        q.enqueue_many([_prepared(*run, delivery=delivery, timeout_s=timeout_s) for run in runs])
        return
    jobs = [part for run in runs for part in (job_id(*run, delivery.delivery_id), _payload(*run))]
    names = (_push_command(delivery), Job.key_for(""), _DESCRIBED)
    q.connection.eval(_STAMP, 2, q.key, q.redis_queues_keys, *names, len(fields), *fields, *jobs)


def _template(q: Queue, job: EnqueueData, payload: bytes, push: str) -> list[Any] | None:
    """Names and values of the hash that RQ writes for a job, without those that differ from job to job; None when RQ does more for it
    than is known here, or writes its payload in another way."""
    with q.connection.pipeline(transaction=False) as unsent:
        q.enqueue_many([job], pipeline=unsent)
        commands = [command for command, _ in unsent.command_stack]
    hash_key = Job.key_for(str(job.job_id))
    fields: dict[str, Any] = {}
    rest = []
    for name, *arguments in commands:
        if name == "HSET" and arguments[0] == hash_key:
            fields.update(zip(arguments[1::2], arguments[2::2], strict=True))
        else:
            rest.append((name, *arguments))
    known = [("SADD", q.redis_queues_keys, q.key), (push, q.key, job.job_id)]
    if rest != known or fields.get("data") != zlib.compress(payload) or fields.get("description") != job.description:
        return None
    return [part for name, value in fields.items() if name not in _STAMPED for part in (name, value)]


def _prepared(run_id: int, fence: int, *, delivery: Delivery, timeout_s: int) -> EnqueueData:
    return Queue.prepare_data(
        JOB_FUNCTION,
        args=[run_id, fence],
        job_id=job_id(run_id, fence, delivery.delivery_id),
        timeout=timeout_s,
        result_ttl=0,
        failure_ttl=FAILURE_TTL_S,
        description=f"{_DESCRIBED}{run_id}",
        at_front=delivery.forced,
    )


def _push_command(delivery: Delivery) -> str:
    return "LPUSH" if delivery.forced else "RPUSH"


def _payload(run_id: int, fence: int) -> bytes:
    """As RQ writes it: function, instance, arguments, named arguments. Stored and not deflated: that takes longer than the push."""
    return zlib.compress(_PAYLOAD % (run_id, fence), 0)


def missing(client: redis.Redis, name: str, job_ids: Iterable[str]) -> set[str]:
    """Those of the ids that are not in the queue's list: no worker will see them any more. What isn't UTF-8 there is not ours.

    The list may be long, so it is read in pages, from its end: workers take from the front, and another tick's push at the end can
    only show an id twice."""
    left = set(job_ids)
    key, offset = queue(client, name).key, 0
    while left and (page := client.lrange(key, -offset - _PAGE, -offset - 1)):
        left.difference_update(id_ if isinstance(id_, str) else id_.decode(errors="replace") for id_ in page)
        offset += len(page)
    return left


def length(client: redis.Redis, name: str) -> int:
    return queue(client, name).count


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerEntry:
    """A worker of the queue that tells Redis that it lives. `state`: busy, idle, started or suspended; `pid_namespace`: the kernel's name
    of the container that its process id counts in, None when it doesn't tell."""

    name: str
    state: str
    pid_namespace: str | None


def workers(client: redis.Redis, name: str) -> list[WorkerEntry]:
    """The workers of the queue that are alive, by name: the key of one that is not has expired.

    Anyone may have written what stands there, and RQ's own reading ends at the first entry that is no worker: it is passed over.
    """
    prefix = Worker.redis_worker_namespace_prefix.encode()
    members: Any = client.smembers(f"{RQ_KEY_PREFIX}:workers:{name}")
    keys = sorted(key for key in members if key.startswith(prefix))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        found = pipe.execute(raise_on_error=False)
    return [
        _entry(key.removeprefix(prefix), hash_) for key, hash_ in zip(keys, found, strict=True) if _is_alive(key, hash_)
    ]


def _is_alive(key: bytes, found: Any) -> bool:
    """Raises NoPermissionError when even a worker of ours may not be looked at."""
    if isinstance(found, redis.exceptions.NoPermissionError) and b":archisync." in key:
        raise found
    return isinstance(found, dict) and bool(found)


def _entry(name: bytes, found: dict[bytes, bytes]) -> WorkerEntry:
    told = {
        field: found[field].decode(errors="backslashreplace")
        for field in (b"state", b"pid_namespace")
        if field in found
    }
    return WorkerEntry(
        name=name.decode(errors="backslashreplace"),
        state=told.get(b"state", "?"),
        pid_namespace=told.get(b"pid_namespace"),
    )


def worker_names(client: redis.Redis, name: str) -> list[str]:
    """Names of the workers of the queue that are alive."""
    return [worker.name for worker in workers(client, name)]


def worker_states(client: redis.Redis, name: str) -> list[tuple[str, str]]:
    """Of each worker that is alive, where it is (`host:pid`) and what it does."""
    return sorted((_place(worker.name), worker.state) for worker in workers(client, name))


def _place(worker_name: str) -> str:
    """As `host:pid`; a plain RQ worker's name as it is."""
    found = place_in(worker_name)
    return f"{found[0]}:{found[1]}" if found else worker_name


def place_in(worker_name: str) -> tuple[str, int] | None:
    """The host and process id that `archisync.work.worker` puts into a name; None for any other name."""
    found = re.fullmatch(r"archisync\.(.*)\.([0-9]{1,9})\.[^.]*", worker_name, re.ASCII)
    return (found[1], int(found[2])) if found else None
