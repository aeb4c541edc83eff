"""Commands in a database with hostile settings: what they refuse, and all that they leave behind."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql
from psycopg.rows import dict_row

from tests.conftest import clean_environment
from tests.support.pgbouncer import pgbouncer
from tests.support.rows import every_table
from tests.support.samples import SAMPLES
from tests.support.warm import WarmCommand

AGENT = "anna.bianchi"
LISTS = ("search_path", "DateStyle")
COMMAND_TIMEOUT_S = 120.0
Setting = tuple[str, str]
PATIENT = "-c idle_session_timeout=0"
UNKNOWN = (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue)


class Found(NamedTuple):
    """What the commands said that ended with another code than 0, and what they left."""

    refused: list[tuple[str, int, str]]
    left: dict[str, Any]


class Site:
    """A server on which each scenario has a database of its own; Redis; exports that change in the middle."""

    def __init__(self, url: str, redis_url: str, folder: Path, command: WarmCommand) -> None:
        self._url, self._redis_url, self._folder, self._command = url, redis_url, folder, command
        self._names = (f"hostile_{number}" for number in itertools.count(1))

    def scenario(
        self, settings: Sequence[Setting] = (), env: Mapping[str, str] | None = None, *, way: str = "database"
    ) -> Found:
        """Run every command in a new database.

        `settings` come by `way`: "database", "role" (the role's in that database), "options" (PGOPTIONS). With "session" or "transaction"
        they are the database's, and commands that can go through a PgBouncer in that mode.
        """
        as_role = way == "role"
        with self._database([] if way == "options" else settings, as_role=as_role) as url:
            if way == "options":
                env = {
                    "PGOPTIONS": " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings)
                }
            if way not in ("session", "transaction"):
                return self._found(url, url, env or {})
            with pgbouncer(url, mode=way) as through:
                return self._found(url, through, env or {})

    def that_it_has(self, settings: Sequence[Setting]) -> list[Setting]:
        """Those that the server knows, with values that it takes from a client: from a role or a database it ignores others."""
        taken = []
        with psycopg.connect(self._url, autocommit=True, application_name="hostile") as db:
            names = {name.lower() for (name,) in db.execute("select name from pg_settings").fetchall()}
            for setting, value in settings:
                try:
                    db.execute("select set_config(%s, %s, false)", [setting, value])
                except psycopg.errors.CantChangeRuntimeParam:  # only when a session begins
                    pass
                except UNKNOWN:
                    continue
                db.execute("reset all")
                if setting.lower() in names:
                    taken.append((setting, value))
        return taken

    def _found(self, url: str, through: str, env: Mapping[str, str]) -> Found:
        self._write_exports()
        refused: list[tuple[str, int, str]] = []
        environment = {
            **clean_environment(), "ARCHISYNC_REDIS_URL": self._redis_url,
            "ARCHISYNC_SOURCE": f"{self._folder}/{{agent}}/{{type}}.csv", **env,
        }  # fmt: skip

        def do(*words: str) -> None:
            where = url if words[0] in ("worker", "run") else through
            done = self._command.run(
                words, env=environment | {"ARCHISYNC_DATABASE_URL": where}, timeout_s=COMMAND_TIMEOUT_S
            )
            if done.returncode:
                refused.append((words[0], done.returncode, done.stderr))

        do("db", "migrate")
        do("agent", "add", AGENT, "--allow")
        do("tick")
        do("worker", "--burst", "--single")
        self._change_exports()
        do("run", "customers", "--agent", AGENT, "--inline")
        do("status", "--json")
        return Found(refused, left_in(url))

    @contextmanager
    def _database(self, settings: Sequence[Setting], *, as_role: bool) -> Iterator[str]:
        name = next(self._names)
        with psycopg.connect(self._url, autocommit=True, application_name="hostile", options=PATIENT) as admin:
            admin.execute(f"create database {name} template template0".encode())
            for setting, value in settings:
                set_for(admin, name, setting, value, as_role=as_role)
            with redis.Redis.from_url(self._redis_url) as client:
                client.flushall()
            yield urlsplit(self._url)._replace(path=f"/{name}").geturl()
            admin.execute(f"drop database {name} with (force)".encode())

    def _write_exports(self) -> None:
        """The samples; and of customers more rows than are compared in memory, with what may be taken for something else."""
        for agent in (AGENT, "service-account"):
            shutil.copytree(SAMPLES / agent, self._folder / agent, dirs_exist_ok=True)
        rows = "".join(f'{n},Caffè \\\'Łódź€ {n},"x, {n % 3}",{n * 2}\n' for n in range(2200))
        (self._folder / AGENT / "customers.csv").write_text("customer_id,name,city,phone\n" + rows, "utf-8")

    def _change_exports(self) -> None:
        """700 rows are changed, 100 are gone, one is new."""
        file = self._folder / AGENT / "customers.csv"
        lines = file.read_text("utf-8").replace("Caffè", "Caffé", 700).splitlines(keepends=True)
        file.write_text("".join(lines[:-100]) + "9999,NULL,x\\N,\n", "utf-8")


def set_for(admin: psycopg.Connection[Any], database: str, setting: str, value: str, *, as_role: bool = False) -> None:
    """For each role in the database, or for the one that logs in. What this server doesn't have, or refuses to note, is left out."""
    parts = [sql.Literal(part.strip()) for part in value.split(",")] if setting in LISTS else [sql.Literal(value)]
    whose = "role current_user in database" if as_role else "database"
    statement = sql.SQL("alter {} {} set {} = {}").format(
        sql.SQL(whose), sql.Identifier(database), sql.SQL(setting), sql.SQL(", ").join(parts)
    )
    with suppress(*UNKNOWN, psycopg.errors.CantChangeRuntimeParam):
        admin.execute(statement)


SCHEMA = """
with ours as (select oid, relkind, relam, reltablespace from pg_class
               where relnamespace in (select oid from pg_namespace where nspname in ('system', 'agents', 'shared')))
select line from (
  select format('%s %s %s', oid::regclass, relkind, reltablespace) as line from ours
  union all select format('%s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull)
              from pg_attribute join ours on ours.oid = attrelid where attnum > 0
  union all select pg_get_functiondef(oid) from pg_proc where pronamespace::regnamespace::text = 'system'
  union all select pg_get_constraintdef(c.oid) from pg_constraint c join ours on ours.oid = c.conrelid) all_of_it
 order by line collate "C"
"""
ROWS = """
select line from (
  select (to_jsonb(t) - array['inserted_at', 'updated_at', 'absent_since']
          || jsonb_build_object('absent', absent_since is not null))::text as line from {table} t) rows_of_it
 order by line collate "C"
"""
RUNS = """
select sync_type, agent_id, state, reason, trigger, message, rows_seen, rows_inserted, rows_updated, rows_unchanged, rows_absent
  from system.sync_runs order by id
"""
PLAIN = (
    "-c search_path=pg_catalog -c TimeZone=UTC -c DateStyle=ISO -c extra_float_digits=1 -c quote_all_identifiers=off -c statement_timeout=0"
    " -c transaction_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0"
    " -c client_encoding=UTF8 -c standard_conforming_strings=on -c temp_file_limit=-1"
    " -c default_table_access_method=heap -c default_tablespace= -c client_min_messages=notice"
)


def left_in(url: str) -> dict[str, Any]:
    """All that the commands left in a database, as a session of ours without their help reads it."""
    with psycopg.connect(url, row_factory=dict_row, autocommit=True, application_name="look") as db:
        plain = PLAIN if db.info.server_version >= 170000 else PLAIN.replace(" -c transaction_timeout=0", "")
    with psycopg.connect(url, row_factory=dict_row, options=plain, application_name="look") as db:
        if db.execute("select to_regclass('system.sync_runs') as ours").fetchall() == [{"ours": None}]:
            return {}
        return {
            "schema": db.execute(SCHEMA).fetchall(),
            "runs": db.execute(RUNS).fetchall(),
            "settings": db.execute("select sync_type, interval_minutes, enabled from system.sync_settings order by 1").fetchall(),
            **{table: db.execute(ROWS.format(table=table).encode()).fetchall() for table in every_table()},
        }  # fmt: skip
