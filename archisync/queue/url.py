"""ARCHISYNC_REDIS_URL as a client: one server, with or without TLS, or whoever a Redis Sentinel names as the primary.

    redis://[user:password@]host:6379/0        rediss:// the same over TLS        unix:///path/to/socket?db=0
    redis+sentinel://[user:password@]host:26379,host:26379/primary/0              rediss+sentinel:// the same over TLS

User and password are those of Redis; Sentinel's own are `?sentinel_username=…&sentinel_password=…`. TLS takes redis-py's names:
`ssl_ca_certs` (a PEM file, believed beside the system's authorities), `ssl_certfile` and `ssl_keyfile` (who we are).
Importing this module imports redis.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from archisync.base.errors import ConfigurationError

SENTINEL_PORT = 26379
SENTINEL_TIMEOUT_S = 2.0
"""Of each Sentinel, to connect and to answer: three that are dead must not cost a tick its minute."""
HINT = "redis://host:6379/0   or: redis+sentinel://host:26379,host:26379/primary/0"
_SENTINEL_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?P<credentials>[^/@]*@)?(?P<hosts>[^/?@]+)/(?P<primary>[^/?]+)"
    r"(?P<database>/[0-9]*)?(?P<query>\?.*)?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:]+\]|[^\[\]:,]+)(:(?P<port>[0-9]{1,5}))?")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class PrimaryConnection(SentinelManagedConnection):
    """redis-py's own goes on using a connection after a signal has interrupted it in the middle of an answer: the next command of
    a worker that was told to stop would wait for that answer and take it for its own."""

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool | None = True, **how: Any
    ) -> Any:
        return super().read_response(disable_decoding, disconnect_on_error=disconnect_on_error, **how)


class PrimaryTlsConnection(PrimaryConnection, SentinelManagedSSLConnection):
    pass


class Primary(redis.Redis):
    """The client of whatever server is the primary when a connection is made; closing it closes those to the Sentinels too."""

    asked: Sentinel

    def close(self) -> None:
        super().close()
        self.asked.close()


def client_from_url(url: str, **options: Any) -> redis.Redis:
    """A client with redis-py's `options`, which the URL's own outrank. Nothing is sent yet. Raises ConfigurationError."""
    try:
        made = _by_sentinel(url, options) if "+sentinel://" in url else redis.Redis.from_url(url, **options)
        pool = made.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # not connected; refuses an option that it does not know
    except (ValueError, TypeError, redis.RedisError):
        raise ConfigurationError("ARCHISYNC_REDIS_URL can't be read", hint=HINT) from None
    _look_for_files(pool.connection_kwargs)
    return made


def _by_sentinel(url: str, options: Mapping[str, Any]) -> Primary:
    parts = _SENTINEL_URL.fullmatch(url)
    if parts is None:
        raise ValueError("not hosts, the primary's name, a database")
    # redis-py reads all but the hosts and the name.
    given = parse_url(  # type: ignore[no-untyped-call]
        f"redis://{parts['credentials'] or ''}host{parts['database'] or ''}{parts['query'] or ''}"
    )
    del given["host"]
    given.pop("connection_class", None)
    asking = {name: given.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in given}
    asking |= {name: value for name, value in given.items() if name.startswith("ssl_")} | {"ssl": bool(parts["tls"])}
    asking |= {"socket_connect_timeout": SENTINEL_TIMEOUT_S, "socket_timeout": SENTINEL_TIMEOUT_S}
    asking |= {"retry": Retry(NoBackoff(), 0)}  # another Sentinel is asked instead
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [_host(text) for text in parts["hosts"].split(",")],
        sentinel_kwargs=asking,
        **{**options, **given},
    )
    connection = PrimaryTlsConnection if parts["tls"] else PrimaryConnection
    primary: Primary = sentinel.master_for(  # type: ignore[no-untyped-call]
        unquote(parts["primary"]), redis_class=Primary, connection_class=connection
    )
    primary.asked = sentinel
    return primary


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        raise ValueError("not a host and a port")
    return found["name"].strip("[]"), int(found["port"] or SENTINEL_PORT)


def _look_for_files(options: Mapping[str, Any]) -> None:
    """A file that is missing would look like a server that is away, at each tick anew."""
    for name in _FILES:
        path = options.get(name)
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(
                f"ARCHISYNC_REDIS_URL: the {name} {path} can't be read", hint=f"ls -l {path}   (as {_account()})"
            )


def _account() -> str:
    return f"uid {os.geteuid()}"
