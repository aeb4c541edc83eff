"""Runs: the list with its filter, which stands in the address, and one run with all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from archisync.rules.synctypes import SYNC_TYPES, sync_type
from archisync.rules.times import parse_moment
from archisync.store import audit, clock, history, search
from archisync.store.runs import Run, State
from archisync.web.calls import Call, Refusal, storable
from archisync.web.pages.look import show
from archisync.web.pages.pair import steps, title

LISTED = 50
ROWS = 50
SPANS = {"": "ever", "1h": "the last hour", "1d": "the last day", "7d": "the last week", "30d": "the last month"}
FILTER = ("type", "agent", "state", "reason", "since")


def page(call: Call) -> Response:
    """GET /runs?type=&agent=&state=&reason=&since=&before=."""
    given = {name: storable(name, call.query.get(name, "").strip()) for name in FILTER}
    before = run_number(call.query["before"]) if call.query.get("before") else None
    with call.database() as db:
        since = parse_moment(given["since"], clock.now(db), sign=-1) if given["since"] else None
        found = search.search(
            db,
            sync_type=sync_type(given["type"]).name if given["type"] else None,
            agent_part=given["agent"] or None,
            states=[_state(given["state"])] if given["state"] else (),
            reason=given["reason"] or None,
            since=since,
            before=before,
            limit=LISTED,
        )
        return show(
            call,
            db,
            "runs.html",
            title="Runs",
            runs=found.runs,
            following=found.next,
            looked_to=found.looked_to,
            only_beginning=found.only_beginning,
            given=given,
            before=before,
            filtered=any(given.values()),
            types=list(SYNC_TYPES),
            states=[state.value for state in State],
            spans=SPANS if given["since"] in SPANS else {**SPANS, given["since"]: f"since {given['since']}"},
            unfinished=[run.run_id for run in found.runs if run.state.unfinished],
            again=_newest_of_pairs(found.runs),
        )


def _newest_of_pairs(runs: Sequence[Run]) -> list[int]:
    """Of each pair that the page shows, its newest run."""
    newest: dict[tuple[str, str], int] = {}
    for run in runs:
        newest.setdefault((run.sync_type, run.agent_id), run.run_id)
    return list(newest.values())


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise Refusal(400, f"there is no state {ascii(text)[:40]}", hint="allowed: " + ", ".join(State)) from None


def run_page(call: Call) -> Response:
    """GET /runs/{run}."""
    run_id = run_number(call.part("run"))
    with call.database() as db:
        run = history.get(db, run_id)
        return show(
            call,
            db,
            "run.html",
            title=f"Run {run_id}",
            run=run,
            pair_title=title(run.sync_type, run.agent_id),
            steps=steps(run),
            took=_took(run),
            rows=[row for warning in run.warnings for row in warning.get("rows") or ()][:ROWS],
            is_held=run.state is State.HELD,
            deeds=audit.newest(db, run_id=run_id),
        )


def _took(run: Run) -> list[tuple[str, float, int]]:
    """Each step of the work: its name, seconds, and its share of all in percent."""
    measured = {name: ms for name, ms in (run.steps or {}).items() if name != "total"}
    total = max((run.steps or {}).get("total", 0), sum(measured.values())) or 1
    return [(name, ms / 1000, round(100 * ms / total)) for name, ms in measured.items()]


def run_number(text: str) -> int:
    """The id in the address. Raises Refusal."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(404, f"there is no run {ascii(text)[1:-1][:40]}")
    return int(text)
