"""What somebody does who never opens a terminal, on a telephone and on a desk: find out why the orders of one agent are old, have them
synced, change the interval, decide about a held export. And the picture of the README."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import held, history, pairs, settings
from archisync.store.database import Database
from tests.conftest import REPOSITORY
from tests.support import site
from tests.support.browser import Browser, browser, chromium
from tests.support.panel import OPERATOR_TOKEN, Panel
from tests.support.rows import count

PICTURE = REPOSITORY / "examples" / "guides" / "panel.png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: chromium)")
    with browser(program, tmp_path / "profile") as found:
        yield found


def seen(chrome: Browser) -> str:
    return " ".join(str(chrome.evaluate("document.body.innerText")).split())


@pytest.mark.parametrize("width", [360, 1400])
def test_without_a_terminal(width: int, shown: Panel, troubled: Database, chrome: Browser) -> None:
    chrome.open(f"{shown.url}/", width=width, dark=width == 360)
    chrome.submit("form.sheet", token=OPERATOR_TOKEN, name="anna")
    assert "orders of mario.bassi: 4 failures in a row" in seen(chrome)
    chrome.keep("walk-1-overview", width=width)

    chrome.press(".waits a[href*='mario.bassi']")  # why are they old?
    said = seen(chrome)
    assert "It runs in 3" in said
    assert "Why: it failed 4 times in a row and rests until" in said
    assert "the ERP refused the login (401)" in said
    assert "check ARCHISYNC_HTTP_TOKEN_ORDERS" in said
    assert "A success ends the rest: mend the cause, then try now." in said
    chrome.keep("walk-2-why", width=width)

    chrome.submit("form[action='/act/sync']", why="the ERP has a new password")  # sync them now
    run_id = pairs.state(troubled, SYNC_TYPES["orders"], "mario.bassi").run_id
    assert run_id is not None
    assert f"orders of mario.bassi, run {run_id}: queued, and handed to the workers" in seen(chrome)
    assert "It waits in the queue." in seen(chrome)
    chrome.keep("walk-3-queued", width=width)
    chrome.press(f".stack a[href='/runs/{run_id}']")
    assert "anna asked for it: the ERP has a new password." in seen(chrome)
    chrome.keep("walk-4-run", width=width)

    chrome.press("a.name")
    chrome.submit("#type-orders form", minutes="15")  # less often
    assert "orders: every 15 min, from the next tick on (it was 10)" in seen(chrome)
    assert chrome.evaluate("document.querySelector('#type-orders [name=minutes]').value") == "15"
    chrome.keep("walk-5-interval", width=width)

    chrome.press("nav a[href='/held']")  # what waits for me?
    run_held = count(troubled, "select max(run_id) from system.held_exports")
    chrome.press(f"a[href='/held/{run_held}']")
    assert "118 of 120 known rows would be rewritten" in seen(chrome)
    assert "1240.50 → 124050.00" in seen(chrome)
    assert "becomes 100 times as large in 118 of 120 rows" in seen(chrome)
    chrome.keep("walk-6-held", width=width)
    chrome.fill("form.decide", why="a decimal sign was lost")
    chrome.press("form.decide button.no")
    assert "is rejected, now and whenever it comes again; the known rows stay" in seen(chrome)
    assert "Rejected by anna" in seen(chrome)
    chrome.keep("walk-7-decided", width=width)

    assert history.get(troubled, run_id).requested_by == "anna"
    assert {s.sync_type: s.interval_minutes for s in settings.all_settings(troubled)}["orders"] == 15
    assert held.held_export(troubled, run_held).decided_why == "a decimal sign was lost"
    chrome.press("nav a[href='/audit']")
    assert "rejected, sha256 3f1c3f1c3f1c… a decimal" in seen(chrome).replace("why ", "")
    assert all(word in seen(chrome) for word in ("held reject", "interval set", "a decimal sign was lost", "panel"))
    assert [action for *_, action in site.audited(troubled)[:3]] == ["held reject", "interval set", "run"]
    chrome.keep("walk-8-audit", width=width)


def test_the_picture_of_the_readme(shown: Panel, troubled: Database, chrome: Browser) -> None:
    """`make picture` writes it anew."""
    troubled.execute("delete from system.queued_runs where sync_type = 'ddt'")
    troubled.execute("update system.sync_state set unfinished_run_id = null where sync_type = 'ddt'")
    chrome.open(f"{shown.url}/", width=1120, dark=False)
    chrome.submit("form.sheet", token=OPERATOR_TOKEN, name="anna")
    chrome.look(width=1120, dark=False)
    taken = chrome.screenshot()
    assert taken.startswith(SIGNATURE)
    if os.environ.get("ARCHISYNC_TEST_PICTURE"):
        PICTURE.write_bytes(taken)
    assert PICTURE.read_bytes().startswith(SIGNATURE)
    assert "panel.png" in (REPOSITORY / "README.md").read_text("utf-8")
