"""The protocol keeps its promises in every order of steps and faults, and it needs each of its parts to do so.

`pytest -s` shows how many states each world has.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from functools import reduce
from time import monotonic

import pytest

from archisync.store import applied_exports, claims, clock, deliveries, history, locks, migrations, queued_runs
from tests.model.explore import Exploration, explore
from tests.model.mutants import MUTANTS, Mutant
from tests.model.protocol import Action, Bounds, Kind, Property, Protocol
from tests.model.steps import Model

WHOLE_WORLD = Bounds()
LEAST_STATES = 500_000
LONGEST_TRACE = 25
MUTANTS_WORLDS = tuple(dict.fromkeys(mutant.bounds for mutant in MUTANTS))


def explored(
    name: str, protocol: Protocol, bounds: Bounds, *, tolerated: frozenset[Property] = frozenset()
) -> Exploration:
    started = monotonic()
    found = explore(Model(protocol, bounds), tolerated=tolerated)
    print(f"\n{name}: {found.states} states, {found.transitions} steps, {monotonic() - started:.1f} s")
    return found


@pytest.mark.slow
def test_the_protocol_breaks_nothing_in_the_whole_world() -> None:
    """Two ticks, two workers, every fault: 677,588 states and 7.2 million steps."""
    found = explored("the whole world", Protocol(), WHOLE_WORLD)

    assert found.violation is None, str(found.violation)
    assert found.states >= LEAST_STATES


def test_no_run_waits_to_be_delivered_again_while_nothing_breaks() -> None:
    found = explored("a world without faults", Protocol(), Bounds(faults=False))

    assert found.violation is None, str(found.violation)
    assert found.states > 10_000


def test_a_third_attempt_changes_nothing() -> None:
    found = explored("three attempts", Protocol(), Bounds(ticks=1, forced=False, attempts=3))

    assert found.violation is None, str(found.violation)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_its_promise(mutant: Mutant) -> None:
    found = explored(mutant.name, mutant.protocol, mutant.bounds)

    assert found.violation is not None
    print(found.violation)
    assert found.violation.broken is mutant.broken
    assert len(found.violation.trace) <= LONGEST_TRACE


@pytest.mark.parametrize("bounds", MUTANTS_WORLDS, ids=str)
def test_the_protocol_breaks_nothing_in_the_worlds_of_the_mutants(bounds: Bounds) -> None:
    assert explored("the protocol", Protocol(), bounds).violation is None


def test_every_part_of_the_protocol_has_a_mutant() -> None:
    whole = Protocol()
    parts = {part.name for part in dataclasses.fields(Protocol)}

    turned = [{part for part in parts if getattr(mutant.protocol, part) != getattr(whole, part)} for mutant in MUTANTS]

    assert all(len(changed) == 1 for changed in turned)
    assert set().union(*turned) == parts
    assert {mutant.broken for mutant in MUTANTS} == set(Property)


def test_redelivery_repairs_a_push_before_the_commit() -> None:
    """So `late` is a property of its own: this mutant loses no run, but may delay each by minutes."""
    found = explored("push before commit", Protocol(commit_before_push=False), Bounds(ticks=1, workers=1))

    assert found.violation is None


def test_a_cut_session_is_the_limit_of_the_agent_lock() -> None:
    """A worker that stands still in the ERP for longer than its lease, and whose PostgreSQL session ends meanwhile, can't know that
    another one may enter: the lock ended with the session. Its data is refused, and nothing is lost or stuck."""
    bounds = Bounds(ticks=1, forced=False, sessions_cut_in_erp=True)

    limit = explored("sessions are cut", Protocol(), bounds)
    rest = explored("sessions are cut, overlaps tolerated", Protocol(), bounds, tolerated=frozenset({Property.OVERLAP}))

    assert limit.violation is not None
    assert limit.violation.broken is Property.OVERLAP
    assert f"worker A {Action.SESSION_CUT.sentence}" in limit.violation.trace
    assert Action.LEASE_EXPIRES.sentence in limit.violation.trace
    assert rest.violation is None, str(rest.violation)


def test_a_trace_names_the_same_tick_from_beginning_to_end() -> None:
    found = explore(Model(Protocol(one_unfinished_a_pair=False), Bounds(ticks=1, workers=1)))

    assert str(found.violation).splitlines() == [
        "overlapping after 5 steps:",
        "  tick A begins and finds no run to take back",
        "  the pair is due",
        "  tick A sees that the pair is due",
        "  a forced run is queued, or joins",
        "  tick A locks the slot, moves it and inserts the run",
    ]


# --- the model and the code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", sorted({mirror for action in Action for mirror in action.mirrors}))
def test_the_code_has_what_an_action_stands_for(mirror: str) -> None:
    module, _, name = mirror.partition(":")

    found = reduce(getattr, name.split("."), importlib.import_module(f"archisync.{module}"))

    assert found is not None


def test_every_step_stands_for_something_in_the_code() -> None:
    without = {action.name for action in Action if not action.mirrors and "(mutant)" not in action.sentence}

    assert without == {"CRASH_TICK", "FLUSH", "POP_TWICE", "SESSION_CUT"}
    assert all(action.kind is Kind.FAULT for action in Action if action.name in without)


def test_every_statement_of_ticks_and_workers_is_a_step() -> None:
    """A new statement that changes a run or a slot needs a step in the model."""
    changing = {
        name
        for module in (claims, deliveries, queued_runs, applied_exports, history, clock)
        for name, text in vars(module).items()
        if name.startswith("SQL_")
        and re.search(r"\b(update|insert into|delete from) system\.(sync_runs|sync_state|deliveries)\b", text)
    }
    mirrored = {mirror.partition(":")[2] for action in Action for mirror in action.mirrors}

    beside_the_protocol = {
        "SQL_MEND",  # clocks
        "SQL_PRUNE",  # history
        "SQL_FORGET",  # deliveries that have served, and data that was cleared
        "SQL_STATE_HELD",
        "SQL_STATE_SKIPPED",  # the run ends, and its slot comes once more: two steps of the model
    }
    assert changing - mirrored == beside_the_protocol


SCHEMA = " ".join(migration.sql for migration in migrations.migrations())
ONE_UNFINISHED = (
    "unique index sync_runs_one_unfinished_a_pair on system.sync_runs (agent_id, sync_type)"
    " where state in ('queued', 'running')"
)


@pytest.mark.parametrize(
    ("text", "relied_on"),
    [
        pytest.param(
            claims.SQL_LOCK_FENCE, "fence = %(fence)s and state = 'running' for update", id="apply checks the fence"
        ),
        pytest.param(claims.SQL_FINISH, "fence = %(fence)s and state = 'running'", id="finish checks the fence"),
        pytest.param(claims.SQL_REQUEUE, "fence = %(fence)s and state = 'running'", id="requeue checks the fence"),
        pytest.param(claims.SQL_REQUEUE, "fence = fence + 1", id="requeue moves the fence"),
        pytest.param(claims.SQL_REAP, "fence = fence + 1", id="reap moves the fence"),
        pytest.param(claims.SQL_REAP, "for update skip locked", id="reap passes by a run that is applied"),
        pytest.param(claims.SQL_CLAIM, "r.fence = %(fence)s and r.state = 'queued'", id="claim compares and sets"),
        pytest.param(claims.SQL_HEARTBEAT, "fence = %(fence)s and state = 'running'", id="heartbeat checks the fence"),
        pytest.param(deliveries.SQL_LOCK_NEXT, "for update skip locked", id="ticks don't push the same run"),
        pytest.param(
            deliveries.SQL_MARK_UNDELIVERED,
            "r.delivery_id = d.delivery_id and r.state = 'queued'",
            id="only the lost job is pushed again",
        ),
        pytest.param(queued_runs.SQL_INSERT_DUE, "for update of p skip locked", id="ticks don't move the same slot"),
        pytest.param(
            queued_runs.SQL_INSERT_DUE,
            "where state in ('queued', 'running') do nothing",
            id="insert respects the index",
        ),
        pytest.param(SCHEMA, ONE_UNFINISHED, id="one unfinished run a pair"),
        pytest.param(locks.SQL_TRY_AGENT, "pg_try_advisory_lock(", id="agent lock"),
    ],
)
def test_a_statement_has_the_condition_that_the_model_relies_on(text: str, relied_on: str) -> None:
    assert relied_on in " ".join(text.split())
