"""The coming timetable: how many runs each hour brings, how much work that is, and whether the workers keep up. Pure.

Slots follow `archisync.rules.due`: a pair is due at its next slot and every interval after it. Work is counted in seconds of a worker, from
the mean duration of the type's last runs; what an hour can't do is carried into the next, and what is queued already into the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archisync.rules.synctypes import SYNC_TYPES, Scope

HOUR = timedelta(hours=1)
FALLBACK_S = 5.0
"""Assumed of a type that never ran; the plan says that it is assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DueGroup:
    """`pairs` of one type that are due in the same minute, and every interval after it."""

    sync_type: str
    interval_minutes: int
    due_at: datetime
    pairs: int


@dataclass(kw_only=True)
class Hour:
    """One hour of the plan, from `at`. `work_s`: seconds of a worker that its runs take; `left_s`: not done by its end."""

    at: datetime
    length_s: float
    runs: dict[str, int] = field(default_factory=dict)
    work_s: float = 0.0
    left_s: float = 0.0
    load: float | None = None

    @property
    def total(self) -> int:
        return sum(self.runs.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`queued`: runs that wait already, and `queued_s` their work, which is carried into the first hour. `assumed`: types whose
    duration is a guess. `notes`: where workers don't keep up, as sentences."""

    hours: Sequence[Hour]
    queued: Mapping[str, int]
    queued_s: float
    workers: int
    durations_s: Mapping[str, float]
    assumed: Sequence[str]
    notes: Sequence[str]

    @property
    def keeps_up(self) -> bool:
        return not self.notes


def make_plan(
    groups: Sequence[DueGroup],
    measured_s: Mapping[str, float | None],
    *,
    now: datetime,
    span: timedelta,
    workers: int,
    queued: Mapping[str, int],
) -> Plan:
    """The plan from `now` on. `queued`: runs that wait already, by type. `workers`: processes that run syncs; with 0 nothing is done."""
    types = sorted({g.sync_type for g in groups} | set(queued), key=list(SYNC_TYPES).index)
    durations = {name: measured_s.get(name) or FALLBACK_S for name in types}
    hours = _hours(now, span)
    for group in groups:
        _spread(group, hours, now, now + span)
    left = queued_s = sum(runs * durations[name] for name, runs in queued.items())
    for hour in hours:
        hour.work_s = sum(runs * durations[name] for name, runs in hour.runs.items())
        capacity = workers * hour.length_s
        hour.load = (hour.work_s + left) / capacity if capacity else None
        hour.left_s = left = max(0.0, left + hour.work_s - capacity)
    assumed = [name for name in types if measured_s.get(name) is None]
    notes = [*_overload_notes(hours, workers, queued_s), *_serial_notes(groups, durations)]
    return Plan(
        hours=hours,
        queued=queued,
        queued_s=queued_s,
        workers=workers,
        durations_s=durations,
        assumed=assumed,
        notes=notes,
    )


def _hours(now: datetime, span: timedelta) -> list[Hour]:
    """Hours by the clock; the first and the last may be shorter."""
    found, at = [], now
    while at < now + span:
        after = min(at.replace(minute=0, second=0, microsecond=0) + HOUR, now + span)
        found.append(Hour(at=at, length_s=(after - at).total_seconds()))
        at = after
    return found


def _spread(group: DueGroup, hours: Sequence[Hour], now: datetime, end: datetime) -> None:
    first = hours[0].at.replace(minute=0, second=0, microsecond=0)
    every = timedelta(minutes=group.interval_minutes)
    slot = max(group.due_at, now)
    while slot < end:
        runs = hours[(slot - first) // HOUR].runs
        runs[group.sync_type] = runs.get(group.sync_type, 0) + group.pairs
        slot += every


def _overload_notes(hours: Sequence[Hour], workers: int, queued_s: float) -> list[str]:
    """One sentence for each stretch of hours that ends with work left over."""
    if not workers:
        return ["no worker is alive: nothing of this would run"] if queued_s or any(h.total for h in hours) else []
    notes, stretch = [], list[Hour]()
    for hour in [*hours, None]:
        if hour is not None and hour.left_s > 0:
            stretch.append(hour)
        elif stretch:
            worst = max(h.left_s for h in stretch)
            needed = workers + _ceil(worst / sum(h.length_s for h in stretch))
            until = f"{hour.at:%a %d %H:%M} UTC" if hour is not None else "the end of the plan"
            notes.append(
                f"{workers} worker(s) don't keep up from {stretch[0].at:%a %d %H:%M} to {until}: up to {worst / 60:.0f} min of work "
                f"wait; {needed} would do"
            )
            stretch = []
    return notes


def _ceil(number: float) -> int:
    return max(1, int(-(-number // 1)))


def _serial_notes(groups: Sequence[DueGroup], durations: Mapping[str, float]) -> list[str]:
    """An agent's runs never overlap: if they take longer than their intervals, no number of workers helps."""
    every_s = {g.sync_type: g.interval_minutes * 60 for g in groups}
    notes = []
    for scope, whose in ((Scope.AGENT, "an agent's"), (Scope.SHARED, "the shared")):
        share = sum(durations[n] / every_s[n] for n in every_s if SYNC_TYPES[n].scope is scope)
        if share > 1:
            notes.append(
                f"{whose} types take {share:.1f} times as long as their intervals allow, one after the other: lengthen intervals"
            )
    return notes
