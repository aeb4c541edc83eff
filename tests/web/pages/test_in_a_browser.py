"""The pages in Chromium: at each width and in both colour schemes, kept up to date in place, with servers that go and come back.

axe-core (MPL-2.0) is fetched with npm once a session, and is no part of the project: ARCHISYNC_TEST_AXE may name its `axe.min.js` instead.
Screenshots are kept in the folder that ARCHISYNC_TEST_SCREENSHOTS names.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.support import site
from tests.support.browser import Browser, browser, chromium
from tests.support.panel import READ_TOKEN, TOKEN, Panel, panel
from tests.support.rows import add_run, record_tick
from tests.web.pages.test_every_page import addresses

WIDTHS = (360, 800, 1400)
# A telephone by day and a desk by night (width, whether dark); `make soak` has the others.
LOOKS = [
    (360, False),
    (1400, True),
    *(
        pytest.param(*other, marks=pytest.mark.soak)
        for other in [(360, True), (800, False), (800, True), (1400, False)]
    ),
]
PATIENCE_S = 60.0
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    if given := os.environ.get("ARCHISYNC_TEST_AXE"):
        return Path(given).read_text("utf-8")
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine to fetch axe-core with")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        ["npm", "pack", "--silent", "axe-core@4"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"npm has no axe-core: {done.stderr[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as packed:
        found = packed.extractfile("package/axe.min.js")
        assert found is not None
        return io.TextIOWrapper(found, "utf-8").read()


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: chromium)")
    with browser(program, tmp_path / "profile") as found:
        yield found


@pytest.fixture
def quick(chrome: Browser) -> Browser:
    """A browser in which a page waits a twentieth of the time before it asks again."""
    faster = "const usual = setTimeout; window.setTimeout = (act, ms, ...rest) => usual(act, ms / 20, ...rest)"
    chrome.ask("Page.addScriptToEvaluateOnNewDocument", source=faster)
    return chrome


def sign_in(chrome: Browser, found: Panel, token: str = TOKEN, *, name: str = "anna", width: int = 1400) -> None:
    chrome.open(f"{found.url}/sign-in", width=width, dark=False)
    chrome.submit("form.sheet", token=token, name=name)


def wait_until(chrome: Browser, expression: str) -> Any:
    """The value of the expression once it is true; fails after a minute."""
    end = monotonic() + PATIENCE_S
    while not (value := chrome.evaluate(expression)):
        assert monotonic() < end, (expression, chrome.evaluate("document.body.innerText"))
        chrome.evaluate("new Promise((done) => requestAnimationFrame(() => done(true)))")
    return value


STICKS_OUT = """
[...document.querySelectorAll('main *, header *')].filter((e) => { const b = e.getBoundingClientRect();
  return b.width && (b.right > innerWidth + 1 || b.left < -1) && !e.closest('.wide, .unseen, .skip'); })
"""
WRAPPED = """
[...document.querySelectorAll('button, .button, nav a, .chip')].filter((e) => {
  const walk = document.createTreeWalker(e, NodeFilter.SHOW_TEXT); let end = null, lines = 0;
  for (let text; text = walk.nextNode();) {
    if (text.parentElement.closest('.unseen, .skip') || !text.data.trim()) continue;
    const range = document.createRange(); range.selectNodeContents(text);
    for (const b of range.getClientRects()) if (b.width && (end === null || b.top > end - 2)) { lines++; end = b.bottom; }
  }
  return lines > 1 || e.scrollWidth > e.clientWidth + 1; })
"""
"""Controls whose text takes several lines, or does not fit in."""
SQUEEZED = """
[...document.querySelectorAll('td, tbody th')].filter((e) => { const range = document.createRange(); range.selectNodeContents(e);
  return e.clientWidth < 100 && range.getBoundingClientRect().height > 160; })
"""
"""Cells that are columns of single letters: what stands beside them took the width."""


def look(chrome: Browser, address: str, *, width: int, dark: bool, name: str = "") -> None:
    """Open the page, and see that nothing sticks out, wraps where it should not, or is refused."""
    chrome.open(address, width=width, dark=dark)
    assert chrome.problems == [], (address, chrome.problems)
    root = "document.documentElement"
    wide = chrome.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
    assert wide <= 0, (address, width, wide)
    chrome.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    for wrong in (STICKS_OUT, WRAPPED, SQUEEZED):
        found = chrome.evaluate(f"({wrong}).map((e) => e.outerHTML.slice(0, 200))")
        assert found == [], (address, width, wrong)
    if name:
        chrome.keep(name, width=width, schemes=(dark,))


def violations(chrome: Browser, source: str) -> list[str]:
    """What axe-core finds on the page, a line each."""
    chrome.evaluate(source + "; true")
    found = json.loads(
        chrome.evaluate(f"axe.run(document, {json.dumps(RULES)}).then((r) => JSON.stringify(r.violations))")
    )
    return [
        f"{rule['id']}: {node['target']} {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.check
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), LOOKS, ids=lambda value: {False: "light", True: "dark"}.get(value))
def test_every_page_looks_right_and_is_accessible(
    width: int, dark: bool, shown: Panel, troubled: Database, chrome: Browser, axe: str
) -> None:
    sign_in(chrome, shown)
    for address in addresses(troubled, "mario.bassi"):
        name = "".join(c if c.isalnum() else "-" for c in address).strip("-") or "overview"
        look(chrome, shown.url + address, width=width, dark=dark, name=name)
        assert violations(chrome, axe) == [], address
    if width == max(WIDTHS):
        look(chrome, shown.url + "/", width=2560, dark=dark, name="overview")


@pytest.mark.check
@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.soak), 200])
def test_no_agents_and_many_fit_too(
    number: int, connection: Database, database_url: str, redis_url: str, tmp_path: Path, chrome: Browser, axe: str
) -> None:
    ids = site.plant(connection, number=number, runs=2)
    with panel(database_url, redis_url, tmp_path / "log") as found:
        sign_in(chrome, found)
        for address in addresses(connection, ids[-1] if ids else ""):
            if number or not address.startswith("/ask/sync"):
                look(chrome, found.url + address, width=360, dark=True)
                assert violations(chrome, axe) == [], address


@pytest.mark.check
@pytest.mark.slow
def test_hostile_names_ids_and_messages_run_nothing_and_break_nothing(
    connection: Database, database_url: str, redis_url: str, tmp_path: Path, chrome: Browser
) -> None:
    ids = site.plant(connection, number=8, hostile=True)
    with panel(database_url, redis_url, tmp_path / "log") as found:
        sign_in(chrome, found, name=site.HOSTILE)
        for agent_id, width in ((ids[0], 360), (ids[6], 1400)):
            for address in addresses(connection, agent_id):
                if not address.startswith("/ask/again"):
                    look(chrome, found.url + address, width=width, dark=False)
                    assert "taken" not in chrome.evaluate("document.title").split()


@pytest.mark.check
@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_long_names_fit(
    width: int, connection: Database, database_url: str, redis_url: str, tmp_path: Path, chrome: Browser
) -> None:
    type_name = site.plant_long_names(connection)
    with panel(database_url, redis_url, tmp_path / "log") as found:
        sign_in(chrome, found, name=site.LONG_ID)
        pair = httpx.QueryParams({"type": type_name, "agent": site.LONG_ID})
        for address in (
            *addresses(connection, site.LONG_ID),
            f"/pair?{pair}",
            f"/types/{type_name}",
            f"/ask/sync?{pair}",
        ):
            look(chrome, found.url + address, width=width, dark=False)


def test_on_a_telephone_a_card_has_its_controls_in_one_row(shown: Panel, chrome: Browser) -> None:
    sign_in(chrome, shown)
    chrome.look(width=360, dark=False)
    tops = "[...document.querySelectorAll('#type-orders button, #type-orders .button')].map((e) => e.getBoundingClientRect().top)"
    assert len(set(chrome.evaluate(tops))) == 1


def test_the_sign_in_page_is_accessible_and_a_wrong_token_is_told(shown: Panel, chrome: Browser, axe: str) -> None:
    for width in WIDTHS:
        for dark in (False, True):
            look(chrome, shown.url + "/sign-in", width=width, dark=dark, name="sign-in")
            assert violations(chrome, axe) == []
    chrome.submit("form.sheet", token="x" * 20, name="anna")
    assert "there is no such token" in chrome.evaluate("document.body.innerText")
    assert violations(chrome, axe) == []
    assert chrome.evaluate("document.querySelector('[name=name]').value") == "anna"


def test_a_page_keeps_up_in_place_and_keeps_what_was_typed(shown: Panel, troubled: Database, quick: Browser) -> None:
    sign_in(quick, shown)
    quick.look(width=360, dark=False)
    quick.evaluate(
        "document.querySelector('#type-orders [name=minutes]').focus(); document.querySelector('#type-orders [name=minutes]').value = '77'"
    )
    quick.evaluate("window.kept = document.querySelector('#type-orders'); scrollTo(0, 400)")
    at = quick.evaluate("scrollY")
    add_run(troubled, "queued", sync_type="invoices", agent_id="sara.conti")
    record_tick(troubled, ago="1 s", duration_ms=4321)
    troubled.execute("update system.sync_settings set interval_minutes = 45 where sync_type in ('orders', 'ddt')")
    wait_until(quick, "document.body.innerText.includes('4321 ms')")
    assert "queue 2" in quick.evaluate("document.querySelector('.strip').innerText")
    assert quick.evaluate("document.querySelector('#type-ddt [name=minutes]').value") == "45"
    assert quick.evaluate("document.querySelector('#type-orders') === window.kept")
    assert quick.evaluate("document.activeElement === document.querySelector('#type-orders [name=minutes]')")
    assert quick.evaluate("document.activeElement.value") == "77"
    assert quick.evaluate("scrollY") == at
    quick.press("#type-orders button")  # what was seen is not what is there any more
    assert "somebody has set orders to 45 min meanwhile" in quick.evaluate("document.body.innerText").lower()


def test_nothing_moves_under_the_pointer(shown: Panel, troubled: Database, quick: Browser) -> None:
    sign_in(quick, shown)
    quick.open(f"{shown.url}/runs", width=1400, dark=False)
    quick.point_at("tbody tr:nth-child(3) a")
    first = "document.querySelector('tbody tr').dataset.key"
    before = quick.evaluate(first)
    run_id = add_run(troubled, "failed", message="a new one")
    troubled.execute("update system.sync_runs set message = 'told later' where id = %s", [before])
    wait_until(quick, "document.body.innerText.includes('told later')")
    assert quick.evaluate(first) == before
    assert "There is something new" in quick.evaluate("document.getElementById('state').innerText")
    quick.point_at("h1")
    wait_until(quick, f"{first} === '{run_id}'")


def test_a_hidden_tab_asks_for_nothing(shown: Panel, troubled: Database, quick: Browser) -> None:
    sign_in(quick, shown)
    wait_until(quick, "performance.getEntriesByType('resource').filter((e) => e.initiatorType === 'fetch').length > 0")
    quick.evaluate(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
        " document.dispatchEvent(new Event('visibilitychange')); performance.clearResourceTimings()"
    )
    quick.evaluate("new Promise((done) => setTimeout(done, 20000, true))")
    asked = "performance.getEntriesByType('resource').filter((e) => e.initiatorType === 'fetch').length"
    assert quick.evaluate(asked) == 0
    quick.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(quick, f"{asked} > 0")


@pytest.mark.slow
def test_an_open_page_says_who_is_away_and_goes_on_when_they_are_back(
    own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey, tmp_path: Path, quick: Browser
) -> None:
    with connected(own_postgres.url, purpose="test") as db:
        migrate(db, {})
        site.plant(db)
    with panel(own_postgres.url, own_valkey.url, tmp_path / "log") as found:
        sign_in(quick, found)
        state = "document.getElementById('state').innerText"
        own_valkey.kill()
        wait_until(quick, "document.querySelector('.strip').innerText.includes('Redis')")
        own_postgres.kill()
        said = wait_until(quick, state)
        assert "PostgreSQL" in said
        assert "What you see is from" in said
        assert quick.evaluate("document.querySelectorAll('.card').length") == 6  # what was seen stays
        own_postgres.start()
        own_valkey.start()
        wait_until(quick, f"{state} === '' && document.querySelector('.strip').innerText.includes('workers 0')")
    wait_until(quick, f"{state}.includes('The server does not answer.')")


def test_no_other_page_can_put_the_panel_into_a_frame(shown: Panel, chrome: Browser, tmp_path: Path) -> None:
    """So nobody is made to click on what he does not see."""
    page = tmp_path / "evil.html"
    page.write_text(f'<iframe src="{shown.url}/sign-in"></iframe>')
    sign_in(chrome, shown)
    chrome.open(page, width=800, dark=False)
    end = monotonic() + PATIENCE_S
    while not any("frame-ancestors" in said for said in chrome.problems):
        assert monotonic() < end, chrome.problems
        chrome.evaluate("new Promise((done) => requestAnimationFrame(() => done(true)))")


def test_whoever_is_signed_out_meanwhile_is_told(shown: Panel, quick: Browser) -> None:
    sign_in(quick, shown, READ_TOKEN)
    quick.ask("Network.clearBrowserCookies")
    said = wait_until(quick, "document.getElementById('state').innerText")
    assert said.startswith("You are not signed in any more")


def test_a_form_is_sent_once_however_often_it_is_clicked(shown: Panel, troubled: Database, quick: Browser) -> None:
    sign_in(quick, shown)
    quick.evaluate(
        "window.sent = 0; document.addEventListener('submit', (e) => { if (!e.defaultPrevented) { window.sent++; e.preventDefault() } });"
        " const button = document.querySelector('#type-orders button'); button.click(); button.click(); true"
    )
    assert quick.evaluate("window.sent") == 1
