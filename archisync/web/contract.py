"""The contract of the panels that exist already: `/api/sync/…`, to the letter.

Every answer is JSON: `{"success": true, …}`, or `{"success": false, "error": "…"}`. Types are the registry's, own ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archisync.actions import exports, runs
from archisync.actions import settings as actions
from archisync.base.errors import ArchisyncError, ConfigurationError, UnreachableError, UsageError
from archisync.base.text import counted, iso, redact, with_hint
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type
from archisync.schedule import deliver, force
from archisync.store import agents, health, history, queued_runs, settings
from archisync.store.database import Database
from archisync.store.health import FailingPair, TypeHealth
from archisync.store.queued_runs import Forced
from archisync.store.runs import Run, State
from archisync.web.calls import Call, storable, tagged

FORCED_AT_ONCE = 2_000
"""Agents whose runs one request may force. Beyond that a browser would give up waiting."""
_REAL = (State.SUCCEEDED, State.HELD, State.FAILED)
_FINISHED = (*_REAL, State.SKIPPED)
_HEALTH = {
    "healthy": "healthy", "running": "healthy", "failing": "degraded", "degraded": "degraded", "stale": "stale", "held": "held",
    "paused": "paused", "disabled": "paused", "no agents": "idle",
}  # fmt: skip
"""The word of the contract for each word of `status`."""


def failed(_: Request, exc: ArchisyncError, status: int) -> Response:
    """What went wrong, in the contract's envelope, with what is allowed."""
    hint = f": {exc.hint}" if isinstance(exc, UsageError) and exc.hint else ""
    return JSONResponse({"success": False, "error": redact(exc.message + hint)}, status)


def _done(**fields: Any) -> Response:
    return JSONResponse({"success": True, **fields})


def intervals(call: Call) -> Response:
    with call.database() as db:
        found = {s.sync_type: s.interval_minutes for s in settings.all_settings(db)}
    return _done(intervals=found)


def set_interval(call: Call) -> Response:
    type_ = sync_type(call.part("type"))
    given = call.json().get("intervalMinutes")
    minutes = settings.check_interval(str(given) if isinstance(given, int | str) else repr(given))
    with call.database() as db:
        actions.set_intervals(db, call.person.actor, {type_: minutes})
    message = f"{type_.name}: every {minutes} min, from the next tick on"
    return _done(message=message, type=type_.name, intervalMinutes=minutes)


def status(call: Call) -> Response:
    limit = whole(call, "limit", 20, 10, 100)
    with call.database() as db:
        running = history.running(db, limit=1)
        places = queued_runs.positions(db)
        types = {h.sync_type: _type(db, h, places.get(h.sync_type), limit) for h in health.type_health(db)}
    response = _done(currentSync=_current(running[0]) if running else None, types=types)
    return tagged(bytes(response.body), "application/json")


def _current(run: Run) -> dict[str, Any]:
    started = iso(run.started_at) if run.started_at else None
    return {
        "type": run.sync_type,
        "agentId": run.agent_id,
        "runId": run.run_id,
        "startedAt": started,
        "worker": run.worker,
    }


def _type(db: Database, h: TypeHealth, place: int | None, limit: int) -> dict[str, Any]:
    found = history.newest(db, sync_type=h.sync_type, states=_FINISHED, limit=limit)
    real = next((r for r in found if r.state in _REAL), None)
    if real is None:
        real = next(iter(history.newest(db, sync_type=h.sync_type, states=_REAL, limit=1)), None)
    never_ran = real is None and h.word == "stale"
    return {
        "isRunning": h.running > 0,
        "lastRunTime": iso(real.finished_at) if real and real.finished_at else None,
        "nextRunTime": iso(h.next_due_at) if h.next_due_at else None,
        "queuePosition": place,
        "health": "idle" if never_ran else _HEALTH[h.word],
        "history": [_entry(run) for run in found],
    }


def _entry(run: Run) -> dict[str, Any]:
    """One line of the history. `duration`: milliseconds. A run that was skipped or held is no success."""
    succeeded = run.state is State.SUCCEEDED
    return {
        "timestamp": iso(run.finished_at or run.queued_at),
        "duration": None if run.duration_s is None else round(run.duration_s * 1000),
        "success": succeeded,
        "error": None if succeeded else redact(with_hint(run.message or run.reason or run.state.value, run.hint)),
        "warnings": [warning["message"] for warning in run.warnings],
    }


def circuit_breaker(call: Call) -> Response:
    limit = whole(call, "limit", 100, 1, 500)
    with call.database() as db:
        found = health.failing_pairs(db, after=_cursor(call.query.get("after")), limit=limit + 1)
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    following = f"{last.sync_type}:{last.consecutive_failures}:{last.agent_id}" if last else None
    return _done(entries=[_breaker(pair) for pair in page], next=following)


def _breaker(pair: FailingPair) -> dict[str, Any]:
    return {
        "userId": pair.agent_id,
        "syncType": pair.sync_type,
        "consecutiveFailures": pair.consecutive_failures,
        "lastError": redact(with_hint(pair.last_error, pair.hint)) if pair.last_error else None,
        "pausedUntil": iso(pair.backoff_until) if pair.rests and pair.backoff_until else None,
        "isPaused": pair.rests,
        "lastSuccessAt": iso(pair.last_success_at) if pair.last_success_at else None,
    }


def _cursor(text: str | None) -> tuple[str, int, str] | None:
    if not text:
        return None
    name, _, rest = text.partition(":")
    failures, colon, agent_id = rest.partition(":")
    if not colon or name not in SYNC_TYPES or not (failures.isascii() and failures.isdigit() and len(failures) < 10):
        raise UsageError("after is none that this API gave", hint="leave it out for the first page")
    return name, int(failures), storable("after", agent_id)


def trigger(call: Call) -> Response:
    type_ = sync_type(call.part("type"))
    agent_id = _optional_text("agentId", call.json().get("agentId"))
    with call.database() as db:
        return _force(call, db, type_.name, [agent_id] if agent_id is not None else [])


def trigger_all(call: Call) -> Response:
    with call.database() as db:
        return _force(call, db, force.ALL_TYPES, [])


def _force(call: Call, db: Database, type_name: str, agent_ids: Sequence[str]) -> Response:
    forced = force_pairs(call, db, type_name, agent_ids, why=None)
    return _done(jobIds=[one.run_id for one in forced], jobsEnqueued=len(forced), message=delivered(call, db))


def force_pairs(call: Call, db: Database, type_name: str, agent_ids: Sequence[str], *, why: str | None) -> list[Forced]:
    """A run for each pair, or the unfinished one that it joins. Raises UsageError for more than a request can do."""
    every_agent = not agent_ids and any(t.scope is Scope.AGENT for t in force.select_types(type_name))
    if every_agent and agents.count_whitelisted(db, limit=FORCED_AT_ONCE) > FORCED_AT_ONCE:
        raise UsageError(
            f"there are more than {counted(FORCED_AT_ONCE, 'agent')}", hint=f"name one, or: archisync run {type_name}"
        )
    with db.transaction():
        return runs.force(db, call.person.actor, force.select_pairs(db, type_name, agent_ids), why=why)


def delivered(call: Call, db: Database) -> str:
    """Push what is queued, and say so. Where Redis is away, or not configured here, the next tick pushes it."""
    try:
        deliver.deliver_now(db, call.config)
    except (UnreachableError, ConfigurationError) as exc:
        return f"queued; {exc.message}: the next tick delivers it"
    return "queued, and handed to the workers"


def auto_sync_status(call: Call) -> Response:
    with call.database() as db:
        return _auto_sync(db)


def auto_sync_start(call: Call) -> Response:
    with call.database() as db:
        actions.resume(db, call.person.actor, sync_type=None, agent_id=None)
        return _auto_sync(db)


def auto_sync_stop(call: Call) -> Response:
    with call.database() as db:
        if _runs(db):
            actions.pause(db, call.person.actor, sync_type=None, agent_id=None, why="stopped in the panel")
        return _auto_sync(db)


def _auto_sync(db: Database) -> Response:
    return _done(isRunning=_runs(db))


def _runs(db: Database) -> bool:
    """Whether no pause of everything is in force."""
    return not any(p.sync_type is None and p.agent_id is None for p in settings.pauses(db))


def clear_db(call: Call) -> Response:
    type_ = sync_type(call.part("type"))
    agent_id = _optional_text("agentId", call.query.get("agentId"))
    if agent_id is not None and type_.scope is Scope.SHARED and agent_id != SHARED_AGENT:
        raise UsageError(f"{type_.name} are shared by all agents", hint="leave agentId out, and add ?all=true")
    if agent_id is None and call.query.get("all") != "true":
        raise UsageError(f"whose {type_.name}?", hint="?agentId=ID, or ?all=true for those of all agents")
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        number = exports.clear(db, call.person.actor, type_, agent_id)
    whose = f"{type_.name} of {agent_id or 'all agents'}"
    return _done(message=f"deleted {counted(number, 'row')} of {whose}; the next sync loads the export again")


def whole(call: Call, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query. Raises UsageError, which names the range."""
    text = call.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise UsageError(f"{name} is {ascii(text)[:40]}", hint=f"allowed: a whole number from {low} to {high}")
    return int(text)


def _optional_text(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UsageError(f"{name} is no text", hint="the id of an agent, or leave it out")
    return storable(name, value)
