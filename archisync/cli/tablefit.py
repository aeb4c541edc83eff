"""Which columns of a table a terminal has room for. Pure; `output` and `liveview` draw the result.

Nobody can read a table that is squeezed into too few columns. So whole columns are left out, the least important first, and if that is
not enough the rows are shown as records, one field a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
"""Spaces between two columns."""
NARROWEST_FOLD = 24
"""A narrower column would break a sentence into too many lines to be read."""


LONGEST_CELL = 32
"""Of a longer text that can't be folded, a table without room for it shows both ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """`shown`: indices of the columns to draw; none means records instead. `folded_width`: of the column that folds, if there is one."""

    shown: Sequence[int]
    left_out: Sequence[str]
    folded_width: int | None

    @property
    def records(self) -> bool:
        return not self.shown


def shortened(text: str) -> str:
    """The text, or its beginning and its end when it is longer than LONGEST_CELL: ids differ at either of them."""
    if len(text) <= LONGEST_CELL:
        return text
    half = (LONGEST_CELL - 1) // 2
    return f"{text[: LONGEST_CELL - 1 - half]}…{text[-half:]}"


def fit(
    names: Sequence[str], widths: Sequence[int], *, room: int, less: Sequence[str] = (), folds: str | None = None
) -> Fit:
    """Choose columns for a terminal of `room` columns.

    `widths`: the widest cell of each column, its name included. `less`: names that may be left out, the first one first. `folds`: the one
    column whose text may be broken into several lines.
    """
    shown = list(range(len(names)))
    left_out: list[str] = []
    candidates = list(less)
    while True:
        fixed = [widths[i] for i in shown if names[i] != folds]
        left = room - sum(fixed) - GAP * (len(shown) - 1)
        folding = [widths[i] for i in shown if names[i] == folds]  # one width, or none
        if left >= sum(min(width, NARROWEST_FOLD) for width in folding):
            return Fit(shown=shown, left_out=left_out, folded_width=min(left, folding[0]) if folding else None)
        if not candidates:
            return Fit(shown=(), left_out=(), folded_width=None)
        name = candidates.pop(0)
        shown = [i for i in shown if names[i] != name]
        left_out.append(name)
