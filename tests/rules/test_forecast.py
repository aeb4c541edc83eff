"""The forecast: slots by the hour, work that is carried on, and the notes about it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from archisync.cli.plan import bar
from archisync.rules.forecast import HOUR, DueGroup, Forecast, make_forecast

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORDERS_S: dict[str, float | None] = {"orders": 6.0}


def group(pairs: int = 10, *, minutes: int = 10, due: datetime = NOW, name: str = "orders") -> DueGroup:
    return DueGroup(sync_type=name, interval_minutes=minutes, due_at=due, pairs=pairs)


def forecast(
    *groups: DueGroup,
    workers: int = 1,
    hours: float = 3,
    now: datetime = NOW,
    queued: Mapping[str, int] = MappingProxyType({}),
) -> Forecast:
    return make_forecast(groups, ORDERS_S, now=now, span=timedelta(hours=hours), workers=workers, queued=queued)


def test_a_ten_minute_type_runs_six_times_an_hour_for_each_pair() -> None:
    found = forecast(group(10))
    assert [h.total for h in found.hours] == [60, 60, 60]
    assert [h.work_s for h in found.hours] == [360, 360, 360]
    assert [h.load for h in found.hours] == [0.1, 0.1, 0.1]
    assert found.keeps_up


def test_the_first_and_the_last_hour_may_be_parts() -> None:
    found = forecast(group(1, due=NOW + timedelta(minutes=45)), hours=1, now=NOW + timedelta(minutes=40))
    assert [(f"{h.at:%H:%M}", h.length_s, h.total) for h in found.hours] == [("12:40", 1200, 2), ("13:00", 2400, 4)]


def test_an_overdue_pair_runs_in_the_first_hour() -> None:
    assert forecast(group(1, minutes=1440, due=NOW - timedelta(days=3))).hours[0].total == 1


def test_work_that_an_hour_can_t_do_is_carried_on_and_a_note_says_how_many_workers_are_enough() -> None:
    late = group(1200, minutes=180)  # 7200 s of work at 12:00, nothing until 15:00
    found = forecast(late)
    assert [h.left_s for h in found.hours] == [3600, 0, 0]
    assert [h.load for h in found.hours] == [2, 1, 0]
    assert found.notes == [
        "1 worker can't keep up from Sun 01 12:00 to Sun 01 13:00 UTC: up to 60 min of work waits; 2 workers are enough"
    ]
    assert forecast(late, workers=2).keeps_up


def test_runs_that_already_wait_are_work_for_the_first_hours() -> None:
    found = forecast(group(10), queued={"orders": 900})
    assert (found.queued_s, [h.total for h in found.hours]) == (5400, [60, 60, 60])
    assert [(h.load, h.left_s) for h in found.hours] == [(1.6, 2160), (0.7, 0), (0.1, 0)]
    assert found.notes == [
        "1 worker can't keep up from Sun 01 12:00 to Sun 01 13:00 UTC: up to 36 min of work waits; 2 workers are enough"
    ]
    assert forecast(group(10), queued={"orders": 100}).keeps_up
    assert forecast(workers=0, queued={"orders": 1}).notes == ["no worker is alive: none of this would run"]
    assert forecast(queued={"orders": 1}).durations_s == {"orders": 6.0}  # forced runs of a type that is disabled


def test_work_that_only_grows_waits_until_the_end_of_the_plan() -> None:
    assert forecast(group(200)).notes == [
        "1 worker can't keep up from Sun 01 12:00 to the end of the plan: up to 180 min of work waits; 2 workers are enough"
    ]


def test_without_workers_nothing_runs_and_a_note_says_so() -> None:
    assert forecast(group(1), workers=0).notes == ["no worker is alive: none of this would run"]
    assert forecast(workers=0).notes == []


def test_runs_that_take_longer_than_their_intervals_are_noted() -> None:
    measured: dict[str, float | None] = {"orders": 400.0, "ddt": 480.0}
    groups = [group(1), group(1, name="ddt", minutes=20)]
    found = make_forecast(groups, measured, now=NOW, span=timedelta(hours=1), workers=9, queued={})
    assert found.notes == [
        "an agent's types take 1.1 times as long as their intervals allow, one after the other: set longer intervals"
    ]


def test_an_estimate_is_said_and_shows_no_more_digits_than_are_known() -> None:
    sampled = DueGroup(sync_type="orders", interval_minutes=60, due_at=NOW, pairs=12_345, about=True)
    found = forecast(sampled, group(7, minutes=60, name="prices"))
    assert [h.runs for h in found.hours] == [{"orders": 12_000, "prices": 7}] * 3
    assert found.estimated
    assert not forecast(group(12_345)).estimated
    waiting = make_forecast(
        [group(1)], ORDERS_S, now=NOW, span=HOUR, workers=1, queued={"orders": 98_765}, queued_about=True
    )
    assert (waiting.queued, waiting.queued_s, waiting.estimated) == ({"orders": 99_000}, 99_000 * 6.0, True)
    assert [h.runs for h in waiting.hours] == [{"orders": 6}]


def test_the_duration_of_a_type_that_never_ran_is_assumed() -> None:
    assert forecast(group(1), group(1, name="prices")).assumed == ["prices"]


@given(
    pairs=st.integers(1, 10_000),
    minutes=st.integers(5, 1440),
    late=st.integers(-2000, 2000),
    hours=st.integers(1, 48),
    start=st.integers(0, 3599),
    workers=st.integers(1, 50),
)
def test_no_slot_is_lost_and_no_work_vanishes(
    pairs: int, minutes: int, late: int, hours: int, start: int, workers: int
) -> None:
    now = NOW + timedelta(seconds=start)
    due, end = max(now + timedelta(minutes=late), now), now + timedelta(hours=hours)
    found = forecast(
        group(pairs, minutes=minutes, due=now + timedelta(minutes=late)), hours=hours, now=now, workers=workers
    )
    slots = 0 if due >= end else (end - due - timedelta(microseconds=1)) // timedelta(minutes=minutes) + 1
    assert sum(h.total for h in found.hours) == slots * pairs
    assert sum(h.length_s for h in found.hours) == hours * 3600
    assert all(h.left_s >= 0 for h in found.hours)
    done = sum(h.work_s for h in found.hours) - found.hours[-1].left_s
    assert done <= workers * hours * 3600 + 1e-6


def test_a_bar_is_never_empty_unless_the_value_is_0() -> None:
    assert [bar(n, 1000, 10, ascii_only=True) for n in (0, 1, 500, 1000)] == ["", "#", "#####", "##########"]
    assert bar(1, 1, 2, ascii_only=False) == "██"
