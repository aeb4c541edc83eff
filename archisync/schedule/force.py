"""Forcing a resync: choosing the pairs, queueing a run for each at the front of the queue, waiting for the outcome.

A forced run joins the pair's run that waits, if there is one, instead of doubling it; it never joins one that is being done, which may have
read its export already. It also runs while the type is disabled or the
agent paused, and the caller can say so. An agent that is not on the whitelist is never forced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep

from archisync.base.errors import ExitCode, NotFoundError, UsageError, WaitTimeoutError
from archisync.base.text import counted, with_hint
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, SyncType, sync_type
from archisync.store import agents, history, pairs, queued_runs
from archisync.store.database import Database
from archisync.store.queued_runs import Forced
from archisync.store.runs import Run, State

POLL_S = 0.25
PATIENCE_S = 5.0
"""After that a person who waits wants to know why."""
ALL_TYPES = "all"
RUNS_NAMED = 10
"""Unfinished runs that a message names."""

_EXIT_CODES = {
    State.SUCCEEDED: ExitCode.DONE,
    State.HELD: ExitCode.HELD,
    State.FAILED: ExitCode.SYNC_FAILED,
    State.SKIPPED: ExitCode.SYNC_FAILED,
    State.CANCELLED: ExitCode.SYNC_FAILED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    sync_type: SyncType
    agent_id: str


def select_types(name: str) -> list[SyncType]:
    """The type of that name, or all types, in the order in which a tick queues them. Raises UsageError."""
    try:
        types = list(SYNC_TYPES.values()) if name == ALL_TYPES else [sync_type(name)]
        return sorted(types, key=lambda t: t.level)
    except UsageError as exc:
        raise exc.with_hint(f"{exc.hint}, {ALL_TYPES}") from None


def select_pairs(db: Database, type_name: str, agent_ids: Sequence[str]) -> list[Pair]:
    """The pairs that `run TYPE|all [--agent]…` means, in the order in which a tick queues them.

    Raises UsageError for an unknown type, an agent that is not on the whitelist, or an agent with a shared type; NotFoundError for an
    unknown agent, or if no agent is on the whitelist.
    """
    types = select_types(type_name)
    if agent_ids:
        own = [t for t in types if t.scope is Scope.AGENT]
        if not own:
            raise UsageError(
                f"{type_name} is shared by all agents", hint=f"archisync run {type_name}   (without --agent)"
            )
        chosen = [_whitelisted(db, agent_id) for agent_id in dict.fromkeys(agent_ids)]
        return [Pair(sync_type=t, agent_id=a) for t in own for a in chosen]
    everyone = [a.agent_id for a in agents.agents(db) if a.whitelisted]
    found = [
        Pair(sync_type=t, agent_id=a) for t in types for a in (everyone if t.scope is Scope.AGENT else [SHARED_AGENT])
    ]
    if not found:
        raise NotFoundError("no agent is on the whitelist", hint="archisync agent allow ID")
    return found


def _whitelisted(db: Database, agent_id: str) -> str:
    check_agent_id(agent_id)
    if not agents.agent(db, agent_id).whitelisted:
        raise UsageError(f"the agent {agent_id} is not on the whitelist", hint=f"archisync agent allow {agent_id}")
    return agent_id


def force(db: Database, chosen: Sequence[Pair], *, by: str, why: str | None) -> list[Forced]:
    """A run for each pair: a new one, or the one that waits already."""
    return queued_runs.force_all(db, _keys(chosen), by=by, why=why)


def _keys(chosen: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.sync_type.name, pair.agent_id) for pair in chosen]


def overridden(db: Database, chosen: Sequence[Pair]) -> list[str]:
    """A sentence for each disabled type and each pause that these runs override."""
    sentences: dict[str, None] = {}
    for state in pairs.stopped(db, _keys(chosen)):
        if not state.enabled:
            sentences[f"the type {state.sync_type} is disabled; this run is done anyway"] = None
        if state.pause_scope is not None:
            sentences[f"{state.pause_scope} is paused; this run is done anyway"] = None
    return list(sentences)


def wait(
    db: Database,
    run_ids: Sequence[int],
    *,
    timeout_s: float | None,
    changed: Callable[[Run], object],
    waits_long: Callable[[], object],
) -> list[Run]:
    """Wait until every run is finished; `changed` is called with each one as it ends. The runs themselves are not touched. `waits_long` is
    called once, after PATIENCE_S or when the time is up.

    Raises WaitTimeoutError after `timeout_s`.
    """
    begun = monotonic()
    waiting, ended, patient = list(run_ids), dict[int, Run](), True
    while waiting:
        for run in history.ended(db, waiting):
            ended[run.run_id] = run
            changed(run)
        waiting = [run_id for run_id in waiting if run_id not in ended]
        waited_s = monotonic() - begun
        if waiting and patient and waited_s >= (PATIENCE_S if timeout_s is None else min(timeout_s, PATIENCE_S)):
            patient = False
            waits_long()
        if waiting and timeout_s is not None and waited_s >= timeout_s:
            raise _timed_out(db, waiting, timeout_s)
        if waiting:
            sleep(POLL_S)
    return [ended[run_id] for run_id in run_ids]


def _timed_out(db: Database, waiting: Sequence[int], timeout_s: float) -> WaitTimeoutError:
    first = history.get(db, waiting[0])
    detail = f": {with_hint(first.message, first.hint)}" if first.message else ""
    more = f" and {len(waiting) - RUNS_NAMED} more" if len(waiting) > RUNS_NAMED else ""
    named = ", ".join(map(str, waiting[:RUNS_NAMED]))
    return WaitTimeoutError(
        f"{counted(len(waiting), 'run')} not finished after {timeout_s:g} s: {named}{more} "
        f"(run {first.run_id} is {first.state}{detail})",
        hint=f"the run goes on; archisync show {first.run_id}",
    )


def exit_code(ended: Sequence[Run]) -> ExitCode:
    """One exit code for several finished runs: a failure outweighs a hold, a hold outweighs success."""
    codes = {_EXIT_CODES[run.state] for run in ended}
    return next((c for c in (ExitCode.SYNC_FAILED, ExitCode.HELD) if c in codes), ExitCode.DONE)
