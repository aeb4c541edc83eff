"""PgBouncer between archisync and PostgreSQL: ticks and commands work; what needs a session lock refuses and says why."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connected
from archisync.work.job import sync
from tests.conftest import Cli
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.rows import count
from tests.support.said import as_text
from tests.support.samples import SAMPLES

pytestmark = [pytest.mark.check, needs_pgbouncer]

AGENT = "anna.bianchi"
REFUSED = (
    "error: a pooler stands between this process and PostgreSQL: an agent's ERP session can't be locked through it\n"
    "hint: give it an ARCHISYNC_DATABASE_URL of PostgreSQL itself; ticks and other commands may go through the pooler\n"
)
DELIVERED = """
select count(*) from system.queued_runs r join system.deliveries d on d.id = r.delivery_id where d.delivered_at is not null
"""
Pooled = Callable[..., str]


@pytest.fixture
def pooled(database_url: str) -> Iterator[Pooled]:
    with ExitStack() as stack:
        yield lambda mode, ignore="": stack.enter_context(pgbouncer(database_url, mode=mode, ignore=ignore))


@pytest.fixture
def env(redis_url: str) -> dict[str, str]:
    return {"ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}


@pytest.fixture
def registered(connection: Database) -> Database:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    return connection


def test_ticks_and_commands_work_through_transaction_pooling_with_a_direct_worker(
    registered: Database, pooled: Pooled, cli: Cli, env: dict[str, str]
) -> None:
    through = env | {"ARCHISYNC_DATABASE_URL": pooled("transaction")}
    for words in (
        ["db", "migrate"],
        ["tick", "--dry-run"],
        ["tick"],
        ["status"],
        ["why", "orders", AGENT],
        ["interval", "set", "orders", "15"],
        ["interval", "reset", "--all"],
        ["pause", "--agent", AGENT, "--until", "2h"],
        ["resume", "--agent", AGENT],
        ["agent", "list"],
        ["run", "orders", "--agent", AGENT],
        ["held", "list"],
        ["history"],
        ["tick"],
    ):
        done = cli(*words, env=through)
        assert (words, done.returncode, done.stderr if done.returncode else "") == (words, 0, "")
    assert count(registered, DELIVERED) == 6
    worked = cli("worker", "--single", "--burst", env=env)
    assert worked.returncode == 0, worked.stderr
    assert count(registered, "select count(*) from system.sync_runs where state = 'succeeded'") == 6


def test_a_tick_leaves_nothing_in_a_server_connection_that_others_use(
    registered: Database, pooled: Pooled, env: dict[str, str]
) -> None:
    url = pooled("transaction")
    with connected(url, purpose="test") as db:
        tick(db, Config.from_environment(env))
        assert count(registered, DELIVERED) == 6
    with psycopg.connect(url, autocommit=True) as other:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert other.execute(f"show {name}".encode()).fetchone() == ("0",)
        assert other.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)
        assert other.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)


def test_a_direct_connection_is_not_taken_for_a_pooled_one(connection: Database) -> None:
    assert not connection.is_pooled


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_a_pooler_is_detected_in_every_mode_every_time(registered: Database, pooled: Pooled, mode: str) -> None:
    url = pooled(mode)
    for _ in range(20):
        with connected(url, purpose="test") as db:
            assert db.is_pooled


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_run_inline_through_a_pooler_is_refused_before_anything_is_queued(
    registered: Database, pooled: Pooled, cli: Cli, env: dict[str, str], mode: str
) -> None:
    through = env | {"ARCHISYNC_DATABASE_URL": pooled(mode)}
    refused = cli("run", "orders", "--agent", AGENT, "--inline", env=through)
    assert (refused.returncode, refused.stderr) == (3, REFUSED)
    assert count(registered, "select count(*) from system.runs") == 0


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_worker_behind_a_pooler_is_refused_and_claims_nothing(
    registered: Database, pooled: Pooled, cli: Cli, env: dict[str, str], mode: str
) -> None:
    through = env | {"ARCHISYNC_DATABASE_URL": pooled(mode)}
    assert cli("tick", env=through).returncode == 0
    refused = cli("worker", "--single", "--burst", env=through)
    assert refused.returncode == 3
    assert REFUSED in as_text(refused.stderr)
    assert count(registered, "select count(*) from system.runs where state = 'queued' and attempt = 1") == 6


def test_a_job_behind_a_pooler_is_refused_under_a_plain_rq_worker_too(
    registered: Database, pooled: Pooled, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queued_runs.force(registered, "orders", AGENT, by="test", why=None).run_id
    for name, value in (env | {"ARCHISYNC_DATABASE_URL": pooled("transaction")}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        sync(run_id, 1)
    assert refused.value.message == REFUSED.splitlines()[0].removeprefix("error: ")
    assert refused.value.hint == REFUSED.splitlines()[1].removeprefix("hint: ")
    assert history.get(registered, run_id).state == "queued"


def test_a_statement_that_takes_too_long_behind_a_pooler_is_cancelled_on_the_server(
    registered: Database, pooled: Pooled, cli: Cli, env: dict[str, str], database_url: str
) -> None:
    through = env | {"ARCHISYNC_DATABASE_URL": pooled("transaction"), "ARCHISYNC_DATABASE_TIMEOUT_S": "1"}
    with connected(database_url, purpose="blocker") as blocker, blocker.transaction():
        blocker.execute("lock table system.sync_settings in access exclusive mode")
        ended = cli("interval", "set", "orders", "15", env=through)
        while count(blocker, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
            continue
    assert ended.returncode == 4
    assert count(registered, "select interval_minutes from system.sync_settings where sync_type = 'orders'") == 10


def test_a_pooler_that_refuses_what_the_environment_adds_is_named_with_what_to_take_out(
    pooled: Pooled, cli: Cli, env: dict[str, str]
) -> None:
    done = cli("status", env=env | {"ARCHISYNC_DATABASE_URL": pooled("transaction"), "PGOPTIONS": "-c jit=on"})
    assert done.returncode == 3
    assert done.stderr.startswith("error: a pooler refused the connection: ")
    assert done.stderr.endswith(
        "\nhint: take it out of ARCHISYNC_DATABASE_URL and of PG… variables (PGOPTIONS, PGGEQO): archisync needs none\n"
    )
