"""Runs from each source: exports unchanged at the source, waits that a server asks for, and what the row of a run records."""

import io
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database
from archisync.store.runs import Counts, Run
from tests.conftest import Cli
from tests.support.erp import Answer, Erp, Handler
from tests.support.fetching import CANARY
from tests.support.plugins import WORKING, install
from tests.support.rows import do_run
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
PATH = f"/{AGENT}/orders.csv"
EXPORT = (SAMPLES / AGENT / "orders.csv").read_bytes()
START = datetime.fromisoformat("2026-05-05T12:00:00+00:00")


@pytest.fixture(autouse=True)
def _export(erp: Erp) -> None:
    erp.answers[PATH] = Answer(body=EXPORT, etag='"v1"')


@pytest.fixture
def variables(erp: Erp, database_url: str, redis_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"{erp.url}/{{agent}}/{{type}}.csv",
        "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.1:*",
        "ARCHISYNC_HTTP_TOKEN": CANARY,
    }


class Rounds:
    """Scheduled runs of the orders of one agent, one every quarter of an hour."""

    def __init__(self, db: Database, variables: dict[str, str]) -> None:
        self.db = db
        self.variables = variables
        self.now = START
        self.log = io.StringIO()
        agents.add(db, AGENT, name=None, whitelisted=True)
        db.execute("update system.sync_settings set enabled = (sync_type = 'orders')")

    def queue(self) -> int:
        """The run that the next tick queues."""
        self.now += timedelta(minutes=15)
        self.db.execute(f"set archisync.now = '{self.now.isoformat()}'")
        assert tick(self.db, self.config).due == 1
        row = self.db.execute("select id from system.queued_runs").fetchone()
        assert row is not None
        return int(row["id"])

    @property
    def config(self) -> Config:
        return Config.from_environment(self.variables)

    def done(self, run_id: int) -> Run:
        do_run(self.db, self.config, run_id, EventLog(self.log))
        return history.get(self.db, run_id)

    def scheduled(self) -> Run:
        return self.done(self.queue())

    def forced(self) -> Run:
        return self.done(queued_runs.force(self.db, "orders", AGENT, by="test", why=None).run_id)

    def state(self) -> dict[str, Any]:
        row = self.db.execute("select * from system.sync_state where sync_type = 'orders'").fetchone()
        assert row is not None
        return row

    def applied(self) -> dict[str, Any]:
        row = self.db.execute("select source from system.applied_exports where sync_type = 'orders'").fetchone()
        assert row is not None
        return dict(row["source"])

    def table(self) -> list[dict[str, Any]]:
        """Every row, with the system columns that show whether it was written again."""
        return self.db.execute("select xmin::text, ctid::text, * from agents.orders order by order_id").fetchall()


@pytest.fixture
def rounds(connection: Database, variables: dict[str, str]) -> Rounds:
    return Rounds(connection, variables)


# --- unchanged at the source --------------------------------------------------------------------------------------


def test_unchanged_export_ends_the_run_without_a_write_to_the_table(rounds: Rounds, erp: Erp) -> None:
    first = rounds.scheduled()
    assert (first.state, first.reason) == ("succeeded", "applied")
    table, state = rounds.table(), rounds.state()
    second = rounds.scheduled()
    assert (second.state, second.reason) == ("succeeded", "unchanged-at-source")
    assert second.message == (
        f"the source says that the export has not changed since run {first.run_id}; nothing was fetched"
    )
    assert second.export == {"origin": f"{erp.url}{PATH}", "unchanged_since_run": first.run_id}
    assert second.counts == Counts(seen=46, unchanged=46)
    assert rounds.table() == table
    later = rounds.state()
    assert later == state | {
        "last_run_id": second.run_id,
        "last_success_at": rounds.now,
        "last_slot_at": later["last_slot_at"],
    }
    third = rounds.scheduled()
    assert third.message == second.message
    assert [asked.headers.get("if-none-match") for asked in erp.asked] == [None, '"v1"', '"v1"']


def test_export_that_is_not_settled_is_no_failure_and_its_slot_comes_again(rounds: Rounds, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(EXPORT)
    rounds.variables["ARCHISYNC_SOURCE"] = f"{tmp_path}/{{type}}.csv?settle=3600s"
    young = rounds.scheduled()
    assert (young.state, young.reason) == ("skipped", "not-settled")
    assert young.message is not None
    assert young.message.startswith(f"{path} was written ")
    assert rounds.state()["consecutive_failures"] == 0
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert tick(rounds.db, rounds.config).due == 1, "the slot was given back"
    row = rounds.db.execute("select id from system.queued_runs").fetchone()
    assert row is not None
    assert rounds.done(row["id"]).reason == "applied"


def test_export_that_changes_again_is_applied(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    rounds.scheduled()
    erp.answers[PATH] = Answer(body=EXPORT.replace(b"Fatturato", b"Annullato", 1), etag='"v2"')
    changed = rounds.scheduled()
    assert (changed.state, changed.reason) == ("succeeded", "applied")
    assert changed.counts is not None
    assert changed.counts.updated == 1


def test_forced_run_fetches_an_unchanged_export(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    forced = rounds.forced()
    assert (forced.state, forced.reason) == ("succeeded", "applied")
    assert "if-none-match" not in erp.asked[-1].headers


def test_unchanged_export_is_fetched_after_a_failed_run(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    erp.answers[PATH] = Answer(status=401)
    assert rounds.scheduled().state == "failed"
    erp.answers[PATH] = Answer(body=EXPORT, etag='"v1"')
    again = rounds.scheduled()
    assert (again.state, again.reason) == ("succeeded", "applied")


def test_unchanged_export_is_fetched_after_a_held_run_and_clears_the_hold(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    erp.answers[PATH] = Answer(body=EXPORT.split(b"\n")[0] + b"\n", etag='"empty"')
    assert rounds.scheduled().state == "held"
    erp.answers[PATH] = Answer(body=EXPORT, etag='"v1"')
    assert rounds.scheduled().reason == "applied"
    row = rounds.db.execute("select decision from system.held_exports").fetchone()
    assert row == {"decision": "cleared"}


def test_vanished_row_is_confirmed_by_a_second_complete_export(rounds: Rounds, erp: Erp) -> None:
    """Otherwise an export that does not change any more would keep the row for ever."""
    rounds.scheduled()
    lines = EXPORT.splitlines(keepends=True)
    erp.answers[PATH] = Answer(body=b"".join(lines[:-1]), etag='"v2"')
    absent, deleted, unchanged = rounds.scheduled(), rounds.scheduled(), rounds.scheduled()
    assert absent.counts is not None
    assert deleted.counts is not None
    assert (absent.counts.absent, deleted.counts.deleted, unchanged.reason) == (1, 1, "unchanged-at-source")


@pytest.mark.parametrize(("name", "value"), [("ARCHISYNC_LOCALE", "it"), ("ARCHISYNC_TIMEZONE", "Europe/Lisbon")])
def test_unchanged_export_is_fetched_when_a_setting_reads_it_differently(
    rounds: Rounds, erp: Erp, name: str, value: str
) -> None:
    rounds.scheduled()
    rounds.variables[name] = value
    assert rounds.scheduled().reason != "unchanged-at-source"
    assert "if-none-match" not in erp.asked[-1].headers


def test_another_address_is_another_export(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    erp.answers[f"{PATH}?v=2"] = erp.answers[PATH]
    rounds.variables["ARCHISYNC_SOURCE"] += "?v=2"
    assert rounds.scheduled().reason == "applied"


def test_export_without_validators_is_fetched_each_time_and_compared(rounds: Rounds, erp: Erp) -> None:
    erp.answers[PATH] = Answer(body=EXPORT)
    rounds.scheduled()
    assert rounds.applied()["validators"] == {}
    assert rounds.scheduled().reason == "unchanged"


def test_validators_of_an_export_that_was_not_applied_are_not_kept(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    kept = rounds.applied()
    erp.answers[PATH] = Answer(body=EXPORT.split(b"\n")[0] + b"\n", etag='"empty"')
    rounds.scheduled()
    assert rounds.applied() == kept


def test_run_without_changes_can_be_shown(rounds: Rounds, cli: Cli) -> None:
    rounds.scheduled()
    run = rounds.scheduled()
    shown = cli("show", str(run.run_id))
    assert shown.returncode == 0
    assert "unchanged-at-source" in shown.stdout
    assert cli("history", "--json").returncode == 0
    assert cli("status").returncode == 0


# --- waits --------------------------------------------------------------------------------------------------------


def test_worker_waits_as_long_as_a_server_asks_when_that_is_short(rounds: Rounds, erp: Erp) -> None:
    from time import monotonic

    times: list[float] = []

    def busy_once(handler: Handler) -> None:
        times.append(monotonic())
        refusal = Answer(status=429, headers={"Retry-After": "2"})
        handler.answer(refusal if len(times) == 1 else Answer(body=EXPORT), {})

    erp.answers[PATH] = busy_once
    done = rounds.scheduled()
    assert (done.state, done.attempt) == ("succeeded", 1)
    assert times[1] - times[0] >= 2


@pytest.mark.parametrize(("asked", "delay_s"), [("20", 60), ("900", 900), ("999999", 3600)])
def test_long_wait_is_left_to_a_later_tick(rounds: Rounds, erp: Erp, asked: str, delay_s: int) -> None:
    erp.answers[PATH] = Answer(status=503, headers={"Retry-After": asked})
    run = rounds.scheduled()
    assert (run.state, run.reason, run.attempt) == ("queued", "retry", 2)
    assert run.not_before == rounds.now + timedelta(seconds=delay_s)
    assert len(erp.asked) == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "authentication"), (404, "no-export"), (410, "no-export"), (400, "source-refused")]
)
def test_final_answer_is_asked_for_once(rounds: Rounds, erp: Erp, status: int, reason: str) -> None:
    erp.answers[PATH] = Answer(status=status)
    run = rounds.scheduled()
    assert (run.state, run.reason, run.attempt) == ("failed", reason, 1)
    assert len(erp.asked) == 1


def test_truncated_download_is_held_and_changes_nothing(rounds: Rounds, erp: Erp) -> None:
    rounds.scheduled()
    table = rounds.table()
    erp.answers[PATH] = Answer(body=EXPORT[:-100], length=len(EXPORT))
    run = rounds.scheduled()
    assert (run.state, run.reason) == ("held", "truncated")
    assert rounds.table() == table


# --- programs and plug-ins ----------------------------------------------------------------------------------------


def _program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "export.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"exec:{path} {{agent}} {{type}}"


def test_export_of_a_program_is_applied_and_its_standard_error_recorded(rounds: Rounds, tmp_path: Path) -> None:
    rounds.variables["ARCHISYNC_SOURCE"] = _program(tmp_path, f'echo "reading $1" >&2; cat {SAMPLES}/$1/$2.csv')
    run = rounds.scheduled()
    assert (run.state, run.reason) == ("succeeded", "applied")
    assert run.export is not None
    assert (run.export["origin"], run.export["stderr"]) == ("exec:export.sh", [f"reading {AGENT}"])


def test_program_that_fails_after_a_complete_export_changes_nothing(rounds: Rounds, tmp_path: Path) -> None:
    rounds.variables["ARCHISYNC_SOURCE"] = _program(tmp_path, f"cat {SAMPLES}/$1/$2.csv; echo no disk >&2; exit 3")
    run = rounds.scheduled()
    assert (run.state, run.reason) == ("failed", "source-refused")
    assert run.message == "exec:export.sh ended with exit code 3: no disk"
    assert rounds.table() == []


def test_broken_plug_in_fails_the_runs_of_its_type_and_of_no_other(
    connection: Database, cli: Cli, tmp_path: Path, variables: dict[str, str]
) -> None:
    install(tmp_path / "site", "acme_broken", scheme="acme", code="import no_such_module")
    install(tmp_path / "site", "acme_fine", scheme="fine", code=WORKING)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    env = {
        "PYTHONPATH": str(tmp_path / "site"),
        "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv",
        "ARCHISYNC_SOURCE_ORDERS": "acme://host/{agent}",
        "ARCHISYNC_SOURCE_DDT": "fine://host/{agent}",
        "ACME_CONTENT": (SAMPLES / AGENT / "ddt.csv").read_text("utf-8").replace("\n", "|"),
    }
    assert cli("tick", env=env).returncode == 0
    done = cli("worker", "--single", "--burst", env=env)
    assert done.returncode == 0, done.stderr
    found = {run.sync_type: run for run in history.newest(connection)}
    assert (found["orders"].state, found["orders"].reason) == ("failed", "source-plugin")
    assert found["orders"].message == (
        "the source plug-in acme: can't be loaded: ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert {name: run.state.value for name, run in found.items() if name != "orders"} == dict.fromkeys(
        ("customers", "ddt", "invoices", "products", "prices"), "succeeded"
    )


def test_error_with_characters_that_postgresql_refuses_still_ends_its_run(
    rounds: Rounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from archisync.base.errors import SourceError\nclass Source:\n    def fetch(self, r): raise SourceError('a\\0b\\ud800')\n"
    install(tmp_path / "site", "acme_raw", scheme="acme", code=code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    rounds.variables["ARCHISYNC_SOURCE"] = "acme://host/{agent}"
    run = rounds.scheduled()
    assert (run.state, run.reason, run.message) == ("failed", "source-refused", "a�b�")


# --- secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 401, 500])
def test_credentials_reach_neither_the_terminal_nor_the_log_nor_the_database(
    connection: Database, cli: Cli, erp: Erp, variables: dict[str, str], status: int
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    erp.answers[f"{PATH}?key={CANARY}"] = Answer(body=EXPORT, status=status)
    env = {
        "ARCHISYNC_SOURCE": f"{variables['ARCHISYNC_SOURCE']}?key={CANARY}",
        "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.1:*",
        "ARCHISYNC_HTTP_TOKEN": CANARY,
    }
    done = cli("--debug", "run", "orders", "--agent", AGENT, "--inline", env=env)
    assert erp.asked[0].headers["authorization"] == f"Bearer {CANARY}"
    assert done.returncode == (0 if status == 200 else 1)
    stored = [connection.execute(f"select * from system.{table}").fetchall() for table in ("runs", "sync_state")]
    assert CANARY not in done.stdout + done.stderr + str(stored)
