"""Where a server listens, as a person types it."""

from __future__ import annotations

from archisync.base.errors import UsageError


def parse_address(text: str) -> tuple[str, int]:
    """The host and port of `[HOST:]PORT`; without a host, only this machine. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise UsageError(f"{ascii(text)[:40]} is not [HOST:]PORT", hint="for example 9464, or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)
