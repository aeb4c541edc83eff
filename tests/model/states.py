"""The state of the model's world: the pair's slot and newest run, the jobs in Redis, and what each tick and worker does next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from tests.model.protocol import Action, Property

# The run's state.
FINISHED, QUEUED, RUNNING = range(3)
# The run is in no delivery, in one that is not marked yet, in one that is.
UNDELIVERED, WAITING, DELIVERED, DELIVERED_LONG_AGO = range(4)
# The pair's slot. The last three exist only in the mutant that moves the slot after the push: the run that exists is the slot's; the
# slot's run has been applied; the run that exists is the slot's second one.
NOT_DUE, DUE, DUE_AND_QUEUED, DUE_AND_APPLIED, DUE_AND_QUEUED_AGAIN = range(5)
# The run and fence that a job or a worker knows: another run's, an older fence of this one, this one's.
OTHER_RUN, OLD_FENCE, CURRENT = range(3)
# The id of a job.
ANY_ID, NAMED, PUSHED = range(3)
# What a crash has left in Redis of the named job.
NOTHING, HASH, HASH_AND_INTERMEDIATE = range(3)


class TickAt:
    """What a tick does next."""

    REAP, READ_DUE, INSERT, INSERT_MOVED, COMMIT_PUSHED = range(5)
    LOOK, LIST, UNMARK, ASSIGN, LOCK, PUSH, MARK, MOVE_SLOT = range(5, 13)


class WorkerAt:
    """What a worker does next."""

    POP, START, CLAIM, TRY_AGENT, GIVE_BACK, ERP, ERP_CUT, FAIL, FENCE, COMMIT, FINISH, FREE, NEXT = range(13)


HOLDS_AGENT = frozenset({WorkerAt.ERP, WorkerAt.FAIL, WorkerAt.FENCE, WorkerAt.COMMIT, WorkerAt.FINISH, WorkerAt.FREE})
IN_ERP = frozenset({WorkerAt.ERP, WorkerAt.ERP_CUT})


class Row(NamedTuple):
    """The pair's newest run. `applied` is known to the model only: the run's data is in the tables, or it has ended without data."""

    state: int
    applied: bool
    attempt: int
    delivered: int
    delayed: bool
    expired: bool


class Job(NamedTuple):
    ref: int
    id: int


class Worker(NamedTuple):
    """`mine` is known to the model only: the run's newest claim is this worker's."""

    at: int
    ref: int
    id: int
    mine: bool


class State(NamedTuple):
    """`owed` is known to the model only: a slot has come, and its run has not ended."""

    slot: int
    owed: bool
    row: Row
    leak: int
    jobs: tuple[Job, ...]
    ticks: tuple[int, ...]
    workers: tuple[Worker, ...]


Step: TypeAlias = tuple[Action, int, State, Property | None]
"""The action, the number of the tick or worker that takes it (WORLD: neither), the state after it, and the property that it breaks."""

WORLD = -1
IDLE = Worker(WorkerAt.POP, OTHER_RUN, ANY_ID, False)
FREEING = Worker(WorkerAt.FREE, OTHER_RUN, ANY_ID, False)
DONE = Worker(WorkerAt.NEXT, OTHER_RUN, ANY_ID, False)
NO_ROW = Row(FINISHED, True, 1, UNDELIVERED, False, False)


def pending(state: State) -> bool:
    """Whether somebody waits for data: a slot has come, or a run is unfinished."""
    return state.owed or state.row.state != FINISHED


def waits_for_redelivery(state: State) -> bool:
    """Whether only a redelivery can help: the run counts as delivered, it has no job, and no worker is busy."""
    row = state.row
    delivered = row.state == QUEUED and row.delivered in (DELIVERED, DELIVERED_LONG_AGO)
    return delivered and all(w.at == WorkerAt.POP for w in state.workers) and all(j.ref != CURRENT for j in state.jobs)


def canonical(state: State) -> State:
    """The same state with ticks and workers in order: which of them is in a place does not matter."""
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, tuple(sorted(ticks)), tuple(sorted(workers)))


def undelivered(row: Row) -> bool:
    return row.state == QUEUED and row.delivered == UNDELIVERED and not row.delayed


def waiting(row: Row) -> bool:
    return row.state == QUEUED and row.delivered == WAITING


def row_locked(state: State) -> bool:
    """Whether a worker that applies the run has locked its row."""
    return any(w.at == WorkerAt.COMMIT for w in state.workers)


def unpushed(state: State, at: int) -> State:
    """What a tick that dies at `at` leaves behind. Jobs of a run that was never committed belong to no run; those of a delivery that it
    did not mark stay with that delivery."""
    if at != TickAt.COMMIT_PUSHED:
        return state
    return state._replace(
        jobs=kinds(Job(j.ref, ANY_ID if j.id == PUSHED else j.id) for j in state.jobs),
        workers=tuple(w._replace(id=ANY_ID) if w.id == PUSHED else w for w in state.workers),
    )


def kinds(jobs: Iterable[Job]) -> tuple[Job, ...]:
    return tuple(sorted(set(jobs)))


def with_tick(state: State, number: int, at: int) -> State:
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, (*ticks[:number], at, *ticks[number + 1 :]), workers)


def with_worker(state: State, number: int, worker: Worker) -> State:
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, ticks, (*workers[:number], worker, *workers[number + 1 :]))
