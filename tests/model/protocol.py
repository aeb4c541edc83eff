"""archisync's protocol for one (sync type, agent) pair, as a machine of small states that `explore` walks through.

Two ticks and two workers take one step at a time in any order; anything may crash between two steps. Every `Action` names the
function or the SQL constant that it stands for (a test checks that they exist), so that model and code are read side by side.

What is abstract, and why nothing is missed by it:
* Time is three answers: has the slot come, has the lease expired, was the delivery long ago (and, after a failure, is the delay
  over). Each may change at any moment. So a pause needs no state of its own: a worker that takes no step is a paused one, its
  lease expires under it, and its next step is its waking up.
* A fence is current or not, because it only grows. References (in jobs and in workers' hands) to an older fence or to an older
  run are told apart only for mutants that would confuse them.
* A job id is `NAMED` (that of the run's delivery, whether it is marked or not), `PUSHED` (of a run that is not committed yet: a
  mutant) or neither. Its hash outlives the list only after a crash: that is `leak`, followed where somebody asks for it. The code
  asks before it pushes a delivery that an earlier tick may have pushed, and then does not push the job a second time.
* A delivery is locked, not its runs, so a run may leave a delivery that a tick is about to push or to mark. What that tick does then
  concerns the run no more, and what it pushes it might as well have pushed just before, or never: it ends there.
* The queue's list is the set of the kinds of jobs in it, so it has no bound: there may be many of a kind, and any may be popped
  next. A popped job is in the intermediate list until it starts; no step leads from there, as nothing in the code does.
* A statement that waits for a row lock is not enabled; one that skips locked rows passes by. SQL_INSERT_DUE is two steps, its
  snapshot and its writes: between them a forced run may be committed, which its `not exists` does not see.
* `held`, `skipped` and `failed` end a run without data in the same way; the model has `failed`, at the bound of attempts. A run
  that is skipped gives its slot back: here that is a slot that comes right after the end, as it may after any step.
* A forced run that joins a queued one is delivered anew each time (the code: the first time). More deliveries, no fewer.

Left out: wrong clocks, other sync types of the agent, and a PostgreSQL session that is cut while its worker is in the ERP, unless
`Bounds.sessions_cut_in_erp` asks for it (`test_a_cut_session_is_the_limit_of_the_agent_lock` tells why).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum, unique
from typing import NamedTuple, TypeAlias


class SlotMoved(StrEnum):
    WITH_INSERT = "in the statement that inserts the run"
    BEFORE_INSERT = "in a commit of its own before the insert"
    AFTER_PUSH = "in a commit of its own after the push"


class Proof(StrEnum):
    """What a tick takes for a delivery that is still to come."""

    LIST = "the job is in the queue's list"
    HASH = "the job's hash exists"
    INTERMEDIATE = "the job is in the list or in the intermediate list"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The parts that hold the protocol up. The defaults are the code; each other value is a mutant that must be caught."""

    finish_checks_fence: bool = True
    reap_moves_fence: bool = True
    claim_compares_and_sets: bool = True
    one_unfinished_a_pair: bool = True
    agent_lock: bool = True
    apply_and_finish_at_once: bool = True
    reaper: bool = True
    redelivery: bool = True
    redelivery_proof: Proof = Proof.LIST
    slot_moved: SlotMoved = SlotMoved.WITH_INSERT
    commit_before_push: bool = True
    fresh_job_ids: bool = True
    """False: one job id a pair, whose hash in Redis keeps it from being pushed again."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large the world is. `faults`: crashes, a Redis that loses all, double deliveries, failing fetches and applies, and leases
    and deliveries that grow too old."""

    ticks: int = 2
    workers: int = 2
    attempts: int = 2
    forced: bool = True
    faults: bool = True
    sessions_cut_in_erp: bool = False


class Kind(StrEnum):
    TICK = "a tick takes a step"
    WORKER = "a worker takes a step"
    TIME = "time passes"
    SLOT = "the next slot comes"
    PERSON = "somebody forces a run"
    FAULT = "something breaks"


class Property(StrEnum):
    TWICE = "applied twice"
    """Data of a run or of a slot is applied a second time, or by a worker from whom the run was taken."""
    OVERLAP = "overlapping"
    """Two workers are in the ERP for the agent, or the pair has two unfinished runs."""
    LOST = "lost"
    """A due slot or an unfinished run comes to no end without a later slot."""
    BLOCKED = "blocked"
    """No run of the pair comes to an end again, unless a person helps."""
    LATE = "late"
    """Though nothing broke, a run waits for its redelivery."""


@unique
class Action(Enum):
    """kind, sentence, and what it stands for in archisync (`module:name`)."""

    def __init__(self, kind: Kind, sentence: str, *mirrors: str) -> None:
        self.kind = kind
        self.sentence = sentence
        self.mirrors = mirrors
        self.comes_by_itself = kind in (Kind.TICK, Kind.WORKER, Kind.TIME)

    # a tick, in the order of tick.tick
    BEGIN = (Kind.TICK, "begins and finds no run to take back", "schedule.tick:tick", "store.claims:reap")
    REAP = (
        Kind.TICK,
        "takes the run back from its silent worker",
        "schedule.steps:take_back_silent_runs",
        "store.claims:SQL_REAP",
    )
    SEE_DUE = (
        Kind.TICK,
        "sees that the pair is due",
        "schedule.queueing:queue_due",
        "store.queued_runs:SQL_INSERT_DUE",
    )
    SEE_NOT_DUE = (
        Kind.TICK,
        "sees that the pair is not due",
        "schedule.queueing:queue_due",
        "store.queued_runs:SQL_INSERT_DUE",
    )
    INSERT_DUE = (
        Kind.TICK,
        "locks the slot, moves it and inserts the run",
        "store.queued_runs:insert_due",
        "store.queued_runs:SQL_INSERT_DUE",
    )
    NOT_DUE_ANY_MORE = (Kind.TICK, "finds the slot locked or moved", "store.queued_runs:SQL_INSERT_DUE")
    MOVE_SLOT = (Kind.TICK, "moves the slot in a commit of its own (mutant)")
    PUSH_UNCOMMITTED = (Kind.TICK, "pushes a run that is not committed yet (mutant)")
    COMMIT_PUSHED = (Kind.TICK, "commits the run that it has pushed (mutant)")
    SEE_LONG_AGO = (
        Kind.TICK,
        "sees a run that was delivered long ago",
        "schedule.deliver:deliver",
        "store.deliveries:SQL_LONG_DELIVERED",
    )
    SEE_UNDELIVERED = (
        Kind.TICK,
        "sees an undelivered run",
        "schedule.deliver:deliver",
        "store.deliveries:SQL_ANY_UNDELIVERED",
    )
    ASSIGN = (Kind.TICK, "puts the run into a delivery", "schedule.deliver:deliver", "store.deliveries:SQL_ASSIGN")
    ASSIGN_NOTHING = (Kind.TICK, "finds no run without a delivery", "store.deliveries:SQL_ASSIGN")
    SEE_NOTHING = (
        Kind.TICK,
        "sees nothing to deliver and ends",
        "schedule.deliver:deliver",
        "store.deliveries:SQL_ANY_UNDELIVERED",
    )
    FIND_JOB = (Kind.TICK, "finds the job in Redis", "queue.joblist:missing_jobs")
    MISS_JOB = (Kind.TICK, "does not find the job in Redis", "queue.joblist:missing_jobs")
    MARK_UNDELIVERED = (Kind.TICK, "marks the run undelivered", "store.deliveries:SQL_MARK_UNDELIVERED")
    LOCK_UNDELIVERED = (
        Kind.TICK,
        "locks the run's delivery and reads its fence",
        "schedule.deliver:_push_next",
        "store.deliveries:SQL_LOCK_NEXT",
    )
    LOCK_NOTHING = (
        Kind.TICK,
        "has nothing to push and ends",
        "schedule.deliver:_push_next",
        "store.deliveries:SQL_LOCK_NEXT",
    )
    PUSH = (Kind.TICK, "pushes a job", "queue.push:push_delivery")
    PUSH_AGAIN = (Kind.TICK, "finds the job's hash and pushes nothing", "queue.push:_PUSH_SCRIPT")
    PUSH_NOTHING = (Kind.TICK, "pushes no job, for the pair's key is there (mutant)")
    MARK_DELIVERED = (Kind.TICK, "marks the delivery and commits", "store.deliveries:SQL_MARK_DELIVERED")
    # a worker, in the order of work.runner and sync.run
    POP = (Kind.WORKER, "moves a job to the intermediate list", "work.accepted:SyncQueue", "work.worker:SyncWorker")
    START = (Kind.WORKER, "starts the job", "work.worker:SyncWorker.main_work_horse", "work.job:sync")
    CLAIM = (Kind.WORKER, "claims the run", "work.runner:Runner.do", "store.claims:SQL_CLAIM")
    IGNORE = (Kind.WORKER, "can't claim and ends the job", "work.runner:Runner.do", "store.claims:claim")
    TRY_AGENT = (
        Kind.WORKER,
        "locks the agent and enters the ERP",
        "work.runner:Runner.do_claimed",
        "store.locks:SQL_TRY_AGENT",
    )
    AGENT_LOCKED = (Kind.WORKER, "finds the agent locked", "store.locks:agent_lock")
    GIVE_BACK = (
        Kind.WORKER,
        "gives the run back without spending an attempt",
        "work.runner:Runner._give_back",
        "store.claims:SQL_REQUEUE",
    )
    FETCH = (Kind.WORKER, "has the whole export", "sync.run:Sync._fetch")
    LOCK_FENCE = (
        Kind.WORKER,
        "locks the run's row under its fence",
        "sync.run:Sync._write",
        "store.claims:SQL_LOCK_FENCE",
    )
    APPLY_AND_FINISH = (
        Kind.WORKER,
        "commits data and the run's end",
        "sync.run:Sync._finish",
        "sync.apply:write",
        "store.claims:SQL_FINISH",
        "store.applied_exports:SQL_STATE_SUCCEEDED",
        "store.claims:SQL_END_UNCHANGED",
    )
    APPLY_ALONE = (Kind.WORKER, "commits the data alone (mutant)")
    FINISH_ALONE = (Kind.WORKER, "commits the run's end alone (mutant)")
    LEASE_LOST = (
        Kind.WORKER,
        "learns that the run is no longer its own",
        "store.claims:lock_fence",
        "base.errors:LeaseLostError",
    )
    SESSION_GONE = (Kind.WORKER, "finds its session gone and ends the job", "sync.run:Sync.run")
    REQUEUE = (
        Kind.WORKER,
        "queues the run again for a later tick",
        "sync.endings:retry_later",
        "store.claims:SQL_REQUEUE",
    )
    FINISH_FAILED = (
        Kind.WORKER,
        "ends the run as failed",
        "sync.endings:fail",
        "store.claims:SQL_FINISH",
        "store.claims:SQL_STATE_FAILED",
    )
    FREE_AGENT = (Kind.WORKER, "frees the agent", "store.locks:SQL_FREE_AGENT")
    NEXT_OF_AGENT = (
        Kind.WORKER,
        "goes on with the agent's next run",
        "work.runner:Runner.do",
        "store.queued_runs:SQL_NEXT_OF_AGENT",
    )
    END_JOB = (Kind.WORKER, "ends the job", "work.runner:AGENT_BOUND_S", "work.worker:STOP_AFTER_THIS_RUN")
    HEARTBEAT = (Kind.WORKER, "extends the lease", "work.heartbeat:Heartbeat.beating", "store.claims:SQL_HEARTBEAT")
    # the world
    SLOT_COMES = (Kind.SLOT, "the pair is due", "rules.due:decide")
    FORCE = (
        Kind.PERSON,
        "a forced run is queued, or joins",
        "store.queued_runs:SQL_FORCE",
        "store.queued_runs:SQL_JOIN",
    )
    LEASE_EXPIRES = (Kind.TIME, "the lease expires", "rules.config:Config.lease_s")
    LONG_AGO = (Kind.TIME, "the delivery was long ago", "rules.config:Config.redeliver_after_s")
    DELAY_OVER = (
        Kind.TIME,
        "the delay after a failure is over",
        "sync.endings:retry_delay_s",
        "work.runner:LOCKED_DELAY_S",
    )
    FETCH_FAILS = (Kind.FAULT, "fails for now", "base.errors:TransientSourceError")
    APPLY_FAILS = (Kind.FAULT, "sees its apply rolled back by the database", "sync.run:Sync.run")
    CRASH_TICK = (Kind.FAULT, "is killed")
    CRASH_WORKER = (Kind.FAULT, "is killed", "work.worker:die_with_parent")
    IDLE_IN_TRANSACTION = (Kind.FAULT, "is cut off in its transaction", "store.database:IDLE_IN_TRANSACTION_TIMEOUT_S")
    SESSION_CUT = (Kind.FAULT, "loses its PostgreSQL session in the ERP")
    FLUSH = (Kind.FAULT, "Redis loses everything")
    POP_TWICE = (Kind.FAULT, "gets a job that stands in the list a second time")


# The run's state.
FINISHED, QUEUED, RUNNING = range(3)
# The run is in no delivery, in one that is not marked yet, in one that is.
UNDELIVERED, WAITING, DELIVERED, DELIVERED_LONG_AGO = range(4)
# The pair's slot. The last three only where it is moved after the push: the run that there is is the slot's; the slot's run has
# been applied; the run that there is is the slot's second one.
NOT_DUE, DUE, DUE_AND_QUEUED, DUE_AND_APPLIED, DUE_AND_QUEUED_AGAIN = range(5)
# The run and fence that a job or a worker knows: another run's, an older fence of this one, this one's.
OTHER_RUN, OLD_FENCE, CURRENT = range(3)
# The id of a job.
ANY_ID, NAMED, PUSHED = range(3)
# What a crash has left in Redis of the named job.
NOTHING, HASH, HASH_AND_INTERMEDIATE = range(3)
# What a tick does next.
(
    T_REAP,
    T_READ_DUE,
    T_INSERT,
    T_INSERT_MOVED,
    T_COMMIT_PUSHED,
    T_LOOK,
    T_LIST,
    T_UNMARK,
    T_ASSIGN,
    T_LOCK,
    T_PUSH,
    T_MARK,
    T_MOVE_SLOT,
) = range(13)
# What a worker does next.
(
    W_POP,
    W_START,
    W_CLAIM,
    W_TRY_AGENT,
    W_GIVE_BACK,
    W_ERP,
    W_ERP_CUT,
    W_FAIL,
    W_FENCE,
    W_COMMIT,
    W_FINISH,
    W_FREE,
    W_NEXT,
) = range(13)

HOLDS_AGENT = frozenset({W_ERP, W_FAIL, W_FENCE, W_COMMIT, W_FINISH, W_FREE})
IN_ERP = frozenset({W_ERP, W_ERP_CUT})


class Row(NamedTuple):
    """The pair's newest run. `applied` is a ghost: its data is in the tables (or it has ended without any)."""

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
    """`mine` is a ghost: the run's newest claim is this worker's."""

    at: int
    ref: int
    id: int
    mine: bool


class State(NamedTuple):
    """`owed` is a ghost: a slot has come whose run has not ended."""

    slot: int
    owed: bool
    row: Row
    leak: int
    jobs: tuple[Job, ...]
    ticks: tuple[int, ...]
    workers: tuple[Worker, ...]


Step: TypeAlias = tuple[Action, int, State, Property | None]
"""What happens, which tick or worker does it (from 0; -1 for the world), what comes of it, and the property that it breaks."""

WORLD = -1
_IDLE = Worker(W_POP, OTHER_RUN, ANY_ID, False)
_FREEING = Worker(W_FREE, OTHER_RUN, ANY_ID, False)
_DONE = Worker(W_NEXT, OTHER_RUN, ANY_ID, False)
_NO_ROW = Row(FINISHED, True, 1, UNDELIVERED, False, False)

Tick: TypeAlias = tuple[Action, int, State, Property | None]
"""A tick's step: the action, what the tick does next, the world after it, the property that it breaks."""
Work: TypeAlias = tuple[Action, Worker, State, Property | None]
"""A worker's step: the same with the worker after it."""


class Model:
    """The states that can follow a state. Pure: the same state gives the same steps."""

    def __init__(self, protocol: Protocol, bounds: Bounds) -> None:
        self.protocol = protocol
        self.bounds = bounds
        compared = protocol.finish_checks_fence and protocol.claim_compares_and_sets
        self._old = OTHER_RUN if compared else OLD_FENCE  # where fences are compared, an old one is another run's
        self.start = State(NOT_DUE, False, _NO_ROW, NOTHING, (), (T_REAP,) * bounds.ticks, (_IDLE,) * bounds.workers)
        self._hashes_count = protocol.fresh_job_ids and protocol.redelivery_proof is not Proof.LIST
        self._tick_does: dict[int, Callable[[State], Tick | None]] = {
            T_REAP: self._reap,
            T_READ_DUE: self._read_due,
            T_INSERT: self._insert_due,
            T_INSERT_MOVED: self._insert_moved,
            T_COMMIT_PUSHED: self._commit_pushed,
            T_LOOK: self._look,
            T_LIST: self._read_list,
            T_UNMARK: self._mark_undelivered,
            T_ASSIGN: self._assign,
            T_LOCK: self._lock_undelivered,
            T_PUSH: self._push,
            T_MARK: self._mark_delivered,
            T_MOVE_SLOT: self._move_slot,
        }
        self._worker_does: dict[int, Callable[[State, Worker], list[Work]]] = {
            W_POP: self._pop,
            W_START: self._start,
            W_CLAIM: self._claim,
            W_TRY_AGENT: self._try_agent,
            W_GIVE_BACK: self._give_back,
            W_ERP: self._fetch,
            W_ERP_CUT: self._fetch_cut,
            W_FAIL: self._fail,
            W_FENCE: self._lock_fence,
            W_COMMIT: self._commit,
            W_FINISH: self._finish_alone,
            W_FREE: self._free_agent,
            W_NEXT: self._next_of_agent,
        }

    def steps(self, state: State) -> list[Step]:
        """Everything that may happen next."""
        steps: list[Step] = []
        for number, at in enumerate(state.ticks):
            done = self._tick_does[at](state)
            if done is not None:
                action, then, after, broken = done
                steps.append((action, number, _with_tick(after, number, then), broken))
        for number, worker in enumerate(state.workers):
            for action, now, after, broken in self._worker_does[worker.at](state, worker):
                steps.append((action, number, _with_worker(after, number, now), broken))
        self._time(state, steps)
        if self.bounds.faults:
            self._faults(state, steps)
        return steps

    # --- what several steps have in common ------------------------------------------------------------------------

    def _unname(self, state: State) -> State:
        """The run has left its delivery, or the delivery has served: nobody asks for its job any more."""
        moved_on = {T_LIST: T_ASSIGN, T_UNMARK: T_ASSIGN, T_PUSH: self._after_mark(), T_MARK: self._after_mark()}
        return state._replace(
            leak=NOTHING if self.protocol.fresh_job_ids else state.leak,
            jobs=_kinds(Job(j.ref, ANY_ID if j.id == NAMED else j.id) for j in state.jobs),
            ticks=tuple(moved_on.get(at, at) for at in state.ticks),
            workers=tuple(w._replace(id=ANY_ID) if w.id == NAMED else w for w in state.workers),
        )

    def _take_away(self, state: State, *, fence_moves: bool = True) -> State:
        """Nobody has the run any more; who knows its fence knows an old one."""
        to = self._old if fence_moves else CURRENT
        return state._replace(
            jobs=_kinds(Job(to, j.id) if j.ref == CURRENT else j for j in state.jobs),
            workers=tuple(Worker(w.at, to if w.ref == CURRENT else w.ref, w.id, False) for w in state.workers),
        )

    def _queue_again(self, state: State, *, attempt: int, delayed: bool, fence_moves: bool = True) -> State:
        row = state.row._replace(state=QUEUED, attempt=attempt, delivered=UNDELIVERED, delayed=delayed, expired=False)
        return self._take_away(self._unname(state), fence_moves=fence_moves)._replace(row=row)

    def _end_run(self, state: State) -> State:
        """An end of any kind. It serves the slot, unless another one has come."""
        slot = {DUE_AND_QUEUED: DUE, DUE_AND_QUEUED_AGAIN: DUE_AND_APPLIED}.get(state.slot, state.slot)
        owed = state.owed and state.slot == DUE
        return self._take_away(self._unname(state))._replace(row=_NO_ROW, slot=slot, owed=owed)

    def _new_run(self, state: State, delivered: int = WAITING) -> tuple[State, Property | None]:
        """An insert; the unique index over unfinished runs makes it do nothing when there is one."""
        if state.row.state != FINISHED:
            return state, None if self.protocol.one_unfinished_a_pair else Property.OVERLAP
        state = self._unname(state)
        jobs = _kinds(Job(OTHER_RUN, j.id) for j in state.jobs)
        workers = tuple(w._replace(ref=OTHER_RUN) for w in state.workers)
        row = Row(QUEUED, False, 1, delivered, False, False)
        return state._replace(row=row, jobs=jobs, workers=workers), None

    # --- a tick ---------------------------------------------------------------------------------------------------

    def _reap(self, state: State) -> Tick:
        row = state.row
        expired = row.state == RUNNING and row.expired and not _row_locked(state)
        if not expired or not self.protocol.reaper:
            return Action.BEGIN, T_READ_DUE, state, None
        if row.attempt >= self.bounds.attempts:
            return Action.REAP, T_READ_DUE, self._end_run(state), None
        moves = self.protocol.reap_moves_fence
        queued = self._queue_again(state, attempt=row.attempt + 1, delayed=False, fence_moves=moves)
        return Action.REAP, T_READ_DUE, queued, None

    def _read_due(self, state: State) -> Tick:
        due = state.slot != NOT_DUE and state.row.state == FINISHED and T_COMMIT_PUSHED not in state.ticks
        return (Action.SEE_DUE, T_INSERT, state, None) if due else (Action.SEE_NOT_DUE, T_LOOK, state, None)

    def _insert_due(self, state: State) -> Tick:
        if state.slot == NOT_DUE or T_COMMIT_PUSHED in state.ticks:  # another tick was faster
            return Action.NOT_DUE_ANY_MORE, T_LOOK, state, None
        if not self.protocol.commit_before_push:
            return self._push_uncommitted(state)
        if self.protocol.slot_moved is SlotMoved.BEFORE_INSERT:
            return Action.MOVE_SLOT, T_INSERT_MOVED, state._replace(slot=NOT_DUE), None
        after, broken = self._new_run(state)
        slot = NOT_DUE
        if self.protocol.slot_moved is SlotMoved.AFTER_PUSH and state.row.state == FINISHED:
            slot = DUE_AND_QUEUED_AGAIN if state.slot == DUE_AND_APPLIED else DUE_AND_QUEUED
        return Action.INSERT_DUE, T_LOOK, after._replace(slot=slot), broken

    def _insert_moved(self, state: State) -> Tick:
        after, broken = self._new_run(state)
        return Action.INSERT_DUE, T_LOOK, after, broken

    def _push_uncommitted(self, state: State) -> Tick:
        jobs = _kinds((*state.jobs, Job(OTHER_RUN, PUSHED)))  # nobody sees the run yet, so it is like another's
        return Action.PUSH_UNCOMMITTED, T_COMMIT_PUSHED, state._replace(jobs=jobs), None

    def _commit_pushed(self, state: State) -> Tick:
        after, broken = self._new_run(state, delivered=DELIVERED)
        after = after._replace(
            slot=NOT_DUE,
            jobs=_kinds(Job(CURRENT, NAMED) if j.id == PUSHED else j for j in after.jobs),
            workers=tuple(w._replace(ref=CURRENT, id=NAMED) if w.id == PUSHED else w for w in after.workers),
        )
        return Action.COMMIT_PUSHED, T_LOOK, after, broken

    def _look(self, state: State) -> Tick:
        row = state.row
        if self.protocol.redelivery and row.state == QUEUED and row.delivered == DELIVERED_LONG_AGO:
            return Action.SEE_LONG_AGO, T_LIST, state, None
        if _undelivered(row) or _waiting(row):
            return Action.SEE_UNDELIVERED, T_LOCK if _waiting(row) else T_ASSIGN, state, None
        return Action.SEE_NOTHING, T_REAP, state, None

    def _read_list(self, state: State) -> Tick:
        if self._still_to_come(state):
            return Action.FIND_JOB, T_LOCK, state, None
        return Action.MISS_JOB, T_UNMARK, state, None

    def _still_to_come(self, state: State) -> bool:
        named = [w.at for w in state.workers if w.id == NAMED]
        found = any(j.id == NAMED for j in state.jobs)
        match self.protocol.redelivery_proof:
            case Proof.LIST:
                return found
            case Proof.HASH:
                return found or bool(named) or state.leak != NOTHING
            case Proof.INTERMEDIATE:
                return found or W_START in named or state.leak == HASH_AND_INTERMEDIATE

    def _mark_undelivered(self, state: State) -> Tick | None:
        """Where the run has moved on or another job is named by now, `_unname` has sent the tick on already."""
        if _row_locked(state):
            return None
        if state.row.state != QUEUED:
            return Action.MARK_UNDELIVERED, T_ASSIGN, state, None
        after = self._unname(state)
        after = after._replace(row=state.row._replace(delivered=UNDELIVERED))
        return Action.MARK_UNDELIVERED, T_ASSIGN, after, None

    def _assign(self, state: State) -> Tick:
        if not _undelivered(state.row):
            return Action.ASSIGN_NOTHING, T_LOCK, state, None
        return Action.ASSIGN, T_LOCK, state._replace(row=state.row._replace(delivered=WAITING)), None

    def _lock_undelivered(self, state: State) -> Tick:
        if _waiting(state.row) and T_PUSH not in state.ticks and T_MARK not in state.ticks:
            return Action.LOCK_UNDELIVERED, T_PUSH, state, None
        return Action.LOCK_NOTHING, T_REAP, state, None

    def _push(self, state: State) -> Tick:
        if not self.protocol.fresh_job_ids and state.leak != NOTHING:
            return Action.PUSH_NOTHING, T_MARK, state, None
        if self.protocol.fresh_job_ids and self._hash_exists(state):
            return Action.PUSH_AGAIN, T_MARK, state, None
        leak = state.leak if self.protocol.fresh_job_ids else HASH
        return Action.PUSH, T_MARK, state._replace(jobs=_kinds((*state.jobs, Job(CURRENT, NAMED))), leak=leak), None

    def _hash_exists(self, state: State) -> bool:
        """Of the job of the run's delivery."""
        held = any(w.id == NAMED for w in state.workers)
        return held or state.leak != NOTHING or any(j.id == NAMED for j in state.jobs)

    def _mark_delivered(self, state: State) -> Tick:
        leak = state.leak if self._hashes_count or not self.protocol.fresh_job_ids else NOTHING  # nobody asks any more
        after = state._replace(row=state.row._replace(delivered=DELIVERED), leak=leak)
        return Action.MARK_DELIVERED, self._after_mark(), after, None

    def _after_mark(self) -> int:
        return T_MOVE_SLOT if self.protocol.slot_moved is SlotMoved.AFTER_PUSH else T_REAP

    def _move_slot(self, state: State) -> Tick:
        return Action.MOVE_SLOT, T_REAP, state._replace(slot=DUE if state.slot == DUE else NOT_DUE), None

    # --- a worker -------------------------------------------------------------------------------------------------

    def _pop(self, state: State, _: Worker) -> list[Work]:
        works: list[Work] = []
        for number, job in enumerate(state.jobs):
            popped = Worker(W_START, job.ref, job.id, False)
            rest = state._replace(jobs=state.jobs[:number] + state.jobs[number + 1 :])
            works.append((Action.POP, popped, rest, None))
            if job.id == ANY_ID:  # there may be more of its kind
                works.append((Action.POP, popped, state, None))
            elif self.bounds.faults:
                works.append((Action.POP_TWICE, popped, state, None))
        return works

    def _start(self, state: State, me: Worker) -> list[Work]:
        return [(Action.START, me._replace(at=W_CLAIM), state, None)]

    def _claim(self, state: State, me: Worker) -> list[Work]:
        row = state.row
        found = me.ref == CURRENT and row.state == QUEUED
        if not self.protocol.claim_compares_and_sets:
            found = me.ref != OTHER_RUN
        if not found:
            return [(Action.IGNORE, _IDLE, self._job_ended(state), None)]
        if _row_locked(state):
            return []
        after = self._unname(state)
        after = after._replace(
            row=row._replace(state=RUNNING, delivered=UNDELIVERED, delayed=False, expired=False),
            workers=tuple(w._replace(mine=False) for w in after.workers),
        )
        return [(Action.CLAIM, Worker(W_TRY_AGENT, CURRENT, ANY_ID, True), after, None)]

    def _job_ended(self, state: State) -> State:
        """RQ deletes the job's hash (`result_ttl=0`); where all jobs of the pair share one, that is the key."""
        return state if self.protocol.fresh_job_ids else state._replace(leak=NOTHING)

    def _try_agent(self, state: State, me: Worker) -> list[Work]:
        if self.protocol.agent_lock and any(w.at in HOLDS_AGENT for w in state.workers):
            return [(Action.AGENT_LOCKED, me._replace(at=W_GIVE_BACK), state, None)]
        broken = Property.OVERLAP if any(w.at in IN_ERP for w in state.workers) else None
        return [(Action.TRY_AGENT, me._replace(at=W_ERP), state, broken)]

    def _holds(self, state: State, me: Worker) -> bool:
        """What SQL_LOCK_FENCE, SQL_FINISH and SQL_REQUEUE ask before they write."""
        known = me.ref == CURRENT or (me.ref == OLD_FENCE and not self.protocol.finish_checks_fence)
        return known and state.row.state == RUNNING

    def _give_back(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, _DONE, state, None)]
        if _row_locked(state):
            return []
        return [(Action.GIVE_BACK, _DONE, self._queue_again(state, attempt=state.row.attempt, delayed=True), None)]

    def _fetch(self, state: State, me: Worker) -> list[Work]:
        return [(Action.FETCH, me._replace(at=W_FENCE), state, None), *self._heartbeat(state, me)]

    def _fetch_cut(self, state: State, me: Worker) -> list[Work]:
        """Its heartbeat has a session of its own and goes on; the first statement of its own ends the job."""
        return [(Action.SESSION_GONE, _IDLE, self._job_ended(state), None), *self._heartbeat(state, me)]

    def _heartbeat(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me) or not state.row.expired or _row_locked(state):
            return []
        return [(Action.HEARTBEAT, me, state._replace(row=state.row._replace(expired=False)), None)]

    def _fail(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, _FREEING, state, None)]
        if _row_locked(state):
            return []
        if state.row.attempt < self.bounds.attempts:
            queued = self._queue_again(state, attempt=state.row.attempt + 1, delayed=True)
            return [(Action.REQUEUE, _FREEING, queued, None), *self._heartbeat(state, me)]
        return [(Action.FINISH_FAILED, _FREEING, self._end_run(state), None), *self._heartbeat(state, me)]

    def _lock_fence(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, _FREEING, state, None)]
        if _row_locked(state):
            return []
        return [(Action.LOCK_FENCE, me._replace(at=W_COMMIT), state, None), *self._heartbeat(state, me)]

    def _commit(self, state: State, me: Worker) -> list[Work]:
        twice = state.row.applied or not me.mine or state.slot == DUE_AND_QUEUED_AGAIN
        broken = Property.TWICE if twice else None
        if not self.protocol.apply_and_finish_at_once:
            applied = state._replace(row=state.row._replace(applied=True))
            return [(Action.APPLY_ALONE, me._replace(at=W_FINISH), applied, broken)]
        after = self._end_run(state)
        if state.slot == DUE_AND_QUEUED:
            after = after._replace(slot=DUE_AND_APPLIED)
        return [(Action.APPLY_AND_FINISH, _FREEING, after, broken)]

    def _finish_alone(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, _FREEING, state, None)]
        return [] if _row_locked(state) else [(Action.FINISH_ALONE, _FREEING, self._end_run(state), None)]

    def _free_agent(self, state: State, _: Worker) -> list[Work]:
        return [(Action.FREE_AGENT, _DONE, state, None)]

    def _next_of_agent(self, state: State, _: Worker) -> list[Work]:
        works: list[Work] = [(Action.END_JOB, _IDLE, self._job_ended(state), None)]
        if state.row.state == QUEUED and not state.row.delayed:
            works.append((Action.NEXT_OF_AGENT, Worker(W_CLAIM, CURRENT, ANY_ID, False), state, None))
        return works

    # --- the world ------------------------------------------------------------------------------------------------

    def _time(self, state: State, steps: list[Step]) -> None:
        row = state.row
        if state.slot == NOT_DUE:
            steps.append((Action.SLOT_COMES, WORLD, state._replace(slot=DUE, owed=True), None))
        if row.delayed:
            steps.append((Action.DELAY_OVER, WORLD, state._replace(row=row._replace(delayed=False)), None))
        if self.bounds.forced and T_COMMIT_PUSHED not in state.ticks and not _row_locked(state):
            self._force(state, steps)
        if self.bounds.faults and row.state == RUNNING and not row.expired:
            steps.append((Action.LEASE_EXPIRES, WORLD, state._replace(row=row._replace(expired=True)), None))
        if self.bounds.faults and row.delivered == DELIVERED:
            long_ago = state._replace(row=row._replace(delivered=DELIVERED_LONG_AGO))
            steps.append((Action.LONG_AGO, WORLD, long_ago, None))

    def _force(self, state: State, steps: list[Step]) -> None:
        if state.row.state == FINISHED:
            after, broken = self._new_run(state, UNDELIVERED)
            steps.append((Action.FORCE, WORLD, after, broken))
        elif state.row.state == QUEUED:
            row = state.row._replace(delivered=UNDELIVERED, delayed=False)
            steps.append((Action.FORCE, WORLD, self._unname(state)._replace(row=row), None))

    def _faults(self, state: State, steps: list[Step]) -> None:
        for number, at in enumerate(state.ticks):
            if at != T_REAP:
                steps.append((Action.CRASH_TICK, number, _with_tick(_unpushed(state, at), number, T_REAP), None))
        for number, worker in enumerate(state.workers):
            if worker.at != W_POP:
                steps.append((Action.CRASH_WORKER, number, self._crash(state, number), None))
            if worker.at == W_ERP:
                failed = _with_worker(state, number, worker._replace(at=W_FAIL))
                steps.append((Action.FETCH_FAILS, number, failed, None))
                if self.bounds.sessions_cut_in_erp:
                    cut = _with_worker(state, number, worker._replace(at=W_ERP_CUT))
                    steps.append((Action.SESSION_CUT, number, cut, None))
            if worker.at == W_COMMIT:
                failed = _with_worker(state, number, worker._replace(at=W_FAIL))
                steps.append((Action.APPLY_FAILS, number, failed, None))
                cut = _with_worker(self._job_ended(state), number, _IDLE)
                steps.append((Action.IDLE_IN_TRANSACTION, number, cut, None))
        self._redis_faults(state, steps)

    def _crash(self, state: State, number: int) -> State:
        """Its session, locks and open transaction are gone; what RQ keeps of its job stays in Redis."""
        worker = state.workers[number]
        asked = self._hashes_count or (self.protocol.fresh_job_ids and state.row.delivered == WAITING)
        if asked and worker.id == NAMED:
            state = state._replace(leak=HASH_AND_INTERMEDIATE if worker.at == W_START else HASH)
        return _with_worker(state, number, _IDLE)

    def _redis_faults(self, state: State, steps: list[Step]) -> None:
        flushed = state._replace(jobs=(), leak=NOTHING, workers=tuple(w._replace(id=ANY_ID) for w in state.workers))
        if flushed != state:
            steps.append((Action.FLUSH, WORLD, flushed, None))


def pending(state: State) -> bool:
    """Somebody waits for data: a slot has come, or a run is unfinished."""
    return state.owed or state.row.state != FINISHED


def waits_for_redelivery(state: State) -> bool:
    """The run counts as delivered, no job stands for it and no worker is busy: only a redelivery can save it."""
    row = state.row
    delivered = row.state == QUEUED and row.delivered in (DELIVERED, DELIVERED_LONG_AGO)
    return delivered and all(w.at == W_POP for w in state.workers) and all(j.ref != CURRENT for j in state.jobs)


def canonical(state: State) -> State:
    """Ticks are alike and workers are alike: which is which does not matter."""
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, tuple(sorted(ticks)), tuple(sorted(workers)))


def _undelivered(row: Row) -> bool:
    return row.state == QUEUED and row.delivered == UNDELIVERED and not row.delayed


def _waiting(row: Row) -> bool:
    return row.state == QUEUED and row.delivered == WAITING


def _row_locked(state: State) -> bool:
    """By a worker that applies it."""
    return any(w.at == W_COMMIT for w in state.workers)


def _unpushed(state: State, at: int) -> State:
    """What a tick that dies at `at` leaves: jobs of a run that was never committed belong to nobody. Those of a delivery that it did
    not mark stay that delivery's."""
    if at != T_COMMIT_PUSHED:
        return state
    return state._replace(
        jobs=_kinds(Job(j.ref, ANY_ID if j.id == PUSHED else j.id) for j in state.jobs),
        workers=tuple(w._replace(id=ANY_ID) if w.id == PUSHED else w for w in state.workers),
    )


def _kinds(jobs: Iterable[Job]) -> tuple[Job, ...]:
    return tuple(sorted(set(jobs)))


def _with_tick(state: State, number: int, at: int) -> State:
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, (*ticks[:number], at, *ticks[number + 1 :]), workers)


def _with_worker(state: State, number: int, worker: Worker) -> State:
    slot, owed, row, leak, jobs, ticks, workers = state
    return State(slot, owed, row, leak, jobs, ticks, (*workers[:number], worker, *workers[number + 1 :]))
