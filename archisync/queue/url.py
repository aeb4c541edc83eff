"""ARCHISYNC_REDIS_URL as a client: of one server, with or without TLS, or of the primary that Redis Sentinels name.

    redis://[user:password@]host:6379/0        rediss:// the same over TLS        unix:///path/to/socket?db=0
    redis+sentinel://[user:password@]host:26379,host:26379/primary/0              rediss+sentinel:// the same over TLS

User and password are those of Redis; those of the Sentinels are `?sentinel_username=…&sentinel_password=…`. TLS has redis-py's options:
`ssl_ca_certs` (a PEM file of authorities trusted in addition to the system's), `ssl_certfile` and `ssl_keyfile` (the client's certificate).
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
"""For each Sentinel to connect, and to answer: three dead Sentinels must not use up a tick's minute."""
HINT = "redis://host:6379/0   or: redis+sentinel://host:26379,host:26379/primary/0"
_SENTINEL_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?P<credentials>[^/@]*@)?(?P<hosts>[^/?@]+)/(?P<primary>[^/?]+)"
    r"(?P<database>/[0-9]*)?(?P<query>\?.*)?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:]+\]|[^\[\]:,]+)(:(?P<port>[0-9]{1,5}))?")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class PrimaryConnection(SentinelManagedConnection):
    """A connection to the primary, without two faults of redis-py's own class."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """redis-py's connects again to the server of before, without asking the Sentinels: a waiting worker would miss a failover."""
        if not self._sock:
            self.connect()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool | None = True, **how: Any
    ) -> Any:
        """redis-py's keeps a connection after a signal has interrupted the reading of an answer: the next command of a worker that is
        stopping would take the rest of that answer for its own."""
        return super().read_response(disable_decoding, disconnect_on_error=disconnect_on_error, **how)


class PrimaryTlsConnection(PrimaryConnection, SentinelManagedSSLConnection):
    pass


class Primary(redis.Redis):
    """A client of the server that is the primary when a connection is made. Closing it also closes the connections to the Sentinels."""

    sentinels: Sentinel

    def close(self) -> None:
        super().close()
        self.sentinels.close()


def client_from_url(url: str, **options: Any) -> redis.Redis:
    """A client with redis-py's `options`; those in the URL come first. Nothing is sent yet. Raises ConfigurationError."""
    try:
        made = _by_sentinel(url, options) if "+sentinel://" in url else redis.Redis.from_url(url, **options)
        pool = made.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect; refuses unknown options
    except (ValueError, TypeError, redis.RedisError):
        raise ConfigurationError("ARCHISYNC_REDIS_URL can't be read", hint=HINT) from None
    _check_files(pool.connection_kwargs)
    _check_form(pool.connection_kwargs)
    return made


def _check_form(options: Mapping[str, Any]) -> None:
    """Jobs are bytes, and names are UTF-8: RQ could read nothing that was sent otherwise."""
    encoder = options.get("encoding", "utf-8").lower().replace("_", "-")
    wrong = (
        "decode_responses"
        if options.get("decode_responses")
        else "encoding"
        if encoder not in ("utf-8", "utf8")
        else None
    )
    if wrong is not None:
        raise ConfigurationError(
            f"ARCHISYNC_REDIS_URL: with {wrong} no job can be read", hint=f"take {wrong} out of it"
        )


def _by_sentinel(url: str, options: Mapping[str, Any]) -> Primary:
    parts = _SENTINEL_URL.fullmatch(url)
    if parts is None:
        raise ValueError("expected hosts, the primary's name, a database")
    # redis-py reads everything except the hosts and the primary's name.
    given = parse_url(  # type: ignore[no-untyped-call]
        f"redis://{parts['credentials'] or ''}host{parts['database'] or ''}{parts['query'] or ''}"
    )
    del given["host"]
    given.pop("connection_class", None)
    to_sentinels = {
        name: given.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in given
    }
    to_sentinels |= {name: value for name, value in given.items() if name.startswith("ssl_")} | {
        "ssl": bool(parts["tls"])
    }
    to_sentinels |= {"socket_connect_timeout": SENTINEL_TIMEOUT_S, "socket_timeout": SENTINEL_TIMEOUT_S}
    to_sentinels |= {"retry": Retry(NoBackoff(), 0)}  # another Sentinel is asked instead
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [_host(text) for text in parts["hosts"].split(",")],
        sentinel_kwargs=to_sentinels,
        **{**options, **given},
    )
    connection = PrimaryTlsConnection if parts["tls"] else PrimaryConnection
    primary: Primary = sentinels.master_for(  # type: ignore[no-untyped-call]
        unquote(parts["primary"]), redis_class=Primary, connection_class=connection
    )
    primary.sentinels = sentinels
    return primary


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        raise ValueError("not a host and a port")
    return found["name"].strip("[]"), int(found["port"] or SENTINEL_PORT)


def _check_files(options: Mapping[str, Any]) -> None:
    """Without this check a missing file would look like a server that is away."""
    for name in _FILES:
        path = options.get(name)
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(
                f"ARCHISYNC_REDIS_URL: the {name} {path} can't be read", hint=f"ls -l {path}   (as uid {os.geteuid()})"
            )
