"""A process that stands still with an agent's lock (SIGSTOP, a frozen host) does not block the agent for good."""

import io
from itertools import count as count_up

import psycopg
import pytest

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connect, connected
from archisync.store.locks import SQL_TRY_AGENT, end_silent_holder
from archisync.work import runner
from archisync.work.runner import LOCKED_DELAY_S, Runner
from tests.support.rows import count, do_run, job_of

AGENT = "anna.bianchi"
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and granted"


def test_the_session_of_a_silent_holder_is_ended_and_that_of_a_busy_one_is_not(
    connection: Database, database_url: str
) -> None:
    holder = connect(database_url, purpose="stands still")
    assert holder.execute(SQL_TRY_AGENT, {"agent_id": AGENT}).fetchone() == {"locked": True}
    assert not end_silent_holder(connection, AGENT, silent_s=3600)
    assert not end_silent_holder(connection, "luca.ferrari", silent_s=0)
    assert count(connection, LOCKS) == 1
    assert end_silent_holder(connection, AGENT, silent_s=0)
    assert count(connection, LOCKS) == 0
    with pytest.raises(psycopg.OperationalError):
        holder.execute("select 1")
    holder.close()


def test_a_run_whose_agent_is_locked_waits_without_spending_an_attempt(
    connection: Database, database_url: str, config: Config
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    run_id = queued_runs.force(connection, "orders", AGENT, by="test", why=None).run_id
    with connected(database_url, purpose="talks to the ERP") as holder:
        holder.execute(SQL_TRY_AGENT, {"agent_id": AGENT})
        assert do_run(connection, config, run_id) == 0
        assert count(connection, LOCKS) == 1  # it spoke a moment ago, so its session stays
    run = history.get(connection, run_id)
    assert (run.state, run.reason, run.attempt) == ("queued", "agent-locked", 1)
    connection.execute(
        f"select set_config('archisync.now', (system.clock() + {LOCKED_DELAY_S} * interval '1 s')::text, false)"
    )
    assert do_run(connection, config, run_id) == 1
    assert history.get(connection, run_id).state == "succeeded"


@pytest.mark.parametrize(
    ("seconds_a_look", "others_wait", "done"), [(1, True, 4), (15, True, 1), (15, False, 4), (120, False, 1)]
)
def test_a_worker_goes_on_with_the_agents_next_run_until_its_bound_and_gives_the_others_back(
    connection: Database,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds_a_look: int,
    others_wait: bool,
    done: int,
) -> None:
    looks = count_up(step=seconds_a_look)
    monkeypatch.setattr(runner, "monotonic", lambda: next(looks))
    agents.add(connection, AGENT, name=None, whitelisted=True)
    for name in ("orders", "customers", "ddt", "invoices"):
        run_id = queued_runs.force(connection, name, AGENT, by="test", why=None).run_id
    job = job_of(connection, run_id)
    assert job is not None
    with Runner(connection, config, EventLog(io.StringIO()), others_wait=lambda: others_wait) as working:
        assert working.do(*job) == done
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") == done
    assert (
        count(connection, "select count(*) from system.queued_runs where delivery_id is null and attempt = 1")
        == 4 - done
    )
    assert count(connection, LOCKS) == count(connection, "select count(*) from system.claims") == 0
    assert tick(connection, config).enqueued >= 4 - done
