"""The JSON documents that are more than one object of the store: what `--json` prints and the API answers. documents.md describes all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archisync.rules.due import decide
from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.store import agents, clock, pairs

if TYPE_CHECKING:
    from datetime import datetime

    from archisync.rules.due import Decision, PairState
    from archisync.rules.reasons import Limits
    from archisync.rules.synctypes import SyncType
    from archisync.store.database import Database
    from archisync.store.queued_runs import Forced
    from archisync.store.runs import Run

Document = dict[str, Any]


def decision(sync_type: str, found: Decision) -> Document:
    """What is decided about a pair: the fields that `agent show`, `tick --dry-run` and the list of pairs have in common."""
    return {
        "sync_type": sync_type,
        "reason": found.reason.value,
        "next_at": found.next_at,
        "message": found.sentence,
    }


def agent(db: Database, agent_id: str) -> Document:
    """One agent, and what is decided about each of its types. Raises NotFoundError."""
    found, now = agents.agent(db, agent_id), clock.now(db)
    types = [t for t in SYNC_TYPES.values() if t.scope is Scope.AGENT]
    return {"agent": found, "types": [decision(t.name, decide(pairs.state(db, t, agent_id), now)) for t in types]}


def pair(state: PairState, last_success_at: datetime | None, now: datetime) -> Document:
    """One pair of the list of pairs."""
    return {
        **decision(state.sync_type, decide(state, now)),
        "agent_id": state.agent_id,
        "last_slot_at": state.last_slot_at,
        "last_success_at": last_success_at,
        "consecutive_failures": state.consecutive_failures,
        "backoff_until": state.backoff_until,
        "run_id": state.run_id,
    }


def declaration(type_: SyncType) -> Document:
    """A sync type: its key, and its fields with their kinds and labels."""
    fields = [
        {"name": f.name, "kind": f.kind, "required": f.required, "role": f.role, "labels": f.aliases}
        for f in type_.fields
    ]
    found = {
        "name": type_.name,
        "scope": type_.scope,
        "table": type_.table,
        "interval_minutes": type_.default_interval_minutes,
        "key": type_.key,
        "after": type_.after,
        "own": type_.name in SYNC_TYPES.own,
        "fields": fields,
    }
    return {"type": found}


def guard(limits: Mapping[str, Limits]) -> list[Document]:
    """The guard's thresholds by type."""
    return [{"sync_type": name, **found.of_rows, "columns": found.of_columns} for name, found in limits.items()]


def forced(runs: Sequence[Forced], ended: Sequence[Run] = ()) -> list[Document]:
    """Runs that were forced, each as it ended; without an outcome those that nobody has waited for."""
    by_id = {run.run_id: run for run in ended}
    return [_forced(one, by_id.get(one.run_id)) for one in runs]


def _forced(one: Forced, run: Run | None) -> Document:
    return {
        "run_id": one.run_id,
        "sync_type": one.sync_type,
        "agent_id": one.agent_id,
        "joined": one.joined,
        "state": run.state.value if run else None,
        "reason": run.reason if run else None,
        "message": run.message if run else None,
        "hint": run.hint if run else None,
        "counts": run.counts.as_dict() if run and run.counts else None,
    }
