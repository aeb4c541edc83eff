"""Mutants: the protocol with one part removed or reversed, and the promise that breaks. They show what each part is for."""

from __future__ import annotations

from typing import NamedTuple

from tests.model.protocol import Bounds, Charged, Faults, Proof, Property, Protocol, SlotMoved, Undelivered


class Mutant(NamedTuple):
    """`bounds`: the smallest world in which the mutant is caught. `tolerated`: what breaks there without the mutant as well."""

    name: str
    protocol: Protocol
    bounds: Bounds
    broken: Property
    tolerated: frozenset[Property] = frozenset()


TWICE, OVERLAP, CHARGED, FORCED, LATE, LOST, BLOCKED = Property
# Worlds with one type, for slots and job ids.
ONE_PAIR = Bounds(types=1, ticks=1, workers=1, people=False, slots=True, job_hashes=True)
ONE_PAIR_FORCED = Bounds(types=1, ticks=1, workers=1, slots=True, job_hashes=True)
ONE_PAIR_UNBROKEN = Bounds(
    types=1, ticks=1, workers=1, people=False, slots=True, job_hashes=True, faults=Faults.NOTHING
)
ONE_TYPE_TWO_WORKERS = Bounds(types=1, ticks=1, people=False, faults=Faults.CRASHES)
ONE_TYPE_WITHOUT_LOCKS = Bounds(types=1, ticks=1, people=False, faults=Faults.CRASHES, locks_hold=False)
# Worlds with two types, for the claim.
ALONE = Bounds(ticks=1, workers=1, people=False, faults=Faults.CRASHES)
ALONE_WITH_LOSSES = Bounds(ticks=1, workers=1, people=False)
ALONE_WITH_PEOPLE = Bounds(ticks=1, workers=1, faults=Faults.CRASHES)
PEOPLE = Bounds(ticks=1, workers=1, faults=Faults.NOTHING)
TWO_WORKERS = Bounds(ticks=1, people=False, faults=Faults.CRASHES)
TWO_WORKERS_UNBROKEN = Bounds(ticks=1, people=False, faults=Faults.NOTHING)
TWO_WORKERS_AND_PEOPLE = Bounds(ticks=1, faults=Faults.NOTHING)

MUTANTS = (
    # slots and deliveries
    Mutant("slot moved after the push", Protocol(slot_moved=SlotMoved.AFTER_PUSH), ONE_PAIR, TWICE),
    Mutant("slot moved before the insert", Protocol(slot_moved=SlotMoved.BEFORE_INSERT), ONE_PAIR, LOST),
    Mutant("no unique index over queued runs", Protocol(one_unfinished_a_pair=False), ONE_PAIR_FORCED, OVERLAP),
    Mutant("an end leaves its pair unfinished", Protocol(end_frees_the_pair=False), ALONE_WITH_LOSSES, BLOCKED),
    # Redelivery repairs the next three in the end; they only cost time.
    Mutant("push before commit", Protocol(commit_before_push=False), ONE_PAIR_UNBROKEN, LATE),
    Mutant("mark before push", Protocol(mark_after_push=False), ALONE, LATE),
    Mutant("runs join an old delivery", Protocol(fresh_deliveries=False), PEOPLE, LATE),
    Mutant("unique key in Redis alone", Protocol(fresh_job_ids=False), ONE_PAIR, BLOCKED),
    Mutant("no redelivery", Protocol(redelivery=False), ALONE_WITH_LOSSES, BLOCKED),
    Mutant("redelivery trusts the job hash", Protocol(redelivery_proof=Proof.HASH), ONE_PAIR, BLOCKED),
    Mutant("redelivery trusts the intermediate list", Protocol(redelivery_proof=Proof.INTERMEDIATE), ONE_PAIR, BLOCKED),
    # the claim
    Mutant("a claim takes over an open one", Protocol(one_claim_an_agent=False), ALONE_WITH_LOSSES, CHARGED),
    Mutant("no agent lock", Protocol(agent_lock=False), ONE_TYPE_TWO_WORKERS, OVERLAP),
    Mutant("a lock without a claim is kept", Protocol(unclaimed_is_unlocked=False), ONE_TYPE_TWO_WORKERS, BLOCKED),
    Mutant("no fence", Protocol(fence=False), ONE_TYPE_TWO_WORKERS, TWICE),
    Mutant(
        "a fence without a number",
        Protocol(fence_has_a_number=False),
        ONE_TYPE_WITHOUT_LOCKS,
        TWICE,
        frozenset({OVERLAP}),
    ),
    Mutant("begin does not name the run", Protocol(begin_names_the_run=False), ALONE, CHARGED),
    Mutant("begin does not read the run again", Protocol(begin_reads_the_run=False), PEOPLE, FORCED),
    # ends
    Mutant("apply and finish in two transactions", Protocol(apply_and_finish_at_once=False), ALONE, TWICE),
    Mutant("an end does not compare the trigger", Protocol(end_compares_the_trigger=False), PEOPLE, FORCED),
    Mutant(
        "an end unnames a run that goes on",
        Protocol(end_unnames_only_what_ended=False),
        ALONE_WITH_PEOPLE,
        CHARGED,
    ),
    Mutant("a retry stays in its delivery", Protocol(requeue_undelivers=False), ALONE, LATE),
    Mutant("a cancelled run leaves the claim", Protocol(lost_run_releases=False), PEOPLE, LATE),
    # the claim's end
    Mutant("release first, then end", Protocol(end_before_release=False), TWO_WORKERS_UNBROKEN, TWICE),
    Mutant("no look after the release", Protocol(look_after_release=False), TWO_WORKERS_UNBROKEN, LATE),
    Mutant("a stop leaves runs delivered", Protocol(stop_undelivers=Undelivered.NEVER), PEOPLE, LATE),
    Mutant(
        "a stop undelivers in the statement that releases",
        Protocol(stop_undelivers=Undelivered.WITH_RELEASE),
        TWO_WORKERS_AND_PEOPLE,
        LATE,
    ),
    Mutant(
        "a stop without the claim keeps the lock",
        Protocol(stop_always_unlocks=False),
        ALONE_WITH_PEOPLE,
        BLOCKED,
    ),
    Mutant("an interrupt leaves runs delivered", Protocol(give_back_undelivers=False), PEOPLE, LATE),
    Mutant("put off although a worker has the agent", Protocol(put_off_spares_claims=False), TWO_WORKERS, LATE),
    Mutant("put off but left delivered", Protocol(put_off_undelivers=False), ONE_TYPE_TWO_WORKERS, LATE),
    Mutant("no reaper", Protocol(reaper=False), ALONE_WITH_LOSSES, BLOCKED),
    Mutant("reap charges all runs", Protocol(reap_charges=Charged.ALL), ALONE, CHARGED),
    Mutant("reap charges nobody", Protocol(reap_charges=Charged.NONE), ALONE, CHARGED),
    Mutant("reap leaves runs delivered", Protocol(reap_undelivers=False), ALONE, LATE),
)
