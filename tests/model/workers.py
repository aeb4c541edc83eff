"""Every step that a worker may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.model.protocol import Action, Bounds, Faults, Property, Protocol, Undelivered
from tests.model.states import (
    COMPARES,
    DUE_AND_APPLIED,
    DUE_AND_QUEUED,
    DUE_AND_QUEUED_AGAIN,
    HASH,
    HASH_AND_INTERMEDIATE,
    HOLDS_LOCK,
    IDLE,
    NO_CLAIM_YET,
    NO_RUN,
    NOTHING,
    ORDINARY,
    SHOULD_COMPARE,
    UNCLAIMED,
    UNCOMMITTED,
    UNDELIVERED,
    Claim,
    State,
    Step,
    Worker,
    WorkerAt,
    bits,
    over,
    ready,
    undelivered,
    with_leak,
    with_run,
    with_runs,
    with_worker,
    without_claim,
)

Work: TypeAlias = tuple[Action, Worker, State, Property | None]
"""A worker's step: the action, the worker after it, the state after it, and the property that it breaks."""


class Workers:
    """What each worker may do in a state."""

    def __init__(self, protocol: Protocol, bounds: Bounds) -> None:
        self._protocol = protocol
        self._bounds = bounds
        self._does: dict[int, Callable[[State, int, Worker], list[Work]]] = {
            WorkerAt.POP: self._pop,
            WorkerAt.START: self._start,
            WorkerAt.CLAIM: self._claim_job,
            WorkerAt.PUT_OFF: self._put_off,
            WorkerAt.UNLOCK: self._unlock,
            WorkerAt.LOOP: self._loop,
            WorkerAt.ERP: self._do_run,
            WorkerAt.COMMIT: self._commit,
            WorkerAt.FINISH: self._finish_alone,
            WorkerAt.RELEASE: self._release,
            WorkerAt.UNDELIVER: self._undeliver,
            WorkerAt.LOOK: self._look,
            WorkerAt.END_RELEASED: self._end_released,
        }

    def steps(self, state: State) -> list[Step]:
        steps: list[Step] = []
        for number, worker in enumerate(state.workers):
            for action, now, after, broken in self._does[worker.at](state, number, worker):
                steps.append((action, number, with_worker(after, number, now), broken))
            if self._bounds.people and worker.mine and worker.at != WorkerAt.COMMIT:
                steps.append((Action.INTERRUPT, number, self._give_back(state, number), None))
            dies = Faults.LOSSES if worker.at in UNCLAIMED else Faults.CRASHES
            if worker.at != WorkerAt.POP and self._bounds.faults >= dies:
                steps.append((Action.KILL_WORKER, number, self._kill(state, number), None))
        return steps

    # --- the job ------------------------------------------------------------------------------------------------------

    def _pop(self, state: State, _: int, __: Worker) -> list[Work]:
        works: list[Work] = []
        at = WorkerAt.START if self._bounds.job_hashes else WorkerAt.CLAIM
        for job in bits(state.jobs):
            popped = Worker(at, job=job)
            works.append((Action.POP, popped, state._replace(jobs=state.jobs & ~(1 << job)), None))
            if self._bounds.faults is Faults.LOSSES and job != UNCOMMITTED:
                works.append((Action.POP_TWICE, popped, state, None))
        if self._bounds.people and any(run is not None and run.forced for run in state.runs):
            works.append((Action.RUN_INLINE, Worker(WorkerAt.LOOK), state, None))
        return works

    def _start(self, state: State, _: int, me: Worker) -> list[Work]:
        return [(Action.START, me._replace(at=WorkerAt.CLAIM), state, None)]

    def _claim_job(self, state: State, number: int, me: Worker) -> list[Work]:
        found = any(run is not None and run.place == 1 + me.job for run in state.runs)
        if not found or (state.claim is not None and self._protocol.one_claim_an_agent):
            return [(Action.IGNORE, IDLE, self._job_ended(state), None), *self._claimed_in_vain(state, number, me)]
        return self._claim(Action.CLAIM, state, number, me)

    def _look(self, state: State, number: int, me: Worker) -> list[Work]:
        if not ready(state) or (state.claim is not None and self._protocol.one_claim_an_agent):
            return [
                (Action.LOOK_IN_VAIN, IDLE, self._job_ended(state), None),
                *self._claimed_in_vain(state, number, me),
            ]
        return self._claim(Action.LOOK, state, number, me)

    def _claim(self, action: Action, state: State, number: int, me: Worker) -> list[Work]:
        """Lock and claim in one statement, or neither. Then survey: any ordinary run may turn out to be unchanged."""
        if self._locked_by_another(state, number):
            return [(Action.LOCKED, me._replace(at=WorkerAt.PUT_OFF), state, None)]
        never_charged = state.claim is not None and state.claim.doing != NO_RUN
        broken = Property.CHARGED if never_charged else None
        after = without_claim(state)._replace(claim=NO_CLAIM_YET)
        runs = ready(state)
        forced = sum(1 << i for i in bits(runs) if (run := state.runs[i]) is not None and run.forced)
        remembers = COMPARES if forced and not self._protocol.begin_reads_the_run else ORDINARY
        return [
            (action, Worker(WorkerAt.LOOP, True, runs & ~same, same, NO_RUN, remembers, me.job), after, broken)
            for same in range(runs + 1)
            if same & ~runs == 0 and same & forced == 0
        ]

    def _claimed_in_vain(self, state: State, number: int, me: Worker) -> list[Work]:
        """The statement has looked before another worker claimed, and gets the lock of that worker, which is dead by now."""
        if state.claim is None or self._locked_by_another(state, number):
            return []
        return [(Action.LOCKED, Worker(WorkerAt.UNLOCK, job=me.job), state, None)]

    def _unlock(self, state: State, _: int, __: Worker) -> list[Work]:
        broken = None if self._protocol.unclaimed_is_unlocked else Property.BLOCKED
        return [(Action.UNLOCK, IDLE, self._job_ended(state), broken)]

    def _locked_by_another(self, state: State, number: int) -> bool:
        if not (self._protocol.agent_lock and self._bounds.locks_hold):
            return False
        return any(w.at in HOLDS_LOCK for other, w in enumerate(state.workers) if other != number)

    def _put_off(self, state: State, _: int, __: Worker) -> list[Work]:
        after, broken = state, None
        if state.claim is None or not self._protocol.put_off_spares_claims:
            broken = Property.LATE if state.claim is not None else None
            after = undelivered(state) if self._protocol.put_off_undelivers else state
            after = with_runs(after, lambda run: run._replace(delayed=True))
        return [(Action.PUT_OFF, IDLE, self._job_ended(after), broken)]

    def _job_ended(self, state: State) -> State:
        """RQ deletes the job's hash (`result_ttl=0`). Where all jobs of a pair share one id, that frees the key."""
        return state if self._protocol.fresh_job_ids else state._replace(leaks=(NOTHING, NOTHING))

    # --- the claim ----------------------------------------------------------------------------------------------------

    def _owns(self, state: State, me: Worker) -> bool:
        """The condition of every statement of a worker: where agent_id = … and fence = …"""
        if not self._protocol.fence:
            return True
        return me.mine or (state.claim is not None and not self._protocol.fence_has_a_number)

    def _agent_lost(self, state: State) -> Work:
        return (Action.AGENT_LOST, IDLE, self._job_ended(state), None)

    def _loop(self, state: State, _: int, me: Worker) -> list[Work]:
        if not self._owns(state, me):
            works = [self._agent_lost(state)]
        elif me.unchanged or not me.left:
            return [self._end_unchanged(state, me)]
        else:
            works = [self._begin(state, me)]
        return [*works, self._stopped(state, me)] if self._bounds.people else works

    def _end_unchanged(self, state: State, me: Worker) -> Work:
        releases = not me.left
        if releases and me.unchanged and not self._protocol.end_before_release:
            return (Action.RELEASE, me._replace(at=WorkerAt.END_RELEASED), without_claim(state), None)
        after, kept, broken = state, 0, None
        for number in bits(me.unchanged):
            after, ended, wrong = self._end_one_unchanged(after, me, number)
            kept |= 0 if ended else 1 << number
            broken = broken or wrong
        if not releases or kept:
            return (Action.END_UNCHANGED, me._replace(left=me.left | kept, unchanged=0), after, broken)
        now = Worker(WorkerAt.LOOK, job=me.job)
        if not self._protocol.look_after_release:
            now, after = IDLE, self._job_ended(after)
        return (Action.END_AND_RELEASE, now, without_claim(after), broken)

    def _end_one_unchanged(self, state: State, me: Worker, number: int) -> tuple[State, bool, Property | None]:
        """The state, whether the run ended, and the property that this breaks. A run that became forced meanwhile stays."""
        run = state.runs[number]
        assert run is not None
        if run.forced and self._protocol.end_compares_the_trigger:
            return state, False, None
        return self._over(state, number), True, self._wrong(me) or (Property.FORCED if run.forced else None)

    def _end_released(self, state: State, _: int, me: Worker) -> list[Work]:
        broken = Property.TWICE if me.unchanged else None
        return [(Action.END_RELEASED, Worker(WorkerAt.LOOK, job=me.job), state, broken)]

    def _over(self, state: State, number: int) -> State:
        return over(state, number, frees_the_pair=self._protocol.end_frees_the_pair)

    def _wrong(self, me: Worker) -> Property | None:
        return None if me.mine else Property.TWICE

    def _stopped(self, state: State, me: Worker) -> Work:
        """The process was asked to end, or the agent's time is up. The statement that releases begins: it sees the runs of this moment."""
        known = 0
        if self._protocol.stop_undelivers is Undelivered.WITH_RELEASE:
            known = sum(1 << number for number, run in enumerate(state.runs) if run is not None)
        return (Action.STOP, Worker(WorkerAt.RELEASE, me.mine, known, job=me.job), state, None)

    def _release(self, state: State, _: int, me: Worker) -> list[Work]:
        if not self._owns(state, me):
            broken = None if self._protocol.stop_always_unlocks else Property.BLOCKED
            return [(Action.RELEASE, IDLE, self._job_ended(state), broken)]
        after = without_claim(state)
        if self._protocol.stop_undelivers is Undelivered.AFTER_RELEASE:
            return [(Action.RELEASE, Worker(WorkerAt.UNDELIVER, job=me.job), after, None)]
        for number in bits(me.left):
            run = state.runs[number]
            assert run is not None
            after = with_run(after, number, run._replace(place=UNDELIVERED))
        return [(Action.RELEASE, IDLE, self._job_ended(after), None)]

    def _undeliver(self, state: State, _: int, __: Worker) -> list[Work]:
        """Whoever has the agent by now looks for its runs."""
        after = undelivered(state) if state.claim is None else state
        return [(Action.UNDELIVER, IDLE, self._job_ended(after), None)]

    def _give_back(self, state: State, number: int) -> State:
        """`run --inline` ends the claim over another connection. Its session, and the lock, end a moment later."""
        after = without_claim(state)
        after = undelivered(after) if self._protocol.give_back_undelivers else after
        return with_worker(after, number, Worker(WorkerAt.LOOP, job=state.workers[number].job))

    # --- a run --------------------------------------------------------------------------------------------------------

    def _begin(self, state: State, me: Worker) -> Work:
        number = me.left.bit_length() - 1  # forced runs come first
        run = state.runs[number]
        assert run is not None
        knows = COMPARES if run.forced else ORDINARY
        if not self._protocol.begin_reads_the_run and run.forced and me.compares != COMPARES:
            knows = SHOULD_COMPARE
        if state.claim is not None:
            named = number if self._protocol.begin_names_the_run else state.claim.named
            state = state._replace(claim=Claim(named, number))
        broken = Property.OVERLAP if any(w.at == WorkerAt.ERP for w in state.workers) else None
        now = Worker(WorkerAt.ERP, me.mine, me.left & ~(1 << number), 0, number, knows, me.job)
        return (Action.BEGIN, now, state, broken)

    def _do_run(self, state: State, _: int, me: Worker) -> list[Work]:
        if not self._owns(state, me):
            return [self._agent_lost(state)]
        if me.run == NO_RUN:
            if self._protocol.lost_run_releases:
                return [(Action.RUN_LOST, self._stopped(state, me)[1], state, None)]
            return [(Action.RUN_LOST, IDLE, self._job_ended(state), None)]
        works: list[Work] = [(Action.WRITE, me._replace(at=WorkerAt.COMMIT), state, None)]
        if me.compares == ORDINARY:
            works.append(self._end_fetched(state, me))
        if self._bounds.faults >= Faults.CRASHES:
            works.append(self._fail(state, me))
        return works

    def _end_fetched(self, state: State, me: Worker) -> Work:
        after, ended, broken = self._end_one_unchanged(state, me, me.run)
        if ended:
            return (Action.END_FETCHED, self._next(me), after, broken)
        if not self._protocol.end_unnames_only_what_ended and after.claim is not None:
            after = after._replace(claim=after.claim._replace(named=NO_RUN))
        return (Action.COMPARE_AFTER_ALL, me._replace(compares=COMPARES), after, broken)

    def _next(self, me: Worker) -> Worker:
        return Worker(WorkerAt.LOOP, me.mine, me.left, job=me.job)

    def _fail(self, state: State, me: Worker) -> Work:
        run = state.runs[me.run]
        assert run is not None
        if run.attempt >= self._bounds.attempts:
            return (Action.FAIL, self._next(me), self._over(state, me.run), self._wrong(me))
        place = UNDELIVERED if self._protocol.requeue_undelivers else run.place
        after = with_run(state, me.run, run._replace(place=place, delayed=True, attempt=run.attempt + 1))
        after = after._replace(claim=NO_CLAIM_YET) if after.claim is not None else after
        return (Action.REQUEUE, self._next(me), after, None)

    def _commit(self, state: State, _: int, me: Worker) -> list[Work]:
        run = state.runs[me.run] if me.run != NO_RUN else None
        if run is None:  # only without a fence: another worker has ended it
            return [self._agent_lost(state)]
        broken = Property.TWICE if run.applied or state.slot == DUE_AND_QUEUED_AGAIN else self._wrong(me)
        broken = broken or (Property.FORCED if me.compares == SHOULD_COMPARE else None)
        if self._protocol.apply_and_finish_at_once:
            after = self._over(state, me.run)
            after = after._replace(slot=DUE_AND_APPLIED) if state.slot == DUE_AND_QUEUED else after
            works: list[Work] = [(Action.COMMIT, self._next(me), after, broken)]
        else:
            after = with_run(state, me.run, run._replace(applied=True))
            works = [(Action.APPLY_ALONE, me._replace(at=WorkerAt.FINISH), after, broken)]
        if self._bounds.faults >= Faults.CRASHES:
            works.append((Action.ROLL_BACK, me._replace(at=WorkerAt.ERP), state, None))
        return works

    def _finish_alone(self, state: State, _: int, me: Worker) -> list[Work]:
        if not self._owns(state, me) or me.run == NO_RUN:
            return [self._agent_lost(state)]
        return [(Action.FINISH_ALONE, self._next(me), self._over(state, me.run), None)]

    # --- faults -------------------------------------------------------------------------------------------------------

    def _kill(self, state: State, number: int) -> State:
        """The worker's session, lock and open transaction are gone. Its claim stays, and RQ's hash of its job stays in Redis."""
        worker = state.workers[number]
        if worker.job in (0, 1) and self._bounds.job_hashes:
            left = HASH_AND_INTERMEDIATE if worker.at == WorkerAt.START else HASH
            state = with_leak(state, worker.job, left)
        return with_worker(state, number, IDLE)
