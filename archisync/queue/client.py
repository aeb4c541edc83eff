"""A connection to Redis, and what its errors mean to the person at the terminal. An idle tick does not import this module: it
imports redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from archisync.base.errors import ArchisyncError, ConfigurationError, UnreachableError
from archisync.base.text import redact
from archisync.queue.url import client_from_url

T = TypeVar("T")

_OF_A_CLUSTER = (
    redis.exceptions.MovedError, redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError, redis.exceptions.ClusterDownError,
)  # fmt: skip
_NO_COMMAND = re.compile(
    r"unknown (redis )?command|unsupported command|command not supported|EXEC without MULTI", re.IGNORECASE
)
"""An older server, one with renamed commands, or a proxy that knows only some."""

CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 10
"""A server that accepts the connection and never answers is given up after this long; the same tick doesn't ask it again."""
FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 2.0
"""A worker finds a Redis that is back, or a new primary, within this time."""
_WITHOUT_SETINFO: dict[str, Any] = (
    {"driver_info": None} if find_spec("redis.driver_info") else {"lib_name": None, "lib_version": None}
)
"""redis-py would send CLIENT SETINFO with each connection. Redis has that command since 7.2, so no rule for users can name it before."""


class _Retry(Retry):
    """Retries a broken connection. redis-py takes refused credentials for one: they are refused the next time too."""

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> T:
        def fail_for_good_if_refused(error: Exception, *count: int) -> None:
            fail(error, *count)
            if isinstance(error, redis.AuthenticationError):
                raise error

        return super().call_with_retry(do, fail_for_good_if_refused, *args, **kwargs)


@contextmanager
def redis_client(url: str, *, retries: int = 0) -> Iterator[redis.Redis]:
    """A client that fails fast, closed at the end. Redis errors inside the block come out as archisync errors.

    `retries`: how often a command is sent again when the connection breaks; a tick leaves that to the next tick.
    """
    client = client_from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=COMMAND_TIMEOUT_S,
        retry=_Retry(ExponentialWithJitterBackoff(base=FIRST_RETRY_S, cap=LONGEST_RETRY_S), retries),
        health_check_interval=30,
        client_name="archisync",
        **_WITHOUT_SETINFO,
    )
    try:
        yield client
    except redis.RedisError as exc:
        raise translate_redis_error(exc) from exc
    finally:
        client.close()


def translate_redis_error(exc: redis.RedisError) -> ArchisyncError:
    """The archisync error for a redis error, with what to do about it and without a password.

    Refused credentials are a configuration error: no later tick will do better. Whatever may pass by itself is an unreachable
    server. So is an expired certificate, although a worker that starts meanwhile has to be started again.
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
    is_replica = isinstance(exc, redis.exceptions.MasterDownError)  # for redis-py a kind of ClusterDownError
    if (isinstance(exc, _OF_A_CLUSTER) and not is_replica) or "cluster" in said.lower():
        return ConfigurationError(
            f"ARCHISYNC_REDIS_URL names a Redis cluster, which takes no jobs: {said}",
            hint="one Redis or Valkey, or one primary that Sentinels name: RQ does not work on a cluster",
        )
    if _NO_COMMAND.search(said):
        return ConfigurationError(
            f"Redis lacks a command that jobs need: {said}",
            hint="Redis 6.2 or newer, or Valkey, without rename-command; rights are limited by users: archisync redis acl",
        )
    if isinstance(exc, redis.ResponseError):  # full, a read-only replica, a failing disk
        return UnreachableError(f"Redis takes no jobs: {said}", hint=hint)
    if "[SSL" in said:
        hint = "check rediss:// and ssl_ca_certs, ssl_certfile, ssl_keyfile in ARCHISYNC_REDIS_URL"
    return UnreachableError(f"Redis is out of reach: {said}", hint=hint)


def _no_primary(said: str) -> ArchisyncError:
    """redis-py puts the answers of all Sentinels into one text."""
    if "AuthenticationError" in said:
        return ConfigurationError(
            "Sentinel refused the credentials",
            hint="check sentinel_username and sentinel_password in ARCHISYNC_REDIS_URL",
        )
    return UnreachableError(
        "Redis is out of reach: no Sentinel that answers knows the primary, or it is down",
        hint="redis-cli -h SENTINEL -p 26379 sentinel masters   (does ARCHISYNC_REDIS_URL have its name?)",
    )
