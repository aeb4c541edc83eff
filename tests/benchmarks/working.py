"""A worker: syncs of an unchanged small export per second and process, claims and history included. Its peer is RQ's worker, which forks
for each job, with jobs that do nothing. Another figure shows what the number of syncs of one child process changes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rq import Queue
from rq.serializers import JSONSerializer

from archisync.queue.client import redis_client
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.support.rows import count

ROWS = 40
"""The rows of each export, as a small agent has them."""
CHILDREN = (1, 10, 100, 1000)
"""How many syncs one child process does at least; 1: each job, which is an agent with its four types, has its own child."""
EXPORTS = {
    "orders": ("order_id,created_at,total_amount", "O{agent}-{row},2026-03-01T10:00:00Z,{row}.50"),
    "customers": ("customer_id,name,city", "C{agent}-{row},Ditta {row} S.r.l.,Roma"),
    "ddt": ("ddt_number,order_number,delivery_date", "D{agent}-{row},O{row},2026-03-02"),
    "invoices": ("invoice_number,order_number,net_amount", "I{agent}-{row},O{row},{row}.50"),
}


EMPTY_JOB = "os.getpid"
"""The peer's job; it is imported already, so that only RQ's own work is measured."""


class Work:
    """Agents with four exports each, all of them applied already, and the two workers."""

    def __init__(self, db: Database, config: Config, folder: Path, agents: int) -> None:
        self._db, self._config, self._agents = db, config, agents
        for number in range(agents):
            path = folder / f"a{number}"
            path.mkdir()
            for name, (header, line) in EXPORTS.items():
                lines = [header, *(line.format(agent=number, row=row) for row in range(ROWS))]
                (path / f"{name}.csv").write_text("\n".join(lines) + "\n", "utf-8")
        db.execute(
            "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(0, %s - 1) n",
            [agents],
        )
        db.execute("update system.sync_settings set enabled = sync_type in ('orders', 'customers', 'ddt', 'invoices')")
        self.per_second(syncs_a_child=1000)  # the first load

    def per_second(self, *, syncs_a_child: int) -> float:
        """Syncs per second of `archisync worker`, without its start; each sync must have succeeded."""
        environment = {"ARCHISYNC_WORKER_SYNCS": str(syncs_a_child)}
        idle_s = timed(lambda: self._worker(environment))
        before = count(self._db, "select coalesce(max(id), 0) from system.sync_runs")
        self._db.execute("update system.sync_state set last_slot_at = null")
        self._db.execute("vacuum analyze system.sync_runs, system.queued_runs, system.sync_state")
        due = tick(self._db, self._config).due
        assert due == 4 * self._agents
        busy_s = timed(lambda: self._worker(environment))
        done = count(
            self._db,
            "select count(*) from system.sync_runs where state = 'succeeded' and attempt = 1 and id > %s",
            before,
        )
        assert done == due, f"{done} of {due} syncs succeeded"
        print(f"   {due} syncs, {syncs_a_child} a child: {due / (busy_s - idle_s):.0f}/s", file=sys.stderr)
        return due / (busy_s - idle_s)

    def _worker(self, more: dict[str, str]) -> None:
        environment = os.environ | dict(self._config.environment) | more
        command = [sys.executable, "-m", "archisync", "worker", "--single", "--burst"]
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)

    def peer_per_second(self, jobs: int) -> float:
        """Jobs per second of a plain RQ worker, without its start."""
        idle_s = timed(self._rq)
        with redis_client(self._config.redis_url) as client:
            q = Queue("peer", connection=client, serializer=JSONSerializer)
            q.enqueue_many([Queue.prepare_data(EMPTY_JOB, result_ttl=0) for _ in range(jobs)])
        busy_s = timed(self._rq)
        print(f"   {jobs} empty jobs of RQ: {jobs / (busy_s - idle_s):.0f}/s", file=sys.stderr)
        return jobs / (busy_s - idle_s)

    def _rq(self) -> None:
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--quiet", "--serializer", "json"]
        subprocess.run([*command, "--url", self._config.redis_url, "peer"], check=True, stderr=subprocess.DEVNULL)


def figures(settings: Settings) -> Iterator[Figure]:
    agents, jobs = (100, 200) if settings.quick else (500, 500)
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(servers, durable=True) as postgres,
        EmbeddedValkey(servers, durable=False) as valkey,
        connected(postgres.url, purpose="bench", answer_timeout_s=600) as db,
        tempfile.TemporaryDirectory() as folder,
    ):
        migrate(db, {})
        environment = {
            "ARCHISYNC_DATABASE_URL": postgres.url,
            "ARCHISYNC_REDIS_URL": valkey.url,
            "ARCHISYNC_SOURCE": f"{folder}/{{agent}}/{{type}}.csv",
        }
        work = Work(db, Config.from_environment(environment), Path(folder), agents)
        for number in CHILDREN:
            aimed_at = number == CHILDREN[-1]  # the others only show what a child of its own for each job costs
            ours, peer = side_by_side(
                settings.rounds if aimed_at else 1,
                lambda number=number: work.per_second(syncs_a_child=number),  # type: ignore[misc]
                lambda: work.peer_per_second(jobs),
            )
            yield Figure(
                name=f"syncs of an unchanged export of {ROWS} rows, four types an agent, {number} syncs a child",
                unit="/s",
                ours=ours,
                against="RQ worker, a fork for each job, empty job",
                peer=peer,
                ratio=ours / peer,
                target=3 if aimed_at else None,
            )
