"""Many agents with small exports: what one sync costs, in the workers and in the servers, against the floor and against what a team writes
first: a Celery task, or a script of psql that cron calls. dlt is sampled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import psycopg
import redis

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks import smallfloor
from tests.benchmarks.figures import Figure, Settings, timed
from tests.benchmarks.smallsite import TICKS_A_SECOND, TYPES, Cost, Site, make_naive_tables, say, site

POLL_S = 0.02
ROUND_TIMEOUT_S = 600
SAMPLED = 20
"""Exports that the slow peers load."""
_SCRIPT = """
set -e
for path in "$@"; do
  agent=$(basename "$(dirname "$path")"); type=$(basename "$path" .csv)
  case $type in orders) key=order_id;; customers) key=customer_id;; ddt) key=ddt_number;; *) key=invoice_number;; esac
  columns=$(head -n 1 "$path"); new=$(echo "s.$columns" | sed 's/,/, s./g')
  sets=$(echo "$columns" | tr , '\\n' | grep -v "^$key$" | sed 's/.*/& = s.&/' | paste -sd ,)
  psql -qX -v ON_ERROR_STOP=1 "$BENCH" <<END
begin;
create temp table stage on commit drop as select $columns from celery.$type with no data;
\\copy stage ($columns) from '$path' (format csv, header)
merge into celery.$type t using stage s on t.agent = '$agent' and t.$key = s.$key
  when matched then update set $sets when not matched then insert (agent, $columns) values ('$agent', $new);
commit;
END
done
"""
_DLT = """
import csv, sys
import dlt
for path in sys.argv[3:]:
    pipeline = dlt.pipeline("small", destination=dlt.destinations.postgres(sys.argv[1]), dataset_name="dlt_small",
        pipelines_dir=sys.argv[2])
    rows = csv.DictReader(open(path, encoding="utf-8"))
    pipeline.run(rows, table_name="customers", write_disposition="merge", primary_key="customer_id").raise_on_failed_jobs()
"""


class Ours:
    """archisync on the site, with workers as people start them."""

    def __init__(self, place: Site, db: Database) -> None:
        self._place, self._db = place, db
        self._environment = {
            "ARCHISYNC_DATABASE_URL": place.url,
            "ARCHISYNC_REDIS_URL": place.redis_url,
            "ARCHISYNC_SOURCE": f"{place.folder}/{{agent}}/{{type}}.csv",
        }
        self._config = Config.from_environment(self._environment)

    def found(self) -> None:
        """No data, no history."""
        self._db.execute("drop schema if exists system, agents, shared cascade")
        migrate(self._db, {})
        self._db.execute("create extension if not exists pg_stat_statements schema public")
        self._db.execute(
            "insert into agents.users (id, whitelisted) select unnest(%s::text[]), true", [self._place.ids]
        )
        self._db.execute("update system.sync_settings set enabled = sync_type = any (%s)", [list(TYPES)])
        self._db.execute("vacuum analyze")

    def cost(self, processes: int) -> tuple[Cost, float]:
        """Of so many worker processes over all pairs, from their first job on; and the statements that a sync took."""
        self._make_due()
        last = self._last_run()
        with self._workers(processes) as workers:
            workers.hold()
            queued = 0
            while queued < self._place.pairs:
                due = tick(self._db, self._config).due
                assert due, f"only {queued} of {self._place.pairs} runs were queued"
                queued += due
            self._db.execute("select public.pg_stat_statements_reset()")
            cost = workers.measured(lambda: self._wait_for(last))
            polls = self._number(
                "select calls from public.pg_stat_statements where query like %s", "%from system.sync_runs where id >%"
            )
            calls = self._number("select sum(calls) from public.pg_stat_statements")
        done = self._number("select count(*) from system.sync_runs where state = 'succeeded' and id > %s", last)
        assert done == self._place.pairs, f"{done} of {self._place.pairs} syncs succeeded"
        return cost, (calls - polls) / self._place.pairs

    def round_s(self) -> float:
        """Seconds from the begin of a tick to the last commit, with two workers waiting."""
        self._make_due()
        last = self._last_run()
        with self._workers(2):
            return timed(lambda: (tick(self._db, self._config), self._wait_for(last)))

    @contextmanager
    def _workers(self, processes: int) -> Iterator[Workers]:
        command = [sys.executable, "-m", "archisync", "worker", "--processes", str(processes)]
        with Workers(self._place, command, os.environ | self._environment) as workers:
            with redis.Redis.from_url(self._place.redis_url) as client:
                _until(lambda: client.scard("rq:workers:archisync") == processes)
            yield workers

    def _make_due(self) -> None:
        self._db.execute("update system.sync_state set last_slot_at = null")
        self._db.execute("vacuum system.sync_state")

    def _wait_for(self, last: int) -> int:
        statement = "select count(*) from system.sync_runs where id > %s"
        _until(lambda: self._number(statement, last) == self._place.pairs)
        return 0

    def _last_run(self) -> int:
        return int(
            self._number("select coalesce(last_value, 0) from pg_sequences where sequencename = 'queued_runs_id_seq'")
        )

    def _number(self, statement: str, *params: object) -> float:
        row = self._db.execute(statement.encode(), params or None).fetchone()
        assert row is not None
        return float(next(iter(row.values())) or 0)


class Peers:
    """The floor, Celery, the script and dlt on the same servers."""

    def __init__(self, place: Site) -> None:
        self._place = place
        self._environment = os.environ | {
            "BENCH_DATABASE_URL": place.url,
            "BENCH_REDIS_URL": place.redis_url,
            "BENCH_FOLDER": str(place.folder),
            "BENCH": place.url,
        }

    def prepare(self) -> None:
        with psycopg.connect(self._place.url, autocommit=True) as connection:
            smallfloor.prepare(connection, self._place.ids)
            make_naive_tables(connection)

    def floor(self, processes: int) -> float:
        """Syncs a second."""
        with psycopg.connect(self._place.url, autocommit=True) as connection:
            smallfloor.queue(connection)

        command = [sys.executable, "-m", "tests.benchmarks.smallfloor", self._place.url, str(self._place.folder)]
        with ExitStack() as stack:
            started = [
                stack.enter_context(
                    subprocess.Popen(
                        [*command, str(number), str(processes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                    )
                )
                for number in range(processes)
            ]
            for process in started:
                assert process.stdout is not None
                process.stdout.readline()
            return len(self._place.ids) * len(TYPES) / timed(lambda: _go(started))

    def celery(self, *, held: bool = True) -> Cost:
        """Two prefork processes. `held`: from their first task, with all queued before; else from the first task queued."""
        from tests.benchmarks.smallcelery import DONE

        command = [
            sys.executable, "-m", "celery", "-A", "tests.benchmarks.smallcelery", "worker", "--pool", "prefork",
            "--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "WARNING",
        ]  # fmt: skip
        with (
            Workers(self._place, command, self._environment | {"C_FORCE_ROOT": "1"}) as workers,
            redis.Redis.from_url(self._place.redis_url) as client,
        ):
            _until(lambda: client.exists("_kombu.binding.small") == 1 and len(workers.tree()) > 2)
            client.delete(DONE)
            if held:
                workers.hold()
                self._queue_tasks()

            def work() -> None:
                if not held:
                    self._queue_tasks()
                _until(lambda: int(client.get(DONE) or 0) == self._place.pairs)

            return workers.measured(work)

    def _queue_tasks(self) -> None:
        code = (
            "import sys; from pathlib import Path; from tests.benchmarks.smallcelery import app, sync\n"
            "with app.producer_pool.acquire(block=True) as producer:\n"
            " for agent in sorted(p.name for p in Path(sys.argv[1]).iterdir()):\n"
            "  for name in sys.argv[2:]: sync.apply_async((agent, name), producer=producer)\n"
        )
        subprocess.run([sys.executable, "-c", code, str(self._place.folder), *TYPES], env=self._environment, check=True)

    def script(self) -> float:
        """Syncs a second of a script that cron calls, two at once, over some exports."""
        if shutil.which("psql") is None:
            raise LookupError("psql is not on this machine")
        paths = self._paths(SAMPLED * len(TYPES))
        half = len(paths) // 2

        def work() -> None:
            started = [
                subprocess.Popen(["bash", "-c", _SCRIPT, "script", *part], env=self._environment)
                for part in (paths[:half], paths[half:])
            ]
            assert [process.wait() for process in started] == [0, 0]

        return len(paths) / timed(work)

    def dlt(self) -> float:
        if find_spec("dlt") is None:
            raise LookupError("dlt is not installed (the extra `bench`)")
        paths = [str(self._place.path(agent, "customers")) for agent in self._place.ids[:3]]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _DLT, self._place.url, folder, *paths]
            environment = self._environment | {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
            return len(paths) / timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))

    def _paths(self, number: int) -> list[str]:
        every = [str(self._place.path(agent, name)) for agent in self._place.ids for name in TYPES]
        return every[:number]


class Workers:
    """A command whose processes can be held before their first job; a context, which ends it."""

    def __init__(self, place: Site, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._place, self._command, self._environment = place, command, environment

    def __enter__(self) -> Workers:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def tree(self) -> list[int]:
        found, left = [self._process.pid], [self._process.pid]
        while left:
            listed = subprocess.run(
                ["pgrep", "-P", str(left.pop())], capture_output=True, text=True, check=False
            ).stdout
            left += map(int, listed.split())
            found += map(int, listed.split())
        return found

    def hold(self) -> None:
        for pid in self.tree():
            os.kill(pid, signal.SIGSTOP)

    def measured(self, work: Callable[[], object]) -> Cost:
        """The cost of the work, from here on."""
        begun_s = self._cpu_s()

        def held_no_longer() -> None:
            for pid in self.tree():
                os.kill(pid, signal.SIGCONT)
            work()

        return self._place.measured(held_no_longer, lambda: self._cpu_s() - begun_s)

    def _cpu_s(self) -> float:
        """Of its processes that live, and of their children that have ended."""
        total = 0
        for pid in self.tree():
            with suppress(FileNotFoundError):
                fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))
        return total / TICKS_A_SECOND


def _go(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == [0] * len(processes)


def _until(condition: Callable[[], bool]) -> None:
    over_at = monotonic() + ROUND_TIMEOUT_S
    while not condition():
        if monotonic() > over_at:
            raise AssertionError("the round did not end")
        sleep(POLL_S)


CASES = {"first load": (None, 0.45, 1.4), "unchanged": (0.0, 0.4, None), "1 % changed": (0.01, 0.45, 2.0)}
"""Case → share of the rows that change (None: no row is there yet), targets against the floor and against Celery."""
BOUNDS: dict[str, tuple[float | None, float | None, float | None]] = {
    "first load": (None, None, None), "unchanged": (1.0, 1.5, 1.5), "1 % changed": (5.0, None, None),
}  # fmt: skip
"""Case → milliseconds of CPU, statements, KiB of WAL."""
MAIN_ROWS = 200


SIZES = {200: 1000, 50: 500, 2000: 100}
"""Rows of an export → agents."""


def figures(settings: Settings) -> Iterator[Figure]:
    for rows, agents in {200: 20}.items() if settings.quick else SIZES.items():
        yield from _sizes(agents, rows, settings)
    yield from _round(agents=50 if settings.quick else 1000, rows=200, rounds=1 if settings.quick else 3)


def _sizes(agents: int, rows: int, settings: Settings) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory() as folder,
        site(Path(folder), agents=agents, rows=rows) as place,
        connected(place.url, purpose="bench", answer_timeout_s=600) as db,
    ):
        ours, peers = Ours(place, db), Peers(place)
        seen: dict[str, dict[str, list[float]]] = {case: {} for case in CASES}
        costs: dict[str, list[Cost]] = {case: [] for case in CASES}
        statements: dict[str, float] = {}
        for number in range(min(settings.rounds, 3 if rows == MAIN_ROWS else 1)):
            ours.found()
            peers.prepare()
            for case, (share, _, _) in CASES.items():
                if share or share is None:
                    place.write(share_of_rows=share or 0.0)

                def two_processes(case: str = case) -> float:
                    cost, statements[case] = ours.cost(2)
                    costs[case].append(cost)
                    return cost.per_second

                works = {"ours": two_processes, "the floor": lambda: peers.floor(2)}
                if find_spec("celery"):
                    works["Celery, COPY and MERGE"] = lambda: peers.celery().per_second
                if case == "unchanged":
                    works["one process"] = lambda: ours.cost(1)[0].per_second
                for name in works if number % 2 == 0 else reversed(works):
                    seen[case].setdefault(name, []).append(works[name]())
                say(f"{rows} rows, {case}: " + ", ".join(f"{k} {v[-1]:.0f}/s" for k, v in seen[case].items()))
        for case in CASES:
            rates = {name: median(values) for name, values in seen[case].items()}
            yield from _compared(rows, case, rates, costs[case], statements[case])
        if rows == MAIN_ROWS:
            yield from _sampled(peers, median(seen["1 % changed"]["ours"]))


def _compared(
    rows: int, case: str, rates: Mapping[str, float], costs: Sequence[Cost], statements: float
) -> Iterator[Figure]:
    """Targets are those of MAIN_ROWS rows."""
    main = rows == MAIN_ROWS
    _, floor_target, celery_target = CASES[case]
    targets = {"the floor": floor_target, "Celery, COPY and MERGE": celery_target} if main else {}
    median_cost = sorted(costs, key=lambda cost: cost.cpu_ms)[len(costs) // 2]
    for peer, rate in rates.items():
        if peer != "ours":
            yield Figure(
                name=f"syncs of {rows:,} rows, two processes: {case}", unit="/s", ours=rates["ours"], against=peer, peer=rate,
                ratio=rates["ours"] / rate, target=targets.get(peer), note=median_cost.note(),
            )  # fmt: skip
    bounds = BOUNDS[case] if main else (None, None, None)
    wal_kib = median(cost.wal_bytes / cost.syncs for cost in costs) / 1024
    for what, unit, value, bound in (
        ("CPU of all processes", "ms", median_cost.cpu_ms, bounds[0]),
        ("statements", "", statements, bounds[1]),
        ("WAL", "KiB", wal_kib, bounds[2]),
    ):
        yield Figure(
            name=f"a sync of {rows:,} rows, {case}: {what}", unit=unit, ours=value, against="nothing", peer=None, ratio=value,
            target=bound, at_most=True,
        )  # fmt: skip


def _sampled(peers: Peers, rate: float) -> Iterator[Figure]:
    for name, run in (("psql, \\copy and MERGE, two scripts", peers.script), ("dlt (merge), one process", peers.dlt)):
        peer, note = None, "sampled"
        try:
            peer = run()
        except LookupError as exc:
            note = str(exc)
        except subprocess.CalledProcessError as exc:
            note = f"it ended with exit code {exc.returncode}"
        yield Figure(
            name="syncs of 200 rows, two processes: 1 % changed", unit="/s", ours=rate, against=name, peer=peer,
            ratio=rate / peer if peer else None, target=None, note=note,
        )  # fmt: skip


def _round(*, agents: int, rows: int, rounds: int) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory() as folder,
        site(Path(folder), agents=agents, rows=rows) as place,
        connected(place.url, purpose="bench", answer_timeout_s=600) as db,
    ):
        ours, peers = Ours(place, db), Peers(place)
        ours.found()
        peers.prepare()
        place.write()
        ours.cost(2)
        has_celery = find_spec("celery") is not None
        if has_celery:
            peers.celery()
        mine: list[float] = []
        celery: list[float] = []
        for _ in range(rounds):
            place.write(share_of_rows=0.01, share_of_exports=0.1)
            mine.append(ours.round_s())
            if has_celery:
                celery.append(peers.celery(held=False).seconds)
            say(f"a round of {agents} agents: ours {mine[-1]:.1f} s, Celery {celery[-1] if celery else 0:.1f} s")
        peer = median(celery) if celery else None
        yield Figure(
            name=f"a company's round: {agents:,} agents, one export in ten changed, tick to last commit", unit="s",
            ours=median(mine), against="Celery, COPY and MERGE", peer=peer, ratio=peer / median(mine) if peer else None,
            target=4, note="" if has_celery else "celery is not installed",
        )  # fmt: skip
