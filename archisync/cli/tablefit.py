"""Which columns of a table a terminal has room for. Pure: `output` and `watch` draw what is decided here.

A table that is squeezed into too few columns can't be read at all, so whole columns give way, the least telling first; what
does not fit even then is shown as records, one field a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
NARROWEST_TEXT = 24
"""Below this a sentence is broken into too many lines to be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """`shown`: indices of the columns; none: show records instead. `text`: width of the column that folds, None without one."""

    shown: Sequence[int]
    left_out: Sequence[str]
    text: int | None

    @property
    def records(self) -> bool:
        return not self.shown


def fit(
    names: Sequence[str], widths: Sequence[int], *, room: int, less: Sequence[str] = (), folds: str | None = None
) -> Fit:
    """`widths`: of the widest cell of each column, its name included. `less`: names that may be left out, the first one first.
    `folds`: the name of the one column whose text may go over several lines."""
    shown = list(range(len(names)))
    left_out: list[str] = []
    waiting = list(less)
    while True:
        rigid = [widths[i] for i in shown if names[i] != folds]
        left = room - sum(rigid) - GAP * (len(shown) - 1)
        needed = [min(widths[i], NARROWEST_TEXT) for i in shown if names[i] == folds]
        if left >= sum(needed):
            natural = [widths[i] for i in shown if names[i] == folds]
            return Fit(shown=shown, left_out=left_out, text=min(left, natural[0]) if natural else None)
        if not waiting:
            return Fit(shown=(), left_out=(), text=None)
        name = waiting.pop(0)
        shown = [i for i in shown if names[i] != name]
        left_out.append(name)
