"""Whatever goes wrong around a run ends up in the run: it says why and what to do, its agent is free, and the worker goes on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

import archisync
from archisync.base.errors import ArchisyncError
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connected
from archisync.store.runs import Run
from archisync.work.runner import Runner
from archisync.work.worker import others_wait
from tests.faults.steps import Steps
from tests.support.queued import events
from tests.support.rows import count, do_job, job_of

AGENT = "anna.bianchi"
PACKAGE = Path(archisync.__file__).parent
ABOUT_THE_RUN = ("work", "sync/run.py", "sync/endings.py", "sync/survey.py", "store/claims.py", "store/endings.py")
MOST_STEPS = 60
ENDED = "PostgreSQL is out of reach: terminating connection due to administrator command"
WORKER = [sys.executable, "-m", "archisync", "worker", "--burst", "--single"]
WAITS_LONGER = """
select count(*) from pg_stat_activity
 where datname = current_database() and application_name = 'archisync worker' and state = 'idle'
   and state_change < clock_timestamp() - interval '700 ms'
"""
EXPORT = """
print("customer_id,name")
for number in range(20_000):
    print(f"{number},Ditta")
"""


class Broken(Exception):
    """What no code of ours expects."""


@pytest.fixture
def chosen(connection: Database, config: Config, tmp_path: Path) -> Config:
    """One agent, whose customers are due and come from a program."""
    (tmp_path / "export.py").write_text(EXPORT)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("update system.sync_settings set enabled = sync_type = 'customers'")
    return Config(environment={**config.environment, "ARCHISYNC_SOURCE": f"exec:{sys.executable} {tmp_path}/export.py"})


class Pair:
    """The agent's customers, with another export for each run."""

    def __init__(self, db: Database, config: Config, folder: Path) -> None:
        self.db = db
        self.config = Config(environment={**config.environment, "ARCHISYNC_SOURCE": f"{folder}/{{type}}.csv"})
        self._file = folder / "customers.csv"
        self._number = 0

    def run(self, prepare: Callable[[Database], object] = lambda _: None) -> Run:
        """Do its run as a worker's child does, over a connection that is prepared so; whatever that raises, the run as it is left."""
        self._number += 1
        self._file.write_text(f"customer_id,name\n1,{self._number}\n2,b\n")
        self.db.execute("update system.queued_runs set not_before = null, attempt = 1, reason = null, message = null")
        run_id = queued_runs.force(self.db, "customers", AGENT, by="test", why=None).run_id
        job = job_of(self.db, run_id)
        assert job is not None
        with (
            suppress(Broken, ArchisyncError),
            connected(self.config.database_url, purpose="worker", statement_timeout_s=60) as db,
        ):
            prepare(db)
            do_job(db, self.config, job)
        return history.get(self.db, run_id)

    @property
    def is_free(self) -> bool:
        return count(self.db, "select count(*) from system.claims") == 0


@contextmanager
def each_call(look: Callable[[CodeType], object]) -> Iterator[None]:
    """Show `look` the code of each function of ours that this thread calls while it works for an agent."""
    state = {"inside": False}

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        if frame.f_code in (Runner._do_runs.__code__, Runner.__exit__.__code__):
            state["inside"] = frame.f_code is Runner._do_runs.__code__
        if state["inside"] and frame.f_code.co_filename.startswith(str(PACKAGE)):
            look(frame.f_code)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def breaks_in(wanted: CodeType) -> Callable[[CodeType], None]:
    def look(code: CodeType) -> None:
        if code is wanted:
            sys.setprofile(None)
            raise Broken("nobody expects it")

    return look


def about_the_run_itself(code: CodeType) -> bool:
    where = Path(code.co_filename).relative_to(PACKAGE)
    return str(where).startswith(ABOUT_THE_RUN) and not code.co_name.startswith("<")


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_an_error_in_any_function_around_a_run_ends_up_in_the_run(
    connection: Database, chosen: Config, tmp_path: Path, *, every: bool
) -> None:
    pair = Pair(connection, chosen, tmp_path)
    for _ in range(2):  # a first load, then changes
        called: dict[CodeType, None] = {}
        with each_call(called.setdefault):
            assert pair.run().state == "succeeded"
    broken = 0
    for code in [code for code in called if every or about_the_run_itself(code)]:
        with each_call(breaks_in(code)):
            run = pair.run()
        found = (run.state, run.attempt, run.message, bool(run.hint))
        broken += found == ("queued", 2, "unexpected Broken: nobody expects it", True)
        assert pair.is_free, code
        assert found[0] == "succeeded" or found == ("queued", 2, "unexpected Broken: nobody expects it", True), code
    assert broken > 20
    assert pair.run().state == "succeeded"


def test_a_session_that_ends_at_any_step_of_a_run_is_the_reason_of_the_run(
    connection: Database, chosen: Config, tmp_path: Path
) -> None:
    """The run learns it over another connection."""
    pair = Pair(connection, chosen, tmp_path)
    pair.run()
    ended = "select pg_terminate_backend(%s, 5000)"
    for step in range(1, MOST_STEPS):
        steps: list[Steps] = []

        def prepare(db: Database, step: int = step, steps: list[Steps] = steps) -> None:
            end = (ended, [db.info.backend_pid])
            steps.append(Steps(db, after=step, action=lambda: connection.execute(*end)))

        run = pair.run(prepare)
        assert pair.is_free
        if not steps[0].happened:
            break
        if run.state != "succeeded":  # it had ended before its session did
            assert (run.state, run.attempt, run.reason) == ("queued", 2, "database-unavailable")
            assert (run.message, bool(run.hint)) == (ENDED, True)
    assert MOST_STEPS > step > 8
    assert pair.run().state == "succeeded"


def work(config: Config, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A real worker, until the queue is empty, started by that command."""
    return subprocess.run(
        [*command, *WORKER], env={**os.environ, **config.environment, **env}, capture_output=True, text=True, check=True
    )


def waiting(db: Database) -> tuple[str | None, str]:
    """Message and hint of the run, which waits for its next attempt."""
    [run] = history.newest(db)
    assert (run.state, run.attempt, run.reason, count(db, "select count(*) from system.claims")) == (
        "queued",
        2,
        "retry",
        0,
    )
    assert run.hint
    return run.message, run.hint


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="only root may mount a file system that is full",
)
def test_a_worker_whose_temporary_folder_is_full_says_so_in_the_run(
    connection: Database, chosen: Config, tmp_path: Path
) -> None:
    tick(connection, chosen)
    (folder := tmp_path / "small").mkdir()
    mounted = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=64k tmpfs {folder} && exec "$@"', "sh"]
    done = work(chosen, *mounted, TMPDIR=str(folder))
    message, hint = waiting(connection)
    assert message is not None
    assert message.startswith(f"cannot write to the spool directory {folder}/")
    assert message.endswith(": No space left on device")
    assert hint == f"df -h {folder}; or set TMPDIR to a directory with room that the worker may write to"
    assert [event["event"] for event in events(done, "child-died") + events(done, "delivery-failed")] == []


def test_a_worker_without_file_descriptors_says_so_in_the_run(connection: Database, chosen: Config) -> None:
    tick(connection, chosen)
    done = work(chosen, "prlimit", "--nofile=12:12")
    message, hint = waiting(connection)
    assert message is not None
    assert message.endswith("Too many open files")
    assert "ulimit" in hint
    assert events(done, "child-died") == []


def test_a_redis_that_can_t_say_who_waits_ends_an_agent_s_turn(client: redis.Redis) -> None:
    assert not others_wait(Queue("archisync", connection=client))
    with redis.Redis(port=1, retry=Retry(NoBackoff(), 0)) as away:
        assert others_wait(Queue("archisync", connection=away))


def test_a_fetch_may_take_longer_than_the_database_lets_sessions_wait(
    connection: Database, chosen: Config, tmp_path: Path
) -> None:
    tick(connection, chosen)
    os.mkfifo(fifo := tmp_path / "export.fifo")
    (tmp_path / "export.py").write_text(f"print(open({str(fifo)!r}).read())")
    for limit in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(f"alter database {connection.info.dbname} set {limit} = '500ms'".encode())
    process = subprocess.Popen(WORKER, env={**os.environ, **chosen.environment}, stderr=subprocess.DEVNULL)
    with fifo.open("w") as export:
        while not count(connection, WAITS_LONGER):
            continue
        export.write("customer_id,name\n1,Ditta\n")
    assert process.wait() == 0
    assert [run.reason for run in history.newest(connection)] == ["applied"]
