"""The server process: where it listens, what it refuses to do, and how it treats slow clients."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from archisync.base.errors import ConfigurationError, UsageError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.web.app import application

HEADERS_S = 10.0
"""For the first request of a connection to arrive, to its last header."""
MOST_CONNECTIONS = 1000
MOST_HEADER_BYTES = 32 * 1024
GRACE_S = 5


class PromptProtocol(H11Protocol):
    """uvicorn's protocol, which closes a connection on which the headers of a request don't arrive. Its own timer is only for connections
    that say nothing between two requests."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await_headers()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADERS_S, self.transport.close)


def serve(config: Config, host: str, port: int, *, log: EventLog | None = None) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Raises ConfigurationError for settings that would let strangers in, UsageError for a wrong address.
    """
    check_safe(config, host)
    events = log or EventLog()
    app = application(config, log=events)
    _collect_often()
    listening = listen(host, port)
    events.event("web-started", address=f"http://{host}:{listening.getsockname()[1]}{config.web_prefix}/")
    settings: dict[str, Any] = {
        "log_config": None, "access_log": False, "server_header": False, "proxy_headers": False, "lifespan": "on", "http": PromptProtocol,
        "ws": "none", "limit_concurrency": MOST_CONNECTIONS, "timeout_keep_alive": 75, "timeout_graceful_shutdown": GRACE_S,
        "h11_max_incomplete_event_size": MOST_HEADER_BYTES,
    }  # fmt: skip
    try:
        with suppress(KeyboardInterrupt):  # uvicorn has answered what was open, and raises it again
            uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
    finally:
        listening.close()


def _collect_often() -> None:
    """Look for garbage often, since there is little to look through: what is loaded now stays for as long as the process.

    Otherwise 70,000 unreachable objects may gather, of connections to Redis for instance: ten megabytes and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 1)


def check_safe(config: Config, host: str) -> None:
    """Raise ConfigurationError unless strangers are kept out."""
    if config.web_user_header and not config.web_proxies:
        raise ConfigurationError(
            "ARCHISYNC_WEB_USER_HEADER is set, and no proxy that may send it",
            hint="export ARCHISYNC_WEB_PROXIES=127.0.0.1   (the proxy's address)",
        )
    closed = config.web_token or config.web_operator_token or config.web_read_token or config.web_user_header
    if not closed and not _is_loopback(host):
        raise ConfigurationError(
            f"{host} is more than this machine, and nobody would have to sign in",
            hint="put the output of `openssl rand -hex 32` into ARCHISYNC_WEB_TOKEN, or listen on 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY only then, and without it an answer waits 40 ms for the client's acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(MOST_CONNECTIONS)  # now, so that whoever reads "web-started" is not refused
    except OSError as exc:
        listening.close()
        raise UsageError(
            f"{host}:{port} can't be listened on: {exc.strerror}", hint="choose another: --listen 127.0.0.1:8081"
        ) from None
    return listening
