"""What the forms of the panel do with runs, rests, pauses, copied rows and agents."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from archisync.actions import agents as registry
from archisync.actions import exports, runs
from archisync.actions import settings as actions
from archisync.base.text import counted, iso
from archisync.rules.synctypes import SHARED_AGENT, Scope, sync_type
from archisync.schedule import force
from archisync.store import clock
from archisync.store.queued_runs import Forced
from archisync.web.calls import Call, Refusal
from archisync.web.contract import delivered
from archisync.web.pages.asking import count_pairs, pairs_of_runs, whole_numbers
from archisync.web.pages.look import actor, done, field, optional
from archisync.web.pages.pair import title

LONGEST_PAUSE_MINUTES = 366 * 24 * 60


def sync(call: Call) -> Response:
    """POST /act/sync: `type`, and an `agent`, or the `number` of runs that the question had."""
    name, agent_id = field(call, "type"), optional(call, "agent")
    with call.database() as db:
        with db.transaction():
            if agent_id is None:
                _check_number(call, count_pairs(db, name))
            chosen = force.select_pairs(db, name, [] if agent_id in (None, SHARED_AGENT) else [agent_id])
            forced = runs.force(db, actor(call), chosen, why=optional(call, "why"))
        return done(call, f"{_queued(forced)}: {delivered(call, db)}")


def again(call: Call) -> Response:
    """POST /act/again: `ids` of runs, whose pairs are synced, and the `number` of pairs that the question had."""
    with call.database() as db:
        with db.transaction():
            found = pairs_of_runs(db, whole_numbers(field(call, "ids")))
            _check_number(call, len(found))
            forced = runs.force(db, actor(call), [pair for pair, _ in found], why=optional(call, "why"))
        return done(call, f"{_queued(forced)}: {delivered(call, db)}")


def _queued(forced: list[Forced]) -> str:
    if len(forced) == 1:
        one = forced[0]
        how = "joins the unfinished run" if one.joined else "run"
        return f"{title(one.sync_type, one.agent_id)}, {how} {one.run_id}"
    joined = sum(one.joined for one in forced)
    return counted(len(forced), "run") + (f" ({joined} unfinished already)" if joined else "")


def _check_number(call: Call, number: int) -> None:
    """Raises Refusal if what is to be done is not what the question named."""
    if field(call, "number") != str(number):
        raise Refusal(
            412, f"meanwhile they are {number}, not {field(call, 'number')[:10]}; nothing was done", hint="look again"
        )


def cancel(call: Call) -> Response:
    """POST /act/cancel: `ids`, separated by commas."""
    with call.database() as db:
        found = runs.cancel(db, actor(call), whole_numbers(field(call, "ids")), why=optional(call, "why"))
    return done(call, f"{counted(len(found), 'run')} cancelled" if found else "these runs were over already")


def retry(call: Call) -> Response:
    """POST /act/retry: `type` and `agent`, each or none, and the `number` of pairs that the question had."""
    with call.database() as db:
        with db.transaction():
            found = runs.find_failing(db, optional(call, "type"), optional(call, "agent"), resting=False)
            _check_number(call, len(found))
            forced = runs.retry(db, actor(call), found, why=optional(call, "why"))
        return done(call, f"{_queued(forced)}: {delivered(call, db)}")


def end_rest(call: Call) -> Response:
    """POST /act/end-rest: `type` and `agent`."""
    name, agent_id = field(call, "type"), field(call, "agent")
    with call.database() as db, db.transaction():
        found = runs.find_failing(db, name, agent_id, resting=True)
        ended = runs.end_rests(db, actor(call), found, why=optional(call, "why"))
    return done(call, f"{title(name, agent_id)}: {'its rest is over' if ended else 'it did not rest'}")


def pause(call: Call) -> Response:
    """POST /act/pause: `type` and `agent`, each or none, and `for`, minutes or nothing."""
    type_name, agent_id, minutes = _type(call), optional(call, "agent"), optional(call, "for")
    if minutes is not None and not (
        minutes.isascii() and minutes.isdigit() and 0 < int(minutes[:9]) <= LONGEST_PAUSE_MINUTES
    ):
        raise Refusal(400, f"a pause lasts up to {LONGEST_PAUSE_MINUTES} minutes")
    with call.database() as db:
        until = clock.now(db) + timedelta(minutes=int(minutes)) if minutes else None
        actions.pause(db, actor(call), sync_type=type_name, agent_id=agent_id, until=until, why=optional(call, "why"))
    lasts = f"until {iso(until)}" if until else "until somebody resumes"
    return done(call, f"{actions.scope_in_words(type_name, agent_id)}: paused {lasts}")


def resume(call: Call) -> Response:
    """POST /act/resume: `type` and `agent`, each or none."""
    type_name, agent_id = _type(call), optional(call, "agent")
    with call.database() as db:
        resumed = actions.resume(db, actor(call), sync_type=type_name, agent_id=agent_id, why=optional(call, "why"))
    return done(call, f"{actions.scope_in_words(type_name, agent_id)}: {'resumed' if resumed else 'was not paused'}")


def _type(call: Call) -> str | None:
    name = optional(call, "type")
    return sync_type(name).name if name else None


def clear(call: Call) -> Response:
    """POST /act/clear: `type`, and an `agent`, or `all`."""
    type_, agent_id = sync_type(field(call, "type")), optional(call, "agent")
    if agent_id is None and optional(call, "all") != "true":
        raise Refusal(400, f"whose {type_.name}?")
    if agent_id is not None and type_.scope is Scope.SHARED:
        raise Refusal(400, f"{type_.name} are shared by all agents")
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        number = exports.clear(db, actor(call), type_, agent_id, why=optional(call, "why"))
    whose = type_.name if type_.scope is Scope.SHARED else f"{type_.name} of {agent_id or 'all agents'}"
    return done(call, f"deleted {counted(number, 'row')} of {whose}; the next sync loads the export again")


def allow(call: Call) -> Response:
    """POST /act/allow: `agent`."""
    return _whitelist(call, True)


def deny(call: Call) -> Response:
    """POST /act/deny: `agent`."""
    return _whitelist(call, False)


def _whitelist(call: Call, whitelisted: bool) -> Response:
    agent_id = field(call, "agent")
    with call.database() as db:
        registry.set_whitelisted(db, actor(call), [agent_id], whitelisted, why=optional(call, "why"))
    return done(call, f"{agent_id}: {'on' if whitelisted else 'off'} the whitelist")


def add(call: Call) -> Response:
    """POST /act/add: `agent`, `name` or nothing, and `allow`."""
    agent_id, allowed = field(call, "agent"), optional(call, "allow") == "true"
    with call.database() as db:
        added = registry.add(
            db, actor(call), [agent_id], name=optional(call, "name"), whitelisted=allowed, why=optional(call, "why")
        )
    state = "on the whitelist" if allowed else "not on the whitelist" if added[agent_id] else "left as it is"
    return done(call, f"{agent_id}: {'added' if added[agent_id] else 'already registered'}, {state}")


def remove(call: Call) -> Response:
    """POST /act/remove: `agent`, and `with_data`."""
    agent_id, with_data = field(call, "agent"), optional(call, "with_data") == "true"
    with call.database(answer_timeout_s=call.config.run_timeout_s) as db:
        deleted = registry.remove(db, actor(call), [agent_id], with_data=with_data, why=optional(call, "why"))
    rows = f", {counted(deleted[agent_id], 'row')} deleted" if with_data else ""
    return done(call, f"{agent_id}: removed{rows}")
