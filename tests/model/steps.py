"""Every step that may follow a state: of a tick, a worker, time or a person, and every fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.model.protocol import Action, Bounds, Charged, Faults, Proof, Property, Protocol, SlotMoved
from tests.model.states import (
    DELIVERED,
    DUE,
    DUE_AND_APPLIED,
    DUE_AND_QUEUED,
    DUE_AND_QUEUED_AGAIN,
    HASH,
    HASH_AND_INTERMEDIATE,
    IDLE,
    IDLE_TICK,
    IN_FIRST,
    IN_SECOND,
    NO_JOB,
    NO_RUN,
    NONE,
    NOT_DUE,
    NOTHING,
    UNCOMMITTED,
    UNDELIVERED,
    WAITING,
    WORLD,
    Run,
    State,
    Step,
    Tick,
    TickAt,
    Worker,
    WorkerAt,
    bits,
    claim_locked,
    over,
    ready,
    undelivered,
    with_delivery,
    with_leak,
    with_run,
    with_runs,
    with_tick,
    without_claim,
)
from tests.model.workers import Workers

Ticked: TypeAlias = tuple[Action, Tick, State, Property | None]
"""A tick's step: the action, the tick after it, the state after it, and the property that it breaks."""
KNOWS_ITS_JOB = frozenset({WorkerAt.START, WorkerAt.CLAIM})


class Model:
    """What may follow a state. Pure: the same state gives the same steps."""

    def __init__(self, protocol: Protocol, bounds: Bounds) -> None:
        self.protocol = protocol
        self.bounds = bounds
        self._workers = Workers(protocol, bounds)
        self._forced_type = bounds.types - 1
        ticks, workers = (IDLE_TICK,) * bounds.ticks, (IDLE,) * bounds.workers
        runs, nothing = (None,) * bounds.types, (NOTHING, NOTHING)
        self.start = State(runs, 0, None, (NONE, NONE), 0, nothing, NOT_DUE, False, ticks, workers)
        self._hashes_count = protocol.redelivery_proof is not Proof.LIST or not protocol.fresh_job_ids
        self._marked = Tick(TickAt.MOVE_SLOT) if protocol.slot_moved is SlotMoved.AFTER_PUSH else IDLE_TICK
        self._zombies_can_write = not (protocol.fence and protocol.fence_has_a_number and protocol.one_claim_an_agent)
        self._tick_does: dict[int, Callable[[State, Tick], Ticked]] = {
            TickAt.PUSH: self._push,
            TickAt.MARK: self._mark_delivered,
            TickAt.UNMARK: self._mark_undelivered,
            TickAt.INSERT_MOVED: self._insert_moved,
            TickAt.COMMIT_PUSHED: self._commit_pushed,
            TickAt.MOVE_SLOT: self._move_slot,
        }

    def steps(self, state: State) -> list[Step]:
        """Everything that may happen next."""
        steps = self._workers.steps(state)
        idle = False
        for number, tick in enumerate(state.ticks):
            if tick.at != TickAt.IDLE:
                done = [self._tick_does[tick.at](state, tick)]
                if self.bounds.faults >= Faults.CRASHES:
                    done.append((Action.KILL_TICK, IDLE_TICK, self._killed(state, tick), None))
            else:  # idle ticks are alike
                done, idle = [] if idle else self._idle(state), True
            for action, then, after, broken in done:
                steps.append((action, number, with_tick(after, number, then), broken))
        self._world(state, steps)
        return steps

    # --- states that are alike ----------------------------------------------------------------------------------------

    def canonical(self, state: State) -> State:
        """The same state without what can have no effect, and with deliveries, ticks and workers in order."""
        places = [run.place for run in state.runs if run is not None]
        if self.protocol.fresh_deliveries:
            for number, status in enumerate(state.deliveries):
                if status != NONE and 1 + number not in places:
                    state = self._forgotten(state, number)
            if IN_SECOND in places and IN_FIRST not in places[: places.index(IN_SECOND)]:
                state = _exchanged(state)
        workers = tuple(sorted([w if w == IDLE else self._known(state, w) for w in state.workers]))
        ticks = state.ticks if len(state.ticks) == 1 else tuple(sorted(state.ticks))
        if ticks == state.ticks and workers == state.workers:
            return state
        return state._replace(ticks=ticks, workers=workers)

    def _known(self, state: State, worker: Worker) -> Worker:
        """The worker with what matters of what it knows: of an agent that was taken away it can't write, and few ask for its job."""
        at, job = worker.at, worker.job
        if job != NO_JOB and not self._needs_job(state, at, job):
            job = NO_JOB
        if not worker.mine and not self._zombies_can_write:
            return Worker(at, job=job)
        return worker if job == worker.job else worker._replace(job=job)

    def _needs_job(self, state: State, at: int, job: int) -> bool:
        """Whether it matters which job a worker has: it is yet to claim, or a tick may ask for the job's hash."""
        if at in KNOWS_ITS_JOB:
            return True
        return self.bounds.job_hashes and (self._hashes_count or job == UNCOMMITTED or state.deliveries[job] == WAITING)

    def _forgotten(self, state: State, number: int) -> State:
        """Nobody looks for the delivery's jobs any more."""
        state = with_delivery(state, number, NONE)
        if self.protocol.fresh_job_ids:
            state = with_leak(state, number, NOTHING)
        ended = {TickAt.PUSH: self._marked, TickAt.MARK: self._marked, TickAt.UNMARK: IDLE_TICK}
        return state._replace(
            jobs=state.jobs & ~(1 << number),
            ticks=tuple(ended.get(tick.at, tick) if tick.delivery == number else tick for tick in state.ticks),
            workers=tuple(self._without_job(w) if w.job == number else w for w in state.workers),
        )

    def _without_job(self, worker: Worker) -> Worker:
        if self.protocol.fresh_job_ids and worker.at in KNOWS_ITS_JOB:
            return IDLE
        return worker._replace(job=NO_JOB)

    # --- a tick -------------------------------------------------------------------------------------------------------

    def _idle(self, state: State) -> list[Ticked]:
        done: list[Ticked] = []
        if self.bounds.faults >= Faults.CRASHES and self.protocol.reaper and state.claim and not claim_locked(state):
            after, broken = self._reap(state)
            done.append((Action.REAP, IDLE_TICK, after, broken))
        if self.bounds.slots and state.slot != NOT_DUE and not state.unfinished & 1 and not _uncommitted(state):
            done.append(self._insert_due(state))
        if any(run is not None and run.place == UNDELIVERED and not run.delayed for run in state.runs):
            done.append((Action.ASSIGN, IDLE_TICK, self._assign(state), None))
        for number, status in enumerate(state.deliveries):
            pushing = any(t.at in (TickAt.PUSH, TickAt.MARK) and t.delivery == number for t in state.ticks)
            if status == WAITING and not pushing:
                after = state if self.protocol.mark_after_push else with_delivery(state, number, DELIVERED)
                done.append((Action.LOCK_DELIVERY, Tick(TickAt.PUSH, number), after, None))
            if status == DELIVERED and self._is_missed(state, number):
                done.append((Action.MISS_JOB, Tick(TickAt.UNMARK, number), state, None))
        return done

    def _reap(self, state: State) -> tuple[State, Property | None]:
        claim = state.claim
        assert claim is not None
        runs = {number for number, run in enumerate(state.runs) if run is not None}
        charged: set[int] = set()
        match self.protocol.reap_charges:
            case Charged.THE_NAMED_ONE if claim.named != NO_RUN:
                charged = {claim.named}
            case Charged.THE_NAMED_ONE:
                charged = set(list(bits(ready(state)))[:1])
            case Charged.ALL:
                charged = runs
        wrong = charged != {claim.doing} if claim.doing != NO_RUN else len(charged) > 1
        after = without_claim(state)
        after = undelivered(after) if self.protocol.reap_undelivers else after
        for number in charged:
            run = after.runs[number]
            assert run is not None
            if run.attempt >= self.bounds.attempts:
                after = over(after, number, frees_the_pair=self.protocol.end_frees_the_pair)
            else:
                after = with_run(after, number, run._replace(attempt=run.attempt + 1))
        return after, Property.CHARGED if wrong else None

    def _assign(self, state: State) -> State:
        number = 1 if self.protocol.fresh_deliveries and state.deliveries[0] != NONE else 0
        if state.deliveries[number] == NONE:
            state = with_delivery(state, number, WAITING)
        return with_runs(
            state,
            lambda run: run._replace(place=1 + number) if run.place == UNDELIVERED and not run.delayed else run,
        )

    def _push(self, state: State, tick: Tick) -> Ticked:
        number = tick.delivery
        then = Tick(TickAt.MARK, number) if self.protocol.mark_after_push else IDLE_TICK
        if self.bounds.job_hashes and self._hash_exists(state, number):
            return Action.PUSH_AGAIN, then, state, None
        after = state if self.protocol.fresh_job_ids else with_leak(state, number, HASH)
        return Action.PUSH, then, after._replace(jobs=state.jobs | 1 << number), None

    def _hash_exists(self, state: State, number: int) -> bool:
        if state.leaks[number] != NOTHING or not self.protocol.fresh_job_ids:
            return state.leaks[number] != NOTHING
        return bool(state.jobs >> number & 1) or any(w.job == number for w in state.workers)

    def _mark_delivered(self, state: State, tick: Tick) -> Ticked:
        after = with_delivery(state, tick.delivery, DELIVERED)
        if not self._hashes_count:  # nobody asks for the hash any more
            after = with_leak(after, tick.delivery, NOTHING)
        return Action.MARK_DELIVERED, self._marked, after, None

    def _is_missed(self, state: State, number: int) -> bool:
        if not self.protocol.redelivery or self.bounds.faults is not Faults.LOSSES or state.jobs >> number & 1:
            return False
        has = [w.at for w in state.workers if w.job == number]
        match self.protocol.redelivery_proof:
            case Proof.LIST:
                return True
            case Proof.HASH:
                return not has and state.leaks[number] == NOTHING
            case Proof.INTERMEDIATE:
                return WorkerAt.START not in has and state.leaks[number] != HASH_AND_INTERMEDIATE

    def _mark_undelivered(self, state: State, tick: Tick) -> Ticked:
        place = 1 + tick.delivery
        after = with_runs(state, lambda run: run._replace(place=UNDELIVERED) if run.place == place else run)
        return Action.MARK_UNDELIVERED, IDLE_TICK, after, None

    # --- a tick and a slot --------------------------------------------------------------------------------------------

    def _insert_due(self, state: State) -> Ticked:
        if not self.protocol.commit_before_push:
            after = state._replace(jobs=state.jobs | 1 << UNCOMMITTED)
            return Action.PUSH_UNCOMMITTED, Tick(TickAt.COMMIT_PUSHED), after, None
        if self.protocol.slot_moved is SlotMoved.BEFORE_INSERT:
            return Action.MOVE_SLOT, Tick(TickAt.INSERT_MOVED), state._replace(slot=NOT_DUE), None
        slot = NOT_DUE
        if self.protocol.slot_moved is SlotMoved.AFTER_PUSH:
            slot = DUE_AND_QUEUED_AGAIN if state.slot == DUE_AND_APPLIED else DUE_AND_QUEUED
        return Action.INSERT_DUE, IDLE_TICK, _queued(state._replace(slot=slot), 0), None

    def _insert_moved(self, state: State, _: Tick) -> Ticked:
        after = state if state.unfinished & 1 else _queued(state, 0)
        return Action.INSERT_DUE, IDLE_TICK, after, None

    def _commit_pushed(self, state: State, _: Tick) -> Ticked:
        """The job that was pushed becomes that of the run's delivery, the first one: other runs there are none."""
        after = with_delivery(with_run(state, 0, Run(IN_FIRST)), 0, DELIVERED)
        after = after._replace(
            slot=NOT_DUE,
            unfinished=1,
            jobs=state.jobs >> UNCOMMITTED & 1,
            workers=tuple(w._replace(job=0) if w.job == UNCOMMITTED else w for w in state.workers),
        )
        return Action.COMMIT_PUSHED, IDLE_TICK, after, None

    def _move_slot(self, state: State, _: Tick) -> Ticked:
        return Action.MOVE_SLOT, IDLE_TICK, state._replace(slot=DUE if state.slot == DUE else NOT_DUE), None

    def _killed(self, state: State, tick: Tick) -> State:
        """A tick that dies may leave a job of a run that was never committed: whoever takes it finds nothing."""
        if tick.at != TickAt.COMMIT_PUSHED:
            return state
        return state._replace(
            jobs=state.jobs & ~(1 << UNCOMMITTED),
            workers=tuple(IDLE if w.job == UNCOMMITTED else w for w in state.workers),
        )

    # --- the world ----------------------------------------------------------------------------------------------------

    def _world(self, state: State, steps: list[Step]) -> None:
        if self.bounds.slots:
            if state.slot == NOT_DUE:
                steps.append((Action.SLOT_COMES, WORLD, state._replace(slot=DUE, owed=True), None))
        else:
            for number in range(self.bounds.types):
                if not state.unfinished >> number & 1:
                    steps.append((Action.QUEUED_AS_DUE, WORLD, _queued(state, number), None))
        for number, run in enumerate(state.runs):
            if run is not None and run.delayed:
                after = with_run(state, number, run._replace(delayed=False))
                steps.append((Action.DELAY_OVER, WORLD, after, None))
        if self.bounds.people and not _uncommitted(state):
            self._people(state, steps)
        if self.bounds.faults is Faults.LOSSES and (state.jobs or state.leaks != (NOTHING, NOTHING)):
            flushed = state._replace(jobs=0, leaks=(NOTHING, NOTHING))
            steps.append((Action.FLUSH, WORLD, flushed, None))

    def _people(self, state: State, steps: list[Step]) -> None:
        number = self._forced_type
        run = state.runs[number]
        if run is None:
            steps.append((Action.FORCE, WORLD, _queued(state, number, forced=True), None))
        elif not self.protocol.one_unfinished_a_pair:
            steps.append((Action.FORCE, WORLD, state, Property.OVERLAP))
        elif not run.followed and (not run.forced or run.delayed):
            joined = with_run(state, number, run._replace(place=UNDELIVERED, delayed=False, forced=True))
            steps.append((Action.JOIN, WORLD, joined, None))
        if run is not None and not run.followed and state.claim is not None and state.claim.named == number:
            steps.append((Action.FORCE_BEHIND, WORLD, with_run(state, number, run._replace(followed=True)), None))
        if not claim_locked(state):
            for number, run in enumerate(state.runs):
                if run is not None:
                    cancelled = over(state, number, frees_the_pair=self.protocol.end_frees_the_pair)
                    steps.append((Action.CANCEL, WORLD, cancelled, None))


def _queued(state: State, number: int, *, forced: bool = False) -> State:
    after = with_run(state, number, Run(UNDELIVERED, forced=forced))
    return after._replace(unfinished=state.unfinished | 1 << number)


def _uncommitted(state: State) -> bool:
    """Whether a tick has inserted a run in a transaction that is still open (in a mutant): others wait for it."""
    return any(tick.at == TickAt.COMMIT_PUSHED for tick in state.ticks)


def _exchanged(state: State) -> State:
    """The same with the two deliveries exchanged."""
    place, number = (UNDELIVERED, IN_SECOND, IN_FIRST), {0: 1, 1: 0}
    state = with_runs(state, lambda run: run._replace(place=place[run.place]))
    return state._replace(
        deliveries=state.deliveries[::-1],
        jobs=(state.jobs & 1) << 1 | state.jobs >> 1 & 1 | state.jobs & 1 << UNCOMMITTED,
        leaks=state.leaks[::-1],
        ticks=tuple(tick._replace(delivery=number.get(tick.delivery, tick.delivery)) for tick in state.ticks),
        workers=tuple(w._replace(job=number.get(w.job, w.job)) for w in state.workers),
    )
