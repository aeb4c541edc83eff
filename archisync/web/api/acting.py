"""What the API does: the commands that act and set, through `archisync.actions`, so each leaves the record that they leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archisync.actions import agents, exports, runs, settings, types
from archisync.base.errors import ConfigurationError, UsageError
from archisync.base.text import counted
from archisync.observe import documents
from archisync.rules import declarations
from archisync.rules.reasons import ROW_SHARES
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, SyncType
from archisync.rules.times import parse_moment
from archisync.schedule import force
from archisync.schedule.force import Pair
from archisync.store import agents as registry
from archisync.store import clock
from archisync.store import settings as stored
from archisync.store.database import Database
from archisync.store.queued_runs import Forced
from archisync.web.api.parameters import SENT, Given, Kind, Parameter, type_names
from archisync.web.api.reading import RUN, TYPE, interval, thresholds
from archisync.web.api.routes import ApiRoute, Document, check_match
from archisync.web.calls import Call, Refusal
from archisync.web.contract import FORCED_AT_ONCE, delivered, force_pairs
from archisync.web.people import Role


def start_runs(call: Call, given: Given) -> Document:
    """Sync now: the runs go to the front of the queue. Where a pair has an unfinished run, that one is used: posted twice, it is one run.

    Without agents: those of every agent on the whitelist.
    """
    with call.database() as db:
        forced = force_pairs(call, db, given["type"], given["agents"] or (), why=given["reason"])
        pairs = [Pair(sync_type=SYNC_TYPES[one.sync_type], agent_id=one.agent_id) for one in forced]
        return _forced(call, db, forced, force.overridden(db, pairs))


def retry(call: Call, given: Given) -> Document:
    """Run again now what failed last, and end its rest."""
    _check_selection(given)
    with call.database() as db:
        found = runs.find_failing(db, given["type"], given["agent"], resting=False)
        if len(found) > FORCED_AT_ONCE:
            raise UsageError(
                f"more than {counted(FORCED_AT_ONCE, 'pair')} failed",
                hint="name a type or an agent, or: archisync retry",
            )
        forced = runs.retry(db, call.person.actor, found, why=given["reason"]) if found else []
        return _forced(call, db, forced, [] if forced else ["nothing to retry: no last run of these failed"])


def _forced(call: Call, db: Database, forced: list[Forced], notes: list[str]) -> Document:
    return {"runs": documents.forced(forced), "notes": [*notes, *([delivered(call, db)] if forced else [])]}


def cancel(call: Call, given: Given) -> Document:
    """End runs that wait or are being done. A worker that does one writes nothing; the next slot of the pair comes as usual."""
    ids, selects = list(dict.fromkeys(given["runs"] or ())), given["type"] is not None or given["agent"] is not None
    if [bool(ids), selects, given["all"]].count(True) != 1:
        raise UsageError("which runs?", hint="send runs, or type and agent, or all: true")
    with call.database() as db:
        found = runs.find_unfinished(db, ids, given["type"], given["agent"])
        done = runs.cancel(db, call.person.actor, [run.run_id for run in found], why=given["reason"]) if found else []
    return {"runs": done}


def end_rests(call: Call, given: Given) -> Document:
    """End the rest of pairs after failures. Each runs when its next slot comes."""
    _check_selection(given)
    with call.database() as db:
        found = runs.find_failing(db, given["type"], given["agent"], resting=True)
        return {"ended": runs.end_rests(db, call.person.actor, found, why=given["reason"]) if found else []}


def _check_selection(given: Given) -> None:
    if given["all"] == (given["type"] is not None or given["agent"] is not None):
        raise UsageError("which pairs?", hint="send type, agent, both, or all: true")


def pause(call: Call, given: Given) -> Document:
    """Stop scheduling a type, an agent, one type of one agent, or everything. Runs that are forced still work."""
    _check_selection(given)
    sync_type, agent_id = given["type"], given["agent"]
    with call.database() as db, db.transaction():
        until = parse_moment(given["until"], clock.now(db), sign=1) if given["until"] is not None else None
        settings.pause(db, call.person.actor, sync_type=sync_type, agent_id=agent_id, until=until, why=given["reason"])
        [found] = [p for p in stored.pauses(db) if (p.sync_type, p.agent_id) == (sync_type, agent_id)]
    return {"pause": found}


def resume(call: Call, given: Given) -> Document:
    """End a pause: of exactly this type, agent or both, or that of everything."""
    _check_selection(given)
    sync_type, agent_id = given["type"], given["agent"]
    with call.database() as db:
        ended = settings.resume(db, call.person.actor, sync_type=sync_type, agent_id=agent_id)
        return {"ended": ended, "pauses": settings.pauses_upon(db, sync_type, agent_id)}


def accept(call: Call, given: Given) -> Document:
    """Allow this export to be applied once, within 24 hours. It is not applied if the export or the data changes before."""
    with call.database() as db:
        held, forced = exports.accept(db, call.person.actor, given["run"], why=given["why"], run_now=given["run_now"])
        if forced:
            delivered(call, db)
    return {"held": held, "run_id": forced.run_id if forced else None}


def reject(call: Call, given: Given) -> Document:
    """Refuse this export, now and whenever it comes again. The known rows stay."""
    with call.database() as db:
        return {"held": exports.reject(db, call.person.actor, given["run"], why=given["why"])}


def clear(call: Call, given: Given) -> Document:
    """Delete the copied rows of one agent, or of all. The next sync loads them again; the ERP is not touched."""
    type_, agent_id = SYNC_TYPES[given["type"]], given["agent"]
    if type_.scope is Scope.SHARED and (agent_id is not None or given["all"]):
        raise UsageError(f"{type_.name} are shared by all agents", hint="leave out agent and all")
    if type_.scope is Scope.AGENT and given["all"] == (agent_id is not None):
        raise UsageError(f"whose {type_.name}?", hint="send agent, or all: true for those of all agents")
    chosen = SHARED_AGENT if type_.scope is Scope.SHARED else agent_id
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        return {"rows_deleted": exports.clear(db, call.person.actor, type_, chosen, why=given["reason"])}


def set_interval(call: Call, given: Given) -> Document:
    """Change how often a type is fetched, from the next tick on, and whether it is scheduled at all. null: back to the default."""
    type_, actor = SYNC_TYPES[given["type"]], call.person.actor
    with call.database() as db, db.transaction():
        _check_unchanged(call, db, type_, interval)
        if "interval_minutes" in given[SENT]:
            minutes = given["interval_minutes"]
            every = call.config.seed_interval(type_) if minutes is None else stored.check_interval(str(minutes))
            settings.set_intervals(db, actor, {type_: every}, why=given["reason"])
        if given["enabled"] is not None:
            settings.set_enabled(db, actor, [type_], given["enabled"], why=given["reason"])
        return interval(db, type_.name)


def set_guard(call: Call, given: Given) -> Document:
    """Change thresholds of a type, in percent of the known rows, or of a column's values; 100 switches that one rule off.

    null: back to the default. What is not sent stays as it is, in `columns` too.
    """
    type_, sent = SYNC_TYPES[given["type"]], given[SENT]
    with call.database() as db, db.transaction():
        _check_unchanged(call, db, type_, thresholds)
        changes: dict[tuple[str, str], int | None] = {
            (share, ""): given[share] for share in ROW_SHARES if share in sent
        }
        if "columns" in sent:
            columns = given["columns"]
            if columns is None:
                columns = dict.fromkeys(stored.all_limits(db)[type_.name].of_columns)
            changes |= {_share_and_column(name): percent for name, percent in columns.items()}
        if changes:
            settings.change_limits(db, call.person.actor, type_, changes, why=given["reason"])
        return thresholds(db, type_.name)


def _share_and_column(name: str) -> tuple[str, str]:
    """Of the name of a threshold in the documents. Raises UsageError for a share of rows, which has a field of its own."""
    share, _, column = name.partition(" ")
    if share in ROW_SHARES:
        raise UsageError(f"{share} is a share of rows, not of a column", hint=f"send {share} beside columns")
    return share, column


def _check_unchanged(call: Call, db: Database, type_: SyncType, read: Callable[[Database, str], Document]) -> None:
    stored.lock(db, type_)
    check_match(call, read(db, type_.name))


def add_agents(call: Call, given: Given) -> Document:
    """Register agents, with `allow` also on the whitelist."""
    with call.database() as db:
        added = agents.add(
            db, call.person.actor, given["agents"], name=given["name"], whitelisted=given["allow"], why=given["reason"]
        )
    return {"added": added}


def allow_agents(call: Call, given: Given) -> Document:
    """Put agents on the whitelist. The next tick schedules them."""
    return _set_whitelisted(call, given, True)


def deny_agents(call: Call, given: Given) -> Document:
    """Take agents off the whitelist. Their queued runs end as skipped, their data stays."""
    return _set_whitelisted(call, given, False)


def _set_whitelisted(call: Call, given: Given, whitelisted: bool) -> Document:
    with call.database() as db:
        agents.set_whitelisted(db, call.person.actor, given["agents"], whitelisted, why=given["reason"])
        return {"agents": [registry.agent(db, agent_id) for agent_id in dict.fromkeys(given["agents"])]}


def remove_agents(call: Call, given: Given) -> Document:
    """Take agents out of the registry. Their runs end, their history stays; their copied rows stay unless `with_data`."""
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        removed = agents.remove(
            db, call.person.actor, given["agents"], with_data=given["with_data"], why=given["reason"]
        )
    return {"removed": removed}


def declare(call: Call, given: Given) -> Document:
    """Create or change a type of your own: its table, triggers, rights, schedule and pairs, in one transaction."""
    file = "the declaration"
    try:
        type_ = declarations.read(declarations.parse_toml(given["toml"].encode(), file), file=file)
        with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
            if given["dry_run"]:
                plan = types.plan_apply(db, call.person.actor, type_, call.config, file=file)
            else:
                plan = types.apply(db, call.person.actor, type_, call.config, file=file, why=given["reason"])
    except ConfigurationError as exc:  # what was sent is wrong, and not a setting of this process
        refusal = Refusal(400, exc.message, hint=exc.hint)
        refusal.exit_code = exc.exit_code
        raise refusal from None
    return {"sync_type": plan.type_.name, "new": plan.new, "changes": plan.sentences}


def remove_declaration(call: Call, given: Given) -> Document:
    """End the schedule of a type of your own. Its history stays, and its table unless `drop_table`."""
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        type_ = types.remove(db, call.person.actor, given["type"], drop_table=given["drop_table"], why=given["reason"])
    return {"sync_type": type_.name, "table": type_.table, "table_dropped": given["drop_table"]}


def _flag(name: str, meaning: str, *, default: bool = False) -> Parameter:
    return Parameter(name=name, kind="boolean", meaning=meaning, default=default)


_REASON = Parameter(name="reason", meaning="why; recorded with your name")
_OF_TYPE = Parameter(name="type", meaning="only this sync type", allowed=type_names)
_OF_AGENT = Parameter(name="agent", meaning="only this agent")
_SELECTION = (_OF_TYPE, _OF_AGENT, _flag("all", "everything: send it instead of type and agent"), _REASON)
_WHY = Parameter(name="why", meaning="your reason; recorded with your name", required=True)
_AGENTS = Parameter(name="agents", kind="texts", meaning="ids of agents", required=True)


def _share(name: str, meaning: str, *, kind: Kind = "integer") -> Parameter:
    return Parameter(name=name, kind=kind, meaning=meaning, least=0, most=100, nullable=True)


def _post(
    path: str, answer: Callable[[Call, Given], Document], document: str, command: str, body: tuple[Parameter, ...],
    example: Mapping[str, Any], *, role: Role = Role.OPERATOR, **more: Any,
) -> ApiRoute:  # fmt: skip
    """A route that does what a command does. `more`: as of ApiRoute."""
    method = more.pop("method", "POST")
    return ApiRoute(
        method=method, path=path, answer=answer, role=role, document=document, command=tuple(command.split(", ")), body=body,
        body_example=example, **more,
    )  # fmt: skip


_RETURNS = """\
name = "returns"
scope = "agent"
interval = 30
key = ["return_number"]

[fields]
return_number = { kind = "identifier", labels = ["NUMERO RESO"] }
return_date = { kind = "date", labels = ["DATA RESO"] }
"""
_ANNA = {"agents": ["anna.bianchi"]}
_OF_ANNA = {"type": "orders", "agent": "anna.bianchi", "reason": "the ERP is back"}
ROUTES: tuple[ApiRoute, ...] = (
    _post(
        "/runs", start_runs, "POST runs", "run",
        (
            Parameter(name="type", meaning="a sync type, or all", required=True, allowed=lambda: [*type_names(), force.ALL_TYPES]),
            Parameter(name="agents", kind="texts", meaning="only these agents; not with shared types"), _REASON,
        ),
        {"type": "orders", **_ANNA, "reason": "a customer is waiting"}, status=202,
    ),
    _post("/runs/retry", retry, "POST runs", "retry", _SELECTION, _OF_ANNA, status=202),
    _post(
        "/runs/cancel", cancel, "POST runs/cancel", "cancel",
        (Parameter(name="runs", kind="integers", meaning="numbers of runs"), *_SELECTION), {"agent": "anna.bianchi"},
    ),
    _post("/rests/end", end_rests, "POST rests/end", "rest end", _SELECTION, _OF_ANNA),
    _post(
        "/pauses", pause, "POST pauses", "pause, agent pause",
        (*_SELECTION, Parameter(name="until", meaning="a span like 2h, or an ISO 8601 time; without it until somebody resumes")),
        {"agent": "anna.bianchi", "until": "2h", "reason": "holidays"},
    ),
    _post("/pauses/end", resume, "POST pauses/end", "resume, agent resume", _SELECTION[:-1], {"agent": "anna.bianchi"}),
    _post(
        "/held/{run}/accept", accept, "POST held/{run}/accept", "held accept",
        (_WHY, _flag("run_now", "sync at once; else the next sync applies it", default=True)),
        {"why": "the branch in Torino was closed"}, parts=(RUN,),
    ),
    _post(
        "/held/{run}/reject", reject, "POST held/{run}/reject", "held reject", (_WHY,), {"why": "a filter was set in the ERP"}, parts=(RUN,)
    ),
    _post(
        "/clear", clear, "POST clear", "clear",
        (
            Parameter(name="type", meaning="the sync type", required=True, allowed=type_names),
            Parameter(name="agent", meaning="the agent; not for shared types"), _flag("all", "the rows of every agent"), _REASON,
        ),
        {"type": "customers", "agent": "anna.bianchi"}, role=Role.ADMIN,
    ),
    _post(
        "/intervals/{type}", set_interval, "GET intervals/{type}", "interval set, interval reset, enable, disable",
        (
            Parameter(name="interval_minutes", kind="integer", meaning="how often", least=5, most=1440, nullable=True),
            Parameter(name="enabled", kind="boolean", meaning="whether it is scheduled"), _REASON,
        ),
        {"interval_minutes": 15}, method="PATCH", parts=(TYPE,), matches=True,
    ),
    _post(
        "/guard/{type}", set_guard, "GET guard/{type}", "guard set, guard reset",
        (
            _share("drop", "an export with so many rows fewer is held"), _share("delete", "one that deletes so many is held"),
            _share("rewrite", "one that rewrites so many is held"),
            _share("columns", "shares of a column's values, by rule, or by rule and column with a blank between", kind="percents"), _REASON,
        ),
        {"rewrite": 80, "columns": {"rescaled": 30, "emptied": None}, "reason": "new price list"},
        method="PATCH", parts=(TYPE,), matches=True, role=Role.ADMIN,
    ),
    _post(
        "/declarations", declare, "POST declarations", "type apply",
        (
            Parameter(name="toml", meaning="the declaration, as a TOML file has it", required=True, longest=40_000),
            _flag("dry_run", "only say what would be done"), _REASON,
        ),
        {"toml": _RETURNS}, role=Role.ADMIN,
    ),
    _post(
        "/declarations/{type}/remove", remove_declaration, "POST declarations/{type}/remove", "type remove",
        (_flag("drop_table", "drop the table with its rows too"), _REASON), {},
        parts=(Parameter(name="type", meaning="a type of your own", required=True, example="returns"),), role=Role.ADMIN,
    ),
    _post(
        "/agents", add_agents, "POST agents", "agent add",
        (_AGENTS, Parameter(name="name", meaning="the full name; of one agent"), _flag("allow", "also put them on the whitelist"), _REASON),
        {"agents": ["luca.ferrari"], "name": "Luca Ferrari", "allow": True}, role=Role.ADMIN, status=201,
    ),
    _post("/agents/allow", allow_agents, "POST agents/allow", "agent allow", (_AGENTS, _REASON), _ANNA, role=Role.ADMIN),
    _post("/agents/deny", deny_agents, "POST agents/allow", "agent deny", (_AGENTS, _REASON), _ANNA, role=Role.ADMIN),
    _post(
        "/agents/remove", remove_agents, "POST agents/remove", "agent remove",
        (_AGENTS, _flag("with_data", "also delete their copied rows"), _REASON), _ANNA, role=Role.ADMIN,
    ),
)  # fmt: skip
