"""The coming hours: how many runs each brings, how much work that is, and whether the workers keep up. Pure.

Slots follow `archisync.rules.due`: a pair is due at its next slot and every interval after it. Work is counted in seconds of a worker, from
the mean duration of the type's last runs. Work that an hour can't do is carried into the next one; work that is already queued is carried
into the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from archisync.base.text import counted
from archisync.rules.synctypes import SYNC_TYPES, Scope, sync_type

HOUR = timedelta(hours=1)
ESTIMATED = "estimated from a sample, since there are too many to count each"
"""What a person reads beside numbers that are."""
ASSUMED_S = 5.0
"""Duration of a run of a type that never ran; the forecast says that it is assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DueGroup:
    """`pairs` of one type that are due in the same minute, and every interval after it. `about`: so many by an estimate."""

    sync_type: str
    interval_minutes: int
    due_at: datetime
    pairs: int
    about: bool = False


@dataclass(kw_only=True)
class Hour:
    """One hour, or a part of one, from `at`. `work_s`: seconds of a worker that its runs take. `left_s`: seconds not done at its end."""

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
class Forecast:
    """`queued`: runs that already wait, by type; `queued_s`: their work. `assumed`: types whose duration is a guess. `estimated`: runs
    were estimated from a sample, since they are too many to count each. `notes`: sentences that say where the workers can't keep up."""

    now: datetime
    hours: Sequence[Hour]
    queued: Mapping[str, int]
    queued_s: float
    workers: int
    durations_s: Mapping[str, float]
    assumed: Sequence[str]
    estimated: bool
    notes: Sequence[str]

    @property
    def keeps_up(self) -> bool:
        return not self.notes


def make_forecast(
    groups: Sequence[DueGroup],
    measured_s: Mapping[str, float | None],
    *,
    now: datetime,
    span: timedelta,
    workers: int,
    queued: Mapping[str, int],
    queued_about: bool = False,
) -> Forecast:
    """The forecast for `span` from `now` on. `queued`: runs that already wait, by type. `workers`: with 0, no work is done."""
    types = sorted({g.sync_type for g in groups} | set(queued), key=_place)
    durations = {name: measured_s.get(name) or ASSUMED_S for name in types}
    hours = _hours(now, span)
    for group in groups:
        _add_slots(hours, group, now, now + span)
    about = {g.sync_type for g in groups if g.about}
    for hour in hours:
        hour.runs |= {name: roughly(runs) for name, runs in hour.runs.items() if name in about}
    queued = {name: roughly(runs) for name, runs in queued.items()} if queued_about else queued
    queued_s = sum(runs * durations[name] for name, runs in queued.items())
    _add_work(hours, durations, workers, queued_s)
    return Forecast(
        now=now,
        hours=hours,
        queued=queued,
        queued_s=queued_s,
        workers=workers,
        durations_s=durations,
        assumed=[name for name in types if measured_s.get(name) is None],
        estimated=bool(about) or queued_about,
        notes=[*_overload_notes(hours, workers, queued_s), *_interval_notes(groups, durations)],
    )


def roughly(number: int) -> int:
    """An estimated number, with no more digits than are known."""
    return int(float(f"{number:.2g}"))


def _place(type_name: str) -> tuple[int, str]:
    """The type's place among all."""
    known = list(SYNC_TYPES)
    return known.index(type_name) if type_name in known else len(known), type_name


def _hours(now: datetime, span: timedelta) -> list[Hour]:
    """Hours of the clock; the first and the last may be shorter."""
    found, at = [], now
    while at < now + span:
        after = min(at.replace(minute=0, second=0, microsecond=0) + HOUR, now + span)
        found.append(Hour(at=at, length_s=(after - at).total_seconds()))
        at = after
    return found


def _add_slots(hours: Sequence[Hour], group: DueGroup, now: datetime, end: datetime) -> None:
    first = hours[0].at.replace(minute=0, second=0, microsecond=0)
    every = timedelta(minutes=group.interval_minutes)
    slot = max(group.due_at, now)
    while slot < end:
        runs = hours[(slot - first) // HOUR].runs
        runs[group.sync_type] = runs.get(group.sync_type, 0) + group.pairs
        slot += every


def _add_work(hours: Sequence[Hour], durations: Mapping[str, float], workers: int, left_s: float) -> None:
    """Fill in work, load and what is left of each hour. `left_s`: the work left before the first hour."""
    for hour in hours:
        hour.work_s = sum(runs * durations[name] for name, runs in hour.runs.items())
        capacity_s = workers * hour.length_s
        hour.load = (hour.work_s + left_s) / capacity_s if capacity_s else None
        hour.left_s = left_s = max(0.0, left_s + hour.work_s - capacity_s)


def _overload_notes(hours: Sequence[Hour], workers: int, queued_s: float) -> list[str]:
    """A sentence for each stretch of hours that end with work left."""
    if not workers:
        return ["no worker is alive: none of this would run"] if queued_s or any(h.total for h in hours) else []
    notes, stretch = [], list[Hour]()
    for hour in [*hours, None]:
        if hour is not None and hour.left_s > 0:
            stretch.append(hour)
        elif stretch:
            end = f"{hour.at:%a %d %H:%M} UTC" if hour is not None else "the end of the plan"
            notes.append(_overload_note(stretch, end, workers))
            stretch = []
    return notes


def _overload_note(stretch: Sequence[Hour], end: str, workers: int) -> str:
    left_s = max(h.left_s for h in stretch)
    enough = workers + max(1, ceil(left_s / sum(h.length_s for h in stretch)))
    return (
        f"{counted(workers, 'worker')} can't keep up from {stretch[0].at:%a %d %H:%M} to {end}: "
        f"up to {left_s / 60:.0f} min of work waits; {enough} workers are enough"
    )


def _interval_notes(groups: Sequence[DueGroup], durations: Mapping[str, float]) -> list[str]:
    """An agent's runs never overlap: if they take longer than their intervals, more workers don't help."""
    every_s = {g.sync_type: g.interval_minutes * 60 for g in groups}
    notes = []
    for scope, whose in ((Scope.AGENT, "an agent's"), (Scope.SHARED, "the shared")):
        share = sum(durations[n] / every_s[n] for n in every_s if sync_type(n).scope is scope)
        if share > 1:
            notes.append(
                f"{whose} types take {share:.1f} times as long as their intervals allow, one after the other: set longer intervals"
            )
    return notes
