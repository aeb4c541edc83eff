"""`/api/v1` tried from outside: roles, other sites, cookies, tricks with paths, and text that wants to be something else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from archisync.rules.config import Config
from archisync.store.database import Database
from archisync.web.api.routes import ApiRoute
from archisync.web.api.table import ROUTES
from archisync.web.calls import COOKIE
from archisync.web.people import People, Role
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, TOKEN, TOKENS, Panel
from tests.support.rows import count
from tests.web.test_access import raw_request

API = "/api/v1"
PAUSE = f"{API}/pauses"


def filled(route: ApiRoute) -> str:
    return API + route.path.format(**{p.name: p.example for p in route.parts})


def test_each_role_may_do_what_it_may_and_no_more(running: Panel, site: Database) -> None:
    for token, role in ((READ_TOKEN, Role.READER), (OPERATOR_TOKEN, Role.OPERATOR), (TOKEN, Role.ADMIN)):
        with running.client(token) as client:
            for route in ROUTES:
                answer = client.request(route.method, filled(route), json=None if route.body is None else {})
                assert (answer.status_code == 403) == (role < route.role), (role, route)
                assert answer.status_code < 500, (route, answer.text)
    with running.client(None) as stranger:
        for route in ROUTES:
            assert stranger.request(route.method, filled(route), json={}).status_code == 401
        assert stranger.get("/metrics").status_code == 401
    assert all((route.role is Role.READER) == (route.method == "GET") for route in ROUTES)
    assert count(site, "select count(*) from system.audit") == 0


@pytest.fixture
def signed_in(running: Panel) -> Iterator[httpx.Client]:
    """A browser with the cookie of the sign-in page."""
    cookie = People(Config(environment=TOKENS)).sign_in(OPERATOR_TOKEN, "anna")
    assert cookie is not None
    with running.client(None, Cookie=f"{COOKIE}={cookie}") as client:
        yield client


FROM: list[tuple[dict[str, str], int]] = [
    ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, 200),
    ({}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "{url}"}, 403),
    ({"Sec-Fetch-Site": "same-origin", "Host": "rebound.example"}, 421),
    ({"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 415),
    ({"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}, 415),
]


def test_a_page_of_another_site_can_not_act_with_the_cookie_of_a_browser(
    signed_in: httpx.Client, running: Panel, site: Database
) -> None:
    for headers, status in FROM:
        site.execute("delete from system.pauses")
        given = {name: value.format(url=running.url) for name, value in headers.items()}
        answer = signed_in.post(
            PAUSE, content=b'{"agent": "anna"}', headers={"Content-Type": "application/json", **given}
        )
        assert answer.status_code == status, headers
        assert count(site, "select count(*) from system.pauses") == (status == 200), headers
    assert count(site, "select count(*) from system.audit where who = 'anna' and via = 'api'") == 1


def test_nothing_changes_by_looking(running: Panel, site: Database) -> None:
    """Nor by a form or a link that a browser follows: only POST and PATCH act."""
    with running.client() as client:
        for route in ROUTES:
            for method in ("GET", "HEAD"):
                client.request(method, filled(route), params={"all": "true", "agent": "anna", "enabled": "false"})
    assert count(site, "select count(*) from system.audit") == 0


def test_another_method_is_405_with_what_is_allowed(running: Panel) -> None:
    with running.client() as client:
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            answer = client.request(method, f"{API}/runs")
            assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
            assert "GET" in answer.headers["allow"]


PATHS = (
    "/api/v1/../../etc/passwd", "/api/v1/%2e%2e/sync/intervals", "//api/v1/me", "/api//v1/me", "/api/v1/me/", "/api/v1/", "/api/v1",
    "/api/v1/runs/%00", "/api/v1/agents/%00", "/api/v1/agents/..%2f..%2fhealthz", "/api/v1/agents/%ff%fe", "/api/v1/agents/",
    "/api/v1/held/1;x", "/api/v1/intervals/%3Cscript%3E", "/api/v1/runs/-1", "/api/v1/runs/1e3", "/api/v1/runs/%D9%A1",
    f"/api/v1/runs/{'9' * 5000}", f"/api/v1/held/{'9' * 20}",
    "/api/v1/runs?after=%00", "/api/v1/runs?limit=%F0%9F%98%80", "/api/v1/agents?part=%25%5F%5C", "/api/v1/runs?reason=%27%3B--",
)  # fmt: skip


def test_a_trick_with_the_path_leads_to_json_and_nowhere_else(running: Panel) -> None:
    """Sent as they stand: a client would tidy them up."""
    for path in PATHS:
        sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        head, _, body = raw_request(running.port, sent).partition(b"\r\n\r\n")
        status = head.split(b" ")[1]
        assert status in ((b"200",) if "part=" in path or "reason=" in path else (b"400", b"404")), path
        if path.startswith("/api/"):
            assert b"json\r\n" in head.lower() + b"\r\n", path
            json.loads(body)


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(running: Panel) -> None:
    with running.client() as client:
        large = client.post(PAUSE, content=b" " * 10_000_000, headers={"content-type": "application/json"})
        assert (large.status_code, large.json()["reason"]) == (413, "too-large")
        for body in (
            b"[" * 60_000,
            b'{"a":' * 10_000,
            b"\xff\xfe",
            b'{"agent": "\\ud800"}',
            b"1e999",
            b"NaN",
            b'{"all": NaN}',
        ):
            answer = client.post(PAUSE, content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), body[:20]


HOSTILE = (
    "<script>alert(1)</script>", "'; drop table system.audit; --", "\x1b[2J\x1b]0;x\x07", "\u202etxt.exe", "a\r\nSet-Cookie: x=1",
    "%s%n%(x)s{0}", "${jndi:ldap://x}", "\U0001f600" * 200, "\ufeff\u200b\u2028", "../../etc/passwd", "=cmd|' /C calc'!A0", "\x7f\x80\x9f",
)  # fmt: skip


def test_hostile_text_in_any_field_is_kept_as_it_is_or_refused(running: Panel, site: Database) -> None:
    with running.client() as client:
        for text in (" ".join(HOSTILE[::2]), " ".join(HOSTILE[1::2])):  # together: each is sent in fifty fields
            site.execute("insert into agents.users (id, full_name, whitelisted) values (%s, %s, true)", [text, text])
            for route in ROUTES:
                for answer in with_text(client, route, text):
                    assert answer.status_code in (200, 201, 202, 400, 404), (route, answer.text)
                    assert answer.headers["content-type"] in ("application/json", "application/problem+json")
                    assert "set-cookie" not in answer.headers
            paused = client.post(PAUSE, json={"type": "orders", "reason": text})
            assert paused.json()["pause"]["reason"] == text
            found = client.get(f"{API}/pauses").json()["pauses"]
            assert [p["reason"] for p in found if (p["sync_type"], p["agent_id"]) == ("orders", None)] == [text]
            audit = client.get(f"{API}/audit?type=orders&limit=1").json()["audit"][0]
            assert audit["why"] == text


def with_text(client: httpx.Client, route: ApiRoute, text: str) -> Iterator[httpx.Response]:
    """The answers with that text in each field that takes any text."""
    for p in (p for p in route.query if p.kind in ("text", "texts")):
        yield client.get(filled(route), params={p.name: text})
    for p in (p for p in route.body or () if p.kind in ("text", "texts")):
        value = text if p.kind == "text" else [text]
        yield client.request(route.method, filled(route), json={**route.body_example, p.name: value})
