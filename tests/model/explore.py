"""Breadth-first search of everything that can happen in a `Model`, and the shortest way to what must not.

Safety (applied twice, overlapping, late) is asked of each step and state as it is found. Liveness is asked of the whole graph: from
every state the steps of ticks and workers, and time, must be able to lead to one in which nobody waits, without another fault.
Since that holds for every state on the way as well, a fair order of these steps gets there however unlucky it is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.protocol import (
    WORLD,
    Action,
    Kind,
    Model,
    Property,
    State,
    canonical,
    pending,
    waits_for_redelivery,
)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """What does not hold, and the shortest story that ends there."""

    broken: Property
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.broken} after {len(self.trace)} steps:", *(f"  {line}" for line in self.trace)])


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """`transitions`: steps between the states, faults included."""

    states: int
    transitions: int
    violation: Violation | None


def explore(model: Model, *, tolerated: frozenset[Property] = frozenset()) -> Exploration:
    """Walk through every state, or up to the first unsafe step that is not tolerated."""
    with _no_garbage():
        graph = _Graph(model, tolerated)
        violation = graph.walk() or graph.first_cut_off()
    return Exploration(states=len(graph.states), transitions=graph.transitions, violation=violation)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Python does not look for garbage among the millions of tuples meanwhile; it would take a sixth of the time and find none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Graph:
    """States in the order in which they are found, each with the one that it was found from; steps backwards."""

    def __init__(self, model: Model, tolerated: frozenset[Property]) -> None:
        self._model = model
        self._tolerated = tolerated
        self.states = [canonical(model.start)]
        self.transitions = 0
        self._found_from = [-1]
        self._before: list[list[int]] = [[]]
        self._before_by_slot: list[tuple[int, int]] = []

    def walk(self) -> Violation | None:
        numbers = {self.states[0]: 0}
        number = 0
        while number < len(self.states):
            for action, _, raw, broken in self._model.steps(self.states[number]):
                self.transitions += 1
                state = canonical(raw)
                if broken is not None and broken not in self._tolerated:
                    return Violation(broken=broken, trace=self._story(number, (action, state)))
                then = numbers.setdefault(state, len(self.states))
                if then == len(self.states):
                    self.states.append(state)
                    self._found_from.append(number)
                    self._before.append([])
                    if not self._model.bounds.faults and waits_for_redelivery(state):
                        return Violation(broken=Property.LATE, trace=self._story(then))
                self._remember(number, action, then)
            number += 1
        return None

    def _remember(self, number: int, action: Action, then: int) -> None:
        if action.comes_by_itself:
            self._before[then].append(number)
        elif action.kind is Kind.SLOT:
            self._before_by_slot.append((then, number))

    def first_cut_off(self) -> Violation | None:
        """After `walk` has seen everything: the first state whose slot or run can't come to an end."""
        lost = self._cut_off()
        if not lost:
            return None
        for then, number in self._before_by_slot:
            self._before[then].append(number)
        blocked = self._cut_off()
        if blocked:
            return Violation(broken=Property.BLOCKED, trace=self._story(blocked[0]))
        return Violation(broken=Property.LOST, trace=self._story(lost[0]))

    def _cut_off(self) -> list[int]:
        """The states from which no way back to a state that is not pending is remembered."""
        ends = [not pending(state) for state in self.states]
        todo = [number for number, end in enumerate(ends) if end]
        while todo:
            for number in self._before[todo.pop()]:
                if not ends[number]:
                    ends[number] = True
                    todo.append(number)
        return [number for number, end in enumerate(ends) if not end]

    # --- telling the story ----------------------------------------------------------------------------------------

    def _story(self, number: int, last: tuple[Action, State] | None = None) -> tuple[str, ...]:
        """The shortest way to a state, told with the same names for the same tick and worker from end to end."""
        way: list[State] = []
        while number > 0:
            way.append(self.states[number])
            number = self._found_from[number]
        way.reverse()
        state, lines = self._model.start, []
        for then in way:
            state, line = self._retell(state, then, None)
            lines.append(line)
        if last is not None:
            lines.append(self._retell(state, last[1], last[0])[1])
        return tuple(lines)

    def _retell(self, state: State, then: State, known: Action | None) -> tuple[State, str]:
        for action, who, raw, _ in self._model.steps(state):
            if canonical(raw) == then and known in (None, action):
                return raw, _line(action, who)
        raise AssertionError("a step that was found is not found again")


def _line(action: Action, who: int) -> str:
    if who == WORLD:
        return action.sentence
    actor = "tick" if action.kind is Kind.TICK or action is Action.CRASH_TICK else "worker"
    return f"{actor} {'AB'[who]} {action.sentence}"
