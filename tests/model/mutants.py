"""Mutants: the protocol with one part removed or reversed, and the promise that breaks. They show what each part is for."""

from __future__ import annotations

from typing import NamedTuple

from tests.model.protocol import Bounds, Proof, Property, Protocol, SlotMoved


class Mutant(NamedTuple):
    """`bounds`: the smallest world in which the mutant is caught."""

    name: str
    protocol: Protocol
    bounds: Bounds
    broken: Property


ALONE = Bounds(ticks=1, workers=1, forced=False)
TWO_WORKERS = Bounds(ticks=1, workers=2, forced=False)
FORCED = Bounds(ticks=1, workers=1)
NOTHING_BREAKS = Bounds(ticks=1, workers=1, forced=False, faults=False)
TWICE, OVERLAP, LOST, BLOCKED, LATE = Property

MUTANTS = (
    Mutant("no fence on finish", Protocol(finish_checks_fence=False), TWO_WORKERS, TWICE),
    Mutant("no fence bump on reap", Protocol(reap_moves_fence=False), TWO_WORKERS, TWICE),
    Mutant("no compare-and-set on claim", Protocol(claim_compares_and_sets=False), ALONE, TWICE),
    Mutant("apply and finish in two transactions", Protocol(apply_and_finish_at_once=False), ALONE, TWICE),
    Mutant("slot moved after the push", Protocol(slot_moved=SlotMoved.AFTER_PUSH), ALONE, TWICE),
    Mutant("no unique index over unfinished runs", Protocol(one_unfinished_a_pair=False), FORCED, OVERLAP),
    Mutant("no agent lock", Protocol(agent_lock=False), TWO_WORKERS, OVERLAP),
    Mutant("slot moved before the insert", Protocol(slot_moved=SlotMoved.BEFORE_INSERT), ALONE, LOST),
    Mutant("no reaper", Protocol(reaper=False), ALONE, BLOCKED),
    Mutant("no redelivery", Protocol(redelivery=False), ALONE, BLOCKED),
    Mutant("redelivery trusts the job hash", Protocol(redelivery_proof=Proof.HASH), ALONE, BLOCKED),
    Mutant("redelivery trusts the intermediate list", Protocol(redelivery_proof=Proof.INTERMEDIATE), ALONE, BLOCKED),
    Mutant("unique key in Redis alone", Protocol(fresh_job_ids=False), ALONE, BLOCKED),
    # Redelivery repairs this one in the end; it only costs time.
    Mutant("push before commit", Protocol(commit_before_push=False), NOTHING_BREAKS, LATE),
)
