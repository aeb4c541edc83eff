"""A process that stands still with an agent's lock (SIGSTOP, a frozen host) does not block the agent for good."""

import io
from collections.abc import Iterator
from itertools import count as count_up
from urllib.parse import urlsplit

import psycopg
import pytest

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connect, connected, require_direct
from archisync.store.grants import Role, grants_sql
from archisync.store.locks import SQL_TRY_AGENT, SQL_WAIT_FOR_AGENT
from archisync.work import runner
from archisync.work.runner import LOCKED_DELAY_S, Runner
from tests.conftest import Cli
from tests.support.rows import count, do_run, job_of

AGENT = "anna.bianchi"
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and granted"


@pytest.fixture
def worker_urls(connection: Database, database_url: str) -> Iterator[list[str]]:
    """Two logins as `db grants` advises: neither is a member of the other, and none sees what the other's sessions do."""
    connection.execute(grants_sql("silent").encode())
    for number in (1, 2):
        connection.execute(f"create role silent_{number} login in role silent_worker".encode())
    yield [urlsplit(database_url)._replace(netloc=f"silent_{number}@").geturl() for number in (1, 2)]
    for name in ("1", "2", *Role):
        connection.execute(f"drop owned by silent_{name}".encode())
        connection.execute(f"drop role silent_{name}".encode())


@pytest.mark.parametrize("statement_timeout_s", [None, 3600], ids=["run --inline", "a worker"])
def test_the_session_of_a_silent_holder_is_ended_under_the_advised_roles(
    connection: Database, worker_urls: list[str], statement_timeout_s: int | None
) -> None:
    with connect(worker_urls[0], purpose="stands still", statement_timeout_s=statement_timeout_s) as holder:
        require_direct(holder, silent_s=0.2)
        assert holder.execute(SQL_TRY_AGENT, {"agent_id": AGENT}).fetchone() == {"locked": True}
        with connected(worker_urls[1], purpose="waits") as other, other.transaction():
            other.execute("set local lock_timeout = '20s'")
            other.execute(SQL_WAIT_FOR_AGENT, {"agent_id": AGENT})  # raises if the holder keeps the lock
        with pytest.raises(psycopg.OperationalError, match="idle-session timeout"):
            holder.execute("select 1")


@pytest.mark.parametrize("given", ["0", "3s"])
def test_a_statement_of_such_a_session_has_a_time_limit_unless_it_had_one(database_url: str, given: str) -> None:
    with connected(database_url, purpose="test") as holder:
        holder.execute(f"set statement_timeout = '{given}'".encode())
        require_direct(holder, silent_s=60)
        assert holder.execute("show statement_timeout").fetchone() == {
            "statement_timeout": given if given != "0" else "1min"
        }


def test_a_claimed_agent_is_locked_by_no_stranger_and_a_lock_without_a_claim_names_its_holder(
    cli: Cli, connection: Database, config: Config, worker_urls: list[str]
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    run_id = queued_runs.force(connection, "orders", AGENT, by="test", why=None).run_id
    with connected(worker_urls[0], purpose="of somebody else") as holder:
        holder.execute(SQL_TRY_AGENT, {"agent_id": AGENT})
        assert do_run(connection, config, run_id) == 0
        pid = holder.info.backend_pid
        who = f"{AGENT} is locked by PostgreSQL's process {pid} (role silent_1, archisync of somebody else)"
        remedy = f"as a superuser: select pg_terminate_backend({pid})"
        for url in (config.database_url, worker_urls[1]):
            env = {"ARCHISYNC_DATABASE_URL": url}
            why = cli("why", "orders", AGENT, env=env)
            assert f"note: {who}: no worker can have it; {remedy}\n" in why.stdout
            doctor = cli("doctor", "--only", "locks", env=env)
            assert doctor.stdout == f"failed   locks        {who}; its runs wait\n{'':<21} hint: {remedy}\n"
            assert doctor.returncode == 1
        connection.execute(
            "insert into system.claims (agent_id, worker, lease_until) values (%s, 'w', system.clock() + interval '1 h')",
            [AGENT],
        )
        assert "is locked by" not in cli("why", "orders", AGENT).stdout
        assert cli("doctor", "--only", "locks").stdout.startswith("ok ")


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
