"""One sync on real servers: what it applies, quarantines and holds, and what a person's acceptance does."""

import csv
import gzip
import json
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, history, queued_runs, settings
from archisync.store.database import Database, connected
from archisync.sync.run import Sync
from tests.conftest import Cli
from tests.support.rows import begin_run, count, drain, fingerprint, sync
from tests.support.samples import SAMPLES
from tests.sync.conftest import AGENT, Deliver

EXPORTS = SAMPLES / AGENT
HEADER = "customer_id,name,phone\n"


def test_bad_rows_are_quarantined_and_their_known_rows_stay(deliver: Deliver) -> None:
    text = (EXPORTS / "orders.csv").read_text("utf-8")
    deliver(text, "orders")
    created_at = next(csv.DictReader(text.splitlines()))["created_at"]
    found = deliver(text.replace(created_at, "31/02/2026", 1), "orders")
    assert found.counts is not None
    assert (found.state, found.counts.quarantined, found.counts.absent) == ("succeeded", 1, 0)
    assert found.warnings[0]["rows"][0]["line"] == 2


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "unreadable"),
        (HEADER, "zero-rows"),
        (HEADER + "1,Uno,1\n2,Due,2\n3,Tre,", "no-final-line-end"),
        (HEADER + "1,Uno,1\n2,Due,2\n3,Tre", "truncated"),
        (HEADER + "1,Uno\n", "truncated"),
        ("customer_id,phone\n1,2\n", "missing-column"),
        (HEADER + "1,,\n2,,\n3,,\n4,,\n", "all-rejected"),
        (HEADER + "1,Uno,1\n1,Due,2\n2,a,\n3,b,\n", "duplicate-keys"),
        (HEADER + "1,Uno,1\n", "row-drop"),
        ("<!DOCTYPE html><html>login</html>\n", "unreadable"),
    ],
)
def test_a_suspicious_export_is_held_and_changes_nothing(
    connection: Database, deliver: Deliver, cli: Cli, content: str, rule: str
) -> None:
    deliver(HEADER + "".join(f"{n},Name {n},{n}\n" for n in range(4)))
    before = fingerprint(connection, SYNC_TYPES["customers"])
    found = deliver(content)
    assert (found.state, found.reason) == ("held", rule)
    assert fingerprint(connection, SYNC_TYPES["customers"]) == before
    assert f"held: customers of {AGENT}" in cli("status").stdout


def test_json_lines_and_gzip_are_read_like_csv(
    connection: Database, deliver: Deliver, csv_config: Config, exports: Path
) -> None:
    text = (EXPORTS / "customers.csv").read_text("utf-8")
    deliver(text)
    rows = list(csv.DictReader(text.splitlines()))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (exports / AGENT / "customers.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    as_json = Config(environment={**csv_config.environment, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.jsonl"})
    found = sync(connection, as_json, "customers", AGENT)
    assert found.counts is not None
    assert (found.state, found.counts.unchanged, found.counts.changed) == ("succeeded", len(rows), False)


def test_an_acceptance_applies_the_held_export_exactly_once(
    connection: Database, deliver: Deliver, csv_config: Config, cli: Cli
) -> None:
    lines = (EXPORTS / "orders.csv").read_text("utf-8").splitlines(keepends=True)
    deliver("".join(lines), "orders")
    stopped = deliver("".join(lines[:4]), "orders")
    assert stopped.state == "held"
    accept = ("held", "accept", str(stopped.run_id), "--why", "a branch closed")
    accepted = cli(*accept)
    assert accepted.returncode == 0, accepted.stderr
    again = cli(*accept)
    assert again.returncode == 2
    assert "is accepted already" in again.stderr
    drain(connection, csv_config)
    assert history.newest(connection, limit=1)[0].state == "succeeded"
    assert count(connection, "select count(*) from agents.orders where absent_since is not null") == len(lines) - 4


def test_a_worker_killed_while_it_skips_a_run_loses_neither_run_nor_slot(
    connection: Database, csv_config: Config, database_url: str
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=10, batch=10)
    [run] = history.newest(connection, sync_type="orders")
    settings.pause(connection, sync_type=None, agent_id=None, until=None, reason=None, by="test")
    with connected(database_url, purpose="test") as worker:
        begun = begin_run(worker, run.run_id, worker="killed")
        connection.execute(
            "create function public.killed() returns trigger language plpgsql as $$ begin"
            " perform pg_terminate_backend(pg_backend_pid()); return null; end $$"
        )
        connection.execute(
            "create trigger killed after update of last_run_id on system.sync_state execute function public.killed()"
        )
        with pytest.raises(psycopg.OperationalError):
            Sync(worker, csv_config, begun, spool=lambda: nullcontext(Path()), may_retry=True).run()
    assert history.get(connection, run.run_id).state == "running"
