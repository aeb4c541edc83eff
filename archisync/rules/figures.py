"""Numbers that another program has damaged: multiplied, rounded, or without some of their digits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from archisync.rules import cells as signs
from archisync.rules.changedrows import (
    LEAST,
    NUMBERS,
    PURE_PERCENT,
    Among,
    Base,
    Cell,
    ChangedRows,
    Column,
    Suspicion,
    at_least,
    seen_in,
)
from archisync.rules.reasons import Rule
from archisync.rules.values import Value

LEAST_CUT = 5
LEAST_OF_FACTOR = 5
LARGE_FACTOR = Decimal("2.5")
"""Nobody raises every price so much at once; a dozen instead of a piece, or an inch that becomes centimetres, does."""
_VAT = (Decimal("1.19"), Decimal("1.21"), Decimal("1.22"))
"""Taxes that are not also a usual raise or discount."""
_EXACT = Decimal("0.0005")


def rescaled(changed: ChangedRows, column: Column) -> Suspicion | None:
    """A power of ten, a sign, or a decimal sign that is gone: 12.50 → 125, 3.25 → 325."""
    if column.field.kind not in NUMBERS:
        return None
    not_zero = [c for c in column.both if c.old and c.new]
    powers = [signs.factor(_number(c.old), _number(c.new)) for c in not_zero]
    power, number = Counter(powers).most_common(1)[0] if powers else (0, 0)
    hits = [c for c, of_cell in zip(not_zero, powers, strict=True) if of_cell == power]
    what = _in_words(power)
    if not power or not at_least(number, len(not_zero), PURE_PERCENT):
        hits = [
            c
            for c, of_cell in zip(not_zero, powers, strict=True)
            if of_cell > 0 and signs.lost_point(_number(c.old), _number(c.new))
        ]
        what = "loses its decimal sign"
    if len(hits) < LEAST or not at_least(len(hits), len(not_zero), PURE_PERCENT) or len({c.old for c in hits}) < 2:
        return None
    return seen_in(changed, column, hits, Rule.RESCALED, what, base=Base(Among.FILLED, column.name))


def multiplied(changed: ChangedRows, column: Column) -> Suspicion | None:
    """One factor in most rows, which is no raise: another unit, or with the tax instead of without."""
    if column.field.kind not in NUMBERS or column.field.role is not None:
        return None
    cells = [(c, _number(c.old), _number(c.new)) for c in column.both if c.old and c.new]
    if len(cells) < LEAST_OF_FACTOR:
        return None
    ratios = sorted((new / old, abs(new)) for _, old, new in cells)
    near = ratios[len(ratios) * 2 // 5 : len(ratios) * 3 // 5 + 1]
    factor = max(near, key=lambda pair: pair[1])[0]  # the largest number is the one that rounding changes least
    if not _is_no_raise(factor):
        return None
    hits = [c for c, old, new in cells if signs.multiplied_by(factor, old, new)]
    distinct = len({c.old for c in hits})
    if distinct < LEAST_OF_FACTOR or not at_least(len(hits), len(cells), PURE_PERCENT):
        return None
    what = f"is multiplied by about {factor:.3g}"
    return seen_in(changed, column, hits, Rule.RESCALED, what, base=Base(Among.FILLED, column.name), floor=50)


def _is_no_raise(factor: Decimal) -> bool:
    if factor <= 0:
        return False
    up = factor if factor > 1 else 1 / factor
    return up >= LARGE_FACTOR or any(abs(up - tax) < _EXACT for tax in _VAT)


def _number(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _in_words(power: int) -> str:
    if power == signs.SIGN:
        return "changes its sign"
    return f"becomes {10 ** abs(power)} times as {'large' if power > 0 else 'small'}"


def cut_digits(changed: ChangedRows, column: Column) -> Suspicion | None:
    """All numbers that changed lost their decimals or other digits."""
    if column.field.kind not in NUMBERS or column.field.role is not None or len(column.both) < LEAST_CUT:
        return None
    pairs = [(c, _number(c.old), _number(c.new)) for c in column.both]
    rounded = [c for c, old, new in pairs if signs.rounded(old, new)]
    if _nearly_all(rounded, column):
        had_decimals = sum(_number(c.old) % 1 != 0 for c in rounded) * 2 > len(rounded)
        base = Base(Among.FRACTIONS if had_decimals else Among.FILLED, column.name)
        return seen_in(
            changed, column, rounded, Rule.CUT_VALUES, "loses its decimals or last digits", base=base, floor=50
        )
    without_first = [c for c, old, new in pairs if signs.lost_first_digits(old, new)]
    if _nearly_all(without_first, column):
        base = Base(Among.FILLED, column.name)
        return seen_in(changed, column, without_first, Rule.CUT_VALUES, "loses its first digits", base=base)
    return None


def _nearly_all(hits: Sequence[Cell], column: Column) -> bool:
    return len({c.old for c in hits}) >= LEAST_CUT and at_least(len(hits), len(column.both), 90)
