"""The panel as a process of its own, `archisync web`, on a free port, and a client that speaks to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.types import ASGIApp, Message

from tests.conftest import clean_environment

TOKEN = "an-admin-token-of-the-tests"
OPERATOR_TOKEN = "an-operator-token-of-tests"
READ_TOKEN = "a-read-token-of-the-tests"
TOKENS = {
    "ARCHISYNC_WEB_TOKEN": TOKEN,
    "ARCHISYNC_WEB_OPERATOR_TOKEN": OPERATOR_TOKEN,
    "ARCHISYNC_WEB_READ_TOKEN": READ_TOKEN,
}


@dataclass
class Panel:
    """A running panel. `log`: the events that it has logged so far, as far as they were read."""

    url: str
    process: subprocess.Popen[str]
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self, token: str | None = TOKEN, **headers: str) -> httpx.Client:
        own = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers={**own, **headers}, timeout=60)


@contextmanager
def panel(
    database_url: str, redis_url: str, log: Path, *, env: Mapping[str, str] | None = None, listen: str = "127.0.0.1:0"
) -> Iterator[Panel]:
    """Starts it; waits until it listens; stops it as systemd would."""
    own = {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": "/nowhere/{agent}/{type}.csv",
    }
    environment = {**clean_environment(), **own, **(TOKENS if env is None else env)}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "archisync", "web", "--listen", listen], env=environment, stderr=stderr, text=True
        )
        try:
            yield Panel(url=_address(process, log), process=process)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if '"web-started"' in line and line.endswith("}"):
                return str(urlsplit(json.loads(line)["address"])._replace(path="").geturl())
    raise AssertionError(log.read_text())


@contextmanager
def signed_in(found: Panel, token: str = TOKEN, *, name: str = "anna") -> Iterator[httpx.Client]:
    """A client that has signed in on the page, as a browser does; it does not follow redirects by itself."""
    with httpx.Client(base_url=found.url, headers={"Origin": found.url}, timeout=60) as client:
        answer = client.post("/sign-in", data={"token": token, "name": name})
        assert answer.status_code == 303, answer.text
        yield client


@asynccontextmanager
async def inside(app: ASGIApp, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a panel that runs in this process; at its end the panel closes its connections."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client
    life = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))

    async def receive() -> Message:
        return next(life)

    async def send(message: Message) -> None:
        assert message["type"].endswith(".complete")

    await app({"type": "lifespan"}, receive, send)
