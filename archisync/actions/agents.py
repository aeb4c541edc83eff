"""The registry that a person changes: agents are added, put on the whitelist or taken off it, removed."""

from __future__ import annotations

from collections.abc import Sequence

from archisync.base.errors import UsageError
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope
from archisync.store import agents, applied_exports, audit, interventions
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database
from archisync.sync.clear import delete_rows


def add(
    db: Database,
    actor: Actor,
    agent_ids: Sequence[str],
    *,
    name: str | None = None,
    whitelisted: bool = False,
    why: str | None = None,
) -> dict[str, bool]:
    """Register agents, with `whitelisted` on the whitelist, those that are registered already too. Whether each one is new.

    Raises UsageError for an id that no agent may have and for one name of several agents, ConfigurationError when the company's table has
    no column for a name, or requires others.
    """
    if name is not None and len(agent_ids) > 1:
        raise UsageError("a name goes with one agent", hint="add the agents one by one")
    for agent_id in agent_ids:
        if check_agent_id(agent_id) == SHARED_AGENT:
            raise UsageError(
                f"{SHARED_AGENT} is taken: products and prices are fetched under it", hint="choose another id"
            )
    added: dict[str, bool] = {}
    with db.transaction():
        for agent_id in dict.fromkeys(agent_ids):
            added[agent_id] = agents.add(db, agent_id, name=name, whitelisted=whitelisted)
        new = [Deed(agent_id=i, after={"whitelisted": whitelisted}) for i, is_new in added.items() if is_new]
        audit.record(db, actor, "agent add", new, why=why)
        known = [agent_id for agent_id, is_new in added.items() if not is_new]
        if whitelisted and known:
            set_whitelisted(db, actor, known, True, why=why)
    return added


def set_whitelisted(
    db: Database, actor: Actor, agent_ids: Sequence[str], whitelisted: bool, *, why: str | None = None
) -> None:
    """Put these agents on the whitelist, or take them off it, which ends their queued runs as skipped. Raises NotFoundError, and then
    changes nothing."""
    with db.transaction():
        ids = list(dict.fromkeys(agent_ids))
        before = agents.set_whitelisted(db, ids, whitelisted)
        deeds = [Deed(agent_id=i, before={"whitelisted": before[i]}, after={"whitelisted": whitelisted}) for i in ids]
        audit.record(db, actor, "agent allow" if whitelisted else "agent deny", deeds, why=why)


def remove(
    db: Database, actor: Actor, agent_ids: Sequence[str], *, with_data: bool, why: str | None = None
) -> dict[str, int]:
    """Take agents out of the registry: their runs end, also one that is being done, which writes nothing then. With `with_data` their
    copied rows go too. Returns the number of rows deleted of each. Raises NotFoundError and UsageError, and then changes nothing.

    Their history stays, until it is pruned.
    """
    deleted: dict[str, int] = {}
    with db.transaction():
        deeds = []
        for agent_id in dict.fromkeys(agent_ids):
            before = agents.agent(db, agent_id)
            deleted[agent_id] = _delete_data(db, agent_id) if with_data else 0
            agents.remove(db, agent_id)
            runs = interventions.unfinished(db, agent_id=agent_id)  # the one that is being done: the others have ended
            interventions.cancel(db, [run.run_id for run in runs], message=f"{actor.name} removed the agent")
            if with_data:
                deleted[agent_id] += _delete_data(db, agent_id)
            facts = {"name": before.name, "whitelisted": before.whitelisted}
            after = {"registered": False, "rows_deleted": deleted[agent_id]}
            deeds.append(Deed(agent_id=agent_id, before=facts, after=after))
        audit.record(db, actor, "agent remove", deeds, why=why)
    return deleted


def _delete_data(db: Database, agent_id: str) -> int:
    """Delete what is copied and known of the agent. Called twice: the first time before the states are locked, in the order of an apply's
    locks, so that there is no deadlock; then for an apply that was committing meanwhile."""
    number = 0
    for type_ in [t for t in SYNC_TYPES.values() if t.scope is Scope.AGENT]:
        number += delete_rows(db, type_, agent_id)
        applied_exports.forget(db, type_, agent_id)
    return number
