"""The floor of a small sync: the fewest statements that claim an agent, find the changes of its exports by digests, write them, and
leave a history row, the guard's evidence and a fence. No RQ, no formats, no checks.

`python -m tests.benchmarks.smallfloor DATABASE_URL FOLDER ROWS WORKER WORKERS` does the agents of
one of several workers, once it is told to go on standard input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psycopg
from xxhash import xxh3_128_digest

from tests.benchmarks.smallsite import TYPES

Connection = psycopg.Connection[Any]

SCHEMA = """
drop schema if exists floor cascade;
create schema floor;
create table floor.queue (
  id bigint generated always as identity primary key, agent text not null, type text not null, state text not null default 'queued',
  fence int not null default 1, lease timestamptz, worker text, queued_at timestamptz not null default now(), started_at timestamptz,
  unique (agent, type));
create table floor.history (
  id bigint primary key, agent text, type text, state text, reason text, message text, queued_at timestamptz, started_at timestamptz,
  finished_at timestamptz, worker text, seen bigint, updated bigint, export jsonb, steps jsonb);
create index on floor.history (agent, type, id);
create index on floor.history (finished_at);
create table floor.state (
  agent text, type text, last_success timestamptz, known bigint, validators text, failures int, last_run bigint,
  primary key (agent, type)) with (fillfactor = 80);
"""
CLAIM = """
with lock as materialized (select pg_try_advisory_lock(42, hashtext(%(agent)s)) as ok),
mine as (
  update floor.queue q set state = 'running', lease = now() + interval '2 min', worker = %(worker)s, started_at = now()
    from lock where lock.ok and q.agent = %(agent)s and q.state = 'queued'
  returning q.id, q.type, q.fence)
select m.id, m.type, m.fence, s.validators, s.known from mine m join floor.state s on s.agent = %(agent)s and s.type = m.type order by m.id
"""
END = """
with ended as (
  delete from floor.queue q
   using unnest(%s::bigint[], %s::int[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) 
      as e(id, fence, reason, seen, updated, validators)
   where q.id = e.id and q.fence = e.fence
  returning q.*, e.reason, e.seen, e.updated, e.validators),
history as (
  insert into floor.history
  select id, agent, type, 'succeeded', reason, reason, queued_at, started_at, now(), worker, seen, updated, '{"origin": "x"}',
         '{"total": 1}' from ended)
update floor.state s set last_success = now(), failures = 0, last_run = e.id, known = e.seen, validators = e.validators
  from ended e where s.agent = e.agent and s.type = e.type
"""


def prepare(connection: Connection, agents: list[str]) -> None:
    connection.execute(SCHEMA.encode())
    for name, (key, columns) in TYPES.items():
        definitions = ", ".join(f"{column} {kind}" for column, kind in columns)
        connection.execute(
            f"create table floor.{name} (agent text, {definitions}, digest uuid, absent_since timestamptz, updated_at timestamptz"
            f" default now(), run_id bigint, primary key (agent, {', '.join(key)}))".encode()
        )
        connection.execute(
            f"insert into floor.state (agent, type) select unnest(%s::text[]), '{name}'".encode(), [agents]
        )


def queue(connection: Connection) -> None:
    connection.execute("insert into floor.queue (agent, type) select agent, type from floor.state")


class Floor:
    """One worker."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection, self._folder = connection, folder

    def agent(self, agent: str) -> None:
        done: list[tuple[Any, ...]] = []
        rows = self._connection.execute(CLAIM, {"agent": agent, "worker": f"w{os.getpid()}"}, prepare=True).fetchall()
        for run, name, fence, validators, known in rows:
            path = self._folder / agent / f"{name}.csv"
            stat = path.stat()
            now = f"{stat.st_size}:{stat.st_mtime_ns}"
            if now == validators:
                done.append((run, fence, "unchanged", known, 0, now))
                continue
            with self._connection.transaction():
                seen, updated = self._apply(agent, name, path.read_bytes().split(b"\n")[1:-1], run, known=bool(known))
                self._end([(run, fence, "applied", seen, updated, now)])
        if done:
            self._end(done)
        self._connection.execute("select pg_advisory_unlock(42, hashtext(%s))", [agent], prepare=True)

    def _end(self, done: list[tuple[Any, ...]]) -> None:
        self._connection.execute(END, [list(column) for column in zip(*done, strict=True)], prepare=True)

    def _apply(self, agent: str, name: str, lines: list[bytes], run: int, *, known: bool) -> tuple[int, int]:
        key, columns = TYPES[name]
        names = [column for column, _ in columns]
        digests = [xxh3_128_digest(line) for line in lines]
        if not known:
            with (
                self._connection.cursor() as cursor,
                cursor.copy(
                    f"copy floor.{name} (agent, {', '.join(names)}, digest, run_id) from stdin".encode()
                ) as copy,
            ):
                copy.write(
                    b"".join(
                        b"%s\t%s\t%s\t%d\n" % (agent.encode(), line.replace(b",", b"\t"), digest.hex().encode(), run)
                        for line, digest in zip(lines, digests, strict=True)
                    )
                )
            return len(lines), 0
        have = {
            digest.bytes: keys
            for digest, *keys in self._connection.execute(
                f"select digest, {', '.join(key)} from floor.{name} where agent = %s".encode(), [agent], prepare=True
            )
        }
        new = [
            (line.decode().split(","), digest)
            for line, digest in zip(lines, digests, strict=True)
            if digest not in have
        ]
        gone = [have[digest] for digest in have.keys() - set(digests)]
        gone_keys = [list(column) for column in zip(*gone, strict=True)]
        casts = ", ".join("%s::text[]" for _ in key)
        same = " and ".join(f"t.{part} = k.{part}" for part in key)
        self._connection.execute(  # the evidence that a guard looks at
            f"select t.* from floor.{name} t join unnest({casts}) as k({', '.join(key)}) on {same} where t.agent = %s".encode(),
            [*gone_keys, agent], prepare=True,
        ).fetchall()  # fmt: skip
        arrays = ", ".join("%s::text[]" for _ in [*names, "digest"])
        sets = ", ".join(f"{column} = k.{column}::{kind}" for column, kind in columns if column not in key)
        updated = self._connection.execute(
            f"update floor.{name} t set {sets}, digest = k.digest::uuid, updated_at = now(), run_id = %s"
            f" from unnest({arrays}) as k({', '.join(names)}, digest) where t.agent = %s and {same}".encode(),
            [run, *([row[i] for row, _ in new] for i in range(len(names))), [digest.hex() for _, digest in new], agent],
            prepare=True,
        ).rowcount  # fmt: skip
        return len(lines), updated


def main(url: str, folder: str, worker: int, workers: int) -> None:
    agents = sorted(path.name for path in Path(folder).iterdir())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        floor = Floor(connection, Path(folder))
        print("ready", flush=True)
        sys.stdin.readline()
        for agent in agents[worker::workers]:
            floor.agent(agent)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
