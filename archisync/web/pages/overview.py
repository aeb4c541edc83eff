"""The first page: is the data fresh, what works on it, what waits for a person, and a card for each type."""

from __future__ import annotations

from starlette.responses import Response

from archisync.observe.snapshot import PAIRS_NAMED, Snapshot, read_snapshot
from archisync.store import activity, held
from archisync.web.calls import Call
from archisync.web.pages import cards
from archisync.web.pages.look import HELD_COUNTED, show
from archisync.web.workforce import Staff

LISTED = 5


def page(call: Call) -> Response:
    """GET /."""
    staff = call.services.workforce.staff()
    with call.database() as db:
        snap = read_snapshot(db, held_limit=100, pairs_limit=PAIRS_NAMED + 1)
        trends = activity.trends(db, limit=cards.RUNS)
        waiting = cards.exports_waiting(held.count_waiting(db, limit=HELD_COUNTED), HELD_COUNTED)
        tone, headline = cards.headline(snap.types, waiting=waiting, stopped=_stopped(snap, staff))
        return show(
            call,
            db,
            "overview.html",
            title="Overview",
            tone_of_all=tone,
            headline=headline,
            cards=cards.cards(snap.types, trends, now=snap.now, held=snap.held, pauses=snap.pauses),
            snap=snap,
            staff=staff,
            queued=_total(snap, "queued"),
            running=_total(snap, "running"),
            held=snap.held[:LISTED],
            more_held=len(snap.held) > LISTED,
            unhealthy=snap.unhealthy[:PAIRS_NAMED],
            more_unhealthy=len(snap.unhealthy) > PAIRS_NAMED,
            pauses=snap.pauses[:LISTED],
            more_pauses=max(len(snap.pauses) - LISTED, 0),
        )


def _stopped(snap: Snapshot, staff: Staff) -> str | None:
    """Why nothing is refreshed at all."""
    if snap.tick_note:
        return snap.tick_note
    return staff.note if any(h.queued for h in snap.types) else None


def _total(snap: Snapshot, name: str) -> str:
    total = sum(getattr(h, name) for h in snap.types)
    return f"more than {total}" if any(name in h.more_than for h in snap.types) else str(total)
