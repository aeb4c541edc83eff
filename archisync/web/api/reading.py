"""What the API shows: the documents of the commands that look, page by page where they may be long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar

from archisync.base.errors import BusyError, NotFoundError, UsageError
from archisync.base.text import iso
from archisync.observe import documents, plan, snapshot, why, workers
from archisync.observe.doctor import CHECKS, examine
from archisync.observe.doctor import findings as doctors
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import SHARED_AGENT, sync_type
from archisync.rules.times import parse_moment, parse_span
from archisync.store import (
    agents,
    audit,
    clock,
    health,
    held,
    history,
    interventions,
    pairs,
    search,
    settings,
    synctypes,
    ticks,
)
from archisync.store.database import Database
from archisync.store.runs import State
from archisync.web.api.parameters import Given, Parameter, type_names
from archisync.web.api.routes import ApiRoute, Document, paged
from archisync.web.calls import Call
from archisync.web.people import Role

HELD_NAMED = 1000
_CURSOR_PARTS = 3

T = TypeVar("T")
_examination = Lock()


def whole(text: str | None) -> int | None:
    """The `after` of a list that is ordered by numbers. Raises UsageError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _no_cursor()
    return int(text)


def _no_cursor() -> UsageError:
    return UsageError("after is none that this API gave", hint="leave it out for the first page")


def _split(text: str | None, parts: int) -> list[str] | None:
    """The parts of an `after`; the last one may have any characters."""
    if text is None:
        return None
    found = text.split("/", parts - 1)
    if len(found) != parts:
        raise _no_cursor()
    return found


def _known_agent(db: Database, agent_id: str | None, found: object) -> None:
    """An unknown agent is a mistake, and no empty list. Raises NotFoundError."""
    if not found and agent_id is not None and agent_id != SHARED_AGENT:
        agents.agent(db, agent_id)


def status(call: Call, given: Given) -> Document:
    """Whether everything is fresh, and if not, why."""
    with call.database() as db:
        found = snapshot.read_snapshot(
            db, held_limit=HELD_NAMED, pairs_limit=snapshot.PAIRS_NAMED + 1, config=call.config
        )
    return found.document()


def types(call: Call, given: Given) -> Document:
    """The health of each sync type."""
    with call.database() as db:
        return {"types": snapshot.type_documents(health.type_health(db))}


def list_agents(call: Call, given: Given) -> Document:
    """The registry of agents, by id; with `part`, those first whose ids begin with it.

    A page looks through a bounded number of ids: it may have fewer than were asked for and still a `next`."""
    with call.database() as db:
        found = agents.page(
            db, limit=given["limit"], after=given["after"], part=given["part"], whitelisted=given["whitelisted"]
        )
    return found._asdict()


def show_agent(call: Call, given: Given) -> Document:
    """One agent, and whether each of its types is due."""
    with call.database() as db:
        return documents.agent(db, given["agent"])


def list_pairs(call: Call, given: Given) -> Document:
    """Pairs of type and agent, with what is decided about each, by agent."""
    limit, type_ = given["limit"], sync_type(given["type"]) if given["type"] is not None else None
    last = _split(given["after"], 2)
    with call.database() as db:
        after = (last[1], last[0]) if last else None
        found = pairs.page(db, limit=limit + 1, after=after, sync_type=type_, agent_id=given["agent"])
        _known_agent(db, given["agent"], found or last)
        now = clock.now(db)
    rows = [documents.pair(state, last_success_at, now) for state, last_success_at in found]
    return paged("pairs", rows, limit, lambda pair: f"{pair['sync_type']}/{pair['agent_id']}")


def list_failing(call: Call, given: Given) -> Document:
    """Pairs whose last run failed, of each type those with the most failures first."""
    limit, last = given["limit"], _split(given["after"], _CURSOR_PARTS)
    after = (last[0], whole(last[1]) or 0, last[2]) if last else None
    if after and after[1] >= 2**31:
        raise _no_cursor()
    with call.database() as db:
        found = health.failing_pairs(db, after=after, limit=limit + 1)
    return paged("failing", found, limit, lambda p: f"{p.sync_type}/{p.consecutive_failures}/{p.agent_id}")


def list_rests(call: Call, given: Given) -> Document:
    """Pairs that rest after failures, of each type those first whose rest ends first."""
    limit, last = given["limit"], _split(given["after"], _CURSOR_PARTS)
    after = (last[0], _moment(last[1]), last[2]) if last else None
    with call.database() as db:
        found = interventions.resting(db, after=after, limit=limit + 1)
    return paged("resting", found, limit, lambda p: f"{p.sync_type}/{iso(p.backoff_until)}/{p.agent_id}")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise _no_cursor() from None


def list_runs(call: Call, given: Given) -> Document:
    """Runs, newest first.

    A page looks through a bounded number of them: it may have fewer than were asked for and still a `next`; then `looked_to` says how far
    back it has looked."""
    states = [State(state) for state in given["state"] or ()]
    name, before = given["type"], whole(given["after"])
    if given["agent"] is not None and given["agent_part"] is not None:
        raise UsageError("agent and agent_part exclude each other", hint="send one of them")
    with call.database() as db:
        since = parse_moment(given["since"], clock.now(db), sign=-1) if given["since"] is not None else None
        found = search.search(
            db, sync_type=name, agent_id=given["agent"], agent_part=given["agent_part"], states=states, reason=given["reason"],
            since=since, before=before, limit=given["limit"],
        )  # fmt: skip
        _known_agent(db, given["agent"], found.runs or found.next)
    narrowed = {} if given["agent_part"] is None else {"only_beginning": found.only_beginning}
    partly = {} if found.looked_to is None else {"looked_to": found.looked_to}
    return {"runs": found.runs, **narrowed, **partly, "next": str(found.next) if found.next is not None else None}


def show_run(call: Call, given: Given) -> Document:
    """Everything about one run, rows that could not be read included."""
    with call.database() as db:
        return {"run": history.get(db, given["run"])}


def list_held(call: Call, given: Given) -> Document:
    """Held exports, newest first: those that wait for a decision, with `all` the others too."""
    limit, name = given["limit"], given["type"]
    with call.database() as db:
        found = held.held_exports(
            db, include_decided=given["all"], sync_type=name, agent_id=given["agent"], before=whole(given["after"]), limit=limit + 1
        )  # fmt: skip
        _known_agent(db, given["agent"], found)
    return paged("held", found, limit, lambda h: str(h.run_id))


def show_held(call: Call, given: Given) -> Document:
    """One held export, with rows that would vanish or change."""
    with call.database() as db:
        return {"held": held.held_export(db, given["run"])}


def list_ticks(call: Call, given: Given) -> Document:
    """What the last ticks did, newest first."""
    limit = given["limit"]
    with call.database() as db:
        found = ticks.newest(db, limit=limit + 1, before=whole(given["after"]))
    return paged("ticks", found, limit, lambda beat: str(beat.id))


def list_workers(call: Call, given: Given) -> Document:
    """The workers that are alive and what each does, then whoever else does a run."""
    with call.database() as db:
        return {"workers": [worker.document() for worker in workers.workers(db, call.config)]}


def list_pauses(call: Call, given: Given) -> Document:
    """The pauses in force, the newest first."""
    limit = given["limit"]
    with call.database() as db:
        found = settings.newest_pauses(db, limit=limit + 1, before=whole(given["after"]))
    return paged("pauses", found, limit, lambda pause: str(pause.id))


def list_intervals(call: Call, given: Given) -> Document:
    """How often each type is fetched, and whether it is scheduled."""
    with call.database() as db:
        return {"intervals": settings.all_settings(db)}


def show_interval(call: Call, given: Given) -> Document:
    """How often one type is fetched, and whether it is scheduled. Its ETag is what a change may name in If-Match."""
    with call.database() as db:
        return interval(db, given["type"])


def interval(db: Database, name: str) -> Document:
    return {"interval": _one((s for s in settings.all_settings(db) if s.sync_type == name), name)}


def list_declarations(call: Call, given: Given) -> Document:
    """Each sync type: how often it is fetched, its table, and who declared it."""
    with call.database() as db:
        return {"types": synctypes.listed(db)}


def show_declaration(call: Call, given: Given) -> Document:
    """One sync type: its key, and its fields with their kinds and labels."""
    with call.database():  # it brings what the company has declared meanwhile
        return documents.declaration(sync_type(given["type"]))


def list_guard(call: Call, given: Given) -> Document:
    """The guard's thresholds of each type: an export that exceeds one is held."""
    with call.database() as db:
        return {"guard": documents.guard(settings.all_limits(db))}


def show_guard(call: Call, given: Given) -> Document:
    """The guard's thresholds of one type. Its ETag is what a change may name in If-Match."""
    with call.database() as db:
        return thresholds(db, given["type"])


def thresholds(db: Database, name: str) -> Document:
    return {"guard": _one((g for g in documents.guard(settings.all_limits(db)) if g["sync_type"] == name), name)}


def _one(found: Any, name: str) -> Any:
    for row in found:
        return row
    raise NotFoundError(f"the database has no settings of {name}", hint="archisync db migrate")


def explain(call: Call, given: Given) -> Document:
    """Why a sync is or isn't running, and when it will run."""
    type_ = sync_type(given["type"])
    agent_id = why.agent_of_pair(type_, given["agent"])
    with call.database() as db:
        found = why.explain(db, type_, agent_id, config=call.config)
        if found.is_unknown:
            check_agent_id(agent_id)
            agents.agent(db, agent_id)
    return found.document()


def forecast(call: Call, given: Given) -> Document:
    """The coming runs, and whether the workers can keep up."""
    ahead, name = plan.check_span(given["for"], parse_span(given["for"])), given["type"]
    with call.database() as db:
        alive = plan.workers_alive(call.config) if given["workers"] is None else given["workers"]
        return plan.document(plan.forecast(db, type_name=name, agent_id=given["agent"], span=ahead, workers=alive))


def examined(call: Call, given: Given) -> Document:
    """Everything that archisync needs, checked now; one request at a time, since the servers and the sources are asked."""
    if not _examination.acquire(blocking=False):
        raise BusyError("a check is being made already", hint="try again in some seconds")
    try:
        found = list(examine(call.config, only=given["only"] or ()))
    finally:
        _examination.release()
    return doctors.document(found, doctors.exit_code(found))


def list_audit(call: Call, given: Given) -> Document:
    """Who did what, when, from where and why, newest first."""
    limit, name = given["limit"], given["type"]
    with call.database() as db:
        since = parse_moment(given["since"], clock.now(db), sign=-1) if given["since"] is not None else None
        found = audit.newest(
            db, sync_type=name, agent_id=given["agent"], run_id=given["run"], since=since, before=whole(given["after"]), limit=limit + 1
        )  # fmt: skip
    return paged("audit", found, limit, lambda record: str(record.id))


def me(call: Call, given: Given) -> Document:
    """Who you are to this API, and what you may do."""
    return {"name": call.person.name, "role": call.person.role.word}


TYPE = Parameter(name="type", meaning="the sync type", required=True, allowed=type_names, example="orders")
RUN = Parameter(name="run", kind="integer", meaning="the number of the run", required=True, example=42)
AGENT = Parameter(name="agent", meaning="the id of the agent", required=True, example="anna.bianchi")
_OF_TYPE = Parameter(name="type", meaning="only this sync type", allowed=type_names, example="orders")
_OF_AGENT = Parameter(name="agent", meaning="only this agent", example="anna.bianchi")
_SINCE = Parameter(name="since", meaning="a span like 2h or 7d, or an ISO 8601 time", example="7d")
_AFTER = Parameter(name="after", meaning="`next` of the page before")


def _pages(limit: int = 50) -> tuple[Parameter, ...]:
    return (_AFTER, Parameter(name="limit", kind="integer", meaning="rows at most", least=1, most=500, default=limit))


def _get(
    path: str, answer: Callable[[Call, Given], Document], document: str, *query: Parameter, **more: Any
) -> ApiRoute:
    """A route that shows something. `more`: as of ApiRoute."""
    return ApiRoute(method="GET", path=path, answer=answer, role=Role.READER, document=document, query=query, **more)


_STATES = Parameter(
    name="state",
    kind="texts",
    meaning="only these states",
    allowed=lambda: [s.value for s in State],
    example=["failed"],
)
_CHECKS = Parameter(
    name="only", kind="texts", meaning="only these checks", allowed=lambda: list(CHECKS), example=["database"]
)
ROUTES: tuple[ApiRoute, ...] = (
    _get("/status", status, "archisync status", command=("status",)),
    _get("/types", types, "GET types", command=("status",)),
    _get(
        "/agents", list_agents, "archisync agent list",
        Parameter(name="part", meaning="only ids that contain this, in any case of letters", example="bianchi"),
        Parameter(name="whitelisted", kind="boolean", meaning="only those on the whitelist, or only the others", example=True),
        *_pages(), paged=True, command=("agent list",),
    ),
    _get("/agents/{agent}", show_agent, "archisync agent show", parts=(AGENT,), command=("agent show",)),
    _get("/pairs", list_pairs, "GET pairs", _OF_TYPE, _OF_AGENT, *_pages(), paged=True, command=("tick",)),
    _get("/failing", list_failing, "GET failing", *_pages(), paged=True),
    _get("/rests", list_rests, "archisync rest list", *_pages(), paged=True, command=("rest list",)),
    _get(
        "/runs", list_runs, "GET runs", _OF_TYPE, _OF_AGENT,
        Parameter(name="agent_part", meaning="only agents whose ids contain this, in any case of letters"),
        _STATES, Parameter(name="reason", meaning="only runs with this reason, as a word", example="source-unavailable"), _SINCE,
        *_pages(), paged=True, command=("history",),
    ),
    _get("/runs/{run}", show_run, "archisync show", parts=(RUN,), command=("show",)),
    _get(
        "/held", list_held, "archisync held list", _OF_TYPE, _OF_AGENT,
        Parameter(name="all", kind="boolean", meaning="those that are decided, too", default=False, example=True),
        *_pages(), paged=True, command=("held list",),
    ),
    _get("/held/{run}", show_held, "archisync held show", parts=(RUN,), command=("held show",)),
    _get("/ticks", list_ticks, "GET ticks", *_pages(), paged=True),
    _get("/workers", list_workers, "archisync worker list", command=("worker list",)),
    _get("/pauses", list_pauses, "GET pauses", *_pages(), paged=True),
    _get("/intervals", list_intervals, "archisync interval list", command=("interval list",)),
    _get("/intervals/{type}", show_interval, "GET intervals/{type}", parts=(TYPE,)),
    _get("/declarations", list_declarations, "archisync type list", command=("type list",)),
    _get("/declarations/{type}", show_declaration, "archisync type show", parts=(TYPE,), command=("type show",)),
    _get("/guard", list_guard, "archisync guard list", command=("guard list",)),
    _get("/guard/{type}", show_guard, "GET guard/{type}", parts=(TYPE,)),
    _get("/why", explain, "archisync why", TYPE, Parameter(name="agent", meaning="not for shared types", example="anna.bianchi"),
         command=("why",)),
    _get(
        "/plan", forecast, "archisync plan",
        Parameter(name="for", meaning="how far ahead: 6h, 24h, 7d", default="24h", example="6h"), _OF_TYPE, _OF_AGENT,
        Parameter(name="workers", kind="integer", meaning="calculate with so many workers", least=1, most=100_000, example=8),
        command=("plan",),
    ),
    _get("/doctor", examined, "archisync doctor", _CHECKS, command=("doctor",)),
    _get(
        "/audit", list_audit, "archisync audit list", _OF_TYPE, _OF_AGENT,
        Parameter(name="run", kind="integer", meaning="only what was done about this run", example=42), _SINCE, *_pages(), paged=True,
        command=("audit list",),
    ),
    _get("/me", me, "GET me"),
)  # fmt: skip
