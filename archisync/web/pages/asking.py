"""The question before something that is done to many, or that can't be undone. It has the number, and the form acts on exactly that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from archisync.actions.runs import find_failing
from archisync.actions.settings import scope_in_words
from archisync.base.text import counted
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type
from archisync.schedule import force
from archisync.store import agents, history, interventions
from archisync.store.database import Database
from archisync.sync.clear import count_rows
from archisync.web.calls import Call, Refusal, require, storable
from archisync.web.contract import FORCED_AT_ONCE
from archisync.web.pages.look import local_path, show
from archisync.web.pages.pair import title
from archisync.web.people import Role

NAMED = 10
"""Things that a question names; of the others it says how many."""
MOST_RUNS = 200
ROWS_COUNTED = 10_000
"""A question that counted all rows of all agents would take longer than a person waits for a page."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """`path` and `fields`: what the form posts, and where. `needs_why`: the form asks for a reason, which must be given."""

    text: str
    button: str
    path: str
    fields: Mapping[str, object]
    about: Sequence[str] = ()
    named: Sequence[str] = ()
    more: int = 0
    needs_why: bool = False
    dangerous: bool = False
    lasts: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def page(call: Call) -> Response:
    """GET /ask/{what}?…&back=."""
    what = call.part("what")
    if what not in QUESTIONS:
        raise Refusal(404, "there is no such question")
    role, make = QUESTIONS[what]
    require(call.person, role)
    with call.database() as db:
        question = make(call, db)
        return show(
            call,
            db,
            "ask.html",
            title=question.text,
            question=question,
            wanted=local_path(call.query.get("back")),
            live=False,
        )


def _given(call: Call, name: str) -> str | None:
    return storable(name, call.query.get(name, "")) or None


def _pair(call: Call) -> tuple[str | None, str | None]:
    """Type and agent of the query, each checked if it is given."""
    name, agent_id = _given(call, "type"), _given(call, "agent")
    return (sync_type(name).name if name else None), agent_id


def count_pairs(db: Database, type_name: str) -> int:
    """The pairs that a sync of a type, or of all types, is for. Raises Refusal for more than a request can do."""
    number = agents.count_whitelisted(db, limit=FORCED_AT_ONCE)
    if number > FORCED_AT_ONCE:
        raise Refusal(
            400,
            f"there are more than {counted(FORCED_AT_ONCE, 'agent')}",
            hint=f"name one, or: archisync run {type_name}",
        )
    return sum(1 if t.scope is Scope.SHARED else number for t in force.select_types(type_name))


def _sync(call: Call, db: Database) -> Question:
    name = _given(call, "type") or force.ALL_TYPES
    number = count_pairs(db, name)
    types = force.select_types(name)
    if len(types) == 1 and types[0].scope is Scope.SHARED:
        text = f"Sync {name} now?"
    elif len(types) == 1:
        text = f"Sync {name} of {counted(number, 'agent')} now?"
    else:
        text = f"Sync everything now: {counted(number, 'run')} of {counted(len(types), 'type')}?"
    return Question(
        text=text,
        button=f"Sync {number} now" if number > 1 else "Sync now",
        path="/act/sync",
        fields={"type": name, "number": number},
        about=("They go to the front of the queue. A pair that has an unfinished run gets no second one.",),
    )


def _cancel(call: Call, db: Database) -> Question:
    found = interventions.unfinished(db, ids=whole_numbers(_given(call, "ids") or ""))
    if not found:
        raise Refusal(404, "these runs are over already")
    first = found[0]
    what = (
        f"run {first.run_id}, {title(first.sync_type, first.agent_id)}"
        if len(found) == 1
        else counted(len(found), "run")
    )
    return Question(
        text=f"Cancel {what}?",
        button="Cancel it" if len(found) == 1 else f"Cancel {len(found)} runs",
        path="/act/cancel",
        fields={"ids": ",".join(str(run.run_id) for run in found)},
        about=("A run that is being done writes nothing. The pair is due again at its next slot.",),
        named=[f"run {run.run_id}: {title(run.sync_type, run.agent_id)}" for run in found[:NAMED]]
        if len(found) > 1
        else (),
        more=max(len(found) - NAMED, 0),
        dangerous=True,
    )


def _again(call: Call, db: Database) -> Question:
    ids = whole_numbers(_given(call, "ids") or "")
    found = pairs_of_runs(db, ids)
    return Question(
        text=f"Sync {found[0][1] if len(found) == 1 else counted(len(found), 'pair')} now?",
        button=f"Sync {len(found)} now" if len(found) > 1 else "Sync now",
        path="/act/again",
        fields={"ids": ",".join(map(str, ids)), "number": len(found)},
        about=("The pairs of the runs that the page showed. They go to the front of the queue.",),
        named=[name for _, name in found[:NAMED]],
        more=max(len(found) - NAMED, 0),
    )


def pairs_of_runs(db: Database, run_ids: Sequence[int]) -> list[tuple[force.Pair, str]]:
    """The pairs of these runs, each once, with its name. Raises NotFoundError, and UsageError for an agent that is off the whitelist."""
    runs = [history.get(db, run_id) for run_id in run_ids]
    wanted = dict.fromkeys((run.sync_type, run.agent_id) for run in runs)
    by_type: dict[str, list[str]] = {}
    for name, agent_id in wanted:
        by_type.setdefault(name, []).append(agent_id)
    found = [
        pair
        for name, ids in by_type.items()
        for pair in force.select_pairs(db, name, [] if SYNC_TYPES[name].scope is Scope.SHARED else ids)
    ]
    return [(pair, title(pair.sync_type.name, pair.agent_id)) for pair in found]


def _retry(call: Call, db: Database) -> Question:
    type_name, agent_id = _pair(call)
    found = find_failing(db, type_name, agent_id, resting=False)
    if not found:
        raise Refusal(404, "nothing to try again: no last run of these failed")
    if len(found) > FORCED_AT_ONCE:
        raise Refusal(
            400,
            f"more than {counted(FORCED_AT_ONCE, 'pair')} fail",
            hint="choose a type or an agent, or: archisync retry --failed",
        )
    return Question(
        text=f"Try {counted(len(found), 'failing pair')} again now?",
        button=f"Try {len(found)} again",
        path="/act/retry",
        fields={"type": type_name or "", "agent": agent_id or "", "number": len(found)},
        about=("Their rests end, and they go to the front of the queue.",),
        named=[title(one.sync_type, one.agent_id) for one in found[:NAMED]],
        more=max(len(found) - NAMED, 0),
    )


def _pause(call: Call, _: Database) -> Question:
    type_name, agent_id = _pair(call)
    return Question(
        text=f"Pause {scope_in_words(type_name, agent_id)}?",
        button="Pause",
        path="/act/pause",
        fields={"type": type_name or "", "agent": agent_id or ""},
        about=("Nothing of it is scheduled until then. A sync that somebody asks for is done all the same.",),
        lasts=True,
    )


def _clear(call: Call, db: Database) -> Question:
    name, agent_id = _pair(call)
    if name is None:
        raise Refusal(400, "which type?")
    type_ = SYNC_TYPES[name]
    whose = None if agent_id in (None, SHARED_AGENT) else agent_id
    number = count_rows(db, type_, whose, limit=ROWS_COUNTED)
    some = number <= ROWS_COUNTED
    rows = counted(number, "copied row") if some else f"more than {ROWS_COUNTED} copied rows"
    return Question(
        text=f"Delete {rows} of {title(name, agent_id or 'all agents') if whose or agent_id is None else name}?",
        button=f"Delete {counted(number, 'row')}" if some else "Delete all of them",
        path="/act/clear",
        fields={"type": name, "agent": whose or "", "all": "" if whose else "true"},
        about=("The ERP is not touched: the next sync loads them again. Until then they are missing.",),
        dangerous=True,
    )


def _deny(call: Call, db: Database) -> Question:
    found = agents.agent(db, _given(call, "agent") or "")
    return Question(
        text=f"Take {found.agent_id} off the whitelist?",
        button="Take it off",
        path="/act/deny",
        fields={"agent": found.agent_id},
        about=("Its queued runs end as skipped, and nothing is scheduled for it. Its copied rows stay.",),
    )


def _remove(call: Call, db: Database) -> Question:
    found = agents.agent(db, _given(call, "agent") or "")
    rows = sum(count_rows(db, t, found.agent_id) for t in SYNC_TYPES.values() if t.scope is Scope.AGENT)
    runs = history.newest(db, agent_id=found.agent_id, limit=1)
    return Question(
        text=f"Remove {found.agent_id} from the registry?",
        button="Remove it",
        path="/act/remove",
        fields={"agent": found.agent_id},
        about=("Its runs end." + (" Its history stays." if runs else ""), f"It has {counted(rows, 'copied row')}."),
        options={"with_data": f"Delete its {counted(rows, 'copied row')} too"} if rows else {},
        dangerous=True,
    )


def whole_numbers(text: str) -> list[int]:
    """The ids in `1,2,3`. Raises Refusal."""
    words = [word for word in text.split(",") if word]
    if not words or len(words) > MOST_RUNS or not all(w.isascii() and w.isdigit() and len(w) < 19 for w in words):
        raise Refusal(400, f"these are not ids of 1 to {MOST_RUNS} runs")
    return [int(word) for word in words]


QUESTIONS: dict[str, tuple[Role, Callable[[Call, Database], Question]]] = {
    "sync": (Role.OPERATOR, _sync),
    "cancel": (Role.OPERATOR, _cancel),
    "again": (Role.OPERATOR, _again),
    "retry": (Role.OPERATOR, _retry),
    "pause": (Role.OPERATOR, _pause),
    "clear": (Role.ADMIN, _clear),
    "deny": (Role.ADMIN, _deny),
    "remove": (Role.ADMIN, _remove),
}
