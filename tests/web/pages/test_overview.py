"""The overview: what it answers, what its forms do, and when it has not changed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from archisync.store import settings
from archisync.store.database import Database
from archisync.web.pages.look import FOLDER
from archisync.web.pages.moments import Moments
from tests.support import site
from tests.support.panel import Panel, signed_in
from tests.support.rows import record_tick


def text_of(html: str) -> str:
    """What a reader sees, roughly: without tags, blanks folded."""
    return " ".join(re.sub(r"<[^>]*>", "", html).split())


def test_it_says_whether_the_data_is_fresh_and_what_waits(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        seen = text_of(client.get("/").text)
    assert "Nothing is refreshed now: no worker is alive" in seen  # something is queued
    assert "queue 1" in seen
    assert "running 1" in seen
    assert "held invoices of luca.ferrari: 118 of 120 known rows would be rewritten" in seen
    assert "failing orders of mario.bassi: 4 failures in a row, tried again" in seen
    assert "orders degraded 1 agent failed three times in a row, or more." in seen
    assert "last 40 runs, median 35 ms, 4 failed" in seen
    assert "Paused by luca until" in seen
    assert seen.count("Everything is up to date.") == 2  # products and ddt

    troubled.execute("update system.queued_runs set trigger = 'scheduled'")
    with signed_in(shown) as client:
        troubled.execute("delete from system.queued_runs where sync_type = 'ddt'")
        troubled.execute("update system.sync_state set unfinished_run_id = null where sync_type = 'ddt'")
        seen = text_of(client.get("/").text)
    assert "Not all of it: orders of 1 agent are older than they should be; 2 exports wait for a decision." in seen


def test_an_interval_is_saved_once_and_says_who_did_it(shown: Panel, troubled: Database) -> None:
    form = {"type": "orders", "minutes": "25", "was": "10", "back": "/"}
    with signed_in(shown, name="anna") as client:
        answer = client.post("/act/interval", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        refreshed = client.get("/", headers={"Sec-Fetch-Dest": "empty"})  # another tab
        assert "from the next tick on" not in refreshed.text
        said = client.get("/")
        assert "orders: every 25 min, from the next tick on (it was 10)" in said.text
        assert "etag" not in said.headers
        assert "from the next tick on" not in client.get("/").text  # said once
        stale = client.post("/act/interval", data=form | {"minutes": "30"})
        assert stale.status_code == 412
        assert "Somebody has set orders to 25 min meanwhile; nothing was changed" in stale.text
        wrong = client.post("/act/interval", data=form | {"minutes": "4", "was": "25"})
        assert wrong.status_code == 400
        assert "from 5 to 1440" in wrong.text
    assert {s.sync_type: s.interval_minutes for s in settings.all_settings(troubled)}["orders"] == 25
    assert site.audited(troubled)[0] == ("anna", "panel", "interval set")


def test_an_unchanged_page_is_not_sent_again_though_time_passes(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        for _ in range(5):  # a step of a bar may pass meanwhile
            tag = client.get("/").headers["etag"]
            if (status := client.get("/", headers={"If-None-Match": tag}).status_code) == 304:
                break
        assert status == 304
        record_tick(troubled, ago="1 s")
        assert client.get("/", headers={"If-None-Match": tag}).status_code == 200


def test_style_and_script_are_kept_and_small(shown: Panel) -> None:
    with signed_in(shown) as client:
        page = client.get("/")
        for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
            found = client.get(address)
            assert found.status_code == 200
            assert "immutable" in found.headers["cache-control"]
            assert len(found.content) < 15_000
        policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on[a-z]+=|https?://", page.text)


def test_times_are_in_the_zone_of_the_company_with_utc_beside() -> None:
    now = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)  # 00:30 on the second in Rome
    rome = Moments(zone=ZoneInfo("Europe/Rome"), now=now)
    assert rome.exact(now) == (
        '<time datetime="2026-07-01T22:30:00Z" title="2026-07-02 00:30:00 CEST, 22:30:00 UTC">00:30 CEST</time>'
    )
    assert ">1 Jul 23:30 CEST<" in rome.exact(now - timedelta(hours=1))
    assert ">31 Dec 2025 23:30:00 CET<" in rome.exact(datetime(2025, 12, 31, 22, 30, tzinfo=UTC), to_the_second=True)
    assert rome.exact(None) == "never"
    assert " data-ago>65 min ago<" in rome.age(now - timedelta(minutes=65))
    assert rome.in_words("<b> due at 2026-07-01T22:30:00Z, not 2026-99-99T00:00:00Z") == (
        "&lt;b&gt; due at " + str(rome.exact(now)) + ", not 2026-99-99T00:00:00Z"
    )
    assert rome.in_words("45 % of 9") == "45\N{NO-BREAK SPACE}% of 9"
    assert ">00:30:00 CEST · 22:30:00 UTC<" in rome.clock()


def test_each_template_writes_the_sentences_of_the_commands_in_the_words_of_a_page() -> None:
    """With times in the company's zone, as the rest of the page has them."""
    found = [
        (template.name, shown)
        for template in (FOLDER / "templates").iterdir()
        for shown in re.findall(r"{{\s*([a-z_.]+\.(?:message|note|last_error)\b[^}]*)}}", template.read_text("utf-8"))
    ]
    assert found == []
