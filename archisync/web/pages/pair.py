"""The page of one pair: why it is or isn't running now, when it will, what would change that, and what happened to it before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.responses import Response

from archisync.observe.why import Explanation, agent_of_pair, explain
from archisync.rules.due import Reason
from archisync.rules.synctypes import SHARED_AGENT, sync_type
from archisync.store import audit, history, pairs
from archisync.store.runs import Run, State
from archisync.web.calls import Call, storable
from archisync.web.pages.look import show
from archisync.web.workforce import Staff

RUNS = 20
DEEDS = 10
WORDS = {
    Reason.UNKNOWN_AGENT: "unknown", Reason.NOT_WHITELISTED: "not on the whitelist", Reason.RUNNING: "running", Reason.QUEUED: "queued",
    Reason.TYPE_DISABLED: "disabled", Reason.PAUSED: "paused", Reason.NOT_YET: "not yet due", Reason.BACKING_OFF: "resting",
    Reason.DUE: "due",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a run's way: `word` says what, `at` when it was reached; None when it has not been."""

    word: str
    at: object
    tone: str = ""
    here: bool = False


def page(call: Call) -> Response:
    """GET /pair?type=&agent=. A shared type needs no agent."""
    staff = call.services.workforce.staff()
    with call.database() as db:
        type_ = sync_type(storable("type", call.query.get("type", "")))
        agent_id = agent_of_pair(type_, storable("agent", call.query.get("agent", "")) or None)
        found = explain(db, type_, agent_id)
        runs = history.newest(db, sync_type=type_.name, agent_id=agent_id, limit=RUNS)
        known = pairs.page(db, sync_type=type_, agent_id=agent_id, limit=1)
        return show(
            call,
            db,
            "pair.html",
            title=title(type_.name, agent_id),
            found=found,
            pair=found.pair,
            shared=agent_id == SHARED_AGENT,
            word=WORDS[found.decision.reason],
            remedies=list(remedies(found, staff)),
            steps=steps(runs[0]) if runs else [],
            runs=runs,
            last_success=known[0][1] if known else None,
            deeds=audit.newest(db, sync_type=type_.name, agent_id=agent_id, limit=DEEDS),
        )


def title(sync_type: str, agent_id: str) -> str:
    """orders of anna, or products."""
    return sync_type if agent_id == SHARED_AGENT else f"{sync_type} of {agent_id}"


def remedies(found: Explanation, staff: Staff) -> Iterator[str]:
    """What would change that the pair is, or isn't, running now: a sentence each."""
    match found.decision.reason:
        case Reason.UNKNOWN_AGENT:
            yield "An agent is registered on the page Agents" + (
                f"; did you mean {found.alike}?" if found.alike else "."
            )
        case Reason.NOT_WHITELISTED:
            yield "Put the agent on the whitelist: the next tick schedules it."
        case Reason.RUNNING:
            yield "It ends by itself. If its worker dies, another one begins again when the lease is over."
        case Reason.QUEUED:
            yield (
                "The next free worker does it." if not staff.note else f"A worker must be there to do it: {staff.note}."
            )
        case Reason.TYPE_DISABLED:
            yield f"Switch {found.pair.sync_type} on in the settings, or sync once now: that works all the same."
        case Reason.PAUSED:
            yield "End the pause, or sync once now: that works all the same."
        case Reason.NOT_YET:
            yield "Nothing has to change: it runs when the interval has passed. A shorter interval, or a sync now, brings it earlier."
        case Reason.BACKING_OFF:
            yield "A success ends the rest: mend the cause, then try now. Or end the rest: then its next slot brings it."
        case Reason.DUE:
            yield found.tick_note or "The next tick queues it, within a minute."
    for stranger in found.strangers:
        yield f"{stranger}: no worker can have it; {stranger.remedy}."


def steps(run: Run) -> list[Step]:
    """The way of the newest run: due, queued, delivered, begun, ended; how far it came, and when."""
    over = run.finished_at is not None
    tone = {State.SUCCEEDED: "good", State.FAILED: "bad", State.HELD: "held"}.get(run.state, "quiet")
    found = [
        Step(word="due" if run.slot_at else "asked for", at=run.slot_at or run.queued_at),
        Step(word="queued", at=run.queued_at),
        Step(word="delivered", at=run.delivered_at),
        Step(word=f"begun on {run.worker}" if run.worker else "begun", at=run.started_at),
        Step(word=run.state.value if over else "ended", at=run.finished_at, tone=tone if over else "", here=over),
    ]
    if over:
        return found
    reached = max(i for i, step in enumerate(found) if step.at is not None)
    found[reached] = Step(word=found[reached].word, at=found[reached].at, here=True)
    return found
