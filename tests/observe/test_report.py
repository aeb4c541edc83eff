"""`archisync report --html`: one page that needs no other file, shows what is wrong, and looks right in a browser."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import activity, agents, clock
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.browser import Browser, browser, chromium
from tests.support.rows import add_run, sync

AGENT = "anna.bianchi"
HEADER = "customer_id,name,phone\n"
HOSTILE = '</td><script src="https://evil.example/x.js">alert(1)</script><img src=https://evil.example/y>'


@pytest.fixture
def history(connection: Database, database_url: str, exports: Path) -> None:
    """A run that succeeded, one that was held and one that failed. Names and messages are hostile."""
    agents.add(connection, AGENT, name=HOSTILE, whitelisted=True)
    config = Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}
    )
    folder = exports / AGENT
    folder.mkdir()
    customers = [f"C{n},Name {n},06 {n}\n" for n in range(20)]
    (folder / "customers.csv").write_text(HEADER + "".join(customers))
    assert sync(connection, config, "customers", AGENT).state == "succeeded"
    (folder / "customers.csv").write_text(HEADER + "".join(customers[:3]))
    assert sync(connection, config, "customers", AGENT).state == "held"
    (folder / "orders.csv").write_text(f'{HEADER.strip()},"{HOSTILE.replace(chr(34), chr(34) * 2)}"\n')
    assert sync(connection, config, "orders", AGENT).state == "held"
    connection.execute(
        "update system.sync_runs set state = 'failed', message = %s where sync_type = 'orders'", [f"boom {HOSTILE}"]
    )


def test_a_long_page_is_printed_whole(cli: Cli, connection: Database, history: None, tmp_path: Path) -> None:
    for _ in range(50):
        add_run(connection, "failed", finished_at=clock.now(connection), message="<" * 5_000)
    printed, written = cli("report", "--html", "-"), tmp_path / "report.html"
    assert cli("report", "--html", str(written)).returncode == printed.returncode == 0
    assert len(printed.stdout) > 100_000
    assert printed.stdout.rstrip().endswith("</html>")
    assert len(printed.stdout.encode()) == pytest.approx(written.stat().st_size, abs=100)  # the time in it may differ


class _Page(HTMLParser):
    """The tags and texts of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(cli: Cli, *options: str, env: Mapping[str, str] | None = None) -> str:
    done = cli("report", "--html", "-", *options, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("history")
def test_the_page_shows_what_is_wrong_and_requests_nothing(cli: Cli) -> None:
    text = page(cli)
    found = _Page(text)
    shown = " ".join(" ".join(found.text).split())
    assert "Not all of it: look at customers" in shown
    assert "archisync held show 2" in shown
    assert f"boom {HOSTILE}" in shown
    assert "1 succeeded" in shown
    assert "1 held" in shown
    assert "1 failed" in shown
    assert {tag for tag, _ in found.tags} & {"script", "img", "link", "iframe", "object"} == set()
    attributes = {name for _, attributes in found.tags for name in attributes}
    assert attributes & {"src", "href", "srcset", "data"} == set()
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in found.tags
    assert "url(" not in text
    assert "@import" not in text


def test_a_page_without_any_run(cli: Cli) -> None:
    shown = " ".join(_Page(page(cli)).text)
    assert "No agent is on the whitelist." in shown
    assert "None: nothing waits for a person." in shown
    assert "No sync ended in this time." in shown


def test_it_does_not_look_healthy_while_nobody_works(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set enabled = false")
    assert cli("tick").returncode == 0
    said = {
        None: "Nothing is refreshed: no worker is alive on the queue archisync: archisync worker --processes 2",
        "redis://127.0.0.1:1": "Nothing is refreshed: Redis is out of reach",
        "": "Yes. Everything that is switched on is as fresh as it should be",  # nobody can say
    }
    for url, sentence in said.items():
        shown = " ".join(_Page(page(cli, env={} if url is None else {"ARCHISYNC_REDIS_URL": url})).text)
        assert [other for other in said.values() if other in shown] == [sentence]


@pytest.mark.usefixtures("history")
def test_a_disabled_type_may_be_old_and_is_not_red(cli: Cli, connection: Database) -> None:
    def fills(type_name: str) -> list[str | None]:
        text = page(cli)
        card = next(part for part in text.split("<section") if f"{type_name}<span" in part)
        return [attributes["class"] for tag, attributes in _Page(card).tags if tag == "rect"][:2]

    assert fills("customers")[0] == "s-line"
    assert fills("orders") == ["s-line", "s-bad"]
    cli("disable", "orders")
    assert fills("orders") == ["s-line", "s-quiet"]
    assert not connection.closed


@pytest.mark.usefixtures("history")
def test_short_runs_are_shown_in_milliseconds(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_runs set steps = '{\"total\": 28}'")
    shown = " ".join(_Page(page(cli)).text)
    assert "the longest took 28 ms" in shown
    assert "0.0 s" not in shown


@pytest.mark.usefixtures("history")
def test_every_run_of_the_days_is_in_one_bar(connection: Database) -> None:
    now = clock.now(connection) + timedelta(seconds=1)
    since, step = now - timedelta(days=7), timedelta(hours=3)
    connection.execute("update system.sync_runs set queued_at = %s where id = 1", [since + timedelta(hours=4)])
    steps = activity.outcomes(connection, since=since, until=now, step=step)
    assert len(steps) == 56
    assert [(i, s.succeeded, s.held, s.failed) for i, s in enumerate(steps) if s.total] == [(1, 1, 0, 0), (55, 0, 1, 1)]
    connection.execute("update system.sync_runs set queued_at = %s where id = 1", [since - timedelta(hours=4)])
    assert sum(s.total for s in activity.outcomes(connection, since=since, until=now, step=step)) == 2


def test_the_file_is_replaced_in_one_step_or_left_alone(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("the last one")
    unreachable = {"ARCHISYNC_DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    assert cli("report", "--html", str(target), env=unreachable).returncode == 4
    assert target.read_text() == "the last one"
    done = cli("report", "--html", str(target))
    assert done.returncode == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("report.html")] == ["report.html"]
    done = cli("report", "--html", str(tmp_path / "nowhere" / "report.html"))
    assert (done.returncode, "can't be written" in done.stderr) == (2, True)


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: chromium)")
    with browser(program, tmp_path / "profile") as found:
        yield found


@pytest.mark.usefixtures("history")
def test_it_looks_right_in_a_browser(cli: Cli, tmp_path: Path, shown: Browser) -> None:
    target = tmp_path / "report.html"
    assert cli("report", "--html", str(target)).returncode == 0
    papers = set()
    for width in (400, 1400):
        for dark in (False, True):
            shown.open(target, width=width, dark=dark)
            assert shown.requests == [target.as_uri()]
            assert shown.problems == []
            highest = "Math.max(...[...document.querySelectorAll('td')].map(t => t.offsetHeight))"
            assert int(str(shown.evaluate(highest))) < 300
            root = "document.documentElement"
            assert shown.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
            assert width - 20 <= int(str(shown.evaluate(f"{root}.clientWidth"))) <= width
            assert shown.evaluate("document.querySelectorAll('.card').length") == 6
            assert "boom </td><script" in str(shown.evaluate("document.body.innerText"))
            heights = "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
            assert all(height > 5 for height in shown.evaluate(heights))
            style = "getComputedStyle(document.body)"
            paper, ink = (shown.evaluate(f"{style}.{name}") for name in ("backgroundColor", "color"))
            papers.add(paper)
            assert _contrast(str(paper), str(ink)) >= 7
            for tone in ("good", "warn", "bad", "quiet", "soft"):
                expression = f"getComputedStyle(document.documentElement).getPropertyValue('--{tone}')"
                assert _contrast(str(paper), str(shown.evaluate(expression))) >= 4.5, (tone, dark)
            if folder := os.environ.get("ARCHISYNC_TEST_SCREENSHOTS"):
                (Path(folder) / f"report-{width}-{'dark' if dark else 'light'}.png").write_bytes(shown.screenshot())
    assert len(papers) == 2


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of two CSS colours (WCAG 2, relative luminance)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    text = colour.strip()
    hexadecimal = text.startswith("#")
    parts = [text[i : i + 2] for i in (1, 3, 5)] if hexadecimal else re.findall(r"\d+", text)[:3]
    numbers = [int(part, 16 if hexadecimal else 10) for part in parts]
    shares = [n / 255 for n in numbers]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
