"""Every step that may follow a state: of a tick, a worker, time or a person, and every fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.model.protocol import Action, Bounds, Proof, Property, Protocol, SlotMoved
from tests.model.states import (
    ANY_ID,
    CURRENT,
    DELIVERED,
    DELIVERED_LONG_AGO,
    DONE,
    DUE,
    DUE_AND_APPLIED,
    DUE_AND_QUEUED,
    DUE_AND_QUEUED_AGAIN,
    FINISHED,
    FREEING,
    HASH,
    HASH_AND_INTERMEDIATE,
    HOLDS_AGENT,
    IDLE,
    IN_ERP,
    NAMED,
    NO_ROW,
    NOT_DUE,
    NOTHING,
    OLD_FENCE,
    OTHER_RUN,
    PUSHED,
    QUEUED,
    RUNNING,
    UNDELIVERED,
    WAITING,
    WORLD,
    Job,
    Row,
    State,
    Step,
    TickAt,
    Worker,
    WorkerAt,
    kinds,
    row_locked,
    undelivered,
    unpushed,
    waiting,
    with_tick,
    with_worker,
)

Tick: TypeAlias = tuple[Action, int, State, Property | None]
"""A tick's step: the action, what the tick does next, the state after it, and the property that it breaks."""
Work: TypeAlias = tuple[Action, Worker, State, Property | None]
"""A worker's step: the same, with the worker after it."""


class Model:
    """What may follow a state. Pure: the same state gives the same steps."""

    def __init__(self, protocol: Protocol, bounds: Bounds) -> None:
        self.protocol = protocol
        self.bounds = bounds
        compared = protocol.finish_checks_fence and protocol.claim_compares_and_sets
        self._old = OTHER_RUN if compared else OLD_FENCE  # where fences are compared, an old one equals another run's
        self.start = State(NOT_DUE, False, NO_ROW, NOTHING, (), (TickAt.REAP,) * bounds.ticks, (IDLE,) * bounds.workers)
        self._hashes_count = protocol.fresh_job_ids and protocol.redelivery_proof is not Proof.LIST
        self._tick_does: dict[int, Callable[[State], Tick | None]] = {
            TickAt.REAP: self._reap,
            TickAt.READ_DUE: self._read_due,
            TickAt.INSERT: self._insert_due,
            TickAt.INSERT_MOVED: self._insert_moved,
            TickAt.COMMIT_PUSHED: self._commit_pushed,
            TickAt.LOOK: self._look,
            TickAt.LIST: self._read_list,
            TickAt.UNMARK: self._mark_undelivered,
            TickAt.ASSIGN: self._assign,
            TickAt.LOCK: self._lock_undelivered,
            TickAt.PUSH: self._push,
            TickAt.MARK: self._mark_delivered,
            TickAt.MOVE_SLOT: self._move_slot,
        }
        self._worker_does: dict[int, Callable[[State, Worker], list[Work]]] = {
            WorkerAt.POP: self._pop,
            WorkerAt.START: self._start,
            WorkerAt.CLAIM: self._claim,
            WorkerAt.TRY_AGENT: self._try_agent,
            WorkerAt.GIVE_BACK: self._give_back,
            WorkerAt.ERP: self._fetch,
            WorkerAt.ERP_CUT: self._fetch_cut,
            WorkerAt.FAIL: self._fail,
            WorkerAt.FENCE: self._lock_fence,
            WorkerAt.COMMIT: self._commit,
            WorkerAt.FINISH: self._finish_alone,
            WorkerAt.FREE: self._free_agent,
            WorkerAt.NEXT: self._next_of_agent,
        }

    def steps(self, state: State) -> list[Step]:
        """Everything that may happen next."""
        steps: list[Step] = []
        for number, at in enumerate(state.ticks):
            done = self._tick_does[at](state)
            if done is not None:
                action, then, after, broken = done
                steps.append((action, number, with_tick(after, number, then), broken))
        for number, worker in enumerate(state.workers):
            for action, now, after, broken in self._worker_does[worker.at](state, worker):
                steps.append((action, number, with_worker(after, number, now), broken))
        self._time(state, steps)
        if self.bounds.faults:
            self._faults(state, steps)
        return steps

    # --- parts that several steps share -------------------------------------------------------------------------------

    def _unname(self, state: State) -> State:
        """The run has left its delivery, or its delivery is done: nobody looks for its job any more."""
        moved_on = {
            TickAt.LIST: TickAt.ASSIGN,
            TickAt.UNMARK: TickAt.ASSIGN,
            TickAt.PUSH: self._after_mark(),
            TickAt.MARK: self._after_mark(),
        }
        return state._replace(
            leak=NOTHING if self.protocol.fresh_job_ids else state.leak,
            jobs=kinds(Job(j.ref, ANY_ID if j.id == NAMED else j.id) for j in state.jobs),
            ticks=tuple(moved_on.get(at, at) for at in state.ticks),
            workers=tuple(w._replace(id=ANY_ID) if w.id == NAMED else w for w in state.workers),
        )

    def _take_away(self, state: State, *, fence_moves: bool = True) -> State:
        """No worker holds the run any more; whoever knows its fence knows an old one."""
        to = self._old if fence_moves else CURRENT
        return state._replace(
            jobs=kinds(Job(to, j.id) if j.ref == CURRENT else j for j in state.jobs),
            workers=tuple(Worker(w.at, to if w.ref == CURRENT else w.ref, w.id, False) for w in state.workers),
        )

    def _queue_again(self, state: State, *, attempt: int, delayed: bool, fence_moves: bool = True) -> State:
        row = state.row._replace(state=QUEUED, attempt=attempt, delivered=UNDELIVERED, delayed=delayed, expired=False)
        return self._take_away(self._unname(state), fence_moves=fence_moves)._replace(row=row)

    def _end_run(self, state: State) -> State:
        """The run ends. That serves the slot, unless another one has come."""
        slot = {DUE_AND_QUEUED: DUE, DUE_AND_QUEUED_AGAIN: DUE_AND_APPLIED}.get(state.slot, state.slot)
        owed = state.owed and state.slot == DUE
        return self._take_away(self._unname(state))._replace(row=NO_ROW, slot=slot, owed=owed)

    def _new_run(self, state: State, delivered: int = WAITING) -> tuple[State, Property | None]:
        """A run is inserted, unless the unique index over unfinished runs knows one."""
        if state.row.state != FINISHED:
            return state, None if self.protocol.one_unfinished_a_pair else Property.OVERLAP
        state = self._unname(state)
        jobs = kinds(Job(OTHER_RUN, j.id) for j in state.jobs)
        workers = tuple(w._replace(ref=OTHER_RUN) for w in state.workers)
        row = Row(QUEUED, False, 1, delivered, False, False)
        return state._replace(row=row, jobs=jobs, workers=workers), None

    # --- a tick ---------------------------------------------------------------------------------------------------

    def _reap(self, state: State) -> Tick:
        row = state.row
        expired = row.state == RUNNING and row.expired and not row_locked(state)
        if not expired or not self.protocol.reaper:
            return Action.BEGIN, TickAt.READ_DUE, state, None
        if row.attempt >= self.bounds.attempts:
            return Action.REAP, TickAt.READ_DUE, self._end_run(state), None
        moves = self.protocol.reap_moves_fence
        queued = self._queue_again(state, attempt=row.attempt + 1, delayed=False, fence_moves=moves)
        return Action.REAP, TickAt.READ_DUE, queued, None

    def _read_due(self, state: State) -> Tick:
        due = state.slot != NOT_DUE and state.row.state == FINISHED and TickAt.COMMIT_PUSHED not in state.ticks
        return (Action.SEE_DUE, TickAt.INSERT, state, None) if due else (Action.SEE_NOT_DUE, TickAt.LOOK, state, None)

    def _insert_due(self, state: State) -> Tick:
        if state.slot == NOT_DUE or TickAt.COMMIT_PUSHED in state.ticks:  # another tick was faster
            return Action.NOT_DUE_ANY_MORE, TickAt.LOOK, state, None
        if not self.protocol.commit_before_push:
            return self._push_uncommitted(state)
        if self.protocol.slot_moved is SlotMoved.BEFORE_INSERT:
            return Action.MOVE_SLOT, TickAt.INSERT_MOVED, state._replace(slot=NOT_DUE), None
        after, broken = self._new_run(state)
        slot = NOT_DUE
        if self.protocol.slot_moved is SlotMoved.AFTER_PUSH and state.row.state == FINISHED:
            slot = DUE_AND_QUEUED_AGAIN if state.slot == DUE_AND_APPLIED else DUE_AND_QUEUED
        return Action.INSERT_DUE, TickAt.LOOK, after._replace(slot=slot), broken

    def _insert_moved(self, state: State) -> Tick:
        after, broken = self._new_run(state)
        return Action.INSERT_DUE, TickAt.LOOK, after, broken

    def _push_uncommitted(self, state: State) -> Tick:
        jobs = kinds(
            (*state.jobs, Job(OTHER_RUN, PUSHED))
        )  # nobody sees the run yet, so its job is like that of another run
        return Action.PUSH_UNCOMMITTED, TickAt.COMMIT_PUSHED, state._replace(jobs=jobs), None

    def _commit_pushed(self, state: State) -> Tick:
        after, broken = self._new_run(state, delivered=DELIVERED)
        after = after._replace(
            slot=NOT_DUE,
            jobs=kinds(Job(CURRENT, NAMED) if j.id == PUSHED else j for j in after.jobs),
            workers=tuple(w._replace(ref=CURRENT, id=NAMED) if w.id == PUSHED else w for w in after.workers),
        )
        return Action.COMMIT_PUSHED, TickAt.LOOK, after, broken

    def _look(self, state: State) -> Tick:
        row = state.row
        if self.protocol.redelivery and row.state == QUEUED and row.delivered == DELIVERED_LONG_AGO:
            return Action.SEE_LONG_AGO, TickAt.LIST, state, None
        if undelivered(row) or waiting(row):
            return Action.SEE_UNDELIVERED, TickAt.LOCK if waiting(row) else TickAt.ASSIGN, state, None
        return Action.SEE_NOTHING, TickAt.REAP, state, None

    def _read_list(self, state: State) -> Tick:
        if self._still_to_come(state):
            return Action.FIND_JOB, TickAt.LOCK, state, None
        return Action.MISS_JOB, TickAt.UNMARK, state, None

    def _still_to_come(self, state: State) -> bool:
        named = [w.at for w in state.workers if w.id == NAMED]
        found = any(j.id == NAMED for j in state.jobs)
        match self.protocol.redelivery_proof:
            case Proof.LIST:
                return found
            case Proof.HASH:
                return found or bool(named) or state.leak != NOTHING
            case Proof.INTERMEDIATE:
                return found or WorkerAt.START in named or state.leak == HASH_AND_INTERMEDIATE

    def _mark_undelivered(self, state: State) -> Tick | None:
        """Where the run has moved on, or another job is named by now, `_unname` has already sent the tick on."""
        if row_locked(state):
            return None
        if state.row.state != QUEUED:
            return Action.MARK_UNDELIVERED, TickAt.ASSIGN, state, None
        after = self._unname(state)
        after = after._replace(row=state.row._replace(delivered=UNDELIVERED))
        return Action.MARK_UNDELIVERED, TickAt.ASSIGN, after, None

    def _assign(self, state: State) -> Tick:
        if not undelivered(state.row):
            return Action.ASSIGN_NOTHING, TickAt.LOCK, state, None
        return Action.ASSIGN, TickAt.LOCK, state._replace(row=state.row._replace(delivered=WAITING)), None

    def _lock_undelivered(self, state: State) -> Tick:
        if waiting(state.row) and TickAt.PUSH not in state.ticks and TickAt.MARK not in state.ticks:
            return Action.LOCK_UNDELIVERED, TickAt.PUSH, state, None
        return Action.LOCK_NOTHING, TickAt.REAP, state, None

    def _push(self, state: State) -> Tick:
        if not self.protocol.fresh_job_ids and state.leak != NOTHING:
            return Action.PUSH_NOTHING, TickAt.MARK, state, None
        if self.protocol.fresh_job_ids and self._hash_exists(state):
            return Action.PUSH_AGAIN, TickAt.MARK, state, None
        leak = state.leak if self.protocol.fresh_job_ids else HASH
        return Action.PUSH, TickAt.MARK, state._replace(jobs=kinds((*state.jobs, Job(CURRENT, NAMED))), leak=leak), None

    def _hash_exists(self, state: State) -> bool:
        """Whether the job of the run's delivery has a hash in Redis."""
        held = any(w.id == NAMED for w in state.workers)
        return held or state.leak != NOTHING or any(j.id == NAMED for j in state.jobs)

    def _mark_delivered(self, state: State) -> Tick:
        leak = state.leak if self._hashes_count or not self.protocol.fresh_job_ids else NOTHING  # nobody asks any more
        after = state._replace(row=state.row._replace(delivered=DELIVERED), leak=leak)
        return Action.MARK_DELIVERED, self._after_mark(), after, None

    def _after_mark(self) -> int:
        return TickAt.MOVE_SLOT if self.protocol.slot_moved is SlotMoved.AFTER_PUSH else TickAt.REAP

    def _move_slot(self, state: State) -> Tick:
        return Action.MOVE_SLOT, TickAt.REAP, state._replace(slot=DUE if state.slot == DUE else NOT_DUE), None

    # --- a worker -------------------------------------------------------------------------------------------------

    def _pop(self, state: State, _: Worker) -> list[Work]:
        works: list[Work] = []
        for number, job in enumerate(state.jobs):
            popped = Worker(WorkerAt.START, job.ref, job.id, False)
            rest = state._replace(jobs=state.jobs[:number] + state.jobs[number + 1 :])
            works.append((Action.POP, popped, rest, None))
            if job.id == ANY_ID:  # there may be more of its kind
                works.append((Action.POP, popped, state, None))
            elif self.bounds.faults:
                works.append((Action.POP_TWICE, popped, state, None))
        return works

    def _start(self, state: State, me: Worker) -> list[Work]:
        return [(Action.START, me._replace(at=WorkerAt.CLAIM), state, None)]

    def _claim(self, state: State, me: Worker) -> list[Work]:
        row = state.row
        found = me.ref == CURRENT and row.state == QUEUED
        if not self.protocol.claim_compares_and_sets:
            found = me.ref != OTHER_RUN
        if not found:
            return [(Action.IGNORE, IDLE, self._job_ended(state), None)]
        if row_locked(state):
            return []
        after = self._unname(state)
        after = after._replace(
            row=row._replace(state=RUNNING, delivered=UNDELIVERED, delayed=False, expired=False),
            workers=tuple(w._replace(mine=False) for w in after.workers),
        )
        return [(Action.CLAIM, Worker(WorkerAt.TRY_AGENT, CURRENT, ANY_ID, True), after, None)]

    def _job_ended(self, state: State) -> State:
        """RQ deletes the job's hash (`result_ttl=0`). Where all jobs of the pair share one id, that frees the key."""
        return state if self.protocol.fresh_job_ids else state._replace(leak=NOTHING)

    def _try_agent(self, state: State, me: Worker) -> list[Work]:
        if self.protocol.agent_lock and any(w.at in HOLDS_AGENT for w in state.workers):
            return [(Action.AGENT_LOCKED, me._replace(at=WorkerAt.GIVE_BACK), state, None)]
        broken = Property.OVERLAP if any(w.at in IN_ERP for w in state.workers) else None
        return [(Action.TRY_AGENT, me._replace(at=WorkerAt.ERP), state, broken)]

    def _holds(self, state: State, me: Worker) -> bool:
        """The condition of SQL_LOCK_FENCE, SQL_FINISH and SQL_REQUEUE."""
        known = me.ref == CURRENT or (me.ref == OLD_FENCE and not self.protocol.finish_checks_fence)
        return known and state.row.state == RUNNING

    def _give_back(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, DONE, state, None)]
        if row_locked(state):
            return []
        return [(Action.GIVE_BACK, DONE, self._queue_again(state, attempt=state.row.attempt, delayed=True), None)]

    def _fetch(self, state: State, me: Worker) -> list[Work]:
        return [(Action.FETCH, me._replace(at=WorkerAt.FENCE), state, None), *self._heartbeat(state, me)]

    def _fetch_cut(self, state: State, me: Worker) -> list[Work]:
        """The heartbeat has its own session and goes on; the worker's next statement ends the job."""
        return [(Action.SESSION_GONE, IDLE, self._job_ended(state), None), *self._heartbeat(state, me)]

    def _heartbeat(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me) or not state.row.expired or row_locked(state):
            return []
        return [(Action.HEARTBEAT, me, state._replace(row=state.row._replace(expired=False)), None)]

    def _fail(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, FREEING, state, None)]
        if row_locked(state):
            return []
        if state.row.attempt < self.bounds.attempts:
            queued = self._queue_again(state, attempt=state.row.attempt + 1, delayed=True)
            return [(Action.REQUEUE, FREEING, queued, None), *self._heartbeat(state, me)]
        return [(Action.FINISH_FAILED, FREEING, self._end_run(state), None), *self._heartbeat(state, me)]

    def _lock_fence(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, FREEING, state, None)]
        if row_locked(state):
            return []
        return [(Action.LOCK_FENCE, me._replace(at=WorkerAt.COMMIT), state, None), *self._heartbeat(state, me)]

    def _commit(self, state: State, me: Worker) -> list[Work]:
        twice = state.row.applied or not me.mine or state.slot == DUE_AND_QUEUED_AGAIN
        broken = Property.TWICE if twice else None
        if not self.protocol.apply_and_finish_at_once:
            applied = state._replace(row=state.row._replace(applied=True))
            return [(Action.APPLY_ALONE, me._replace(at=WorkerAt.FINISH), applied, broken)]
        after = self._end_run(state)
        if state.slot == DUE_AND_QUEUED:
            after = after._replace(slot=DUE_AND_APPLIED)
        return [(Action.APPLY_AND_FINISH, FREEING, after, broken)]

    def _finish_alone(self, state: State, me: Worker) -> list[Work]:
        if not self._holds(state, me):
            return [(Action.LEASE_LOST, FREEING, state, None)]
        return [] if row_locked(state) else [(Action.FINISH_ALONE, FREEING, self._end_run(state), None)]

    def _free_agent(self, state: State, _: Worker) -> list[Work]:
        return [(Action.FREE_AGENT, DONE, state, None)]

    def _next_of_agent(self, state: State, _: Worker) -> list[Work]:
        works: list[Work] = [(Action.END_JOB, IDLE, self._job_ended(state), None)]
        if state.row.state == QUEUED and not state.row.delayed:
            works.append((Action.NEXT_OF_AGENT, Worker(WorkerAt.CLAIM, CURRENT, ANY_ID, False), state, None))
        return works

    # --- the world ------------------------------------------------------------------------------------------------

    def _time(self, state: State, steps: list[Step]) -> None:
        row = state.row
        if state.slot == NOT_DUE:
            steps.append((Action.SLOT_COMES, WORLD, state._replace(slot=DUE, owed=True), None))
        if row.delayed:
            steps.append((Action.DELAY_OVER, WORLD, state._replace(row=row._replace(delayed=False)), None))
        if self.bounds.forced and TickAt.COMMIT_PUSHED not in state.ticks and not row_locked(state):
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
            if at != TickAt.REAP:
                steps.append((Action.CRASH_TICK, number, with_tick(unpushed(state, at), number, TickAt.REAP), None))
        for number, worker in enumerate(state.workers):
            if worker.at != WorkerAt.POP:
                steps.append((Action.CRASH_WORKER, number, self._crash(state, number), None))
            if worker.at == WorkerAt.ERP:
                failed = with_worker(state, number, worker._replace(at=WorkerAt.FAIL))
                steps.append((Action.FETCH_FAILS, number, failed, None))
                if self.bounds.sessions_cut_in_erp:
                    cut = with_worker(state, number, worker._replace(at=WorkerAt.ERP_CUT))
                    steps.append((Action.SESSION_CUT, number, cut, None))
            if worker.at == WorkerAt.COMMIT:
                failed = with_worker(state, number, worker._replace(at=WorkerAt.FAIL))
                steps.append((Action.APPLY_FAILS, number, failed, None))
                cut = with_worker(self._job_ended(state), number, IDLE)
                steps.append((Action.IDLE_IN_TRANSACTION, number, cut, None))
        self._redis_faults(state, steps)

    def _crash(self, state: State, number: int) -> State:
        """The worker's session, locks and open transaction are gone; RQ's hash of its job stays in Redis."""
        worker = state.workers[number]
        asked = self._hashes_count or (self.protocol.fresh_job_ids and state.row.delivered == WAITING)
        if asked and worker.id == NAMED:
            state = state._replace(leak=HASH_AND_INTERMEDIATE if worker.at == WorkerAt.START else HASH)
        return with_worker(state, number, IDLE)

    def _redis_faults(self, state: State, steps: list[Step]) -> None:
        flushed = state._replace(jobs=(), leak=NOTHING, workers=tuple(w._replace(id=ANY_ID) for w in state.workers))
        if flushed != state:
            steps.append((Action.FLUSH, WORLD, flushed, None))
