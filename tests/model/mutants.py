"""The protocol with one part taken out or turned round, and the promise that breaks: why each part is there."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.protocol import Bounds, Proof, Property, Protocol, SlotMoved


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`bounds`: the smallest world in which it is caught."""

    name: str
    protocol: Protocol
    bounds: Bounds
    broken: Property


ALONE = Bounds(ticks=1, workers=1, forced=False)
TWO_WORKERS = Bounds(ticks=1, workers=2, forced=False)
FORCED = Bounds(ticks=1, workers=1)
NOTHING_BREAKS = Bounds(ticks=1, workers=1, forced=False, faults=False)

MUTANTS = (
    Mutant(
        name="no fence on finish",
        protocol=Protocol(finish_checks_fence=False),
        bounds=TWO_WORKERS,
        broken=Property.TWICE,
    ),
    Mutant(
        name="no fence bump on reap",
        protocol=Protocol(reap_moves_fence=False),
        bounds=TWO_WORKERS,
        broken=Property.TWICE,
    ),
    Mutant(
        name="no compare-and-set on claim",
        protocol=Protocol(claim_compares_and_sets=False),
        bounds=ALONE,
        broken=Property.TWICE,
    ),
    Mutant(
        name="apply and finish in two transactions",
        protocol=Protocol(apply_and_finish_at_once=False),
        bounds=ALONE,
        broken=Property.TWICE,
    ),
    Mutant(
        name="slot moved after the push",
        protocol=Protocol(slot_moved=SlotMoved.AFTER_PUSH),
        bounds=ALONE,
        broken=Property.TWICE,
    ),
    Mutant(
        name="no unique index over unfinished runs",
        protocol=Protocol(one_unfinished_a_pair=False),
        bounds=FORCED,
        broken=Property.OVERLAP,
    ),
    Mutant(
        name="no agent lock",
        protocol=Protocol(agent_lock=False),
        bounds=TWO_WORKERS,
        broken=Property.OVERLAP,
    ),
    Mutant(
        name="slot moved before the insert",
        protocol=Protocol(slot_moved=SlotMoved.BEFORE_INSERT),
        bounds=ALONE,
        broken=Property.LOST,
    ),
    Mutant(
        name="no reaper",
        protocol=Protocol(reaper=False),
        bounds=ALONE,
        broken=Property.BLOCKED,
    ),
    Mutant(
        name="no redelivery",
        protocol=Protocol(redelivery=False),
        bounds=ALONE,
        broken=Property.BLOCKED,
    ),
    Mutant(
        name="redelivery trusts the job hash",
        protocol=Protocol(redelivery_proof=Proof.HASH),
        bounds=ALONE,
        broken=Property.BLOCKED,
    ),
    Mutant(
        name="redelivery trusts the intermediate list",
        protocol=Protocol(redelivery_proof=Proof.INTERMEDIATE),
        bounds=ALONE,
        broken=Property.BLOCKED,
    ),
    Mutant(
        name="unique key in Redis alone",
        protocol=Protocol(fresh_job_ids=False),
        bounds=ALONE,
        broken=Property.BLOCKED,
    ),
    # Redelivery mends this one in the end: what it breaks is the time.
    Mutant(
        name="push before commit",
        protocol=Protocol(commit_before_push=False),
        bounds=NOTHING_BREAKS,
        broken=Property.LATE,
    ),
)
