"""Every page: it is shown, with hostile text too, and its links lead to pages of ours."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from archisync.store.database import Database
from archisync.web.pages.routes import PAGES
from tests.support import site
from tests.support.panel import READ_TOKEN, Panel, panel, signed_in
from tests.support.rows import count

HIDDEN = re.compile("[\u0000-\u0008\u000b-\u001f\u202a-\u202e\u2066-\u2069]")
VOID = {"area", "br", "hr", "img", "input", "link", "meta", "rect", "line", "path"}


class Page(HTMLParser):
    """Tags that are open, addresses, the ids, and the texts of a page. Raises AssertionError for tags that don't fit."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.forms: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(given)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a":
            self.links.append(given.get("href") or "")
        if tag == "form":
            self.forms.append(given.get("action") or "")
        if given.get("id"):
            self.ids.append(given["id"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def addresses(db: Database, agent_id: str) -> list[str]:
    """One address of each page, with something to show."""
    held = (
        count(db, "select max(run_id) from system.held_exports")
        if count(db, "select count(*) from system.held_exports")
        else 0
    )
    run = count(db, "select coalesce(max(id), 0) from system.sync_runs")
    pair = httpx.QueryParams({"type": "orders", "agent": agent_id})
    ask = ["sync", "sync?type=orders", f"pause?{pair}", f"clear?{pair}", "pause"]
    if agent_id:
        ask += [f"deny?{httpx.QueryParams({'agent': agent_id})}", f"remove?{httpx.QueryParams({'agent': agent_id})}"]
    if run:
        ask += [f"again?ids={run}"]
    return [
        "/", "/failing", "/types/orders", "/types/products", "/agents", "/agents?find=a&only=allowed", "/runs",
        "/runs?type=orders&state=failed&since=1d",
        "/held", "/held?decided=all", "/plan", "/settings", "/audit", "/pair?type=products", *(f"/ask/{one}" for one in ask),
        *([f"/agent?{httpx.QueryParams({'id': agent_id})}", f"/pair?{pair}"] if agent_id else []), *([f"/runs/{run}"] if run else []),
        *([f"/held/{held}"] if held else []),
    ]  # fmt: skip


def read(client: httpx.Client, address: str) -> Page:
    answer = client.get(address)
    assert answer.status_code == 200, (address, answer.text[-2000:])
    assert not HIDDEN.search(answer.text), address
    page = Page(answer.text)
    assert len(page.ids) == len(set(page.ids)), (address, page.ids)
    assert {name for name in page.attributes if name == "style" or name.startswith("on")} == set(), address
    return page


def test_every_page_is_shown_and_leads_only_to_pages_of_ours(shown: Panel, troubled: Database) -> None:
    known = [re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", path) + "$") for path, _ in PAGES]
    with signed_in(shown) as client:
        seen: set[str] = set()
        for address in addresses(troubled, "mario.bassi"):
            page = read(client, address)
            seen |= {link for link in page.links if not link.startswith("#")}
            assert all(
                action.startswith(("/act/", "/runs", "/agents", "/audit", "/pair", "/sign-out"))
                for action in page.forms
            )
        paths = {link.split("?")[0] for link in seen}
        assert {path for path in paths if not any(pattern.match(path) for pattern in known)} == set()
        for link in sorted(seen):  # each one is there
            assert client.get(unescape(link)).status_code == 200, link


@pytest.mark.parametrize("number", [0, 200])
def test_a_site_without_agents_and_one_with_many_are_shown(
    number: int, connection: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    ids = site.plant(connection, number=number, runs=2)
    with panel(database_url, redis_url, tmp_path / "log") as found, signed_in(found) as client:
        for address in addresses(connection, ids[-1] if ids else ""):
            if number or not address.startswith("/ask/sync"):
                read(client, address)


def test_hostile_text_stays_text(connection: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    ids = site.plant(connection, number=8, hostile=True)
    with panel(database_url, redis_url, tmp_path / "log") as found, signed_in(found, name=site.HOSTILE) as client:
        for address in dict.fromkeys(address for agent_id in ids for address in addresses(connection, agent_id)):
            if address.startswith("/ask/again"):  # nobody is forced whose id may not be one
                continue
            page = read(client, address)
            assert client.get(address).text.count("<script") == 1
            assert {"b", "script"} >= page.tags & {"b", "script", "img", "iframe", "object"}
            for link in page.links:
                assert link.startswith(("/", "#")), link


def test_what_nobody_knows_of_an_unreadable_export_is_said_so(shown: Panel, troubled: Database) -> None:
    troubled.execute("update system.held_exports set rows_valid = null, planned = '{}', sample = '[]', changes = '[]'")
    run_id = count(troubled, "select max(run_id) from system.held_exports where decision is null")
    with signed_in(shown) as client:
        assert "an export that can&#39;t be read" in client.get("/held").text.replace("'", "&#39;")
        page = client.get(f"/held/{run_id}").text
        assert "rows in the export <b>unknown</b>" in page
        for text in (page, client.get("/held").text):
            assert not re.search(r"\bNone\b", text)


def test_whoever_may_only_look_sees_every_page_and_no_question(shown: Panel, troubled: Database) -> None:
    with signed_in(shown, READ_TOKEN) as client:
        for address in addresses(troubled, "mario.bassi"):
            if address.startswith("/ask/"):
                assert client.get(address).status_code == 403, address
            else:
                assert [form for form in read(client, address).forms if form.startswith("/act/")] == [], address


def test_nothing_changes_by_looking(shown: Panel, troubled: Database) -> None:
    def written() -> list[int]:
        tables = ("system.audit", "system.queued_runs", "system.pauses", "system.sync_runs", "agents.users")
        return [count(troubled, f"select count(*) from {table}") for table in tables]

    before = written()
    with signed_in(shown) as client:
        for address in addresses(troubled, "mario.bassi"):
            assert client.get(address).status_code == 200, address
            assert client.head(address).status_code == 200, address
    assert written() == before


WRONG = (
    ("/nothing", 404), ("/runs/0", 404), ("/runs/x", 404), ("/runs/99999999999999999999", 404), ("/held/1", 404), ("/types/cats", 400),
    ("/pair", 400), ("/pair?type=orders", 400), ("/pair?type=cats&agent=x", 400), ("/agent?id=nobody", 404), ("/agent", 404),
    ("/runs?state=odd", 400), ("/runs?since=odd", 400), ("/runs?before=x", 404), ("/audit?before=x", 400), ("/failing?after=x", 400),
    ("/ask/cats", 404), ("/ask/cancel?ids=x", 400), ("/ask/cancel?ids=1", 404), ("/ask/clear", 400), ("/agents?find=%00", 400),
    ("/pair?type=orders&agent=%ED%A0%80", 200), ("/runs?agent=%F0%9F%90%88", 200), ("/ask/again?ids=0", 404),
    ("/static/nothing.js", 404),
)  # fmt: skip


def test_a_wrong_address_is_explained(shown: Panel) -> None:
    with signed_in(shown) as client:
        for address, status in WRONG:
            answer = client.get(address)
            assert answer.status_code == status, (address, answer.text[-1500:])
            assert answer.headers["content-type"].startswith("text/html"), address
            Page(answer.text)
