"""A report as one HTML page: no script, no request, no other file.

The page is built as a tree of elements, so a name or a message is always text, whatever it contains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from xml.etree.ElementTree import Element, SubElement, tostring

from archisync import __version__
from archisync.base.text import duration, iso, printable, redact, relative, seconds, with_hint
from archisync.observe.report import TREND_RUNS, Report
from archisync.store.activity import Point
from archisync.store.health import TypeHealth

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_WORDS = {
    "healthy": "Everything is up to date.",
    "running": "A sync is running.",
    "held": "A suspicious export waits for a decision.",
    "degraded": "The last three attempts failed, or more.",
    "failing": "The last attempt failed; it is tried again.",
    "stale": "Older than it should be.",
    "paused": "Paused by a person.",
    "disabled": "Switched off.",
    "no agents": "No agent is on the whitelist.",
}
_GOOD = frozenset({"healthy", "running"})
_QUIET = frozenset({"paused", "disabled", "no agents"})
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#ffffff;--panel:#f6f8fa;--line:#d0d7de;
--good:#1a7f37;--warn:#9a6700;--bad:#cf222e;--quiet:#6e7781;--mark:#0969da}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--paper:#0d1117;--panel:#161b22;--line:#30363d;
--good:#3fb950;--warn:#d29922;--bad:#ff7b72;--quiet:#8b949e;--mark:#58a6ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:70rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.3rem 0}.soft{color:var(--soft);font-size:.9rem}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
.card,.plot{background:var(--panel);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem}
.card h3{display:flex;justify-content:space-between;gap:1rem;margin:0;font-size:1.05rem}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}.quiet{color:var(--quiet)}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem;margin:.5rem 0 .2rem;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
svg{display:block;width:100%}.bars{height:11rem}.trend{height:2.2rem}.age{height:.7rem}
.s-good{fill:var(--good)}.s-warn{fill:var(--warn)}.s-bad{fill:var(--bad)}.s-line{fill:var(--line)}.s-quiet{fill:var(--quiet)}.s-mark{fill:var(--mark)}
.ends{display:flex;justify-content:space-between;gap:1rem}
.key span{margin-right:1.2rem}.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:.15rem;margin-right:.35rem}
.k-good{background:var(--good)}.k-warn{background:var(--warn)}.k-bad{background:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}td.n{white-space:nowrap;font-variant-numeric:tabular-nums;overflow-wrap:normal}td.t{min-width:15rem}
summary{cursor:pointer;color:var(--mark);font-size:.9rem;margin-top:.4rem}
@media print{.card,.plot{break-inside:avoid}}
"""


def page(report: Report) -> str:
    """The whole HTML document."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", f"archisync report, {report.now:%d %B %Y}")
    _add(head, "style", _STYLE)
    main = SubElement(SubElement(html, "body"), "main")
    _headline(main, report)
    _freshness(main, report)
    _activity(main, report)
    _held(main, report)
    _failures(main, report)
    _slowest(main, report)
    _add(main, "p", f"Made by archisync {__version__}. Times are UTC.", "soft")
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _add(parent: Element, name: str, text: str = "", style: str = "") -> Element:
    child = SubElement(parent, name, {"class": style} if style else {})
    child.text = text
    return child


def _headline(main: Element, report: Report) -> None:
    _add(main, "h1", "Is the sales data fresh?")
    wrong = [h.sync_type for h in report.health if h.word not in _GOOD | _QUIET]
    stopped = [note for note in (report.tick_note, report.worker_note) if note]
    for note in stopped:
        _add(main, "p", f"Nothing is refreshed: {note}", "bad")
    if wrong:
        _add(main, "p", f"Not all of it: look at {_listed(wrong)}.", "bad")
    elif not stopped:
        _add(main, "p", "Yes. Everything that is switched on is as fresh as it should be.", "good")
    span = duration(report.now - report.since)
    _add(main, "p", f"As of {report.now:%d %B %Y, %H:%M}. Runs and failures are those of the last {span}.", "soft")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _freshness(main: Element, report: Report) -> None:
    _add(main, "h2", "Freshness of each type")
    cards = _add(main, "div", style="cards")
    for h in report.health:
        _card(cards, h, report)


def _tone(word: str) -> str:
    if word in _GOOD:
        return "good"
    return "quiet" if word in _QUIET else "bad" if word in {"degraded", "held"} else "warn"


def _card(cards: Element, h: TypeHealth, report: Report) -> None:
    card = _add(cards, "section", style="card")
    title = _add(card, "h3", h.sync_type)
    _add(title, "span", h.word, _tone(h.word))
    _add(card, "p", _WORDS[h.word], "soft")
    oldest = h.oldest_success_at
    if h.pairs:
        _age(card, h, report.now)
    rows = [
        ("refreshed every", f"{h.interval_minutes} min"),
        ("newest", relative(h.newest_success_at, report.now) if h.newest_success_at else "never"),
        ("oldest", relative(oldest, report.now) if oldest else "never" if h.pairs else "-"),
        ("agents", str(h.shown("pairs"))),
        ("stale, failing, held", ", ".join(str(h.shown(name)) for name in ("stale", "failing", "held"))),
    ]
    details = _add(card, "dl")
    for name, value in rows:
        _add(details, "dt", name)
        _add(details, "dd", value)
    _trend(card, h.sync_type, report.trends.get(h.sync_type, []))


def _age(card: Element, h: TypeHealth, now: datetime) -> None:
    """A bar for the age of the oldest copy. It is full at two intervals, when the copy is stale."""
    allowed = timedelta(minutes=2 * h.interval_minutes)
    share = 1.0 if h.oldest_success_at is None else min(max((now - h.oldest_success_at) / allowed, 0.0), 1.0)
    age = "never refreshed" if h.oldest_success_at is None else f"{share:.0%} of the age at which it is stale"
    svg = _svg(card, "age", 100, 8, f"{h.sync_type}: the oldest copy is {age}")
    _rectangle(svg, 0, 0, 100, 8, "s-line")
    tone = "s-good" if share <= 0.5 else "s-warn" if share < 1 else "s-bad"
    _rectangle(svg, 0, 0, 100 * share, 8, "s-quiet" if h.word in _QUIET else tone)  # a person wants it to be old


def _trend(card: Element, sync_type: str, points: Sequence[Point]) -> None:
    if not points:
        return
    longest = max(point.seconds for point in points) or 1.0
    failed = sum(point.state != "succeeded" for point in points)
    runs = "the last run" if len(points) == 1 else f"the last {len(points)} runs"
    svg = _svg(card, "trend", 10 * TREND_RUNS, 100, f"{sync_type}: {runs}, {failed} not succeeded")
    first = TREND_RUNS - len(points)
    for i, point in enumerate(points):
        height = max(100 * point.seconds / longest, 6.0)
        tone = {"succeeded": "s-mark", "held": "s-warn"}.get(point.state, "s-bad")
        _rectangle(svg, 10 * (first + i) + 1, 100 - height, 8, height, tone)
    _add(card, "p", f"{runs}; the longest took {seconds(longest)}", "soft")


def _svg(parent: Element, style: str, width: float, height: float, title: str) -> Element:
    svg = SubElement(
        parent,
        "svg",
        {"class": style, "viewBox": f"0 0 {width:g} {height:g}", "preserveAspectRatio": "none", "role": "img"},
    )
    _add(svg, "title", title)
    return svg


def _rectangle(svg: Element, x: float, y: float, width: float, height: float, style: str) -> None:
    box = {"x": f"{x:.2f}", "y": f"{y:.2f}", "width": f"{width:.2f}", "height": f"{height:.2f}", "class": style}
    SubElement(svg, "rect", box)


def _activity(main: Element, report: Report) -> None:
    totals = {name: sum(getattr(s, name) for s in report.steps) for name in ("succeeded", "held", "failed")}
    _add(main, "h2", "Runs and failures over time")
    plot = _add(main, "div", style="plot")
    most = max((s.total for s in report.steps), default=0)
    outcomes = ", ".join(f"{count:,} {name}" for name, count in totals.items())
    svg = _svg(plot, "bars", 10 * len(report.steps), 100, f"Runs over time: {outcomes}")
    for i, s in enumerate(report.steps):
        below = 100.0
        for count, tone in ((s.succeeded, "s-good"), (s.held, "s-warn"), (s.failed, "s-bad")):
            height = 100 * count / most if most else 0.0
            below -= height
            if count:
                _rectangle(svg, 10 * i + 1, below, 8, height, tone)
    ends = _add(plot, "p", style="soft ends")
    _add(ends, "span", f"{report.since:%d %b, %H:%M}")
    _add(ends, "span", "now")
    key = _add(plot, "p", style="soft key")
    for name, tone in (("succeeded", "k-good"), ("held", "k-warn"), ("failed", "k-bad")):
        entry = _add(key, "span")
        _add(entry, "i", style=tone).tail = f"{totals[name]:,} {name}"
    _add(
        plot,
        "p",
        f"Each bar is {duration(report.step)}; the highest has {most:,} {'run' if most == 1 else 'runs'}.",
        "soft",
    )
    details = _add(plot, "details")
    _add(details, "summary", "The same as numbers")
    busy = [[f"{s.at:%d %b, %H:%M}", s.succeeded, s.held, s.failed] for s in report.steps if s.total]
    _table(details, ["from", "succeeded", "held", "failed"], busy, "No run in this time.")


def _held(main: Element, report: Report) -> None:
    _add(main, "h2", "Exports that wait for a decision")
    rows = [
        [h.sync_type, h.agent_id, iso(h.held_at), with_hint(h.message, h.hint), f"archisync held show {h.run_id}"]
        for h in report.held
    ]
    _table(main, ["type", "agent", "since", "why", "to look at it"], rows, "None: nothing waits for a person.")


def _failures(main: Element, report: Report) -> None:
    _add(main, "h2", "Newest failures")
    rows = [
        [
            run.sync_type,
            run.agent_id,
            iso(run.finished_at) if run.finished_at else "-",
            with_hint(run.message or "-", run.hint),
        ]
        for run in report.failures
    ]
    _table(main, ["type", "agent", "when", "why"], rows, "None in this time.")


def _slowest(main: Element, report: Report) -> None:
    _add(main, "h2", "Slowest syncs")
    rows = [[s.sync_type, s.agent_id, iso(s.finished_at), seconds(s.seconds)] for s in report.slowest]
    _table(main, ["type", "agent", "when", "took"], rows, "No sync ended in this time.")


def _table(parent: Element, headers: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    rows = list(rows)
    if not rows:
        _add(parent, "p", empty, "soft")
        return
    table = _add(_add(parent, "div", style="wide"), "table")
    heads = _add(_add(table, "thead"), "tr")
    for header in headers:
        _add(heads, "th", header)
    body = _add(table, "tbody")
    for row in rows:
        line = _add(body, "tr")
        for cell in row:
            short = not isinstance(cell, str) or len(cell) <= 24
            _add(line, "td", printable(redact(str(cell)), limit=500), "n" if short else "t")
