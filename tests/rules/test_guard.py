"""The guard's verdicts are exact: every base from 1 to 1,000 against every count, compared with fractions."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.rules.guard import Evidence, Notation, Plan, judge
from archisync.rules.reasons import Limits, Rule


def evidence(
    valid: int, *, known: int | None = None, high: int | None = None, plan: Plan | None = None, quarantined: int = 0
) -> Evidence:
    return Evidence(
        seen=valid + quarantined,
        valid=valid,
        quarantined=quarantined,
        conflicting=0,
        known=known,
        high=high,
        plan=plan or Plan(),
    )


def rule(found: Evidence, limits: Limits | None = None) -> Rule | None:
    hold = judge(found, limits or Limits())
    return hold.rule if hold else None


@pytest.mark.parametrize(("other", "own", "held"), [(1, 0, False), (2, 0, True), (2, 18, True), (2, 19, False)])
def test_two_numbers_and_a_tenth_of_those_with_decimals_prove_the_other_notation(
    other: int, own: int, held: bool
) -> None:
    seen = Notation(column="price", other=other, own=own, comma=True, setting="")
    assert rule(replace(evidence(100), notations=[seen])) == (Rule.OTHER_NOTATION if held else None)


def test_drop_is_judged_exactly_for_every_base_and_count() -> None:
    half = Fraction(1, 2)
    for base in range(1, 1001):
        for count in range(base + 1):
            expected = Rule.ZERO_ROWS if count == 0 else Rule.ROW_DROP if Fraction(base - count, base) > half else None
            assert rule(evidence(count, known=base)) == expected, (base, count)


@given(base=st.integers(1, 1000), share=st.integers(0, 100), data=st.data())
def test_every_share_is_judged_exactly(base: int, share: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, base))
    more = Fraction(part, base) > Fraction(share, 100)
    limits = Limits(drop=share, delete=share, rewrite=share)
    many = evidence(base, known=base)
    assert (rule(evidence(max(base - part, 1), high=base), limits) is Rule.HIGH_WATER) == (
        Fraction(base - max(base - part, 1), base) > Fraction(share, 100)
    )
    for name, expected in (("vanishing", Rule.PLANNED_DELETES), ("rewritten", Rule.PLANNED_REWRITES)):
        found = rule(evidence(base, known=base, plan=Plan(**{"known": base, name: part})), limits)
        assert found == (expected if more else None)
    assert rule(many, limits) is None


def test_second_drop_of_49_percent_is_held() -> None:
    assert rule(evidence(510, known=1000, high=1000)) is None
    assert rule(evidence(261, known=510, high=1000)) is Rule.HIGH_WATER


@pytest.mark.parametrize("known", [1, 2, 3])
def test_small_tables_are_not_exempt(known: int) -> None:
    assert rule(evidence(0, known=known)) is Rule.ZERO_ROWS
    assert (
        rule(evidence(known, known=known, plan=Plan(known=known, vanishing=known, new=known))) is Rule.PLANNED_DELETES
    )


def test_no_limit_lets_an_empty_or_completely_rejected_export_pass() -> None:
    off = Limits(drop=100, delete=100, rewrite=100)
    assert rule(evidence(0, known=5), off) is Rule.ZERO_ROWS
    assert rule(evidence(0, known=5, quarantined=7), off) is Rule.ALL_REJECTED


def test_first_export_is_never_too_small() -> None:
    assert rule(evidence(1)) is None
    assert rule(evidence(0)) is None


def test_rejected_rows_are_judged_exactly_on_a_first_load_too() -> None:
    for seen in range(2, 200):
        for bad in range(1, seen):
            held = bad >= 3 and Fraction(bad, seen) > Fraction(1, 2)
            assert rule(evidence(seen - bad, quarantined=bad)) == (Rule.QUARANTINED if held else None), (bad, seen)
    assert rule(evidence(60, known=100, quarantined=40)) is None
    assert rule(evidence(20, known=100, quarantined=80)) is Rule.QUARANTINED  # the reason why rows are missing
    assert rule(evidence(1, quarantined=199), Limits(drop=99)) is Rule.QUARANTINED
    assert rule(evidence(1, quarantined=199), Limits(drop=100)) is None


@pytest.mark.parametrize(
    ("known", "valid", "held"),
    [
        (None, 50_000, False),
        (0, 50_000, False),
        (1, 1000, False),
        (1, 1001, True),
        (200, 2000, False),
        (200, 2001, True),
    ],
)
def test_more_than_ten_times_the_known_rows_are_held(known: int | None, valid: int, held: bool) -> None:
    assert rule(evidence(valid, known=known)) == (Rule.ROW_GROWTH if held else None)


def test_messages_give_the_numbers_and_the_limit() -> None:
    hold = judge(evidence(4, known=4, plan=Plan(known=4, rewritten=3, changed=3)))
    assert hold is not None
    assert hold.message == (
        "3 of 4 known rows would change in more than half of their fields: 75 % (at most 50 % are applied unasked)"
    )
    hold = judge(evidence(1, quarantined=199))
    assert hold is not None
    assert hold.message == "199 of 200 rows of the export were rejected: 99 % (at most 50 % are applied unasked)"
    hold = judge(evidence(4000, known=200))
    assert hold is not None
    assert hold.message == "the export has 4000 rows, 200 are known: more than 10 times as many"
    conflict = judge(replace(evidence(4), conflicting=1))
    assert conflict is not None
    assert conflict.message == "the export has 1 key more than once, with different values"
    hold = judge(evidence(300, known=500, high=1000))
    assert hold is not None
    assert hold.message == (
        "the export has 300 rows, 1000 were known within 7 days: 70 % fewer (at most 50 % are applied unasked)"
    )


@pytest.mark.parametrize("name", ["drop", "delete", "rewrite"])
def test_each_share_has_its_own_limit(name: str) -> None:
    shares = {"drop": 100, "delete": 100, "rewrite": 100, name: 10}
    limits = Limits(drop=shares["drop"], delete=shares["delete"], rewrite=shares["rewrite"])
    judged = {
        "drop": {
            rule(evidence(5, known=10), limits),
            rule(evidence(5, high=10), limits),
            rule(evidence(5, quarantined=5), limits),
        },
        "delete": {rule(evidence(10, known=10, plan=Plan(known=10, vanishing=5)), limits)},
        "rewrite": {rule(evidence(10, known=10, plan=Plan(known=10, rewritten=5)), limits)},
    }
    rules = {
        "drop": {Rule.ROW_DROP, Rule.HIGH_WATER, Rule.QUARANTINED},
        "delete": {Rule.PLANNED_DELETES},
        "rewrite": {Rule.PLANNED_REWRITES},
    }
    assert judged == {other: rules[other] if other == name else {None} for other in judged}


def test_only_exports_that_could_be_read_can_be_accepted() -> None:
    assert {found for found in Rule if not found.acceptable} == {
        Rule.UNREADABLE,
        Rule.TRUNCATED,
        Rule.MISSING_COLUMN,
        Rule.ALL_REJECTED,
        Rule.DUPLICATE_KEYS,
    }
