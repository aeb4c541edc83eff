"""The port on which Prometheus scrapes the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from archisync.base.errors import UsageError
from archisync.observe.metrics import registry
from archisync.rules.config import Config


def parse_address(text: str) -> tuple[str, int]:
    """The host and port of `[HOST:]PORT`; without a host, only this machine. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise UsageError(f"{ascii(text)[:40]} is not [HOST:]PORT", hint="for example 9464, or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


@contextmanager
def answered(config: Config, host: str, port: int) -> Iterator[int]:
    """The port on which a thread answers scrapes while the block lasts: a free one for 0. Raises UsageError when it can't be used."""
    collected = registry(config)
    try:
        server, thread = start_http_server(port, addr=host, registry=collected)
    except OSError as exc:
        raise UsageError(f"{host}:{port} can't be listened on: {exc.strerror}", hint="choose another port") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
