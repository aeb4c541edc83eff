"""The rule of what is due, for one pair: pure, with the reason as a word and as a sentence, and the time of the next run.

A pair is due when its agent is known and on the whitelist, no run of it is queued or running, its type is enabled, no pause holds for
it, its interval has passed, and it does not rest after failures. A tick applies the same rule to all pairs in one statement
(`store.queued_runs.SQL_INSERT_DUE`), and a test compares the two. `why`, `agent show` and `tick --dry-run` ask this module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from archisync.base.text import iso

LONGEST_BACKOFF = timedelta(hours=25)
"""The longest back-off is a day, for a type of 1440 min. What is longer, a wrong clock has written."""
LONGEST_RETRY = timedelta(minutes=61)
"""The longest delay of a retry is an hour."""
FUTURE_SLOT = timedelta(minutes=1)
"""A slot is never in the future; clocks may differ by this much."""


class Reason(StrEnum):
    """Why a pair is, or is not, due: the first that applies, in this order."""

    UNKNOWN_AGENT = "unknown-agent"
    NOT_WHITELISTED = "not-whitelisted"
    RUNNING = "running"
    QUEUED = "queued"
    TYPE_DISABLED = "type-disabled"
    PAUSED = "paused"
    NOT_YET = "not-yet"
    BACKING_OFF = "backing-off"
    DUE = "due"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairState:
    """Everything that the decision about one pair depends on. Times are aware.

    `run_*` describe its unfinished run, and `pause_*` the widest pause that holds for it.
    """

    sync_type: str
    agent_id: str
    known: bool
    whitelisted: bool
    enabled: bool
    interval_minutes: int
    last_slot_at: datetime | None = None
    backoff_until: datetime | None = None
    consecutive_failures: int = 0
    run_id: int | None = None
    run_state: str | None = None
    run_since: datetime | None = None
    run_worker: str | None = None
    run_not_before: datetime | None = None
    run_attempt: int = 1
    run_forced: bool = False
    pause_scope: str | None = None
    pause_until: datetime | None = None
    pause_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """`next_at`: when the pair will be due if nothing changes; None when only a person can change that."""

    reason: Reason
    sentence: str
    next_at: datetime | None

    @property
    def due(self) -> bool:
        return self.reason is Reason.DUE


def decide(pair: PairState, now: datetime) -> Decision:
    """Whether the pair is due at `now`, and why."""
    pair = without_wrong_times(pair, now)
    reason = _reason(pair, now)
    return Decision(reason=reason, sentence=_sentence(reason, pair, now), next_at=_next_at(reason, pair, now))


def _reason(pair: PairState, now: datetime) -> Reason:
    if not pair.known:
        return Reason.UNKNOWN_AGENT
    if not pair.whitelisted:
        return Reason.NOT_WHITELISTED
    if pair.run_state is not None:
        return Reason.RUNNING if pair.run_state == "running" else Reason.QUEUED
    if not pair.enabled:
        return Reason.TYPE_DISABLED
    if _paused(pair, now):
        return Reason.PAUSED
    if (slot := due_at(pair)) is not None and slot > now:
        return Reason.NOT_YET
    if pair.backoff_until is not None and pair.backoff_until > now:
        return Reason.BACKING_OFF
    return Reason.DUE


def due_at(pair: PairState) -> datetime | None:
    """When the interval has passed; None for a pair that was never scheduled, which is due at once."""
    if pair.last_slot_at is None:
        return None
    return pair.last_slot_at + timedelta(minutes=pair.interval_minutes)


def _paused(pair: PairState, at: datetime) -> bool:
    return pair.pause_scope is not None and (pair.pause_until is None or pair.pause_until > at)


def _will_be_skipped(pair: PairState, now: datetime) -> bool:
    """Whether the worker that takes the queued run will skip it (`store.claims.SQL_CLAIM`), which gives its slot back."""
    begins_at = max(now, pair.run_not_before or now)
    return pair.run_state == "queued" and not pair.run_forced and (not pair.enabled or _paused(pair, begins_at))


def _next_at(reason: Reason, pair: PairState, now: datetime) -> datetime | None:
    if reason in (Reason.UNKNOWN_AGENT, Reason.NOT_WHITELISTED) or not pair.enabled:
        return None
    slot = now if _will_be_skipped(pair, now) else max(due_at(pair) or now, now)
    rested = max(slot, pair.backoff_until or now)
    if not _paused(pair, now):
        return rested
    return max(rested, pair.pause_until) if pair.pause_until else None


def without_wrong_times(pair: PairState, now: datetime) -> PairState:
    """The state without times that only a wrong clock can have written: they delay nothing by more than a tick.

    The next tick removes the same times from the tables (`store.clock.SQL_MEND`) or ignores them (`SQL_INSERT_DUE`).
    """

    def unless_after(moment: datetime | None, latest: datetime) -> datetime | None:
        return moment if moment is not None and moment <= latest else None

    return replace(
        pair,
        last_slot_at=unless_after(pair.last_slot_at, now + FUTURE_SLOT),
        backoff_until=unless_after(pair.backoff_until, now + LONGEST_BACKOFF),
        run_not_before=unless_after(pair.run_not_before, now + LONGEST_RETRY),
    )


def _sentence(reason: Reason, pair: PairState, now: datetime) -> str:
    match reason:
        case Reason.UNKNOWN_AGENT:
            return f"there is no agent {pair.agent_id}"
        case Reason.NOT_WHITELISTED:
            return f"the agent {pair.agent_id} is not on the whitelist"
        case Reason.RUNNING:
            return f"run {pair.run_id} is running on {pair.run_worker} since {_stamp(pair.run_since)}"
        case Reason.QUEUED:
            return f"run {pair.run_id} is queued since {_stamp(pair.run_since)}{_fate(pair, now)}"
        case Reason.TYPE_DISABLED | Reason.PAUSED:
            return _switched_off(pair)
        case Reason.BACKING_OFF:
            return f"it failed {pair.consecutive_failures} times in a row and rests until {_stamp(pair.backoff_until)}"
        case Reason.NOT_YET:
            return f"its interval of {pair.interval_minutes} min has not passed; due at {_due_or_rested_at(pair)}"
        case Reason.DUE:
            why = "it has never been scheduled"
            if pair.last_slot_at is not None:
                why = f"its interval of {pair.interval_minutes} min passed at {_stamp(due_at(pair))}"
            return f"it is due: {why}; the next tick queues it"


def _fate(pair: PairState, now: datetime) -> str:
    """What will happen to a queued run, as the end of a sentence."""
    if _will_be_skipped(pair, now):
        return f", but a worker will skip it: {_switched_off(pair)}"
    if pair.run_not_before is not None and pair.run_not_before > now:
        return f"; attempt {pair.run_attempt} begins after {_stamp(pair.run_not_before)}"
    return ""


def _switched_off(pair: PairState) -> str:
    """What a person has disabled or paused."""
    if not pair.enabled:
        return f"the type {pair.sync_type} is disabled"
    until = f"until {_stamp(pair.pause_until)}" if pair.pause_until else "until somebody resumes"
    why = f" ({pair.pause_reason})" if pair.pause_reason else ""
    return f"{pair.pause_scope} is paused {until}{why}"


def _due_or_rested_at(pair: PairState) -> str:
    slot, rested = due_at(pair), pair.backoff_until
    if slot is None or rested is None or rested <= slot:
        return _stamp(slot)
    return f"{_stamp(rested)}, for it failed {pair.consecutive_failures} times in a row and rests until then"


def _stamp(moment: datetime | None) -> str:
    return iso(moment) if moment else "?"
