"""The panel behind Debian's nginx, as examples/nginx shows it: under a path, and with headers that a browser may not set."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from archisync.store.database import Database
from tests.conftest import REPOSITORY
from tests.support.panel import TOKEN, TOKENS, panel
from tests.support.rows import count

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [pytest.mark.check, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]
EXAMPLE = (REPOSITORY / "examples/nginx/archisync.conf").read_text("utf-8")
ENVIRONMENT = {
    **TOKENS,
    "ARCHISYNC_WEB_PREFIX": "/archisync",
    "ARCHISYNC_WEB_HOSTS": "erp.example.com",
    "ARCHISYNC_WEB_PROXIES": "127.0.0.1",
    "ARCHISYNC_WEB_USER_HEADER": "X-Forwarded-User",
    "ARCHISYNC_WEB_ADMINS": "*",
}
MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4;
  scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port}; {example} }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: str, example: str = EXAMPLE) -> Iterator[str]:
    """nginx with the example in front of `upstream`; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    example = example.replace("http://127.0.0.1:8080", upstream)
    configuration = folder / "nginx.conf"
    configuration.write_text(MAIN.format(folder=folder, port=port, example=example))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", configuration, "-e", folder / "error.log"])
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                continue
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def behind(site: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client that asks nginx for erp.example.com."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        panel(database_url, redis_url, tmp_path / "web.log", env=ENVIRONMENT) as found,
        nginx(folder, found.url) as url,
        httpx.Client(base_url=url, headers={"Host": "erp.example.com"}, timeout=60) as client,
    ):
        yield client


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_the_panel_works_under_a_path_behind_nginx(behind: httpx.Client, site: Database, tmp_path: Path) -> None:
    moved = behind.get("/archisync?x=1")
    assert (moved.status_code, moved.headers["location"]) == (
        308,
        f"http://erp.example.com:{behind.base_url.port}/archisync/?x=1",
    )
    me = behind.get("/archisync/api/v1/me", headers=BEARER)
    assert (me.status_code, me.json()["role"]) == (200, "admin")
    document = behind.get("/archisync/api/v1/openapi.json", headers=BEARER).json()
    assert document["servers"] == [{"url": "/archisync/api/v1"}]
    assert behind.get("/archisync/healthz").status_code == 200
    assert behind.get("/archisync/api/sync/intervals", headers=BEARER).json()["success"] is True
    assert behind.get("/api/v1/me", headers=BEARER).status_code == 404  # nginx's own
    page = {"Origin": "http://erp.example.com", "Sec-Fetch-Site": "same-origin"}
    paused = behind.post("/archisync/api/v1/pauses", json={"agent": "anna"}, headers={**BEARER, **page})
    assert paused.status_code == 200
    other = behind.post(
        "/archisync/api/v1/pauses", json={"agent": "luca"}, headers={**BEARER, "Origin": "http://evil.example"}
    )
    assert other.status_code == 403
    assert count(site, "select count(*) from system.pauses") == 1


def test_headers_that_a_browser_sends_do_not_pass_nginx(behind: httpx.Client, tmp_path: Path) -> None:
    claimed = {
        "X-Forwarded-User": "root", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
    }  # fmt: skip
    assert behind.get("/archisync/api/v1/me", headers=claimed).status_code == 401
    document = behind.get("/archisync/api/v1/openapi.json", headers={**BEARER, **claimed}).json()
    assert document["servers"] == [{"url": "/archisync/api/v1"}]
    assert behind.get("/archisync/api/v1/me", headers={**BEARER, "Host": "evil.example"}).status_code == 421
    assert "6.6.6.6" not in (tmp_path / "web.log").read_text()
    large = behind.post("/archisync/api/v1/pauses", content=b" " * 10_000_000, headers=BEARER)
    assert large.status_code == 413
