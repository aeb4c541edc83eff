"""The page of a type: how fresh it is over all agents, which pairs fail or are old, its newest runs."""

from __future__ import annotations

from starlette.responses import Response

from archisync.rules.synctypes import Scope, sync_type
from archisync.store import activity, clock, health, held, history, settings
from archisync.web.calls import Call, Refusal, storable
from archisync.web.pages import cards
from archisync.web.pages.look import show

LISTED = 50
FAILING = 100


def page(call: Call) -> Response:
    """GET /types/{type}."""
    with call.database() as db:
        type_, now = sync_type(call.part("type")), clock.now(db)
        found = next((h for h in health.type_health(db) if h.sync_type == type_.name), None)
        if found is None:
            raise Refusal(404, f"{type_.name} has no settings yet", hint="archisync db migrate")
        pauses = settings.pauses(db)
        points = activity.trends(db, limit=cards.RUNS).get(type_.name, [])
        waiting = held.held_exports(db, sync_type=type_.name, limit=LISTED)
        failing = health.failing_pairs(db, after=(type_.name, 2**31 - 1, ""), limit=LISTED)
        return show(
            call,
            db,
            "type.html",
            title=type_.name,
            card=cards.card(found, now=now, points=points, held=waiting, pauses=pauses),
            shared=type_.scope is Scope.SHARED,
            held=waiting,
            failing=[pair for pair in failing if pair.sync_type == type_.name],
            paused=any(p.sync_type == type_.name and p.agent_id is None for p in pauses),
            least_fresh=health.least_fresh(db, type_.name, limit=LISTED),
            runs=history.newest(db, sync_type=type_.name, limit=20),
        )


def failing(call: Call) -> Response:
    """GET /failing?after=: the pairs whose last run failed, the worst of each type first."""
    after = _cursor(call.query.get("after"))
    with call.database() as db:
        found = health.failing_pairs(db, after=after, limit=FAILING + 1)
        last = found[FAILING - 1] if len(found) > FAILING else None
        following = f"{last.sync_type}:{last.consecutive_failures}:{last.agent_id}" if last else None
        return show(
            call,
            db,
            "failing.html",
            title="What fails",
            failing=found[:FAILING],
            following=following,
            first=after is None,
        )


def _cursor(text: str | None) -> tuple[str, int, str] | None:
    if not text:
        return None
    name, _, rest = text.partition(":")
    failures, colon, agent_id = rest.partition(":")
    if not colon or not (failures.isascii() and failures.isdigit() and len(failures) < 10):
        raise Refusal(400, "there is no such page of the list", hint="begin with the first")
    return sync_type(storable("after", name)).name, int(failures), storable("after", agent_id)
