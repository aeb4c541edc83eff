"""Breadth-first search of everything that can happen in a `Model`; it gives the shortest way to a violation.

Safety (applied twice, overlapping, wrongly charged, not compared) is checked in each step as it is found. Liveness is checked in the whole
graph: from every state, steps of ticks, workers and time must be able to lead to a state in which nobody waits, without another fault. That
holds for every state on the way as well, so any fair order of these steps gets there. Where no job can be lost, this is asked without
redelivery, and where nothing can break, without the reaper: what never ends then is late, because these would help.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.protocol import Action, Faults, Kind, Property
from tests.model.states import WORLD, State, pending
from tests.model.steps import Model


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A property that does not hold, and the shortest sequence of steps that breaks it."""

    broken: Property
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.broken} after {len(self.trace)} steps:", *(f"  {line}" for line in self.trace)])


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """`transitions`: the steps between the states, faults included."""

    states: int
    transitions: int
    violation: Violation | None


def explore(model: Model, *, tolerated: frozenset[Property] = frozenset()) -> Exploration:
    """Walk through every state, or until the first violation of safety that is not tolerated."""
    with _no_garbage():
        graph = _Graph(model, tolerated)
        violation = graph.walk() or graph.first_cut_off()
    return Exploration(states=len(graph.states), transitions=graph.transitions, violation=violation)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """No garbage collection: looking through millions of tuples would take a sixth of the time and find nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Graph:
    """States in the order in which they are found, the state that each was found from, and all steps backwards."""

    def __init__(self, model: Model, tolerated: frozenset[Property]) -> None:
        self._model = model
        self._tolerated = tolerated
        self.states = [model.canonical(model.start)]
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
                state = self._model.canonical(raw)
                if broken is not None and broken not in self._tolerated:
                    return Violation(broken=broken, trace=self._trace(number, (action, state)))
                then = numbers.setdefault(state, len(self.states))
                if then == len(self.states):
                    self.states.append(state)
                    self._found_from.append(number)
                    self._before.append([])
                self._remember(number, action, then)
            number += 1
        return None

    def _remember(self, number: int, action: Action, then: int) -> None:
        if action.comes_by_itself:
            self._before[then].append(number)
        elif action.kind is Kind.SLOT:
            self._before_by_slot.append((then, number))

    def first_cut_off(self) -> Violation | None:
        """The first state whose slot or run can never end; call it after `walk`."""
        lost = self._cut_off()
        if not lost:
            return None
        for then, number in self._before_by_slot:
            self._before[then].append(number)
        blocked = self._cut_off()
        if self._model.bounds.faults is not Faults.LOSSES:
            return Violation(broken=Property.LATE, trace=self._trace(lost[0]))
        if blocked:
            return Violation(broken=Property.BLOCKED, trace=self._trace(blocked[0]))
        return Violation(broken=Property.LOST, trace=self._trace(lost[0]))

    def _cut_off(self) -> list[int]:
        """The states from which no known step leads, over any number of states, to one that is not pending."""
        ends = [not pending(state) for state in self.states]
        todo = [number for number, end in enumerate(ends) if end]
        while todo:
            for number in self._before[todo.pop()]:
                if not ends[number]:
                    ends[number] = True
                    todo.append(number)
        return [number for number, end in enumerate(ends) if not end]

    # --- the trace of a violation -------------------------------------------------------------------------------------

    def _trace(self, number: int, last: tuple[Action, State] | None = None) -> tuple[str, ...]:
        """The shortest way to a state, in which each tick and worker keeps its name from the first step to the last."""
        way: list[State] = []
        while number > 0:
            way.append(self.states[number])
            number = self._found_from[number]
        way.reverse()
        state, lines = self._model.start, []
        for then in way:
            state, line = self._repeat(state, then, None)
            lines.append(line)
        if last is not None:
            lines.append(self._repeat(state, last[1], last[0])[1])
        return tuple(lines)

    def _repeat(self, state: State, then: State, known: Action | None) -> tuple[State, str]:
        for action, who, raw, _ in self._model.steps(state):
            if self._model.canonical(raw) == then and known in (None, action):
                return raw, _line(action, who)
        raise AssertionError("a step that was found once is not found again")


def _line(action: Action, who: int) -> str:
    if who == WORLD:
        return action.sentence
    actor = "tick" if action.kind is Kind.TICK or action is Action.KILL_TICK else "worker"
    return f"{actor} {'AB'[who]} {action.sentence}"
