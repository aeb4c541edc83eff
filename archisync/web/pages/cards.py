"""A type's card: its health in one sentence, how old its oldest copy is, its last runs as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from archisync.base.text import counted, duration, iso, seconds
from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.store.activity import Point
from archisync.store.health import TypeHealth
from archisync.store.held import Held
from archisync.store.settings import Pause

RUNS = 40
BAR_WIDTH = 6
BAR_HEIGHT = 28
LEAST_HEIGHT = 4
AGE_STEPS = 20
"""Steps of the freshness bar: a bar that moves with every second would make every page a new one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A run of the trend, in the units of its drawing."""

    x: int
    height: int
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Age:
    """How full the freshness bar is, of AGE_STEPS; at the end of it the copy is stale. `tone`: its colour."""

    steps: int
    tone: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """All that a card shows of one type."""

    health: TypeHealth
    sentence: str
    age: Age | None
    bars: Sequence[Bar]
    trend: str


def card(
    h: TypeHealth, *, now: datetime, points: Sequence[Point], held: Sequence[Held] = (), pauses: Sequence[Pause] = ()
) -> Card:
    """`points`: its last runs, oldest first. `held` and `pauses`: of all types."""
    mine = [one for one in held if one.sync_type == h.sync_type]
    return Card(
        health=h, sentence=_sentence(h, mine, pauses), age=_age(h, now), bars=_bars(points), trend=_trend(points)
    )


def cards(
    types: Sequence[TypeHealth],
    trends: Mapping[str, Sequence[Point]],
    *,
    now: datetime,
    held: Sequence[Held],
    pauses: Sequence[Pause],
) -> list[Card]:
    """One for each type."""
    return [card(h, now=now, points=trends.get(h.sync_type, ()), held=held, pauses=pauses) for h in types]


def people(h: TypeHealth, name: str) -> str:
    """A count of pairs in words: 2 agents, >1000 agents, or the one copy of a shared type."""
    shown = h.shown(name)
    return f"{shown} agent" if shown == 1 else f"{shown} agents"


def _is_shared(h: TypeHealth) -> bool:
    found = SYNC_TYPES.get(h.sync_type)
    return found is not None and found.scope is Scope.SHARED


def _sentence(h: TypeHealth, held: Sequence[Held], pauses: Sequence[Pause]) -> str:
    shared = _is_shared(h)
    match h.word:
        case "disabled":
            return "Switched off: nothing is scheduled."
        case "paused":
            return _paused(h.sync_type, pauses)
        case "held":
            number = "1 export waits" if h.held == 1 else f"{h.shown('held')} exports wait"
            return f"{number} for a decision{f': {held[0].message}' if held else ''}."
        case "degraded":
            return (
                "The last three attempts failed, or more."
                if shared
                else f"{people(h, 'degraded')} failed three times in a row, or more."
            )
        case "no agents":
            return "No agent is on the whitelist."
        case "stale":
            return (
                "Older than it should be."
                if shared
                else f"{people(h, 'stale')} of {h.shown('pairs')} have older data than they should."
            )
        case "failing":
            return (
                "The last attempt failed; it is tried again."
                if shared
                else f"The last attempt of {people(h, 'failing')} failed; it is tried again."
            )
        case "running":
            return "Everything is up to date; a sync is running."
        case _:
            return "Everything is up to date."


def _paused(sync_type: str, pauses: Sequence[Pause]) -> str:
    for pause in pauses:
        if pause.agent_id is None and pause.sync_type in (None, sync_type):
            what = "Everything is paused" if pause.sync_type is None else "Paused"
            by = f" by {pause.paused_by}" if pause.paused_by else ""
            until = f" until {iso(pause.until)}" if pause.until else " until somebody resumes"
            return f"{what}{by}{until}{f': {pause.reason}' if pause.reason else ''}."
    return "Paused."


def _age(h: TypeHealth, now: datetime) -> Age | None:
    if not h.pairs:
        return None
    if h.oldest_success_at is None:
        share, words = 1.0, "never loaded"
    else:
        share = (now - h.oldest_success_at).total_seconds() / (2 * 60 * h.interval_minutes)
        words = "in the future: a clock was wrong" if share < 0 else f"{duration(now - h.oldest_success_at)} old"
    share = min(max(share, 0.0), 1.0)
    tone = "quiet" if h.word in ("paused", "disabled") else "good" if share <= 0.5 else "warn" if share < 1 else "bad"
    return Age(steps=round(share * AGE_STEPS), tone=tone, words=words)


def _bars(points: Sequence[Point]) -> list[Bar]:
    """Bars as high as the runs lasted. What lasted much longer than most is as high as the drawing, or it would flatten all others."""
    full = 3 * median(point.seconds for point in points) if points else 0.0
    longest = min(max((point.seconds for point in points), default=0.0), full) or 1.0
    first = RUNS - len(points)
    return [
        Bar(
            x=(first + i) * BAR_WIDTH,
            height=max(round(BAR_HEIGHT * min(max(point.seconds / longest, 0), 1)), LEAST_HEIGHT),
            state=point.state,
        )
        for i, point in enumerate(points)
    ]


def _trend(points: Sequence[Point]) -> str:
    """The bars in words."""
    if not points:
        return "no run yet"
    number = "the last run" if len(points) == 1 else f"last {len(points)} runs"
    bad = [f"{n} {state}" for state in ("failed", "held") if (n := sum(p.state == state for p in points))]
    took = f"median {seconds(median(p.seconds for p in points))}"
    return ", ".join([number, took, *bad])


def headline(types: Sequence[TypeHealth], *, waiting: str, stopped: str | None) -> tuple[str, str]:
    """The tone and the sentence that answers: is the sales data fresh? `stopped`: why nothing is refreshed at all."""
    if stopped:
        return "bad", f"Nothing is refreshed now: {stopped}"
    troubles = [
        _trouble(h) for h in types if h.word in ("held", "degraded", "stale", "failing") and (h.stale or h.failing)
    ]
    waits = [waiting] if waiting else []
    if troubles or waits:
        known = "Not all of it: " if troubles else "As far as it was let in: "
        return ("warn" if troubles else "held"), known + "; ".join([*troubles, *waits]) + "."
    if all(h.word in ("paused", "disabled", "no agents") for h in types):
        return "quiet", "Nobody asked for that: every type is paused, switched off or without agents."
    return "good", "Yes. Everything that is switched on is as fresh as it should be."


def _trouble(h: TypeHealth) -> str:
    if h.stale:
        what = "are older than they should be"
        return f"{h.sync_type} {what}" if _is_shared(h) else f"{h.sync_type} of {people(h, 'stale')} {what}"
    return (
        f"the last sync of {h.sync_type} failed"
        if _is_shared(h)
        else f"the last sync of {h.sync_type} of {people(h, 'failing')} failed"
    )


def exports_waiting(number: int, most: int) -> str:
    """2 exports wait for a decision; empty for none."""
    if not number:
        return ""
    shown = f"more than {most} exports" if number > most else counted(number, "export")
    return f"{shown} {'waits' if number == 1 else 'wait'} for a decision"
