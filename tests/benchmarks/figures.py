"""What a benchmark reports: archisync's figure and a peer's, measured side by side in the same run, and the target of their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """`ours` and `peer` are medians in `unit`. `target` is a bound of `ratio`: an upper one with `at_most`, else a lower one.

    `peer` and `ratio` are None if the figure has no peer, or the peer could not be measured. `note` says why, and how far the measurements
    were apart.
    """

    name: str
    unit: str
    ours: float | None
    against: str
    peer: float | None
    ratio: float | None
    target: float | None
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.ratio is None or self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How thorough a run is. `quick` only tries the benchmarks: small sizes, one round, no result is kept. `until_the_end`: what areas
    share ends with it."""

    rounds: int = 5
    quick: bool = False
    until_the_end: ExitStack = field(default_factory=ExitStack, compare=False)


def timed(work: Callable[[], object]) -> float:
    """The seconds that the work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def side_by_side(rounds: int, *works: Callable[[], float]) -> list[float]:
    """The median of what each work measures (seconds, or a rate) over the rounds. All of them run in each round, in turn, so a slow minute
    of the machine slows them all."""
    seen: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        order = range(len(works)) if number % 2 == 0 else reversed(range(len(works)))
        for index in order:
            seen[index].append(works[index]())
    return [statistics.median(values) for values in seen]


def spread(values: Sequence[float]) -> str:
    """`min … max`, for a note."""
    return f"{min(values):.3g} … {max(values):.3g}"
