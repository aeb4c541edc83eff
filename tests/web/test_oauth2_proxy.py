"""The panel behind oauth2-proxy, as examples/oauth2-proxy and examples/nginx show it, with a stand-in that sends its headers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from archisync.rules.config import variable_names
from archisync.store.database import Database
from tests.conftest import REPOSITORY
from tests.support.oauth2proxy import ADDRESS, COOKIE, oauth2_proxy
from tests.support.panel import READ_TOKEN, panel
from tests.support.rows import count
from tests.support.site import audited
from tests.web.test_nginx import NGINX, nginx

CFG = (REPOSITORY / "examples/oauth2-proxy/archisync.cfg").read_text("utf-8")
CONF = (REPOSITORY / "examples/nginx/oauth2-proxy.conf").read_text("utf-8")
OPTIONS = tomllib.loads(CFG)
HOST = "sync.example.com"
ME = "/api/v1/me"
PAGE = {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"}
FORM = {"type": "orders", "minutes": "25", "was": "10", "back": "/"}


def settings_of(example: str) -> dict[str, str]:
    """The variables that an example names in its comments."""
    found = dict(re.findall(r"(ARCHISYNC_\w+)=(\S+)", example))
    assert set(found) <= set(variable_names())
    return found


@contextmanager
def behind(
    database_url: str, redis_url: str, log: Path, options: Mapping[str, Any] = OPTIONS, **environment: str
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A client that asks oauth2-proxy for sync.example.com, and one that goes past it."""
    env = {**settings_of(CFG), "ARCHISYNC_WEB_PROXIES": ADDRESS, **environment}
    with (
        panel(database_url, redis_url, log, env=env) as found,
        oauth2_proxy(options, found.url) as url,
        httpx.Client(base_url=url, headers={"Host": HOST}, timeout=60) as client,
        found.client(None, Host=HOST) as past,
    ):
        yield client, past


def cookie(who: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={who}"}


PAOLO, ANNA = cookie("paolo@example.com"), cookie("anna@example.com")


def test_people_are_who_oauth2_proxy_says_they_are(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with behind(database_url, redis_url, tmp_path / "log") as (client, _):
        assert client.get("/").text == "Sign in"
        roles = {who["name"]: who["role"] for who in (client.get(ME, headers=one).json() for one in (PAOLO, ANNA))}
        assert roles == {"paolo@example.com": "operator", "anna@example.com": "admin"}
        page = client.get("/", headers=PAOLO)
        assert ">paolo@example.com</span>" in page.text
        assert "Sign out" not in page.text  # that is up to the proxy
        assert client.post("/act/interval", data=FORM, headers={**PAOLO, **PAGE}).headers["location"] == "/"
        elsewhere = {**PAOLO, **PAGE, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert client.post("/act/interval", data={**FORM, "was": "25"}, headers=elsewhere).status_code == 403
        assert client.post("/act/enabled", data={}, headers={**PAOLO, **PAGE}).status_code == 403
    assert audited(site) == [("paolo@example.com", "panel", "interval set")]
    assert '"address":"127.0.0.1"' in (tmp_path / "log").read_text().replace(" ", "")  # the browser's, not the proxy's


CLAIMED = (
    {"X-Forwarded-Email": "anna@example.com"},
    {"x-forwarded-email": "anna@example.com", "X-Forwarded-User": "anna@example.com"},
    {"X_Forwarded_Email": "anna@example.com"},
    {"X-Auth-Request-Email": "anna@example.com", "X-Auth-Request-User": "anna@example.com"},
    {"X-Forwarded-For": "127.0.0.2", "Forwarded": "for=127.0.0.2"},
    {"Connection": "close, X-Forwarded-Email"},
)


def test_whoever_claims_to_be_somebody_else_is_not_believed(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with behind(database_url, redis_url, tmp_path / "log") as (client, past):
        for claimed in CLAIMED:
            assert client.get(ME, headers={**PAOLO, **claimed}).json()["name"] == "paolo@example.com", claimed
            assert past.get(ME, headers=claimed).status_code == 401, claimed  # it comes from no proxy of ours
            assert past.post("/act/interval", data=FORM, headers={**claimed, **PAGE}).status_code == 401, claimed
    careless = {**OPTIONS, "skip_auth_strip_headers": False}
    with behind(database_url, redis_url, tmp_path / "log", careless) as (client, _):
        assert client.get(ME, headers=PAOLO).status_code == 200
        assert client.get(ME, headers={**PAOLO, **CLAIMED[0]}).status_code == 401  # one of two was smuggled in
    assert count(site, "select count(*) from system.audit") == 0


def test_a_password_that_the_proxy_sends_is_not_taken_for_a_wrong_token(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    options = {**OPTIONS, "basic_auth_password": "secret"}
    with behind(database_url, redis_url, tmp_path / "log", options, ARCHISYNC_WEB_READ_TOKEN=READ_TOKEN) as both:
        client, past = both
        assert {client.get(ME, headers=PAOLO).json()["name"] for _ in range(12)} == {"paolo@example.com"}
        assert past.get(ME, headers={"Authorization": "Basic c3ViLTc6c2VjcmV0"}).status_code == 401
        assert past.get(ME, headers={"Authorization": f"Bearer {READ_TOKEN}"}).json()["role"] == "read-only"


@pytest.mark.check
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_asks_oauth2_proxy_and_passes_on_no_name_that_a_browser_claims(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        panel(database_url, redis_url, tmp_path / "log", env=settings_of(CONF)) as found,
        oauth2_proxy(OPTIONS, found.url) as proxy,
        nginx(folder, found.url, CONF.replace("http://127.0.0.1:4180", proxy)) as url,
        httpx.Client(base_url=url, headers={"Host": HOST}, timeout=60) as client,
    ):
        led = client.get("/runs?state=failed&type=orders", headers={"X-Auth-Request-Redirect": "//evil.example"})
        assert (led.status_code, led.headers["location"]) == (
            302, "https://login.example.com/?state=%2Fruns%3Fstate%3Dfailed%26type%3Dorders",
        )  # fmt: skip
        assert client.get("/oauth2/auth", headers=PAOLO).status_code == 404  # only nginx asks there
        for claimed in ({}, *CLAIMED[:-1]):
            assert client.get(ME, headers={**PAOLO, **claimed}).json()["name"] == "paolo@example.com", claimed
            assert client.get(ME, headers=claimed).status_code == 302, claimed
        assert client.get(ME, headers=cookie("")).status_code == 302
        assert client.post("/act/interval", data=FORM, headers={**ANNA, **PAGE}).status_code == 303
    assert audited(site) == [("anna@example.com", "panel", "interval set")]


def test_the_examples_say_the_same_of_the_panel() -> None:
    assert settings_of(CFG) == settings_of(CONF)
    assert OPTIONS["upstreams"] == ["http://127.0.0.1:8080/"]
