"""An answer that is found in the background: asked once for many, kept for a while, never waited for long."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from archisync.web.background import Background


def test_an_answer_serves_all_until_it_is_old() -> None:
    numbers, now = iter(range(10)), [0.0]
    found = Background(lambda: next(numbers), fresh_s=60, patience_s=60, clock=lambda: now[0])
    assert [found.answer(), found.answer()] == [(0, True), (0, True)]
    now[0] = 60.0
    assert found.answer() == (0, True)
    now[0] = 60.1
    assert found.answer() == (1, True)


def test_whoever_has_waited_long_enough_gets_the_last_answer() -> None:
    go_on, now = Event(), [0.0]

    def answers() -> Iterator[str]:
        yield "first"
        go_on.wait()
        yield "second"

    each = answers()
    found = Background(lambda: next(each), fresh_s=60, patience_s=0.05, clock=lambda: now[0])
    while (answered := found.answer()) == (None, False):  # the thread needs a moment to begin
        pass
    assert answered == ("first", True)
    now[0] = 100.0
    assert found.answer() == ("first", False)
    go_on.set()
    while (answered := found.answer()) == ("first", False):
        pass
    assert answered == ("second", True)


def test_what_failed_is_asked_again_at_once() -> None:
    tries = iter([ValueError("away"), TimeoutError("slow"), None])

    def ask() -> str:
        if (error := next(tries)) is not None:
            raise error
        return "back"

    found = Background(ask, fresh_s=60, patience_s=60)
    with pytest.raises(ValueError, match="away"):
        found.answer()
    with pytest.raises(TimeoutError, match="slow"):
        found.answer()
    assert found.answer() == ("back", True)
