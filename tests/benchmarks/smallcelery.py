"""The naive task that a team writes first: Celery, a COPY into a temporary table and a MERGE, for every export, changed or not.

Needs BENCH_DATABASE_URL, BENCH_REDIS_URL and BENCH_FOLDER. `celery -A tests.benchmarks.smallcelery worker` does the tasks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import celery
import psycopg

from tests.benchmarks.smallsite import TYPES

DONE = "bench-done"
"""The key in Redis that counts finished tasks."""

app = celery.Celery(
    "small", broker=os.environ.get("BENCH_REDIS_URL", "").replace("unix://", "redis+socket://").replace("?db=0", "")
)
app.conf.update(task_ignore_result=True, task_default_queue="small", worker_prefetch_multiplier=4)
_connections: list[Any] = []


@app.task(name="small.sync")  # type: ignore[untyped-decorator]
def sync(agent: str, name: str) -> None:
    """Load one export."""
    if not _connections:
        import redis

        _connections.append(psycopg.connect(os.environ["BENCH_DATABASE_URL"]))
        _connections.append(redis.Redis.from_url(os.environ["BENCH_REDIS_URL"]))
    connection, client = _connections
    merge(connection, agent, name, Path(os.environ["BENCH_FOLDER"]) / agent / f"{name}.csv")
    client.incr(DONE)


def merge(connection: psycopg.Connection[Any], agent: str, name: str, path: Path) -> None:
    key, columns = TYPES[name]
    names = [column for column, _ in columns]
    listed = ", ".join(names)
    same = " and ".join(f"t.{part} = s.{part}" for part in key)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            f"create temp table stage on commit drop as select {listed} from celery.{name} with no data".encode()
        )
        with cursor.copy(f"copy stage ({listed}) from stdin (format csv, header)".encode()) as copy:
            copy.write(path.read_bytes())
        sets = ", ".join(f"{column} = s.{column}" for column in names if column not in key)
        cursor.execute(
            f"merge into celery.{name} t using stage s on t.agent = '{agent}' and {same}"
            f" when matched then update set {sets}"
            f" when not matched then insert (agent, {listed}) values ('{agent}', {', '.join(f's.{c}' for c in names)})".encode()
        )
        cursor.execute(
            f"delete from celery.{name} t where agent = '{agent}' and not exists (select from stage s where {same})".encode()
        )
