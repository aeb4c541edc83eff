"""The rule of what is due, in words that a person can be told: pure, without a database.

The tick decides for millions of pairs in one statement (`store.queued_runs.SQL_INSERT_DUE`); this module decides for one pair, with
the reason and the time of the next run, for `why`, `tick --dry-run` and `status`. A property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

LONGEST_BACKOFF = timedelta(hours=25)
"""No back-off is longer: a day at most, for a type of 1440 min."""
LONGEST_RETRY = timedelta(minutes=61)
"""No retry is further away: `sync.retry_delay_s` gives an hour at most."""
FUTURE_SLOT = timedelta(minutes=1)
"""No slot is in the future; so little is not worth a mend."""


class Reason(StrEnum):
    """Why a pair is, or is not, due. The order is the order of precedence: the first that holds is told."""

    UNKNOWN_AGENT = "unknown-agent"
    NOT_WHITELISTED = "not-whitelisted"
    RUNNING = "running"
    QUEUED = "queued"
    TYPE_DISABLED = "type-disabled"
    PAUSED = "paused"
    BACKING_OFF = "backing-off"
    NOT_YET = "not-yet"
    DUE = "due"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that the decision on one pair depends on. Times are aware; `pause_*` describe the widest standing pause."""

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


def due_at(facts: Facts) -> datetime | None:
    """When the interval has passed; None: at once (never scheduled)."""
    if facts.last_slot_at is None:
        return None
    return facts.last_slot_at + timedelta(minutes=facts.interval_minutes)


def decide(facts: Facts, now: datetime) -> Decision:
    """Whether the pair is due at `now`, with the reason as a word and as a sentence."""
    facts = credible(facts, now)
    reason = _reason(facts, now)
    return Decision(reason=reason, sentence=_sentence(reason, facts, now), next_at=_next_at(reason, facts, now))


def credible(facts: Facts, now: datetime) -> Facts:
    """The facts without the times that only a wrong clock can have written: they delay nothing by more than a tick.

    The next tick takes the same ones out of the tables (`store.clock.SQL_MEND`) or ignores them (`SQL_INSERT_DUE`).
    """

    def unless_after(moment: datetime | None, latest: datetime) -> datetime | None:
        return moment if moment is not None and moment <= latest else None

    return replace(
        facts,
        last_slot_at=unless_after(facts.last_slot_at, now + FUTURE_SLOT),
        backoff_until=unless_after(facts.backoff_until, now + LONGEST_BACKOFF),
        run_not_before=unless_after(facts.run_not_before, now + LONGEST_RETRY),
    )


def _reason(facts: Facts, now: datetime) -> Reason:
    if not facts.known:
        return Reason.UNKNOWN_AGENT
    if not facts.whitelisted:
        return Reason.NOT_WHITELISTED
    if facts.run_state is not None:
        return Reason.RUNNING if facts.run_state == "running" else Reason.QUEUED
    if not facts.enabled:
        return Reason.TYPE_DISABLED
    if _paused(facts, now):
        return Reason.PAUSED
    slot = due_at(facts)
    if slot is not None and slot > now:
        return Reason.NOT_YET
    if _rests_until(facts, now) > now:
        return Reason.BACKING_OFF
    return Reason.DUE


def _rests_until(facts: Facts, now: datetime) -> datetime:
    """The end of the back-off; `now` when there is none."""
    return facts.backoff_until or now


def _paused(facts: Facts, now: datetime) -> bool:
    return facts.pause_scope is not None and (facts.pause_until is None or facts.pause_until > now)


def _will_be_skipped(facts: Facts, now: datetime) -> bool:
    """A queued run that a worker can only skip, if nothing changes (`store.claims.SQL_CLAIM`); its slot is given back then."""
    begins = max(now, facts.run_not_before or now)
    return facts.run_state == "queued" and not facts.run_forced and (not facts.enabled or _paused(facts, begins))


def _next_at(reason: Reason, facts: Facts, now: datetime) -> datetime | None:
    if reason in (Reason.UNKNOWN_AGENT, Reason.NOT_WHITELISTED) or not facts.enabled:
        return None
    slot = now if _will_be_skipped(facts, now) else max(due_at(facts) or now, now)
    rested = max(slot, _rests_until(facts, now))
    if not _paused(facts, now):
        return rested
    return max(rested, facts.pause_until) if facts.pause_until else None


def _sentence(reason: Reason, facts: Facts, now: datetime) -> str:
    match reason:
        case Reason.UNKNOWN_AGENT:
            return f"there is no agent {facts.agent_id}"
        case Reason.NOT_WHITELISTED:
            return f"the agent {facts.agent_id} is not on the whitelist"
        case Reason.RUNNING:
            return f"run {facts.run_id} is running on {facts.run_worker} since {_stamp(facts.run_since)}"
        case Reason.QUEUED:
            waiting = f"run {facts.run_id} is queued since {_stamp(facts.run_since)}"
            if _will_be_skipped(facts, now):
                return f"{waiting}, but a worker will skip it: {_standing(facts)}"
            if facts.run_not_before is not None and facts.run_not_before > now:
                return f"{waiting}; attempt {facts.run_attempt} begins after {_stamp(facts.run_not_before)}"
            return waiting
        case Reason.TYPE_DISABLED | Reason.PAUSED:
            return _standing(facts)
        case Reason.BACKING_OFF:
            return (
                f"it failed {facts.consecutive_failures} times in a row and rests until {_stamp(facts.backoff_until)}"
            )
        case Reason.NOT_YET:
            waiting = f"its interval of {facts.interval_minutes} min has not passed; due at "
            slot, rested = due_at(facts), facts.backoff_until
            if slot is None or rested is None or rested <= slot:
                return waiting + _stamp(slot)
            return f"{waiting}{_stamp(rested)}, for it failed {facts.consecutive_failures} times in a row and rests until then"
        case Reason.DUE:
            if facts.last_slot_at is None:
                return "it is due: it has never been scheduled"
            return f"it is due: its interval of {facts.interval_minutes} min passed at {_stamp(due_at(facts))}"


def _standing(facts: Facts) -> str:
    """What a person has switched off or paused."""
    if not facts.enabled:
        return f"the type {facts.sync_type} is disabled"
    until = f"until {_stamp(facts.pause_until)}" if facts.pause_until else "until somebody resumes"
    why = f" ({facts.pause_reason})" if facts.pause_reason else ""
    return f"{facts.pause_scope} is paused {until}{why}"


def _stamp(moment: datetime | None) -> str:
    from datetime import UTC

    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "?"
