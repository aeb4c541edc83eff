"""Which columns a narrow terminal gets."""

from hypothesis import given
from hypothesis import strategies as st

from archisync.cli.tablefit import GAP, NARROWEST_FOLD, fit

NAMES = ["run", "type", "agent", "why"]
WIDTHS = [3, 6, 12, 90]


def test_a_table_that_fits_is_left_as_it_is() -> None:
    found = fit(NAMES, WIDTHS, room=200, less=["type"], folds="why")
    assert (found.shown, found.left_out, found.folded_width) == ([0, 1, 2, 3], [], 90)


def test_the_long_text_folds_before_a_column_is_left_out() -> None:
    found = fit(NAMES, WIDTHS, room=80, less=["type"], folds="why")
    assert (found.shown, found.left_out, found.folded_width) == ([0, 1, 2, 3], [], 80 - 21 - 3 * GAP)


def test_the_least_important_columns_are_left_out_in_order() -> None:
    exactly = 3 + 12 + NARROWEST_FOLD + 2 * GAP
    found = fit(NAMES, WIDTHS, room=exactly, less=["type", "run"], folds="why")
    assert (found.shown, found.left_out, found.folded_width) == ([0, 2, 3], ["type"], NARROWEST_FOLD)
    assert fit(NAMES, WIDTHS, room=exactly - 1, less=["type", "run"], folds="why").left_out == ["type", "run"]


def test_a_table_that_can_t_fit_becomes_records() -> None:
    found = fit(NAMES, WIDTHS, room=20, less=["type"], folds="why")
    assert found.records
    assert found.left_out == ()
    assert fit(["a", "b"], [10, 10], room=21).records
    assert not fit(["a", "b"], [10, 10], room=22).records


@given(
    widths=st.lists(st.integers(1, 120), min_size=1, max_size=12),
    room=st.integers(0, 300),
    given_up=st.integers(0, 12),
    fold=st.booleans(),
)
def test_columns_that_are_shown_always_fit(widths: list[int], room: int, given_up: int, fold: bool) -> None:
    names = [f"c{i}" for i in range(len(widths))]
    folds = names[-1] if fold else None
    found = fit(names, widths, room=room, less=names[:given_up][: len(names) - 1], folds=folds)
    if found.records:
        return
    used = sum(found.folded_width or 0 if names[i] == folds else widths[i] for i in found.shown)
    assert used + GAP * (len(found.shown) - 1) <= room
    assert sorted([*found.left_out, *(names[i] for i in found.shown)]) == sorted(names)
