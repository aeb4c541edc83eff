"""The state of the model's world: the agent's runs, claim and deliveries, the jobs in Redis, and what each tick and worker does next.

Runs are numbered by their types, 0 and 1; sets of runs and of jobs are bits of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from tests.model.protocol import Action, Property

NO_RUN = -1
# Where a run is: in no delivery, or in one of the two.
UNDELIVERED, IN_FIRST, IN_SECOND = range(3)
# A delivery: it does not exist, it waits to be pushed, it is marked as delivered.
NONE, WAITING, DELIVERED = range(3)
# The number of the delivery whose job a worker has: none, or one that is not committed yet (in a mutant).
NO_JOB, UNCOMMITTED = -1, 2
# What a crash has left in Redis of a job.
NOTHING, HASH, HASH_AND_INTERMEDIATE = range(3)
# The slot of the first type. The last three exist only in the mutant that moves the slot after the push: the run that exists is the slot's;
# the slot's run has been applied; the run that exists is the slot's second one.
NOT_DUE, DUE, DUE_AND_QUEUED, DUE_AND_APPLIED, DUE_AND_QUEUED_AGAIN = range(5)
# What a worker knows of its run: it is an ordinary one; it must be compared; it must be compared, which the worker missed (in a mutant).
ORDINARY, COMPARES, SHOULD_COMPARE = range(3)


class TickAt:
    """What a tick does next."""

    IDLE, PUSH, MARK, UNMARK, INSERT_MOVED, COMMIT_PUSHED, MOVE_SLOT = range(7)


class WorkerAt:
    """What a worker does next. LOOP: end what is unchanged, begin the next run, or let the agent go."""

    POP, START, CLAIM, PUT_OFF, LOOP, ERP, COMMIT, FINISH, RELEASE, UNDELIVER, LOOK, UNLOCK, END_RELEASED = range(13)


UNCLAIMED = frozenset(
    {WorkerAt.START, WorkerAt.CLAIM, WorkerAt.PUT_OFF, WorkerAt.UNDELIVER, WorkerAt.LOOK, WorkerAt.END_RELEASED}
)
"""A worker that dies here takes a job along that nobody else has: a delivered one, or the look for runs that came meanwhile."""
HOLDS_LOCK = frozenset(
    {WorkerAt.LOOP, WorkerAt.ERP, WorkerAt.COMMIT, WorkerAt.FINISH, WorkerAt.RELEASE, WorkerAt.UNLOCK}
)


class Run(NamedTuple):
    """A row of system.queued_runs. `applied` is known to the model only: its data is in the tables (in a mutant). `followed`: a second row,
    forced while this one was being done."""

    place: int
    delayed: bool = False
    attempt: int = 1
    forced: bool = False
    applied: bool = False
    followed: bool = False


class Claim(NamedTuple):
    """A row of system.claims. `doing` is known to the model only: the run that its worker is doing, whether or not the row names it."""

    named: int = NO_RUN
    doing: int = NO_RUN


class Tick(NamedTuple):
    at: int = TickAt.IDLE
    delivery: int = NO_JOB


class Worker(NamedTuple):
    """`mine`: the agent's claim is this worker's. `left`: runs that it has not done yet. `unchanged`: those that it is about to end without
    fetching anything. `run`: the one that it is doing; NO_RUN when that was cancelled. `compares`: what it knows of that run."""

    at: int = WorkerAt.POP
    mine: bool = False
    left: int = 0
    unchanged: int = 0
    run: int = NO_RUN
    compares: int = ORDINARY
    job: int = NO_JOB


class State(NamedTuple):
    """`unfinished`: pairs whose row in system.sync_state names a run. `jobs`: deliveries whose job is in the queue's list. `owed` is
    known to the model only: a slot has come, and its run has not ended."""

    runs: tuple[Run | None, ...]
    unfinished: int
    claim: Claim | None
    deliveries: tuple[int, int]
    jobs: int
    leaks: tuple[int, int]
    slot: int
    owed: bool
    ticks: tuple[Tick, ...]
    workers: tuple[Worker, ...]


Step: TypeAlias = tuple[Action, int, State, Property | None]
"""The action, the number of the tick or worker that takes it (WORLD: neither), the state after it, and the property that it breaks."""

WORLD = -1
IDLE_TICK = Tick()
IDLE = Worker()
NO_CLAIM_YET = Claim()


def pending(state: State) -> bool:
    """Whether somebody waits: for a slot's data, for a run, for the agent, or for a pair that is taken for unfinished."""
    return state.owed or state.claim is not None or state.unfinished != 0 or any(state.runs)


def bits(numbers: int) -> Iterator[int]:
    return (number for number in range(numbers.bit_length()) if numbers >> number & 1)


def ready(state: State) -> int:
    """The runs that a claim takes: those whose delay is over."""
    return sum(1 << number for number, run in enumerate(state.runs) if run is not None and not run.delayed)


def claim_locked(state: State) -> bool:
    """Whether a worker that is about to commit has locked the claim, and the rows of its run and pair."""
    return any(w.at == WorkerAt.COMMIT and w.mine for w in state.workers)


def with_run(state: State, number: int, run: Run | None) -> State:
    return state._replace(runs=(*state.runs[:number], run, *state.runs[number + 1 :]))


# The next two are written out: they are called for each step, and _replace takes three times as long.


def with_tick(state: State, number: int, tick: Tick) -> State:
    runs, unfinished, claim, deliveries, jobs, leaks, slot, owed, ticks, workers = state
    ticks = (*ticks[:number], tick, *ticks[number + 1 :])
    return State(runs, unfinished, claim, deliveries, jobs, leaks, slot, owed, ticks, workers)


def with_worker(state: State, number: int, worker: Worker) -> State:
    runs, unfinished, claim, deliveries, jobs, leaks, slot, owed, ticks, workers = state
    workers = (*workers[:number], worker, *workers[number + 1 :])
    return State(runs, unfinished, claim, deliveries, jobs, leaks, slot, owed, ticks, workers)


def with_delivery(state: State, number: int, status: int) -> State:
    first, second = state.deliveries
    return state._replace(deliveries=(status, second) if number == 0 else (first, status))


def with_leak(state: State, number: int, left: int) -> State:
    first, second = state.leaks
    return state._replace(leaks=(left, second) if number == 0 else (first, left))


def with_runs(state: State, changed: Callable[[Run], Run]) -> State:
    return state._replace(runs=tuple(changed(run) if run is not None else None for run in state.runs))


def undelivered(state: State) -> State:
    """The agent's runs leave their deliveries."""
    return with_runs(state, lambda run: run._replace(place=UNDELIVERED))


def without_claim(state: State) -> State:
    """The agent is nobody's; the worker that had it does not know yet."""
    return state._replace(claim=None, workers=tuple(w._replace(mine=False) if w.mine else w for w in state.workers))


def over(state: State, number: int, *, frees_the_pair: bool = True) -> State:
    """The run ends, and its id is nobody's any more. That serves its slot, unless another slot has come. A run behind it is the pair's
    then."""
    runs, unfinished, claim, deliveries, jobs, leaks, slot, owed, ticks, workers = state
    bit = 1 << number
    run = runs[number]
    behind = Run(UNDELIVERED, forced=True) if run is not None and run.followed else None
    if claim is not None and number in claim:
        claim = Claim(*(NO_RUN if run == number else run for run in claim))
    return State(
        (*runs[:number], behind, *runs[number + 1 :]),
        unfinished & ~bit if frees_the_pair and behind is None else unfinished,
        claim,
        deliveries,
        jobs,
        leaks,
        {DUE_AND_QUEUED: DUE, DUE_AND_QUEUED_AGAIN: DUE_AND_APPLIED}.get(slot, slot),
        owed and slot == DUE,
        ticks,
        tuple(_without(w, number, bit) if w.run == number or (w.left | w.unchanged) & bit else w for w in workers),
    )


def _without(worker: Worker, number: int, bit: int) -> Worker:
    """The worker without a run that is over."""
    at, mine, left, unchanged, run, compares, job = worker
    return Worker(at, mine, left & ~bit, unchanged & ~bit, NO_RUN if run == number else run, compares, job)
