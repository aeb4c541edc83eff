"""The agents: the list with a search, and one agent with all its types."""

from __future__ import annotations

from starlette.responses import Response

from archisync.rules.due import decide
from archisync.store import agents, audit, clock, held, history, pairs, settings
from archisync.web.calls import Call, storable
from archisync.web.pages.look import show
from archisync.web.pages.pair import WORDS

LISTED = 50
RUNS = 20
DEEDS = 10
ONLY = {"allowed": True, "others": False}


def page(call: Call) -> Response:
    """GET /agents?find=&only=&after=."""
    part = storable("find", call.query.get("find", "").strip())
    only = call.query.get("only", "")
    with call.database() as db:
        found = agents.page(
            db,
            part=part or None,
            whitelisted=ONLY.get(only),
            after=storable("after", call.query.get("after", "")) or None,
            limit=LISTED,
        )
        return show(
            call,
            db,
            "agents.html",
            title="Agents",
            agents=found.agents,
            following=found.next,
            partial=found.next is not None and len(found.agents) < LISTED,
            part=part,
            only=only,
            first=not call.query.get("after"),
        )


def one_page(call: Call) -> Response:
    """GET /agent?id=."""
    agent_id = storable("id", call.query.get("id", ""))
    with call.database() as db:
        agent, now = agents.agent(db, agent_id), clock.now(db)
        states = pairs.page(db, agent_id=agent_id, limit=100)
        return show(
            call,
            db,
            "agent.html",
            title=f"Agent {agent_id}",
            agent=agent,
            types=[(state, decide(state, now), last) for state, last in states],
            word_of=WORDS,
            held=held.held_exports(db, agent_id=agent_id, limit=RUNS),
            pause=next((p for p in settings.pauses(db) if p.agent_id == agent_id and p.sync_type is None), None),
            runs=history.newest(db, agent_id=agent_id, limit=RUNS),
            deeds=audit.newest(db, agent_id=agent_id, limit=DEEDS),
        )
