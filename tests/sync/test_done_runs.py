"""`done=DIR` in runs: what is moved when, what stands in the way is a warning, and a worker that is killed leaves it right."""

import io
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, queued_runs
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from archisync.store.runs import Counts, Run
from archisync.work.runner import Runner
from tests.faults.steps import Steps
from tests.support.rows import count, drain, job_of, sync
from tests.sync.conftest import AGENT

HEADER = "customer_id,name,phone,city,region\n"
ROWS = [f"C{n},Name {n},06 {n},Roma,RM\n" for n in range(20)]
NOON, LATER = "2026-05-05T12:00:00Z", "2026-05-05T12:09:00Z"
FORKSERVER = multiprocessing.get_context("forkserver")
MOST_STEPS = 200


@pytest.fixture
def folder(exports: Path) -> Path:
    path = exports / AGENT
    path.mkdir()
    return path


@pytest.fixture
def config(connection: Database, database_url: str, redis_url: str, folder: Path) -> Config:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    return Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{folder.parent}/{{agent}}/{{type}}_{{date:%Y%m%d}}.csv?done=read",
        }
    )


def _run(db: Database, config: Config, trigger: str = "scheduled") -> Run:
    return sync(db, config, "customers", AGENT, trigger=trigger)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_what_was_applied_or_is_unchanged_is_moved(connection: Database, config: Config, folder: Path) -> None:
    text = HEADER + "".join(ROWS)
    (folder / "customers_20260501.csv").write_text(text)
    assert _run(connection, config).counts == Counts(seen=20, inserted=20)
    assert _files(folder) == ["read/customers_20260501.csv"]
    assert _run(connection, config).reason == "unchanged-at-source"
    assert _run(connection, config, "forced").counts == Counts(seen=20, unchanged=20)

    (folder / "customers_20260502.csv").write_text(text)
    assert _run(connection, config).reason == "unchanged"
    assert _files(folder) == ["read/customers_20260501.csv", "read/customers_20260502.csv"]

    (folder / "customers_20260503.csv").write_text(HEADER + ROWS[0])
    assert _run(connection, config).state == "held"
    (folder / "customers_20260503.csv").write_text("no;label;of\n1;2;3\n")
    assert _run(connection, config).state == "held"
    assert _files(folder)[0] == "customers_20260503.csv"


def test_a_failed_move_is_a_warning_of_the_run_that_applied_the_export(
    connection: Database, config: Config, folder: Path
) -> None:
    (folder / "customers_20260501.csv").write_text(HEADER + "".join(ROWS))
    (folder / "read").write_text("a file stands in the way")
    first = _run(connection, config)
    assert (first.state, first.reason, first.counts) == (
        "succeeded",
        "applied-with-warnings",
        Counts(seen=20, inserted=20),
    )
    (warning,) = first.warnings
    assert (warning["code"], warning["count"]) == ("not-moved", 1)
    assert warning["message"].startswith(f"{folder}/customers_20260501.csv can't be moved to {folder}/read: ")
    assert "; ls -ld " in warning["message"]
    again = _run(connection, config)
    assert (again.state, again.reason, len(again.warnings)) == ("succeeded", "unchanged-at-source", 1)
    (folder / "read").unlink()
    assert _run(connection, config).warnings == []
    assert _files(folder) == ["read/customers_20260501.csv"]


@pytest.mark.parametrize("applied_before", [False, True])
def test_a_postgresql_that_crashes_after_the_move_still_has_the_rows(
    own_postgres: EmbeddedPostgres, config: Config, folder: Path, applied_before: bool
) -> None:
    """Commits that need not wait for the disk are lost in such a crash: the process that writes them a moment later stands still."""
    (folder / "customers_20260501.csv").write_text(HEADER + "".join(ROWS))
    moving = Config.from_environment({**config.environment, "ARCHISYNC_DATABASE_URL": own_postgres.url})
    leaving = Config.from_environment(
        {**moving.environment, "ARCHISYNC_SOURCE": moving.environment["ARCHISYNC_SOURCE"].removesuffix("?done=read")}
    )
    with connected(own_postgres.url, purpose="worker") as db:
        migrate(db, {})
        agents.add(db, AGENT, name=None, whitelisted=True)
        writer = count(db, "select pid from pg_stat_activity where backend_type = 'walwriter'")
        os.kill(writer, signal.SIGSTOP)
        try:
            if applied_before:
                assert _run(db, leaving).reason == "applied"
            assert _run(db, moving).state == "succeeded"
            assert _files(folder) == ["read/customers_20260501.csv"]
            own_postgres.kill()
        finally:
            os.kill(writer, signal.SIGKILL)
    own_postgres.start()
    with connected(own_postgres.url, purpose="worker") as db:
        assert count(db, "select count(*) from agents.customers") == len(ROWS)
        assert count(db, "select count(*) from system.queued_runs") == 0


def _killed_after(environment: dict[str, str], delivery_id: int, job_no: int, step: int) -> None:
    config = Config.from_environment(environment)
    with connected(config.database_url, purpose="worker") as db:
        db.execute(f"set archisync.now = '{NOON}'")
        Steps(db, after=step, action=lambda: os.kill(os.getpid(), signal.SIGKILL))
        with Runner(db, config, EventLog(io.StringIO())) as runner:
            runner.do(delivery_id, job_no)
    os._exit(0)


def test_a_worker_killed_at_any_step_leaves_the_file_where_the_next_run_finds_it(
    connection: Database, config: Config, folder: Path
) -> None:
    """One of the steps is the commit: a kill after it is one between the commit and the move."""
    seen_after_commit = 0
    for step in range(1, MOST_STEPS):
        connection.execute(f"set archisync.now = '{NOON}'")
        name = f"customers_{2000 + step}0101.csv"
        (folder / name).write_text(HEADER + "".join(ROWS).replace("Roma", f"Roma {step}"))
        queued_runs.force(connection, "customers", AGENT, by="test", why=None)
        job = job_of(connection, count(connection, "select max(id) from system.queued_runs"))
        assert job is not None
        child = FORKSERVER.Process(target=_killed_after, args=(dict(config.environment), *job, step))
        child.start()
        child.join(60)
        applied = count(connection, "select count(*) from agents.customers where city = %s", f"Roma {step}")
        assert applied in (0, 20)
        assert applied == 20 or (folder / name).exists(), "moved before the commit"
        seen_after_commit += applied == 20 and (folder / name).exists()
        connection.execute(f"set archisync.now = '{LATER}'")
        tick(connection, config)
        drain(connection, config)
        assert sync(connection, config, "customers", AGENT).state == "succeeded"
        assert count(connection, "select count(*) from agents.customers where city = %s", f"Roma {step}") == 20
        assert _files(folder)[-1] == f"read/{name}"
        assert not (folder / name).exists()
        if child.exitcode == 0:
            break
    assert step > 5
    assert seen_after_commit, "no kill came between the commit and the move"
