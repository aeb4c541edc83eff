"""Signing in on the page: the cookie, the way back, wrong tokens, and what each role sees."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from archisync.store.database import Database
from archisync.web.attempts import ALLOWED
from archisync.web.calls import COOKIE
from archisync.web.pages.look import local_path
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, TOKEN, Panel, panel, signed_in


def test_whoever_is_not_signed_in_is_led_to_the_form_and_back(shown: Panel) -> None:
    with httpx.Client(base_url=shown.url, headers={"Origin": shown.url}) as client:
        asked = client.get("/?a=1&b=2")
        assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2F%3Fa%3D1%26b%3D2")
        form = client.get(asked.headers["location"])
        assert 'name="next" value="/?a=1&amp;b=2"' in form.text
        entered = client.post("/sign-in", data={"token": TOKEN, "name": "anna", "next": "/?a=1&b=2"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/?a=1&b=2")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/;" in cookie
        page = client.get("/?a=1&b=2")
        assert page.status_code == 200
        assert ">anna</span>" in page.text
        left = client.post("/sign-out")
        assert left.headers["location"] == "/sign-in"
        assert client.get("/").status_code == 303


def test_a_wrong_token_is_named_and_counted(shown: Panel) -> None:
    with httpx.Client(base_url=shown.url, headers={"Origin": shown.url}) as client:
        for _ in range(ALLOWED):
            answer = client.post("/sign-in", data={"token": "x" * 20, "name": "<b>eve</b>"})
            assert answer.status_code == 401
            assert "there is no such token" in answer.text
            assert 'value="&lt;b&gt;eve&lt;/b&gt;"' in answer.text
        answer = client.post("/sign-in", data={"token": TOKEN})
        assert answer.status_code == 429
        assert "retry-after" in answer.headers
        assert "set-cookie" not in answer.headers


def test_a_session_that_somebody_planted_is_not_the_one_of_whoever_signs_in(shown: Panel) -> None:
    with signed_in(shown, READ_TOKEN, name="eve") as eve:
        planted = eve.cookies[COOKIE]
    for fixed in (planted, "made.up", ""):
        answer = httpx.post(
            f"{shown.url}/sign-in",
            data={"token": TOKEN, "name": "anna"},
            headers={"Origin": shown.url, "Cookie": f"{COOKIE}={fixed}"},
            timeout=60,
        )
        given = answer.cookies[COOKIE]
        assert given not in (fixed, planted)
        with shown.client(None, Cookie=f"{COOKIE}={given}") as client:
            assert ">anna</span>" in client.get("/").text
            # The domain of a neighbour may plant a second one, and the browser sends both.
            both = client.get("/", headers={"Cookie": f"{COOKIE}={given}; {COOKIE}={planted}"})
            assert (both.status_code, both.headers["location"]) == (303, "/sign-in")
        with shown.client(None, Cookie=f"{COOKIE}={planted}") as client:
            assert "(read-only)" in client.get("/").text


def test_a_form_of_ten_megabytes_is_refused_before_anybody_has_signed_in(shown: Panel) -> None:
    with httpx.Client(base_url=shown.url, headers={"Origin": shown.url}, timeout=60) as client:
        assert client.post("/sign-in", data={"token": "x" * 10_000_000}).status_code == 413
        assert client.get("/sign-in").status_code == 200


def test_another_site_can_neither_sign_in_nor_out(shown: Panel) -> None:
    with httpx.Client(base_url=shown.url, headers={"Origin": "https://evil.example"}) as client:
        assert client.post("/sign-in", data={"token": TOKEN}).status_code == 403
        assert client.post("/sign-out").status_code == 403


@pytest.mark.parametrize(
    "given", ["//evil.example", "https://evil.example/", "/\\evil.example", "evil", "", None, "/a\nb"]
)
def test_the_way_back_never_leaves_the_panel(given: str | None) -> None:
    assert local_path(given) == "/"


def test_each_role_sees_what_it_may_do(shown: Panel) -> None:
    for token, word, acts in (
        (READ_TOKEN, "read-only", False),
        (OPERATOR_TOKEN, "operator", True),
        (TOKEN, "admin", True),
    ):
        with signed_in(shown, token) as client:
            page = client.get("/").text
            assert f"({word})" in page
            assert ("/act/interval" in page) == acts
            saved = client.post("/act/interval", data={"type": "orders", "minutes": "11", "was": "10", "back": "/"})
            assert saved.status_code == (303 if acts and token == OPERATOR_TOKEN else 403 if not acts else 412)


def test_without_a_token_it_only_shows(troubled: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    with (
        panel(database_url, redis_url, tmp_path / "log", env={}) as found,
        found.client(None, Origin=found.url) as client,
    ):
        assert "(read-only)" in client.get("/").text
        assert client.post("/act/interval", data={}).status_code == 403
        assert "no token is configured" in client.get("/sign-in").text


def test_behind_a_prefix_every_address_has_it(
    troubled: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = {"ARCHISYNC_WEB_TOKEN": TOKEN, "ARCHISYNC_WEB_PREFIX": "/sync"}
    with (
        panel(database_url, redis_url, tmp_path / "log", env=env) as found,
        httpx.Client(base_url=found.url, headers={"Origin": found.url}) as client,
    ):
        assert client.get("/sync/").headers["location"] == "/sync/sign-in"
        entered = client.post("/sync/sign-in", data={"token": TOKEN})
        assert "Path=/sync;" in entered.headers["set-cookie"]
        page = client.get("/sync/").text
        addresses = [part.split('"', 1)[0] for name in ('href="', 'action="', 'src="') for part in page.split(name)[1:]]
        assert {a for a in addresses if not a.startswith(("/sync/", "#"))} == set()
        saved = client.post("/sync/act/interval", data={"type": "orders", "minutes": "12", "was": "10", "back": "/"})
        assert saved.headers["location"] == "/sync/"
