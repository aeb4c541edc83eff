"""One run, with all that is known of it."""

from __future__ import annotations

from starlette.responses import Response

from archisync.store import audit, history
from archisync.store.runs import Run, State
from archisync.web.calls import Call, Refusal
from archisync.web.pages.look import show
from archisync.web.pages.pair import steps, title

ROWS = 50


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
