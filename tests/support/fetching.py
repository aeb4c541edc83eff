"""Requests to sources, as a worker makes them, and their outcomes."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import SyncError
from archisync.rules.config import Config
from archisync.sources import Export, Request

CONTENT = b"order_id,created_at\n1,2026-01-02\n"
CANARY = "canary-9f3a1c77"
"""A secret that nothing may show."""


def request_of(
    tmp_path: Path,
    template: str,
    *,
    agent_id: str = "agent-1",
    max_bytes: int = 10**6,
    validators: Mapping[str, str] | None = None,
    **variables: str,
) -> Request:
    """A request for the orders of an agent, under these settings. Servers on loopback addresses may be asked."""
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    usual = {"PATH": os.environ["PATH"], "HOME": "/home/x", "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8:*"}
    return Request(
        template=template,
        agent_id=agent_id,
        sync_type="orders",
        spool_dir=spool,
        max_bytes=max_bytes,
        config=Config.from_environment(usual | variables),
        validators=validators or {},
    )


def fetched(request: Request) -> Export:
    found = sources.fetch(request)
    assert isinstance(found, Export)
    return found


def refused(request: Request) -> SyncError:
    """The error of a fetch that must fail and must leave nothing in the spool directory."""
    with pytest.raises(SyncError) as caught:
        sources.fetch(request)
    assert list(request.spool_dir.iterdir()) == []
    return caught.value
