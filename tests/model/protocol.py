"""A model of archisync's protocol for one pair (sync type, agent): its parts, its promises, and every step that can happen.

`steps` says what may follow a state, and `explore` walks through all states. Two ticks and two workers take one step at a time, in any
order, and anything may crash between two steps. Each `Action` names the function or SQL constant that it stands for, so that model and
code can be read side by side; a test checks that they exist.

What the model leaves out, and why it still misses nothing:
* Time is four answers: has the slot come, has the lease expired, was the delivery long ago, is the delay after a failure over? Each may
  change at any moment. So a pause is no state of its own: a paused worker takes no step, its lease expires meanwhile, and its next
  step is its return.
* A fence only grows, so it is current or it is not. Which older fence, or which older run, a job or a worker knows matters to some mutants
  only, and is followed only there.
* A job id is `NAMED` (the id of the run's delivery, marked or not), `PUSHED` (the id of a run that is not committed yet, in a mutant) or
  neither. A job's hash outlives the list only after a crash; that is `leak`, followed only where a step looks for it. The code looks
  before it pushes a delivery that an earlier tick may have pushed, and does not push the job a second time.
* A tick locks a delivery, not its runs, so a run may leave a delivery that a tick is about to push or to mark. What the tick does
  afterwards no longer concerns the run; it could have pushed its job a moment earlier, or never. The model ends that tick.
* The queue's list is the set of kinds of jobs in it, so it has no bound: there may be many jobs of a kind, and any may be popped next. A
  popped job is in the intermediate list until it starts. No step leads back from there, as nothing in the code does.
* A statement that waits for a row lock can't happen yet; one that skips locked rows happens and passes them. SQL_INSERT_DUE is two steps,
  its snapshot and its writes: a forced run may be committed in between, and its `not exists` does not see that run.
* `held`, `skipped` and `failed` all end a run without data; the model has `failed`, when the attempts are used up. A skipped run gives its
  slot back: in the model the next slot comes right after the end, as it may after any step.
* A forced run that joins a queued one is delivered again each time; the code does that the first time only. The model has more deliveries,
  not fewer.

Wrong clocks and other sync types of the agent are left out. A PostgreSQL session that is cut while its worker is in the ERP is left out
unless `Bounds.sessions_cut_in_erp` asks for it (`test_a_cut_session_is_the_limit_of_the_agent_lock` says why).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, unique


class SlotMoved(StrEnum):
    WITH_INSERT = "in the statement that inserts the run"
    BEFORE_INSERT = "in a commit of its own before the insert"
    AFTER_PUSH = "in a commit of its own after the push"


class Proof(StrEnum):
    """How a tick knows that a delivery is still to come."""

    LIST = "the job is in the queue's list"
    HASH = "the job's hash exists"
    INTERMEDIATE = "the job is in the list or in the intermediate list"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The parts of the protocol. The defaults are what the code does; any other value is a mutant, which must be caught."""

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
    """False: a pair has one job id, and while that job's hash is in Redis it is not pushed again."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large the world is. `faults`: crashes, a Redis that loses everything, double deliveries, failing fetches and applies, and leases
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
    """The data of a run or of a slot is applied a second time, or by a worker that has lost the run."""
    OVERLAP = "overlapping"
    """Two workers are in the ERP for the agent, or the pair has two unfinished runs."""
    LOST = "lost"
    """A due slot or an unfinished run never ends unless a later slot comes."""
    BLOCKED = "blocked"
    """No run of the pair ever ends again unless a person helps."""
    LATE = "late"
    """A run waits to be delivered again although nothing broke."""


@unique
class Action(Enum):
    """Its kind, a sentence, and what it stands for in archisync (`module:name`)."""

    def __init__(self, kind: Kind, sentence: str, *mirrors: str) -> None:
        self.kind = kind
        self.sentence = sentence
        self.mirrors = mirrors
        self.comes_by_itself = kind in (Kind.TICK, Kind.WORKER, Kind.TIME)

    # fmt: off
    # a tick, in the order of tick.tick
    BEGIN = (Kind.TICK, "begins and finds no run to take back", "schedule.tick:tick", "store.claims:reap")
    REAP = (Kind.TICK, "takes the run back from its silent worker", "schedule.steps:take_back_silent_runs", "store.claims:SQL_REAP")
    SEE_DUE = (Kind.TICK, "sees that the pair is due", "schedule.queueing:queue_due", "store.queued_runs:SQL_INSERT_DUE")
    SEE_NOT_DUE = (Kind.TICK, "sees that the pair is not due", "schedule.queueing:queue_due", "store.queued_runs:SQL_INSERT_DUE")
    INSERT_DUE = (Kind.TICK, "locks the slot, moves it and inserts the run", "store.queued_runs:insert_due",
        "store.queued_runs:SQL_INSERT_DUE")
    NOT_DUE_ANY_MORE = (Kind.TICK, "finds the slot locked or moved", "store.queued_runs:SQL_INSERT_DUE")
    MOVE_SLOT = (Kind.TICK, "moves the slot in a commit of its own (mutant)")
    PUSH_UNCOMMITTED = (Kind.TICK, "pushes a run that is not committed yet (mutant)")
    COMMIT_PUSHED = (Kind.TICK, "commits the run that it has pushed (mutant)")
    SEE_LONG_AGO = (Kind.TICK, "sees a run that was delivered long ago", "schedule.deliver:deliver", "store.deliveries:SQL_LONG_DELIVERED")
    SEE_UNDELIVERED = (Kind.TICK, "sees an undelivered run", "schedule.deliver:deliver", "store.deliveries:SQL_ANY_UNDELIVERED")
    ASSIGN = (Kind.TICK, "puts the run into a delivery", "schedule.deliver:deliver", "store.deliveries:SQL_ASSIGN")
    ASSIGN_NOTHING = (Kind.TICK, "finds no run without a delivery", "store.deliveries:SQL_ASSIGN")
    SEE_NOTHING = (Kind.TICK, "sees nothing to deliver and ends", "schedule.deliver:deliver", "store.deliveries:SQL_ANY_UNDELIVERED")
    FIND_JOB = (Kind.TICK, "finds the job in Redis", "queue.joblist:missing_jobs")
    MISS_JOB = (Kind.TICK, "does not find the job in Redis", "queue.joblist:missing_jobs")
    MARK_UNDELIVERED = (Kind.TICK, "marks the run undelivered", "store.deliveries:SQL_MARK_UNDELIVERED")
    LOCK_UNDELIVERED = (Kind.TICK, "locks the run's delivery and reads its fence", "schedule.deliver:_push_next",
        "store.deliveries:SQL_LOCK_NEXT")
    LOCK_NOTHING = (Kind.TICK, "has nothing to push and ends", "schedule.deliver:_push_next", "store.deliveries:SQL_LOCK_NEXT")
    PUSH = (Kind.TICK, "pushes a job", "queue.push:push_delivery")
    PUSH_AGAIN = (Kind.TICK, "finds the job's hash and pushes nothing", "queue.push:_PUSH_SCRIPT")
    PUSH_NOTHING = (Kind.TICK, "pushes no job, because the pair's key exists (mutant)")
    MARK_DELIVERED = (Kind.TICK, "marks the delivery and commits", "store.deliveries:SQL_MARK_DELIVERED")
    # a worker, in the order of work.runner and sync.run
    POP = (Kind.WORKER, "moves a job to the intermediate list", "work.accepted:SyncQueue", "work.worker:SyncWorker")
    START = (Kind.WORKER, "starts the job", "work.worker:SyncWorker.main_work_horse", "work.job:sync")
    CLAIM = (Kind.WORKER, "claims the run", "work.runner:Runner.do", "store.claims:SQL_CLAIM")
    IGNORE = (Kind.WORKER, "can't claim and ends the job", "work.runner:Runner.do", "store.claims:claim")
    TRY_AGENT = (Kind.WORKER, "locks the agent and enters the ERP", "work.runner:Runner.do_claimed", "store.locks:SQL_TRY_AGENT")
    AGENT_LOCKED = (Kind.WORKER, "finds the agent locked", "store.locks:agent_lock")
    GIVE_BACK = (Kind.WORKER, "gives the run back without spending an attempt", "work.runner:Runner._give_back", "store.claims:SQL_REQUEUE")
    FETCH = (Kind.WORKER, "has the whole export", "sync.run:Sync._fetch")
    LOCK_FENCE = (Kind.WORKER, "locks the run's row under its fence", "sync.run:Sync._write", "store.claims:SQL_LOCK_FENCE")
    APPLY_AND_FINISH = (Kind.WORKER, "commits data and the run's end", "sync.run:Sync._finish", "sync.apply:write",
        "store.claims:SQL_FINISH", "store.applied_exports:SQL_STATE_SUCCEEDED", "store.claims:SQL_END_UNCHANGED")
    APPLY_ALONE = (Kind.WORKER, "commits the data alone (mutant)")
    FINISH_ALONE = (Kind.WORKER, "commits the run's end alone (mutant)")
    LEASE_LOST = (Kind.WORKER, "learns that the run is no longer its own", "store.claims:lock_fence", "base.errors:LeaseLostError")
    SESSION_GONE = (Kind.WORKER, "finds its session gone and ends the job", "sync.run:Sync.run")
    REQUEUE = (Kind.WORKER, "queues the run again for a later tick", "sync.endings:retry_later", "store.claims:SQL_REQUEUE")
    FINISH_FAILED = (Kind.WORKER, "ends the run as failed", "sync.endings:fail", "store.claims:SQL_FINISH", "store.claims:SQL_STATE_FAILED")
    FREE_AGENT = (Kind.WORKER, "frees the agent", "store.locks:SQL_FREE_AGENT")
    NEXT_OF_AGENT = (Kind.WORKER, "goes on with the agent's next run", "work.runner:Runner.do", "store.queued_runs:SQL_NEXT_OF_AGENT")
    END_JOB = (Kind.WORKER, "ends the job", "work.runner:AGENT_BOUND_S", "work.worker:STOP_AFTER_THIS_RUN")
    HEARTBEAT = (Kind.WORKER, "extends the lease", "work.heartbeat:Heartbeat.beating", "store.claims:SQL_HEARTBEAT")
    # the world
    SLOT_COMES = (Kind.SLOT, "the pair is due", "rules.due:decide")
    FORCE = (Kind.PERSON, "a forced run is queued, or joins", "store.queued_runs:SQL_FORCE", "store.queued_runs:SQL_JOIN")
    LEASE_EXPIRES = (Kind.TIME, "the lease expires", "rules.config:Config.lease_s")
    LONG_AGO = (Kind.TIME, "the delivery was long ago", "rules.config:Config.redeliver_after_s")
    DELAY_OVER = (Kind.TIME, "the delay after a failure is over", "sync.endings:retry_delay_s", "work.runner:LOCKED_DELAY_S")
    FETCH_FAILS = (Kind.FAULT, "fails for now", "base.errors:TransientSourceError")
    APPLY_FAILS = (Kind.FAULT, "has its data rolled back by the database", "sync.run:Sync.run")
    CRASH_TICK = (Kind.FAULT, "is killed")
    CRASH_WORKER = (Kind.FAULT, "is killed", "work.worker:die_with_parent")
    IDLE_IN_TRANSACTION = (Kind.FAULT, "is cut off in its transaction", "store.database:IDLE_IN_TRANSACTION_TIMEOUT_S")
    SESSION_CUT = (Kind.FAULT, "loses its PostgreSQL session in the ERP")
    FLUSH = (Kind.FAULT, "Redis loses everything")
    POP_TWICE = (Kind.FAULT, "gets a job that stands in the list a second time")
    # fmt: on
