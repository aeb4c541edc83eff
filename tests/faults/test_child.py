"""One child process does many deliveries: a fault in one sync harms no other, and the child is replaced when it should be."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history
from archisync.store.database import Database
from archisync.work import child as work_child
from archisync.work.child import Child
from tests.conftest import Cli
from tests.support.queued import INTERMEDIATE_KEY, LOCKED, QUEUE_KEY, env_of, events
from tests.support.rows import count

AGENTS = ("a", "b", "c", "d", "e")
PROGRAM = """
import os, pathlib, signal, sys
agent, folder = sys.argv[1], pathlib.Path(sys.argv[2])
if (folder / f"{agent}.fifo").exists():
    (folder / f"{agent}.fifo").read_text()
if (folder / f"{agent}.kill").exists():
    (folder / f"{agent}.kill").unlink()
    os.kill(os.getppid(), signal.SIGKILL)
print("customer_id,name")
print(f"1,Ditta di {agent}")
"""
PROCESSES = "select count(distinct worker) from system.sync_runs where state = 'succeeded' and attempt = 1"
LEFT = "select agent_id from system.runs where state = %s order by id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test puts `AGENT.kill` (the agent's export kills the process that fetches it) or `AGENT.fifo` (the export waits there)."""
    (tmp_path / "export.py").write_text(PROGRAM, "utf-8")
    return tmp_path


@pytest.fixture
def queued(connection: Database, config: Config, folder: Path) -> Config:
    """The customers of five agents, queued and delivered in the order of the agents' names."""
    program = f"exec:{sys.executable} {folder}/export.py {{agent}} {folder}"
    chosen = Config(environment={**config.environment, "ARCHISYNC_SOURCE": program})
    for name in AGENTS:
        agents.add(connection, name, name=None, whitelisted=True)
    connection.execute("update system.sync_settings set enabled = sync_type = 'customers'")
    assert tick(connection, chosen).enqueued == len(AGENTS)
    return chosen


def work(cli: Cli, config: Config, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return cli("worker", "--burst", "--single", env={**config.environment, **(more or {})})


def names(db: Database, state: str) -> list[str]:
    return [row["agent_id"] for row in db.execute(LEFT, [state]).fetchall()]


def test_one_child_does_all_deliveries_and_leaves_nothing_in_redis(
    cli: Cli, connection: Database, queued: Config, client: redis.Redis
) -> None:
    assert work(cli, queued).returncode == 0
    assert names(connection, "succeeded") == list(AGENTS)
    assert count(connection, PROCESSES) == 1
    assert client.keys("rq:job:*") == []
    assert (client.llen(QUEUE_KEY), client.llen(INTERMEDIATE_KEY), client.zcard("rq:wip:archisync")) == (0, 0, 0)


@pytest.mark.parametrize(
    ("setting", "value", "children"),
    [
        ("ARCHISYNC_WORKER_SYNCS", "2", 3),
        ("ARCHISYNC_WORKER_SYNCS", "1", 5),
        ("ARCHISYNC_WORKER_MEMORY_BYTES", "1", 5),
        ("ARCHISYNC_WORKER_MEMORY_BYTES", str(1 << 40), 1),
    ],
)
def test_a_child_is_replaced_after_so_many_syncs_or_when_it_has_grown(
    cli: Cli, connection: Database, queued: Config, setting: str, value: str, children: int
) -> None:
    done = work(cli, queued, {setting: value})
    assert names(connection, "succeeded") == list(AGENTS)
    assert count(connection, PROCESSES) == children
    assert events(done, "child-died") == []


@pytest.mark.parametrize("victim", ["a", "c", "e"])
def test_a_child_killed_in_one_sync_takes_no_other_sync_down(
    cli: Cli, connection: Database, queued: Config, folder: Path, victim: str
) -> None:
    (folder / f"{victim}.kill").touch()
    done = work(cli, queued)
    assert done.returncode == 0
    assert [event["exit_code"] for event in events(done, "child-died")] == [-signal.SIGKILL]
    assert names(connection, "running") == [victim]
    assert names(connection, "succeeded") == [name for name in AGENTS if name != victim]
    while count(connection, LOCKED):  # until PostgreSQL notices the death
        continue
    later = env_of(queued, later_s=queued.lease_s + 60)
    assert cli("tick", env=later).returncode == 0
    assert cli("worker", "--burst", "--single", env=later).returncode == 0
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 2") == 1
    assert count(connection, "select count(*) from agents.customers") == len(AGENTS)


def test_sigterm_lets_the_current_sync_finish_and_leaves_the_others_to_the_next_worker(
    cli: Cli, connection: Database, queued: Config, folder: Path, client: redis.Redis
) -> None:
    fifo = folder / "c.fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker"],
        env=os.environ | dict(queued.environment),
        stderr=subprocess.DEVNULL,
    )
    with fifo.open("w"):  # opened when the program of agent c waits at its other end
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert (names(connection, "succeeded"), names(connection, "queued")) == (["a", "b", "c"], ["d", "e"])
    assert client.llen(QUEUE_KEY) == 2
    fifo.unlink()
    assert work(cli, queued).returncode == 0
    assert names(connection, "succeeded") == list(AGENTS)


ASKED_AT_THE_FORK = """
import os, signal
from archisync.rules.config import Config
from archisync.work import worker

class Asked(worker.SyncWorker):
    def fork_work_horse(self, job, queue):
        os.kill(os.getpid(), signal.SIGTERM)
        super().fork_work_horse(job, queue)

worker.SyncWorker = Asked
worker.work(Config.from_environment(), burst=False)
"""


def run_program(program: str, config: Config) -> subprocess.CompletedProcess[str]:
    env = os.environ | dict(config.environment)
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)


def test_sigterm_just_before_the_fork_reaches_the_child_which_begins_no_run(
    cli: Cli, connection: Database, queued: Config
) -> None:
    done = run_program(ASKED_AT_THE_FORK, queued)
    assert (events(done, "child-died"), events(done, "run-started")) == ([], [])
    assert names(connection, "queued") == list(AGENTS)
    assert count(connection, "select count(*) from system.claims") == count(connection, LOCKED) == 0
    assert tick(connection, queued).enqueued == 1  # the agent that the child had and gave back
    assert work(cli, queued).returncode == 0
    assert sorted(names(connection, "succeeded")) == list(AGENTS)


SHORT_JOBS = """
from archisync.rules.config import Config
from archisync.work import worker

worker.job_timeout_s = lambda config: 4
worker.work(Config.from_environment(), burst=True)
"""


def shorten(client: redis.Redis, agent: str, timeout_s: int) -> None:
    """Let RQ give the agent's job so much time. It watches a child's first job only."""
    job_ids = client.lrange(QUEUE_KEY, 0, -1)
    client.hset(f"rq:job:{job_ids[AGENTS.index(agent)].decode()}", "timeout", str(timeout_s))  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("hanging", ["a", "c"])
def test_a_sync_that_hangs_times_out_and_the_child_goes_on(
    connection: Database, queued: Config, folder: Path, client: redis.Redis, hanging: str
) -> None:
    os.mkfifo(folder / f"{hanging}.fifo")
    shorten(client, "a", 4)
    done = run_program(SHORT_JOBS, queued)
    assert names(connection, "succeeded") == [name for name in AGENTS if name != hanging]
    assert count(connection, PROCESSES) == 1
    [run] = connection.execute(
        "select state, reason, message from system.runs where agent_id = %s", [hanging]
    ).fetchall()
    assert (run["state"], run["reason"]) == ("queued", "retry")
    assert "JobTimeoutException" in run["message"]
    assert events(done, "child-died") == []


@pytest.mark.soak
def test_a_worker_ends_a_stopped_child_and_the_other_runs_are_done(
    cli: Cli, connection: Database, queued: Config, folder: Path, client: redis.Redis
) -> None:
    """RQ looks twice a minute, and gives a job a minute beyond its own time."""
    fifo = folder / "c.fifo"
    os.mkfifo(fifo)
    for name in AGENTS:
        shorten(client, name, 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--single", "--burst"],
        env=os.environ | dict(queued.environment),
        stderr=subprocess.DEVNULL,
    )
    descriptor = os.open(fifo, os.O_WRONLY)
    [row] = connection.execute("select worker from system.claims").fetchall()
    os.kill(int(row["worker"].split(":")[1]), signal.SIGSTOP)
    os.close(descriptor)
    assert process.wait(300) == 0
    assert names(connection, "succeeded") == ["a", "b", "d", "e"]
    assert names(connection, "running") == ["c"]


def test_a_lost_database_connection_costs_the_child_and_no_other_run(
    cli: Cli, connection: Database, queued: Config, folder: Path
) -> None:
    fifo = folder / "b.fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--single", "--burst"],
        env=os.environ | dict(queued.environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    with fifo.open("w"):
        ended = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = 'archisync worker'"
        assert count(connection, ended + " and datname = current_database()") == 1
    fifo.unlink()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.count('"event": "delivery-failed"') == 1
    assert names(connection, "succeeded") == ["a", "c", "d", "e"]
    assert names(connection, "queued") == ["b"]
    [left] = [run for run in history.newest(connection) if run.state == "queued"]
    assert (left.attempt, left.reason) == (2, "database-unavailable")


def test_a_plain_rq_worker_does_the_same_runs(connection: Database, queued: Config, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--serializer", "json", "--url", queued.redis_url]
    subprocess.run([*command, "archisync"], env=os.environ | dict(queued.environment), check=True, capture_output=True)
    assert names(connection, "succeeded") == list(AGENTS)
    assert count(connection, PROCESSES) == len(AGENTS)
    assert client.keys("rq:job:*") == []


def test_a_child_is_replaced_when_it_is_old(
    connection: Database, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(work_child, "monotonic", lambda: now[0])
    with Child(config, EventLog(io.StringIO()), stopping=lambda: False) as child:
        now[0] += 300
        assert child.may_go_on
        now[0] += 1
        assert not child.may_go_on
