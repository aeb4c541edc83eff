"""Who may do what, tried from outside: tokens, roles, other sites, other names, proxies, and whoever guesses or dawdles."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archisync.rules.config import Config
from archisync.rules.websettings import path_prefix
from archisync.store.database import Database
from archisync.web.app import CONTRACT
from archisync.web.attempts import ALLOWED, WINDOW_S, Attempts
from archisync.web.people import SESSION_S, People, Role
from archisync.web.server import check_safe
from tests.conftest import Cli
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, TOKEN, TOKENS, Panel, panel
from tests.support.said import as_text

STOP = "/api/sync/auto-sync/stop"
LOOK = "/api/sync/auto-sync/status"


def filled(path: str) -> str:
    return path.replace("{type}", "orders")


def test_each_role_may_do_what_it_may_and_no_more(running: Panel) -> None:
    for token, role in ((READ_TOKEN, Role.READER), (OPERATOR_TOKEN, Role.OPERATOR), (TOKEN, Role.ADMIN)):
        with running.client(token) as client:
            for method, path, _, least in CONTRACT:
                status = client.request(method, filled(path)).status_code
                assert (status == 403) == (role < least), (role, method, path)
    with running.client(None) as stranger:
        assert {stranger.request(method, filled(path)).status_code for method, path, _, _ in CONTRACT} == {401}
        assert stranger.get("/healthz").text == "ok\n"


def test_without_a_token_it_only_shows_and_only_on_this_machine(
    site: Database, cli: Cli, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with panel(database_url, redis_url, tmp_path / "log", env={}) as found, found.client(None) as client:
        assert client.get(LOOK).status_code == 200
        answer = client.post(STOP, headers={"Origin": found.url})
        assert (answer.status_code, answer.json()["error"]) == (
            403, "this takes the role operator, and you are read-only; no token is configured, so the panel only shows",
        )  # fmt: skip
    done = cli("web", "--listen", "0.0.0.0:0")
    assert (done.returncode, as_text(done.stderr)) == (
        3,
        "error: 0.0.0.0 is more than this machine, and nobody would have to sign in\n"
        "hint: put the output of `openssl rand -hex 32` into ARCHISYNC_WEB_TOKEN, or listen on 127.0.0.1\n",
    )


HEADER = {"ARCHISYNC_WEB_USER_HEADER": "X-Forwarded-User"}


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"ARCHISYNC_WEB_TOKEN": "short"}, "ARCHISYNC_WEB_TOKEN is too short or has blanks in it"),
        (HEADER, "ARCHISYNC_WEB_USER_HEADER is set, and no proxy that may send it"),
        ({"ARCHISYNC_WEB_USER_HEADER": "a: b"}, "ARCHISYNC_WEB_USER_HEADER is no name of a header"),
        ({"ARCHISYNC_WEB_PROXIES": "proxy"}, "ARCHISYNC_WEB_PROXIES: 'proxy' does not appear to be an IPv4 or IPv6 network"),
        ({"ARCHISYNC_WEB_PREFIX": "//evil"}, "ARCHISYNC_WEB_PREFIX is '//evil'"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_and_nothing_listens(environment: Mapping[str, str], error: str, cli: Cli) -> None:
    done = cli("web", "--listen", "127.0.0.1:0", env=environment)
    assert (done.returncode, as_text(done.stderr).splitlines()[0]) == (3, f"error: {error}")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, 200),
        ({"Origin": "{url}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "{url}.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "{url}"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Host": "rebound.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "a b"}, 421),
    ],
)
def test_another_site_or_name_can_do_nothing_even_with_a_token(
    headers: Mapping[str, str], status: int, running: Panel
) -> None:
    with running.client() as client:
        sent = {name: value.format(url=running.url) for name, value in headers.items()}
        assert client.post(STOP, headers=sent).status_code == status
        assert client.get(LOOK).json()["isRunning"] is (status != 200)


def test_every_answer_has_the_headers_that_keep_other_pages_out(running: Panel) -> None:
    with running.client() as client:
        paths = (
            LOOK,
            "/nothing",
            "/healthz",
            "/api/sync/intervals/none",
            "/",
            "/held",
            "/sign-in",
            "/static/panel.js",
            "/metrics",
        )
        for path in paths:
            found = client.get(path).headers
            assert "frame-ancestors 'none'" in found["content-security-policy"]
            assert "unsafe" not in found["content-security-policy"]
            assert (found["x-frame-options"], found["x-content-type-options"]) == ("DENY", "nosniff")
            assert "access-control-allow-origin" not in found
            assert "server" not in found


def test_whoever_guesses_tokens_is_stopped_and_others_are_not(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = {**TOKENS, "ARCHISYNC_WEB_PROXIES": "127.0.0.1"}
    with (
        panel(database_url, redis_url, tmp_path / "log", env=env) as found,
        found.client("a-wrong-token-of-the-tests") as client,
    ):
        here = {"X-Forwarded-For": "10.9.8.7"}
        tried = [client.get(LOOK, headers=here).status_code for _ in range(ALLOWED + 2)]
        assert tried == [401] * ALLOWED + [429] * 2
        right = {**here, "Authorization": f"Bearer {TOKEN}"}
        refused = client.get(LOOK, headers=right)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, refused.json()["error"].split()[-2])
        assert client.get(LOOK, headers={**right, "X-Forwarded-For": "10.9.8.8"}).status_code == 200
        assert client.get(LOOK, headers={**right, "X-Forwarded-For": "10.9.8.8, 10.9.8.7"}).status_code == 429


def test_the_memory_for_wrong_tokens_is_bounded_and_forgets() -> None:
    now = [0.0]
    attempts = Attempts(clock=lambda: now[0])
    for number in range(20_000):
        attempts.failed(f"10.0.{number // 250}.{number % 250}")
    assert len(attempts._wrong) == 10_000
    for _ in range(ALLOWED):
        attempts.failed("a")
    assert attempts.wait_s("a") == WINDOW_S
    now[0] += WINDOW_S
    assert attempts.wait_s("a") == 0


PROXY = {
    **HEADER,
    "ARCHISYNC_WEB_PROXIES": "127.0.0.1",
    "ARCHISYNC_WEB_OPERATORS": "anna",
    "ARCHISYNC_WEB_ADMINS": "root@example.com",
}
SAME = {"Sec-Fetch-Site": "same-origin"}


def test_a_user_is_believed_only_from_a_proxy_and_only_once(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with panel(database_url, redis_url, tmp_path / "log", env=PROXY) as found, found.client(None) as client:

        def status(*users: str, name: str = "X-Forwarded-User") -> int:
            return client.post(STOP, headers=[*SAME.items(), *((name, user) for user in users)]).status_code

        assert (status("anna"), status("root@example.com"), status("guest"), status()) == (200, 200, 403, 401)
        assert status("guest", "anna") == 401  # one of the two was smuggled in
        assert status("anna", name="X_Forwarded_User") == 401
        assert client.post(STOP, headers={"X-Forwarded-User": "anna"}).status_code == 403  # no page of ours sent it
    elsewhere = {**PROXY, "ARCHISYNC_WEB_PROXIES": "10.0.0.1"}
    with panel(database_url, redis_url, tmp_path / "log", env=elsewhere) as found, found.client(None) as client:
        assert client.post(STOP, headers={**SAME, "X-Forwarded-User": "anna"}).status_code == 401
        spoofed = {"X-Forwarded-Host": "localhost", "Host": "evil.example", "X-Forwarded-For": "127.0.0.1"}
        assert client.get(LOOK, headers=spoofed).status_code == 421


SMUGGLED = (
    "X-Forwarded-User : anna", "X-Forwarded-User: guest\r\n anna", "X-Forwarded-User: guest\r\nX-Forwarded-User: anna",
    "X-Forwarded-User: guest\nX-Forwarded-User: anna", "X_Forwarded_User: anna", "X-Forwarded-User:\tanna\r\nx-forwarded-user: anna",
    "X-Forwarded-User: anna\0", "X-Forwarded-User: guest\rX-Forwarded-User: anna",
    "Content-Length: 0\r\nContent-Length: 40\r\nX-Forwarded-User: guest",
    "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\nX-Forwarded-User: guest",
)  # fmt: skip


def test_a_header_that_proxies_read_in_different_ways_names_nobody(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    head = "POST /api/sync/auto-sync/stop HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n"
    with panel(database_url, redis_url, tmp_path / "log", env=PROXY) as found, found.client(None) as client:
        assert raw_request(found.port, f"{head}X-Forwarded-User: anna\r\n\r\n").startswith(b"HTTP/1.1 200")
        for smuggled in SMUGGLED:
            answer = raw_request(found.port, f"{head}{smuggled}\r\n\r\n").split(b"\r\n")[0]
            assert answer.split(b" ")[1] in (b"400", b"401", b"403", b"501"), (smuggled, answer)
        for prefix in ("//evil.example", "/\\evil.example", "https://evil.example", "/a/../..", "/<b>", "/a b"):
            page = client.get("/", headers={"X-Forwarded-User": "guest", "X-Forwarded-Prefix": prefix})
            assert 'href="/held"' in page.text, prefix
            assert "evil" not in page.text


def test_a_prefix_may_be_stripped_or_left_and_tricks_with_it_lead_nowhere(
    site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = {**TOKENS, "ARCHISYNC_WEB_PREFIX": "/sync"}
    with panel(database_url, redis_url, tmp_path / "log", env=env) as found, found.client() as client:
        found_at = {path: client.get(path).status_code for path in (LOOK, f"/sync{LOOK}", f"/sync/sync{LOOK}")}
        assert list(found_at.values()) == [200, 200, 404]
        for trick in TRICKS:
            raw = raw_request(
                found.port, f"GET {trick} HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\nConnection: close\r\n\r\n"
            )
            assert raw.startswith(b"HTTP/1.1 404"), trick


TRICKS = ("/sync/../healthz", "/sync/%2e%2e/api", "/sync%2f..%2fapi/sync/intervals", "/api/sync/%2e%2e/%2e%2e/etc")
BEARER = f"Authorization: Bearer {TOKEN}"


def raw_request(port: int, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(text.encode())
        found = b""
        while block := connection.recv(65536):
            found += block
        return found


@pytest.mark.parametrize("prefix", ["//evil", "/a//b", "/a/../b", "evil", "/a b", "/a?b", "/<b>", "\\a"])
def test_a_prefix_that_would_lead_elsewhere_is_refused(prefix: str) -> None:
    with pytest.raises(Exception, match="ARCHISYNC_WEB_PREFIX is"):
        path_prefix("ARCHISYNC_WEB_PREFIX", prefix)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(running: Panel) -> None:
    with running.client() as client:
        large = client.post(STOP, content=b"x" * 10_000_000, headers={"content-type": "application/json"})
        assert (large.status_code, large.json()["error"]) == (413, "the body is larger than 64 kB")
        deep = client.post(
            "/api/sync/trigger/orders", content=b"[" * 60_000, headers={"content-type": "application/json"}
        )
        assert deep.status_code == 400


def people(clock: list[float], **environment: str) -> People:
    return People(Config(environment=environment), clock=lambda: clock[0])


def test_a_session_is_new_with_each_sign_in_ends_and_can_not_be_made_up() -> None:
    clock = [1000.0]
    ours = people(clock, ARCHISYNC_WEB_TOKEN=TOKEN, ARCHISYNC_WEB_READ_TOKEN=READ_TOKEN)
    first, second = ours.sign_in(READ_TOKEN, " anna \n3\n "), ours.sign_in(READ_TOKEN, "anna")
    assert first is not None
    assert first != second
    person = ours.by_session(first, address="10.0.0.1")
    assert person is not None
    assert (person.name, person.role, person.by_browser) == ("anna 3", Role.READER, True)
    assert ours.sign_in("wrong" * 5, "anna") is None
    body, _, signature = first.partition(".")
    forged: list[Any] = [body, f"{body}.", f".{signature}", f"{body[:-4]}AAAA.{signature}", "é.é", ""]
    assert [ours.by_session(cookie, address="x") for cookie in forged] == [None] * len(forged)
    changed = people(clock, ARCHISYNC_WEB_TOKEN=TOKEN + "!", ARCHISYNC_WEB_READ_TOKEN=READ_TOKEN)
    assert changed.by_session(first, address="x") is None
    clock[0] += SESSION_S + 1
    assert ours.by_session(first, address="x") is None


def test_no_other_command_imports_the_panel() -> None:
    code = (
        "import sys; from archisync.cli.root import root_command; root_command();"
        " print([m for m in sys.modules if m.startswith(('starlette', 'uvicorn', 'jinja2', 'archisync.web'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_needs_no_token(host: str) -> None:
    check_safe(Config(environment={}), host)
