"""A partitioned table is written as any other: the README proposes it for large ones."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from archisync.rules.config import Config
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import Run
from archisync.sync import inmemory, knownrows
from tests.support.rows import BOOKKEEPING, sync

AGENTS = ("anna", "luca")
PARTITIONED = """
alter table {table} rename to whole;
create table {table} (like {schema}.whole including all) partition by {by};
{parts}
insert into {table} select * from {schema}.whole;
drop table {schema}.whole;
create trigger archisync_changed_outside after insert or update or delete on {table} for each row
  when (pg_trigger_depth() > 0 or coalesce(current_setting('archisync.sync_type', true), '') <> '{name}')
  execute function system.changed_outside('{name}');
create trigger archisync_truncated after truncate on {table} for each statement execute function system.truncated_outside('{name}');
alter table {table} enable always trigger archisync_changed_outside, enable always trigger archisync_truncated;
delete from system.outside_changes
"""


def partition(db: Database, table: str, by: str) -> None:
    schema, name = table.split(".")
    if by.startswith("hash"):
        parts = [
            f"create table {schema}.part_{n} partition of {table} for values with (modulus 3, remainder {n});"
            for n in range(3)
        ]
    else:
        parts = [
            f"create table {schema}.part_1 partition of {table} for values in ('anna');",
            f"create table {schema}.part_2 partition of {table} default;",
        ]
    db.execute(PARTITIONED.format(table=table, schema=schema, name=name, by=by, parts="\n".join(parts)).encode())


class Site:
    def __init__(self, db: Database, config: Config, folder: Path) -> None:
        self.db, self.config, self.folder = db, config, folder
        for agent_id in AGENTS:
            agents.add(db, agent_id, name=None, whitelisted=True)

    def run(self, sync_type: str, agent_id: str, lines: list[str], trigger: str) -> Run:
        (self.folder / f"{agent_id}-{sync_type}.csv").write_text("\n".join(lines) + "\n")
        return sync(self.db, self.config, sync_type, agent_id, trigger=trigger)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return [
            row["line"]
            for row in self.db.execute(
                f"select (to_jsonb(t) - %s::text[]) || jsonb_build_object('gone', t.absent_since is not null) as line"
                f" from {table} t order by to_jsonb(t) - %s::text[]",
                [list(BOOKKEEPING)] * 2,
            ).fetchall()
        ]


@pytest.fixture
def site(connection: Database, database_url: str, tmp_path: Path) -> Site:
    source = f"{tmp_path}/{{agent}}-{{type}}.csv"
    config = Config.from_environment({"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": source})
    return Site(connection, config, tmp_path)


def changed(rows: dict[str, str], chosen: random.Random) -> dict[str, str]:
    """Some rows leave, some change, some come."""
    kept = {key: value for key, value in rows.items() if chosen.random() > 0.15}
    kept = {key: f"{value}!" if chosen.random() < 0.2 else value for key, value in kept.items()}
    return kept | {f"{chosen.randrange(60)}": "new" for _ in range(3)}


@pytest.mark.parametrize("trigger", ["scheduled", "forced"])
@pytest.mark.parametrize(("most_rows", "most_known"), [(2_000, 120_000), (0, 120_000), (0, 0)])
@pytest.mark.parametrize(
    ("sync_type", "table", "by"),
    [
        ("customers", "agents.customers", "hash (agent_id)"),
        ("customers", "agents.customers", "list (agent_id)"),
        ("customers", "agents.customers", "hash (customer_id)"),
        ("products", "shared.products", "hash (product_id)"),
    ],
)
def test_a_partitioned_table_has_what_the_exports_say(
    site: Site,
    sync_type: str,
    table: str,
    by: str,
    most_rows: int,
    most_known: int,
    trigger: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inmemory, "MOST_ROWS", most_rows)
    monkeypatch.setattr(knownrows, "MOST_KNOWN", most_known)
    partition(site.db, table, by)
    chosen, key = random.Random(7), sync_type[:-1]
    whose = AGENTS if sync_type == "customers" else ("service-account",)
    known = {agent_id: {f"{n}": f"Name {n}" for n in range(40)} for agent_id in whose}
    before: dict[str, set[str]] = {agent_id: set() for agent_id in whose}
    for _ in range(4):
        for agent_id in whose:
            run = site.run(
                sync_type, agent_id, [f"{key}_id,name", *(f"{k},{v}" for k, v in known[agent_id].items())], trigger
            )
            assert run.state == "succeeded", run.message
            found = {
                row[f"{key}_id"]: (row["name"], row["gone"])
                for row in site.rows(table)
                if row.get("agent_id", agent_id) == agent_id
            }
            now = {k: (v, False) for k, v in known[agent_id].items()}
            assert {k: v for k, v in found.items() if not v[1]} == now
            assert {k for k, v in found.items() if v[1]} == before[agent_id] - known[agent_id].keys()
            before[agent_id] = set(known[agent_id])
            known[agent_id] = changed(known[agent_id], chosen)
