"""Where a server listens, as a person types it."""

from __future__ import annotations

import re

from archisync.base.errors import UsageError

LARGEST_PORT = 65535


def parse_address(text: str) -> tuple[str, int]:
    """The host and port of `[HOST:]PORT`; without a host, only this machine. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"0*[0-9]{1,5}", port, re.ASCII) or int(port) > LARGEST_PORT:
        raise UsageError(f"{ascii(text)[:40]} is not [HOST:]PORT", hint="for example 9464, or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)
