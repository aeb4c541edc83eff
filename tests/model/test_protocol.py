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

from archisync.store import applied_exports, claims, clock, deliveries, endings, history, migrations, queued_runs
from tests.model.explore import Exploration, explore
from tests.model.mutants import MUTANTS, Mutant
from tests.model.protocol import Action, Bounds, Faults, Kind, Property, Protocol, Undelivered
from tests.model.steps import Model

LONGEST_TRACE = 25
MUTANTS_WORLDS = {(mutant.bounds, mutant.tolerated): mutant.name for mutant in MUTANTS}


def explored(
    name: str, protocol: Protocol, bounds: Bounds, *, tolerated: frozenset[Property] = frozenset()
) -> Exploration:
    started = monotonic()
    found = explore(Model(protocol, bounds), tolerated=tolerated)
    print(f"\n{name}: {found.states} states, {found.transitions} steps, {monotonic() - started:.1f} s")
    return found


@pytest.mark.soak
@pytest.mark.parametrize(
    ("bounds", "least_states"),
    [
        pytest.param(Bounds(), 200_000, id="all faults"),
        pytest.param(Bounds(faults=Faults.CRASHES), 150_000, id="no job is lost, so nothing is late"),
        pytest.param(Bounds(types=1, slots=True, job_hashes=True), 50_000, id="one type, its slots and job ids"),
    ],
)
def test_the_protocol_breaks_nothing_in_the_whole_world(bounds: Bounds, least_states: int) -> None:
    """Two ticks, two workers, people."""
    found = explored("the whole world", Protocol(), bounds)

    assert found.violation is None, str(found.violation)
    assert found.states >= least_states


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "least_states"),
    [
        pytest.param(Bounds(ticks=1, people=False), 50_000, id="two workers"),
        pytest.param(Bounds(workers=1), 40_000, id="two ticks, people", marks=pytest.mark.soak),
        pytest.param(Bounds(faults=Faults.NOTHING), 10_000, id="two ticks, two workers, people, no faults"),
        pytest.param(
            Bounds(types=1, people=False, slots=True, job_hashes=True), 10_000, id="one type, its slots and job ids"
        ),
        pytest.param(Bounds(ticks=1, workers=1, attempts=3, people=False), 20_000, id="three attempts"),
    ],
)
def test_the_protocol_breaks_nothing_in_a_smaller_world(bounds: Bounds, least_states: int) -> None:
    found = explored("a smaller world", Protocol(), bounds)

    assert found.violation is None, str(found.violation)
    assert found.states >= least_states


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_its_promise(mutant: Mutant) -> None:
    found = explored(mutant.name, mutant.protocol, mutant.bounds, tolerated=mutant.tolerated)

    assert found.violation is not None
    print(found.violation)
    assert found.violation.broken is mutant.broken
    assert len(found.violation.trace) <= LONGEST_TRACE


@pytest.mark.parametrize(("bounds", "tolerated"), MUTANTS_WORLDS, ids=MUTANTS_WORLDS.values())
def test_the_protocol_breaks_nothing_in_the_worlds_of_the_mutants(
    bounds: Bounds, tolerated: frozenset[Property]
) -> None:
    assert explored("the protocol", Protocol(), bounds, tolerated=tolerated).violation is None


def test_every_part_of_the_protocol_has_a_mutant() -> None:
    whole = Protocol()
    parts = {part.name for part in dataclasses.fields(Protocol)}

    turned = [{part for part in parts if getattr(mutant.protocol, part) != getattr(whole, part)} for mutant in MUTANTS]

    assert all(len(changed) == 1 for changed in turned)
    assert set().union(*turned) == parts
    assert {mutant.broken for mutant in MUTANTS} == set(Property)


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(commit_before_push=False),
        Protocol(mark_after_push=False),
        Protocol(stop_undelivers=Undelivered.NEVER),
    ],
    ids=["push before commit", "mark before push", "a stop leaves runs delivered"],
)
def test_redelivery_repairs_what_is_late(protocol: Protocol) -> None:
    """So `late` is a property of its own: these mutants lose no run, but may delay each."""
    one_pair = not protocol.commit_before_push
    bounds = Bounds(types=1 if one_pair else 2, ticks=1, workers=1, slots=one_pair, job_hashes=one_pair)

    assert explored("repaired", protocol, bounds).violation is None


def test_a_lost_session_is_the_limit_of_the_agent_lock() -> None:
    """A worker that stands still in the ERP for longer than its lease, and whose PostgreSQL session ends meanwhile, can't know that
    another one may enter: the lock ended with the session. Its data is refused, and nothing is lost or stuck (a world of the mutants)."""
    found = explored("locks are lost", Protocol(), Bounds(types=1, ticks=1, people=False, locks_hold=False))

    assert found.violation is not None
    assert found.violation.broken is Property.OVERLAP
    assert f"tick A {Action.REAP.sentence}" in found.violation.trace


def test_a_trace_names_the_same_worker_from_beginning_to_end() -> None:
    found = explore(Model(Protocol(end_before_release=False), Bounds(ticks=1, people=False, faults=Faults.NOTHING)))

    assert str(found.violation).splitlines() == [
        "applied twice after 8 steps:",
        "  a due run is queued",
        "  tick A puts runs into a delivery",
        "  tick A locks a delivery that is not marked",
        "  tick A pushes the agent's job",
        "  worker A takes the job",
        "  worker A claims the agent and surveys its runs",
        "  worker A lets the agent go",
        "  worker A ends runs after it has let the agent go (mutant)",
    ]


# --- the model and the code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", sorted({mirror for action in Action for mirror in action.mirrors}))
def test_the_code_has_what_an_action_stands_for(mirror: str) -> None:
    module, _, name = mirror.partition(":")

    found = reduce(getattr, name.split("."), importlib.import_module(f"archisync.{module}"))

    assert found is not None


def test_every_step_stands_for_something_in_the_code() -> None:
    without = {action.name for action in Action if not action.mirrors and "(mutant)" not in action.sentence}

    assert without == {"KILL_TICK", "FLUSH", "POP_TWICE"}
    assert all(action.kind is Kind.FAULT for action in Action if action.name in without)


def test_every_statement_of_ticks_and_workers_is_a_step() -> None:
    """A new statement that changes a run, a claim or a slot needs a step in the model."""
    tables = "queued_runs|claims|sync_state|deliveries"
    changing = {
        name
        for module in (applied_exports, claims, clock, deliveries, endings, history, queued_runs)
        for name, text in vars(module).items()
        if name.startswith("SQL_") and re.search(rf"\b(update|insert into|delete from) system\.({tables})\b", text)
    }
    mirrored = {mirror.partition(":")[2] for action in Action for mirror in action.mirrors}

    beside_the_protocol = {
        "SQL_HEARTBEAT",  # in the model a lease may be over at any moment
        "SQL_MEND",  # clocks
        "SQL_FORGET",  # deliveries that have served, and data that was cleared
    }
    assert changing - mirrored == beside_the_protocol


SCHEMA = " ".join(migration.sql for migration in migrations.migrations())
THE_CLAIM = "where agent_id = %(agent_id)s and fence = %(fence)s"
NO_CLAIM = "not exists (select from system.claims c where c.agent_id = q.agent_id"


@pytest.mark.parametrize(
    ("text", "relied_on"),
    [
        pytest.param(
            SCHEMA,
            "constraint one_unfinished_run_a_pair unique nulls not distinct (agent_id, sync_type, behind)",
            id="one run a pair",
        ),
        pytest.param(SCHEMA, "create table system.claims ( agent_id text primary key", id="one claim an agent"),
        pytest.param(SCHEMA, "fence bigint generated always as identity", id="a fence has a number"),
        pytest.param(SCHEMA, f"{NO_CLAIM} and c.run_id = q.id)", id="the run that is being done is not cancelled"),
        pytest.param(queued_runs.SQL_INSERT_DUE, "p.unfinished_run_id is null", id="a pair with a run is not due"),
        pytest.param(queued_runs.SQL_INSERT_DUE, "for update of p skip locked", id="the slot is locked as it is moved"),
        pytest.param(
            queued_runs.SQL_INSERT_DUE, "last_slot_at = q.slot_at, unfinished_run_id = q.id", id="and at once"
        ),
        pytest.param(
            queued_runs.SQL_FORCE, "on conflict (agent_id, sync_type, behind) do update", id="a forced run joins"
        ),
        pytest.param(deliveries.SQL_LOCK_NEXT, "for update skip locked", id="ticks don't push the same delivery"),
        pytest.param(
            deliveries.SQL_ASSIGN, "insert into system.deliveries (forced) select", id="runs get a new delivery"
        ),
        pytest.param(
            deliveries.SQL_MARK_UNDELIVERED,
            "on q.delivery_id = lost.delivery_id and q.job_no = lost.job_no",
            id="only the runs of the lost job are delivered again",
        ),
        pytest.param(claims.SQL_CLAIM, "q.delivery_id = %(delivery_id)s and q.job_no = %(job_no)s", id="a job's runs"),
        pytest.param(claims.SQL_CLAIM, "pg_try_advisory_lock(", id="agent lock"),
        pytest.param(
            claims.SQL_CLAIM, "from lock where locked on conflict (agent_id) do nothing", id="lock, then claim"
        ),
        pytest.param(claims.SQL_CLAIM, "order by w.id for update) q", id="a claim takes the runs as they are"),
        pytest.param(claims.SQL_BEGIN, "set run_id = %(run_id)s, run_started_at = system.clock()", id="begin names"),
        pytest.param(claims.SQL_BEGIN, THE_CLAIM, id="begin checks the fence"),
        pytest.param(claims.SQL_HEARTBEAT, f"{THE_CLAIM} for update skip locked", id="heartbeat checks the fence"),
        pytest.param(claims.SQL_REQUEUE, f"{THE_CLAIM} for update", id="requeue checks the fence"),
        pytest.param(claims.SQL_REQUEUE, "delivery_id = null", id="a retry leaves its delivery"),
        pytest.param(claims.SQL_RELEASE, THE_CLAIM, id="release checks the fence"),
        pytest.param(claims.SQL_UNDELIVER, f"{NO_CLAIM})", id="a claimed agent's runs stay delivered"),
        pytest.param(claims.SQL_GIVE_BACK, "delivery_id = null", id="an interrupt undelivers"),
        pytest.param(claims.SQL_PUT_OFF, f"{NO_CLAIM})", id="a claimed agent is not put off"),
        pytest.param(claims.SQL_REAP, "for update skip locked", id="reap passes by an apply"),
        pytest.param(
            claims.SQL_REAP, "where q.id = d.run_id and q.agent_id = d.agent_id", id="the named run is charged"
        ),
        pytest.param(claims.SQL_REAP, "attempt = q.attempt + (q.id = c.charged_id)::int", id="and no other"),
        pytest.param(claims.SQL_REAP, "set delivery_id = null", id="reap undelivers"),
        pytest.param(endings.SQL_FINISH, f"{THE_CLAIM} for update", id="finish checks the fence"),
        pytest.param(endings.SQL_FINISH_APPLIED, f"{THE_CLAIM} for update", id="apply checks the fence"),
        pytest.param(
            endings.SQL_FINISH_APPLIED,
            "unfinished_run_id = case when st.unfinished_run_id = e.id then st.next_run_id",
            id="an end frees its pair",
        ),
        pytest.param(endings.SQL_END_UNCHANGED, f"{THE_CLAIM} for update", id="an unchanged end checks the fence"),
        pytest.param(
            endings.SQL_END_UNCHANGED, "q.agent_id = still.agent_id and q.trigger = t.trigger", id="the trigger"
        ),
        pytest.param(endings.SQL_END_UNCHANGED, "c.run_id in (select id from ended)", id="a run that goes on is named"),
        pytest.param(
            endings.SQL_END_UNCHANGED,
            "%(release)s and (select count(*) from ended) = jsonb_array_length(%(ends)s)",
            id="an agent with runs left is not let go",
        ),
    ],
)
def test_a_statement_has_the_condition_that_the_model_relies_on(text: str, relied_on: str) -> None:
    assert relied_on in " ".join(text.split())
