"""What is done for thousands of agents at once is one statement, on the PostgreSQL that people install too."""

from typing import Any

import psycopg
import pytest

from archisync.actions import agents as actions
from archisync.actions import runs
from archisync.base.errors import NotFoundError
from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.schedule import force
from archisync.schedule.force import Pair
from archisync.store import history, settings
from archisync.store.audit import Actor, Via
from archisync.store.database import Database
from archisync.store.runs import State
from tests.support.rows import count, end_queued, whitelist_agents

AGENTS = 300
OWN = [t for t in SYNC_TYPES.values() if t.scope is Scope.AGENT]
PAIRS = [Pair(sync_type=t, agent_id=f"a{n}") for t in OWN for n in range(1, AGENTS + 1)]
ACTIVE = "select count(*) from system.sync_state where active and agent_id <> 'service-account'"


@pytest.fixture
def statements(connection: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that were executed on the connection."""
    whitelist_agents(connection, AGENTS)
    seen: list[str] = []
    execute = psycopg.Cursor.execute

    def counted(self: psycopg.Cursor, query: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(str(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    return seen


def test_forcing_every_pair_and_waiting_for_them_takes_as_many_statements_as_forcing_one(
    connection: Database, statements: list[str]
) -> None:
    settings.set_enabled(connection, OWN[0], False)
    settings.pause(connection, sync_type=None, agent_id="a7", until=None, reason=None, by="test")
    statements.clear()
    assert force.overridden(connection, PAIRS) == [
        f"the type {OWN[0].name} is disabled; this run is done anyway",
        "the agent a7 is paused; this run is done anyway",
    ]
    forced = force.force(connection, PAIRS, by="test", why=None)
    assert [(one.sync_type, one.agent_id, one.joined) for one in forced] == [
        (pair.sync_type.name, pair.agent_id, False) for pair in PAIRS
    ]
    assert [one.run_id for one in forced] == sorted(one.run_id for one in forced)
    ids = [one.run_id for one in forced]
    assert history.ended(connection, ids) == []
    assert len(statements) == 3
    again = force.force(connection, [*PAIRS[:2], PAIRS[0]], by="test", why=None)
    assert [(one.run_id, one.joined) for one in again] == [(ids[0], True), (ids[1], True)]
    end_queued(connection)
    statements.clear()
    ended = force.wait(connection, ids, timeout_s=None, changed=lambda _: None, waits_long=lambda: None)
    assert [(run.run_id, run.state) for run in ended] == [(id_, State.SUCCEEDED) for id_ in ids]
    assert len(statements) == 2


def test_agents_are_denied_and_allowed_by_the_statement_and_not_by_the_row(
    connection: Database, statements: list[str]
) -> None:
    row_triggers = "select count(*) from pg_trigger where tgrelid = 'agents.users'::regclass and tgtype & 1 = 1 and tgenabled = 'O'"
    assert count(connection, row_triggers) == 0
    assert count(connection, ACTIVE) == AGENTS * len(OWN)
    connection.execute("update agents.users set whitelisted = false")
    assert count(connection, ACTIVE) == 0
    connection.execute("update agents.users set whitelisted = true")
    assert count(connection, ACTIVE) == AGENTS * len(OWN)
    connection.execute("update agents.users set id = 'b' || id, whitelisted = id <> 'a1'")
    assert count(connection, ACTIVE) == (AGENTS - 1) * len(OWN)
    assert count(connection, ACTIVE + " and agent_id like 'b%%'") == (AGENTS - 1) * len(OWN)
    assert connection.execute("update agents.users set username = 'x' where id like 'b%'").rowcount == AGENTS


def test_denying_and_allowing_every_agent_takes_as_many_statements_as_one(
    connection: Database, statements: list[str]
) -> None:
    ids = [f"a{n}" for n in range(1, AGENTS + 1)]
    for whitelisted, active in ((False, 0), (True, AGENTS * len(OWN))):
        statements.clear()
        actions.set_whitelisted(connection, Actor(name="test", via=Via.CLI), [*ids, "a1"], whitelisted)
        assert len(statements) == 2  # the agents and the audit
        assert count(connection, ACTIVE) == active
    assert count(connection, "select count(*) from system.audit where action = 'agent allow'") == AGENTS
    with pytest.raises(NotFoundError, match="there is no agent 'nobody'"):
        actions.set_whitelisted(connection, Actor(name="test", via=Via.CLI), [*ids, "nobody"], False)
    assert count(connection, ACTIVE) == AGENTS * len(OWN)


def test_cancelling_retrying_and_ending_rests_take_as_many_statements_for_many_pairs_as_for_one(
    connection: Database, statements: list[str]
) -> None:
    actor = Actor(name="test", via=Via.CLI)
    resting = """update system.sync_state set consecutive_failures = 3, backoff_until = system.clock() + interval '1 hour'
                  where agent_id = any(%s)"""
    taken: dict[str, list[int]] = {}
    for agents in (["a1"], [f"a{n}" for n in range(2, AGENTS + 1)]):
        pairs = [pair for pair in PAIRS if pair.agent_id in agents]
        for act in ("retry", "cancel", "rest end"):
            connection.execute(resting, [agents])
            statements.clear()
            if act == "cancel":
                waiting = runs.find_unfinished(connection, [], None, None)
                assert len(runs.cancel(connection, actor, [run.run_id for run in waiting])) == len(pairs)
            else:
                failing = runs.find_failing(connection, None, None, resting=True)
                done = runs.retry if act == "retry" else runs.end_rests
                assert len(done(connection, actor, failing)) == len(pairs)
            taken.setdefault(act, []).append(len(statements))
            assert count(connection, f"select count(*) from system.audit where action = '{act}'") >= len(pairs)
    assert {act: few for act, (few, _) in taken.items()} == {act: many for act, (_, many) in taken.items()}
    assert max(few for few, _ in taken.values()) <= 4
