"""The port on which Prometheus scrapes the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from archisync.base.errors import UsageError
from archisync.observe.metrics import registry
from archisync.rules.config import Config


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
