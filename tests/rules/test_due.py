"""The rule of what is due: no pair is early, slots do not drift, there are no bursts, and every reason has its sentence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.rules.due import FUTURE_SLOT, LONGEST_BACKOFF, LONGEST_RETRY, PairState, Reason, decide, due_at
from archisync.rules.synctypes import MAX_INTERVAL_MINUTES, MIN_INTERVAL_MINUTES
from tests.support.slots import next_slot

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAIR = PairState(sync_type="orders", agent_id="anna", known=True, whitelisted=True, enabled=True, interval_minutes=10)

intervals = st.integers(MIN_INTERVAL_MINUTES, MAX_INTERVAL_MINUTES)
moments = st.integers(-3 * 86_400, 3 * 86_400).map(lambda s: NOON + timedelta(seconds=s))
backoffs = st.none() | st.integers(-86_400, int(LONGEST_BACKOFF.total_seconds())).map(
    lambda s: NOON + timedelta(seconds=s)
)


@st.composite
def any_pair(draw: st.DrawFn) -> PairState:
    """Any pair, in any state that the tables allow."""
    return PairState(
        sync_type="orders",
        agent_id="anna",
        known=draw(st.booleans()),
        whitelisted=draw(st.booleans()),
        enabled=draw(st.booleans()),
        interval_minutes=draw(intervals),
        last_slot_at=draw(st.none() | moments),
        backoff_until=draw(st.none() | moments),
        consecutive_failures=draw(st.integers(0, 20)),
        run_id=7,
        run_state=draw(st.none() | st.sampled_from(["queued", "running"])),
        run_since=NOON,
        pause_scope=draw(st.none() | st.just("everything")),
        pause_until=draw(st.none() | moments),
    )


@st.composite
def waiting_pair(draw: st.DrawFn) -> PairState:
    """A pair that needs nothing but time."""
    pause_until = draw(st.none() | moments)
    return replace(
        PAIR,
        interval_minutes=draw(intervals),
        last_slot_at=draw(st.none() | st.integers(-3 * 86_400, 0).map(lambda s: NOON + timedelta(seconds=s))),
        backoff_until=draw(backoffs),
        pause_scope="everything" if pause_until else None,
        pause_until=pause_until,
    )


# --- never early --------------------------------------------------------------------------------------------------


@given(any_pair(), moments)
def test_pair_is_due_only_when_every_condition_holds_and_never_early(pair: PairState, now: datetime) -> None:
    decision = decide(pair, now)
    assert decision.due == (decision.reason is Reason.DUE)
    if not decision.due:
        return
    assert pair.known
    assert pair.whitelisted
    assert pair.enabled
    assert pair.run_state is None
    assert pair.pause_scope is None or (pair.pause_until is not None and pair.pause_until <= now)
    slot = pair.last_slot_at
    assert slot is None or now - slot >= timedelta(minutes=pair.interval_minutes) or slot > now + FUTURE_SLOT
    assert pair.backoff_until is None or pair.backoff_until <= now or pair.backoff_until > now + LONGEST_BACKOFF


@given(intervals, st.integers(1, 86_400))
def test_pair_is_due_in_the_second_in_which_its_interval_passes(interval: int, early: int) -> None:
    every = timedelta(minutes=interval)
    pair = replace(PAIR, interval_minutes=interval, last_slot_at=NOON - every)
    assert due_at(pair) == NOON
    assert decide(pair, NOON).due
    assert decide(pair, NOON - timedelta(seconds=min(early, interval * 60))).reason is Reason.NOT_YET


@given(waiting_pair(), st.integers(0, 10**6))
def test_waiting_pair_is_due_at_its_next_time_and_not_before(pair: PairState, seconds: int) -> None:
    next_at = decide(pair, NOON).next_at
    assert next_at is not None
    assert decide(pair, next_at).due
    if next_at > NOON:
        before = NOON + timedelta(seconds=seconds % int((next_at - NOON).total_seconds()))
        assert not decide(pair, before).due


# --- slots --------------------------------------------------------------------------------------------------------


@given(st.none() | moments.filter(lambda m: m <= NOON), intervals)
def test_there_is_one_catch_up_run_after_any_downtime(last: datetime | None, interval: int) -> None:
    every = timedelta(minutes=interval)
    pair = replace(PAIR, interval_minutes=interval, last_slot_at=last)
    if not decide(pair, NOON).due:
        return
    caught_up = replace(pair, last_slot_at=next_slot(last, every, NOON))
    assert decide(caught_up, NOON).reason is Reason.NOT_YET
    upcoming = due_at(caught_up)
    assert upcoming is not None
    assert NOON < upcoming <= NOON + every


@given(
    st.sampled_from([5, 7, 10, 15, 20, 30, 60, 90, 1440]),
    st.lists(st.integers(0, 59), min_size=60, max_size=60),
)
def test_day_of_ticks_with_jitter_runs_a_type_at_every_interval_without_drift(interval: int, jitter: list[int]) -> None:
    every = timedelta(minutes=interval)
    last: datetime | None = None
    ran_at: list[datetime] = []
    slots: list[datetime] = []
    for minute in range(1440):
        now = NOON + timedelta(minutes=minute, seconds=jitter[minute % len(jitter)])
        if decide(replace(PAIR, interval_minutes=interval, last_slot_at=last), now).due:
            last = next_slot(last, every, now)
            slots.append(last)
            ran_at.append(now)
    assert abs(len(slots) - 1440 / interval) <= 1
    assert slots == [slots[0] + n * every for n in range(len(slots))]
    # Never early, and late by less than two minutes: the longest distance of two such ticks.
    assert all(timedelta(0) <= ran - slot < timedelta(minutes=2) for ran, slot in zip(ran_at, slots, strict=True))


@pytest.mark.parametrize(
    ("last", "slot"),
    [
        (None, NOON),
        (NOON - timedelta(minutes=10), NOON),
        (NOON - timedelta(minutes=12), NOON - timedelta(minutes=2)),
        (NOON - timedelta(minutes=19, seconds=59), NOON - timedelta(minutes=9, seconds=59)),
        (NOON - timedelta(minutes=20), NOON),
        (NOON - timedelta(days=3), NOON),
    ],
)
def test_next_slot_is_one_interval_later_or_now_after_a_longer_gap(last: datetime | None, slot: datetime) -> None:
    assert next_slot(last, timedelta(minutes=10), NOON) == slot


# --- sentences ----------------------------------------------------------------------------------------------------

QUEUED = replace(PAIR, run_id=7, run_state="queued", run_since=NOON)
SENTENCES = [
    (replace(PAIR, known=False), Reason.UNKNOWN_AGENT, "there is no agent anna", None),
    (replace(PAIR, whitelisted=False), Reason.NOT_WHITELISTED, "the agent anna is not on the whitelist", None),
    (
        replace(PAIR, run_id=7, run_state="running", run_since=NOON, run_worker="host-1"),
        Reason.RUNNING,
        "run 7 is running on host-1 since 2026-03-01T12:00:00Z",
        NOON,
    ),
    (
        replace(PAIR, run_id=7, run_state="queued", run_since=NOON),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z",
        NOON,
    ),
    (
        replace(
            PAIR,
            run_id=7,
            run_state="queued",
            run_since=NOON,
            run_attempt=2,
            run_not_before=NOON + timedelta(minutes=1),
        ),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z; attempt 2 begins after 2026-03-01T12:01:00Z",
        NOON,
    ),
    (
        replace(QUEUED, enabled=False),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z, but a worker will skip it: the type orders is disabled",
        None,
    ),
    (
        replace(QUEUED, pause_scope="everything"),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z, but a worker will skip it: everything is paused until somebody resumes",
        None,
    ),
    (
        replace(QUEUED, last_slot_at=NOON, pause_scope="the agent anna", pause_until=NOON + timedelta(minutes=3)),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z, but a worker will skip it: the agent anna is paused until 2026-03-01T12:03:00Z",
        NOON + timedelta(minutes=3),
    ),
    (
        replace(
            QUEUED,
            run_attempt=2,
            run_not_before=NOON + timedelta(minutes=4),
            pause_scope="the agent anna",
            pause_until=NOON + timedelta(minutes=3),
        ),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z; attempt 2 begins after 2026-03-01T12:04:00Z",
        NOON + timedelta(minutes=3),
    ),
    (
        replace(QUEUED, run_forced=True, enabled=False, pause_scope="everything"),
        Reason.QUEUED,
        "run 7 is queued since 2026-03-01T12:00:00Z",
        None,
    ),
    (replace(PAIR, enabled=False), Reason.TYPE_DISABLED, "the type orders is disabled", None),
    (
        replace(PAIR, pause_scope="everything"),
        Reason.PAUSED,
        "everything is paused until somebody resumes",
        None,
    ),
    (
        replace(
            PAIR, pause_scope="the agent anna", pause_until=NOON + timedelta(hours=1), pause_reason="ERP maintenance"
        ),
        Reason.PAUSED,
        "the agent anna is paused until 2026-03-01T13:00:00Z (ERP maintenance)",
        NOON + timedelta(hours=1),
    ),
    (
        replace(PAIR, consecutive_failures=3, backoff_until=NOON + timedelta(minutes=40)),
        Reason.BACKING_OFF,
        "it failed 3 times in a row and rests until 2026-03-01T12:40:00Z",
        NOON + timedelta(minutes=40),
    ),
    (
        replace(PAIR, last_slot_at=NOON - timedelta(minutes=4)),
        Reason.NOT_YET,
        "its interval of 10 min has not passed; due at 2026-03-01T12:06:00Z",
        NOON + timedelta(minutes=6),
    ),
    (PAIR, Reason.DUE, "it is due: it has never been scheduled; the next tick queues it", NOON),
    (
        replace(PAIR, last_slot_at=NOON - timedelta(minutes=11)),
        Reason.DUE,
        "it is due: its interval of 10 min passed at 2026-03-01T11:59:00Z; the next tick queues it",
        NOON,
    ),
]


@pytest.mark.parametrize(
    ("pair", "reason", "sentence", "next_at"), SENTENCES, ids=[case[1].value for case in SENTENCES]
)
def test_each_reason_has_its_sentence_and_its_time(
    pair: PairState, reason: Reason, sentence: str, next_at: datetime | None
) -> None:
    decision = decide(pair, NOON)
    assert (decision.reason, decision.sentence, decision.next_at) == (reason, sentence, next_at)


def test_every_reason_has_a_test_of_its_sentence() -> None:
    assert {reason for _, reason, _, _ in SENTENCES} == set(Reason)


def test_back_off_of_the_longest_length_counts_and_a_longer_one_does_not() -> None:
    pair = replace(PAIR, consecutive_failures=5, backoff_until=NOON + LONGEST_BACKOFF)
    assert decide(pair, NOON).reason is Reason.BACKING_OFF
    assert decide(pair, NOON - timedelta(seconds=1)).due


@given(any_pair(), moments, st.integers(1, 10**9))
def test_times_that_only_a_wrong_clock_can_write_decide_nothing(pair: PairState, now: datetime, seconds: int) -> None:
    beyond = now + timedelta(seconds=seconds)
    wrong = replace(
        pair,
        last_slot_at=beyond + FUTURE_SLOT,
        backoff_until=beyond + LONGEST_BACKOFF,
        run_not_before=beyond + LONGEST_RETRY,
    )
    never = replace(pair, last_slot_at=None, backoff_until=None, run_not_before=None)
    assert decide(wrong, now) == decide(never, now)


@given(any_pair(), moments)
def test_pair_has_no_next_time_when_only_a_person_can_change_that(pair: PairState, now: datetime) -> None:
    decision = decide(pair, now)
    assert decision.next_at is None or decision.next_at >= now
    paused_for_good = pair.pause_scope is not None and pair.pause_until is None
    assert (decision.next_at is None) == (not pair.known or not pair.whitelisted or not pair.enabled or paused_for_good)


def test_back_off_that_only_a_wrong_clock_can_write_delays_nothing() -> None:
    pair = replace(PAIR, last_slot_at=NOON - timedelta(minutes=4), backoff_until=NOON + timedelta(days=3650))
    assert decide(pair, NOON).next_at == NOON + timedelta(minutes=6)
