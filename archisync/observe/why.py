"""Why a pair is, or is not, running now, and what else a person should know about it: for `archisync why` and the panel."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from archisync.base.errors import UsageError
from archisync.base.text import with_hint
from archisync.rules.config import Config
from archisync.rules.due import Decision, PairState, Reason, decide
from archisync.rules.synctypes import SHARED_AGENT, Scope, SyncType
from archisync.store import agents, clock, held, history, locks, pairs, ticks
from archisync.store.database import Database
from archisync.store.locks import Stranger
from archisync.store.runs import Run, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The decision about one pair at `now`. `held_run`: its export that waits for a person. `alike`: the agent that was probably meant.
    `strangers`: who else holds its lock. `tick_note`: a sentence if nobody calls tick any more. `worker_note`: one if
    it waits for a worker, and nobody can do it. `last_failure`: the run that failed last, if it has not succeeded since."""

    pair: PairState
    decision: Decision
    now: datetime
    held_run: int | None
    alike: str | None
    strangers: list[Stranger]
    tick_note: str | None
    worker_note: str | None
    last_failure: Run | None

    @property
    def is_unknown(self) -> bool:
        return self.decision.reason is Reason.UNKNOWN_AGENT

    @property
    def notes(self) -> list[str]:
        """What else a person at a terminal should know, with the commands to type."""
        return list(self._notes())

    def _notes(self) -> Iterator[str]:
        if self.alike:
            yield f"did you mean {shlex.quote(self.alike)}?"
        if self.held_run is not None:
            yield f"an export of it is held since run {self.held_run}: archisync held show {self.held_run}"
        failures = self.pair.consecutive_failures
        named = f"{self.pair.sync_type} --agent {shlex.quote(self.pair.agent_id)}"
        if failures and self.decision.reason is not Reason.BACKING_OFF:
            last = "last run" if failures == 1 else f"last {failures} runs"
            yield f"its {last} failed: archisync history {named}"
        if (failure := self.last_failure) is not None:
            said = with_hint(failure.message or "-", failure.hint)
            yield f"run {failure.run_id} failed: {said} (archisync show {failure.run_id})"
        if failures and self.pair.run_state is None:
            rests = self.pair.backoff_until is not None and self.pair.backoff_until > self.now
            yield f"to try again now: archisync retry {named}"
            if rests:
                yield f"to end its rest: archisync rest end {named}"
        for stranger in self.strangers:
            yield f"{stranger}: no worker can have it; {stranger.remedy}"
        if self.tick_note:
            yield self.tick_note
        if self.worker_note:
            yield self.worker_note

    def document(self) -> dict[str, Any]:
        """What `why --json` prints."""
        return {
            "sync_type": self.pair.sync_type,
            "agent_id": self.pair.agent_id,
            "reason": self.decision.reason.value,
            "message": self.decision.sentence,
            "next_at": self.decision.next_at,
            "now": self.now,
            "held_run": self.held_run,
            "notes": self.notes,
        }


def agent_of_pair(type_: SyncType, agent: str | None) -> str:
    """The agent id of the pair. A shared type has one pair. Raises UsageError if the type needs an agent."""
    if type_.scope is Scope.SHARED:
        return SHARED_AGENT
    if not agent:
        raise UsageError(
            f"{type_.name} are fetched for each agent: which one?", hint=f"archisync why {type_.name} AGENT"
        )
    return agent


def explain(db: Database, type_: SyncType, agent_id: str, *, config: Config | None = None) -> Explanation:
    """The decision about the pair, whether it exists or not. With `config`, Redis is asked for workers if the pair waits for one."""
    now = clock.now(db)
    pair = pairs.state(db, type_, agent_id)
    decision = decide(pair, now)
    is_unknown = decision.reason is Reason.UNKNOWN_AGENT
    return Explanation(
        pair=pair,
        decision=decision,
        now=now,
        held_run=held.open_of_pair(db, type_.name, agent_id),
        alike=agents.alike(db, agent_id) if is_unknown else None,
        strangers=locks.strangers(db, [agent_id]),
        tick_note=ticks.overdue_note(ticks.last(db)),
        worker_note=_worker_note(config) if config and decision.reason in (Reason.QUEUED, Reason.DUE) else None,
        last_failure=_last_failure(db, pair) if pair.consecutive_failures else None,
    )


def _worker_note(config: Config) -> str | None:
    from archisync.queue import workers  # here: most explanations need no Redis

    return workers.overdue_note(config)


def _last_failure(db: Database, pair: PairState) -> Run | None:
    found = history.newest(db, sync_type=pair.sync_type, agent_id=pair.agent_id, state=State.FAILED, limit=1)
    return found[0] if found else None
