"""A model of archisync's protocol for one agent: its parts, its promises, and every step that can happen.

`steps` and `workers` say what may follow a state, and `explore` walks through all states. The agent has one or two sync types, and the last
one may also be forced. Two ticks and two workers take one step at a time, in any order, and anything may crash between two steps. Each
`Action` names the functions and SQL constants that it stands for, so that model and code can be read side by side; a test checks that they
exist. A statement is one step, unless what it does depends on rows that it does not lock.

What the model leaves out, and why it still misses nothing:
* Time is a few answers: has the slot come, is the lease over, was the delivery long ago, is a delay over? Where faults are allowed, a lease
  may be over and a delivery may be old at any moment. So a pause is no state of its own: a paused worker takes no step, its agent is taken
  away meanwhile, and its next step is its return. The heartbeat only makes that rarer.
* A tick takes its steps in any order, which is more than the code does. A due run is queued in one step and put into a delivery in
  another; SQL_INSERT_DUE does both at once.
* "Running" is no state of a run: a run is in the queue or over, and the claim of its agent names the one that is being done.
* A fence is the number of the newest claim of the agent or it is not. What a worker still knows of an agent that was taken away can have no
  effect, and is followed only in the mutants in which it has one.
* A delivery without runs is forgotten, and so is whoever is about to push it, mark it, or take its job: they would do nothing. At most two
  deliveries have runs, one for each type. The ids of runs that are over are forgotten by workers too, since a statement finds no such run.
* A job's hash is in Redis while its job waits in the list and until the worker that took the job has ended it, or for longer after a crash
  (`leaks`). It is followed with `Bounds.job_hashes` only; without, a tick that pushes a delivery again pushes its job again.
* A run that is held, skipped or failed for good ends without data. In the model a run does so when its attempts are used up.
* A person may cancel one run, waiting or being done; whoever takes an agent off the whitelist cancels all of them but the one being done.
* SQL_REAP, SQL_GIVE_BACK and SQL_PUT_OFF are one step each. A run that is committed while one of them is executed may be left in a
  delivery whose job has already come in vain, or be claimed and put off: redelivery repairs that, or the delay ends.
* SQL_BREAK_OFF, by which a worker says what stopped it, is a reap of a worker that then ends: both may happen at any moment.
* `archisync clear` locks the agent without claiming it, as a worker does that has lost the agent and does not know yet.

Wrong clocks are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum, unique


class SlotMoved(StrEnum):
    WITH_INSERT = "in the statement that inserts the run"
    BEFORE_INSERT = "in a commit of its own before the insert"
    AFTER_PUSH = "in a commit of its own after the push"


class Proof(StrEnum):
    """How a tick knows that a job is still to come."""

    LIST = "the job is in the queue's list"
    HASH = "the job's hash exists"
    INTERMEDIATE = "the job is in the list or in the intermediate list"


class Charged(StrEnum):
    """Which runs have spent an attempt when an agent is taken away from its worker."""

    THE_NAMED_ONE = "the run that the claim names; before it names one, the first that is ready"
    ALL = "all runs of the agent"
    NONE = "no run"


class Undelivered(StrEnum):
    """When a worker that stops early lets the agent's runs leave their deliveries."""

    AFTER_RELEASE = "in a statement after the commit that ends the claim"
    WITH_RELEASE = "in the statement that ends the claim"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The parts of the protocol. The defaults are the design; any other value is a mutant, which must be caught."""

    # slots and deliveries
    slot_moved: SlotMoved = SlotMoved.WITH_INSERT
    one_unfinished_a_pair: bool = True
    end_frees_the_pair: bool = True
    """A run that ends clears its pair's `unfinished_run_id`."""
    commit_before_push: bool = True
    mark_after_push: bool = True
    fresh_deliveries: bool = True
    """False: runs without a delivery go into the last one, which may have been pushed."""
    fresh_job_ids: bool = True
    """False: a pair has one job id, and while that job's hash is in Redis it is not pushed again."""
    redelivery: bool = True
    redelivery_proof: Proof = Proof.LIST
    # the claim
    one_claim_an_agent: bool = True
    agent_lock: bool = True
    unclaimed_is_unlocked: bool = True
    """A worker that got the lock but no claim frees the agent: its statement had looked before a worker claimed that died at once."""
    fence: bool = True
    """False: a worker writes without asking whether the agent is still its own."""
    fence_has_a_number: bool = True
    """False: it asks whether the agent has a claim, which may be another worker's."""
    begin_names_the_run: bool = True
    begin_reads_the_run: bool = True
    # ends
    apply_and_finish_at_once: bool = True
    end_compares_the_trigger: bool = True
    end_unnames_only_what_ended: bool = True
    requeue_undelivers: bool = True
    lost_run_releases: bool = True
    """A worker whose run was cancelled lets the agent go. False: it takes the agent for lost, and ends its job."""
    # the claim's end
    end_before_release: bool = True
    look_after_release: bool = True
    stop_undelivers: Undelivered = Undelivered.AFTER_RELEASE
    stop_always_unlocks: bool = True
    """False: a worker that stops unlocks the agent only if it still has the claim."""
    give_back_undelivers: bool = True
    put_off_spares_claims: bool = True
    put_off_undelivers: bool = True
    reaper: bool = True
    reap_charges: Charged = Charged.THE_NAMED_ONE
    reap_undelivers: bool = True


class Faults(IntEnum):
    NOTHING = 0
    CRASHES = 1
    """Ticks and claimed workers die, fetches and applies fail, leases end too early. No job is lost."""
    LOSSES = 2
    """Redis loses everything, or delivers a job twice; workers die with a job that they have not claimed yet."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large the world is. `people` force and cancel runs, stop and interrupt workers. `slots`: a slot comes now and then;
    without, each pair that has no run is due. `locks_hold`: False if PostgreSQL sessions may lose their locks unnoticed."""

    types: int = 2
    ticks: int = 2
    workers: int = 2
    attempts: int = 2
    people: bool = True
    slots: bool = False
    job_hashes: bool = False
    faults: Faults = Faults.LOSSES
    locks_hold: bool = True


class Kind(StrEnum):
    TICK = "a tick takes a step"
    WORKER = "a worker takes a step"
    TIME = "time passes"
    SLOT = "the next slot comes"
    PERSON = "a person does something"
    FAULT = "something breaks"


class Property(StrEnum):
    TWICE = "applied twice"
    """The data of a run or of a slot is applied a second time, or a run is ended by a worker that has lost the agent."""
    OVERLAP = "overlapping"
    """Two workers are in the ERP for the agent, or a pair has two unfinished runs."""
    CHARGED = "wrongly charged"
    """A worker fell silent, and not exactly the run that it was doing has spent an attempt."""
    FORCED = "not compared"
    """A run that was forced before it began ends without the comparison that the person wanted."""
    LATE = "late"
    """A run waits for a redelivery or for the end of a lease though nothing happened that calls for it, or for a delay though a worker has
    the agent."""
    LOST = "lost"
    """A due slot or an unfinished run never ends unless a later slot comes."""
    BLOCKED = "blocked"
    """No run of the agent ever ends again unless a person helps, or a worker that has ended its job still holds the agent."""


@unique
class Action(Enum):
    """Its kind, a sentence, and what it stands for in archisync (`module:name`)."""

    def __init__(self, kind: Kind, sentence: str, *mirrors: str) -> None:
        self.kind = kind
        self.sentence = sentence
        self.mirrors = mirrors
        self.comes_by_itself = kind in (Kind.TICK, Kind.WORKER, Kind.TIME)

    # fmt: off
    # ticks
    REAP = (Kind.TICK, "takes the agent back from its silent worker", "schedule.steps:take_back_silent_runs", "store.claims:SQL_REAP",
        "store.claims:SQL_BREAK_OFF")
    INSERT_DUE = (Kind.TICK, "locks the slot, moves it and queues the run", "schedule.queueing:queue_due",
        "store.queued_runs:SQL_INSERT_DUE")
    MOVE_SLOT = (Kind.TICK, "moves the slot in a commit of its own (mutant)")
    PUSH_UNCOMMITTED = (Kind.TICK, "pushes a run that is not committed yet (mutant)")
    COMMIT_PUSHED = (Kind.TICK, "commits the run that it has pushed (mutant)")
    ASSIGN = (Kind.TICK, "puts runs into a delivery", "schedule.deliver:deliver", "store.deliveries:SQL_ASSIGN")
    LOCK_DELIVERY = (Kind.TICK, "locks a delivery that is not marked", "schedule.deliver:_push_next",
        "store.deliveries:SQL_ANY_UNDELIVERED", "store.deliveries:SQL_LOCK_NEXT")
    PUSH = (Kind.TICK, "pushes the agent's job", "queue.push:push_delivery")
    PUSH_AGAIN = (Kind.TICK, "finds the job's hash and pushes nothing", "queue.push:_PUSH_SCRIPT")
    MARK_DELIVERED = (Kind.TICK, "marks the delivery and commits", "store.deliveries:SQL_MARK_DELIVERED")
    MISS_JOB = (Kind.TICK, "does not find the job of an old delivery", "store.deliveries:SQL_LONG_DELIVERED", "queue.joblist:missing_jobs",
        "rules.config:Config.redeliver_after_s")
    MARK_UNDELIVERED = (Kind.TICK, "takes the runs out of that delivery", "store.deliveries:SQL_MARK_UNDELIVERED")
    # a worker, in the order of work.runner
    POP = (Kind.WORKER, "takes the job", "work.worker:SyncWorker", "work.accepted:SyncQueue.popped")
    START = (Kind.WORKER, "starts the job", "work.worker:SyncWorker.main_work_horse", "work.job:sync")
    CLAIM = (Kind.WORKER, "claims the agent and surveys its runs", "work.runner:Runner.do", "store.claims:SQL_CLAIM", "sync.survey:survey")
    IGNORE = (Kind.WORKER, "finds nothing to claim and ends the job", "store.claims:claim_job")
    LOCKED = (Kind.WORKER, "finds the agent locked, or locks it but can't claim it", "store.claims:Locked")
    UNLOCK = (Kind.WORKER, "locked an agent that is claimed, and unlocks it", "store.locks:unlock_agent")
    PUT_OFF = (Kind.WORKER, "lets the runs wait", "work.runner:Runner._put_off", "store.claims:SQL_PUT_OFF")
    END_UNCHANGED = (Kind.WORKER, "ends the runs that are unchanged", "work.runner:Runner._do_claim", "store.endings:SQL_END_UNCHANGED")
    END_AND_RELEASE = (Kind.WORKER, "ends what is unchanged and lets the agent go", "work.runner:Runner._do_claim",
        "store.endings:SQL_END_UNCHANGED")
    END_RELEASED = (Kind.WORKER, "ends runs after it has let the agent go (mutant)")
    BEGIN = (Kind.WORKER, "begins a run and enters the ERP", "work.runner:Runner._do_run", "store.claims:SQL_BEGIN", "sync.run:Sync._fetch")
    END_FETCHED = (Kind.WORKER, "ends its run, whose export is unchanged", "sync.run:Sync._end_unchanged")
    COMPARE_AFTER_ALL = (Kind.WORKER, "learns that its run was forced meanwhile", "sync.run:Sync._end_unchanged")
    WRITE = (Kind.WORKER, "writes the data and locks its claim", "sync.run:Sync._apply", "store.endings:SQL_FINISH_APPLIED")
    COMMIT = (Kind.WORKER, "commits data and the run's end", "store.endings:finish_applied")
    APPLY_ALONE = (Kind.WORKER, "commits the data alone (mutant)")
    FINISH_ALONE = (Kind.WORKER, "commits the run's end alone (mutant)")
    AGENT_LOST = (Kind.WORKER, "learns that the agent was taken away", "store.claims:lost", "base.errors:LeaseLostError",
        "store.locks:SQL_FREE_AGENT")
    RUN_LOST = (Kind.WORKER, "learns that its run was cancelled", "store.endings:finish_applied", "store.claims:requeue")
    RELEASE = (Kind.WORKER, "lets the agent go", "store.claims:SQL_RELEASE")
    UNDELIVER = (Kind.WORKER, "lets the rest be delivered anew", "store.claims:SQL_UNDELIVER")
    LOOK = (Kind.WORKER, "looks for runs again and claims the agent", "work.runner:Runner.do", "store.claims:SQL_CLAIM_AGENT")
    LOOK_IN_VAIN = (Kind.WORKER, "looks again and ends the job", "store.claims:claim_agent")
    # the world
    SLOT_COMES = (Kind.SLOT, "the pair is due", "rules.due:decide")
    QUEUED_AS_DUE = (Kind.SLOT, "a due run is queued", "store.queued_runs:insert_due")
    DELAY_OVER = (Kind.TIME, "a delay is over", "sync.endings:retry_delay_s", "work.runner:LOCKED_DELAY_S")
    FORCE = (Kind.PERSON, "somebody forces a run", "store.queued_runs:SQL_FORCE")
    FORCE_BEHIND = (Kind.PERSON, "somebody forces a run behind one that is being done", "store.queued_runs:SQL_FORCE")
    JOIN = (Kind.PERSON, "somebody forces a run that is queued", "store.queued_runs:SQL_FORCE")
    CANCEL = (Kind.PERSON, "somebody cancels a run", "store.interventions:SQL_CANCEL", "store.agents:SQL_WHITELIST")
    RUN_INLINE = (Kind.PERSON, "is called to do a forced run", "work.inline:run_inline", "work.runner:Runner.do_forced")
    INTERRUPT = (Kind.PERSON, "is interrupted and gives the agent back", "work.inline:Inline", "store.claims:SQL_GIVE_BACK")
    STOP = (Kind.PERSON, "stops before its next run", "work.runner:Runner._time_is_up", "work.worker:STOP_AFTER_THIS_RUN")
    REQUEUE = (Kind.FAULT, "fails and queues the run again", "base.errors:TransientSourceError", "sync.endings:retry_later",
        "store.claims:SQL_REQUEUE")
    FAIL = (Kind.FAULT, "fails and ends the run as failed", "sync.endings:fail", "store.endings:SQL_FINISH")
    ROLL_BACK = (Kind.FAULT, "has its data rolled back by the database", "sync.run:Sync.run")
    KILL_TICK = (Kind.FAULT, "is killed")
    KILL_WORKER = (Kind.FAULT, "is killed", "work.worker:die_with_parent", "store.session:IDLE_IN_TRANSACTION_TIMEOUT_S",
        "store.database:SQL_END_WHEN_SILENT")
    FLUSH = (Kind.FAULT, "Redis loses everything")
    POP_TWICE = (Kind.FAULT, "takes a job that stands in the list a second time")
    # fmt: on
