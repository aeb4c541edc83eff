"""Notices: one for each change of a pair and not for each run, written in the transaction of the change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import health, held
from archisync.store.database import Database
from archisync.store.runs import State
from tests.conftest import Cli
from tests.support.queued import AGENT, one_due_pair
from tests.support.rows import add_run
from tests.support.rows import sync as sync_pair
from tests.support.samples import SAMPLES

GOOD = (SAMPLES / AGENT / "customers.csv").read_text("utf-8")
FEW = "".join(line + "\n" for line in GOOD.splitlines()[:4])
Sync = Callable[..., list[State]]


@pytest.fixture
def config(database_url: str, redis_url: str, exports: Path) -> Config:
    source = f"{exports}/{{agent}}/{{type}}.csv"
    return Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_SOURCE": source}
    )


@pytest.fixture
def anna(connection: Database, exports: Path) -> Path:
    """Her export of customers; no other type is enabled."""
    one_due_pair(connection)
    (exports / AGENT).mkdir()
    return exports / AGENT / "customers.csv"


@pytest.fixture
def sync(connection: Database, config: Config, anna: Path) -> Sync:
    """Sync her customers so many times; how each run ended."""
    return lambda times=1: [sync_pair(connection, config, "customers", AGENT).state for _ in range(times)]


def events(db: Database) -> list[tuple[str, str]]:
    rows = db.execute("select event, message from system.notices order by id").fetchall()
    return [(row["event"], row["message"]) for row in rows]


def test_the_third_failure_in_a_row_degrades_a_pair_once_and_a_success_recovers_it_once(
    connection: Database, anna: Path, sync: Sync
) -> None:
    assert sync(2) == ["failed"] * 2
    assert events(connection) == []
    assert sync(3) == ["failed"] * 3
    degraded = f"customers of {AGENT} failed 3 times in a row: no export at {anna}, nor at customers.csv.gz beside it"
    assert events(connection) == [("degraded", degraded)]
    anna.write_text(GOOD)
    assert sync(2) == ["succeeded"] * 2
    assert events(connection)[1:] == [("recovered", f"customers of {AGENT} succeeds again after 5 failures")]
    anna.unlink()
    assert sync(3) == ["failed"] * 3
    assert [event for event, _ in events(connection)] == ["degraded", "recovered", "degraded"]


def test_a_third_silent_worker_degrades_a_pair_too(cli: Cli, connection: Database, anna: Path) -> None:
    connection.execute("update system.sync_state set consecutive_failures = 2 where sync_type = 'customers'")
    add_run(
        connection,
        "running",
        sync_type="customers",
        agent_id=AGENT,
        attempt=3,
        worker="host-1:7",
        lease_until="2020-01-01T00:00:00Z",
    )
    assert cli("tick").returncode == 0
    assert events(connection) == [
        ("degraded", f"customers of {AGENT} failed 3 times in a row: the worker host-1:7 fell silent")
    ]


def test_a_hold_of_many_runs_gives_one_notice_and_its_end_another(connection: Database, anna: Path, sync: Sync) -> None:
    anna.write_text(GOOD)
    assert sync() == ["succeeded"]
    anna.write_text(FEW)
    assert sync(3) == ["held"] * 3
    [(event, message)] = events(connection)
    assert event == "held"
    assert message.startswith(f"the export of customers of {AGENT} is held: the export has 3 rows, ")
    anna.write_text(GOOD)
    assert sync(2) == ["succeeded"] * 2
    assert events(connection)[1:] == [("recovered", f"a good export of customers of {AGENT} ended the hold of run 4")]
    anna.write_text(FEW)
    assert sync() == ["held"]
    assert [event for event, _ in events(connection)] == ["held", "recovered", "held"]


def test_a_held_export_ends_a_series_of_failures_but_is_no_success(
    cli: Cli, connection: Database, anna: Path, sync: Sync
) -> None:
    anna.write_text(GOOD)
    assert sync() == ["succeeded"]
    anna.unlink()
    assert sync(3) == ["failed"] * 3
    anna.write_text(FEW)
    assert sync() == ["held"]
    assert [event for event, _ in events(connection)] == ["degraded", "held"]
    types = {h.sync_type: h for h in health.type_health(connection)}
    assert (types["customers"].failing, types["customers"].backing_off, types["customers"].word) == (0, 0, "held")
    assert "fail" not in cli("why", "customers", AGENT).stdout
    anna.write_text(GOOD)
    assert sync() == ["succeeded"]
    assert [event for event, _ in events(connection)] == ["degraded", "held", "recovered"]


def test_an_accepted_export_ends_the_hold_when_it_is_applied(
    cli: Cli, connection: Database, anna: Path, sync: Sync
) -> None:
    anna.write_text(GOOD)
    sync()
    anna.write_text(FEW)
    sync()
    cli("held", "accept", "2", "--why", "they moved", "--no-run")
    assert len(events(connection)) == 1
    assert sync() == ["succeeded"]
    assert events(connection)[1:] == [("recovered", f"the held export of customers of {AGENT} was applied as accepted")]


@pytest.mark.parametrize("decision", ["accept", "reject"])
def test_a_good_export_also_ends_a_decided_hold_and_the_next_hold_gives_a_notice(
    cli: Cli, connection: Database, anna: Path, sync: Sync, decision: str
) -> None:
    anna.write_text(GOOD)
    sync()
    anna.write_text(FEW)
    assert sync() == ["held"]
    cli("held", decision, "2", "--why", "looked at it", *(["--no-run"] if decision == "accept" else []))
    anna.write_text(GOOD)
    assert sync(2) == ["succeeded"] * 2
    anna.write_text(FEW.replace("\n", " \n"))
    assert sync() == ["held"]
    assert [event for event, _ in events(connection)] == ["held", "recovered", "held"]
    assert events(connection)[1][1] == f"a good export of customers of {AGENT} ended the hold of run 2"


def test_one_good_export_ends_all_earlier_holds(cli: Cli, connection: Database, anna: Path, sync: Sync) -> None:
    anna.write_text(GOOD)
    sync()
    anna.write_text(FEW)
    sync()
    cli("held", "reject", "2", "--why", "looked at it")
    assert sync(2) == ["held"] * 2
    assert [event for event, _ in events(connection)] == ["held"]  # the rejected export needs no second decision
    anna.write_text("".join(FEW.splitlines(keepends=True)[:-1]))
    assert sync(2) == ["held"] * 2  # another export needs a decision of its own
    anna.write_text(GOOD)
    assert sync() == ["succeeded"]
    found = [(event, message.rpartition(" run ")[2]) for event, message in events(connection)]
    assert [event for event, _ in found] == ["held", "held", "recovered"]
    assert found[-1] == ("recovered", "6")


def test_a_hold_ends_when_its_agent_leaves_the_whitelist(
    cli: Cli, connection: Database, anna: Path, sync: Sync
) -> None:
    anna.write_text(GOOD)
    sync()
    anna.write_text(FEW)
    assert sync(2) == ["held"] * 2
    connection.execute(
        "insert into agents.users (id, whitelisted) values ('luca', true)"
    )  # anna.bianchi is not the last one
    assert cli("agent", "deny", AGENT).returncode == 0
    [customers] = [h for h in health.type_health(connection) if h.sync_type == "customers"]
    assert (customers.pairs, customers.held, customers.word) == (1, 0, "stale")
    assert cli("held", "list").stderr == "nothing is held\n"
    assert [(h.run_id, h.decision) for h in held.held_exports(connection, include_decided=True)] == [
        (3, "withdrawn"),
        (2, "superseded"),
    ]
    assert events(connection)[1:] == [
        ("recovered", f"{AGENT} left the whitelist, which ended the hold of customers (run 3)")
    ]
    cli("agent", "allow", AGENT)
    assert sync() == ["held"]
    anna.write_text(GOOD)
    assert sync() == ["succeeded"]
    assert [event for event, _ in events(connection)] == ["held", "recovered", "held", "recovered"]


def test_a_run_held_after_its_agent_left_the_whitelist_gives_no_notice(connection: Database, anna: Path) -> None:
    connection.execute("update agents.users set whitelisted = false")
    run_id = add_run(connection, "held", sync_type="customers", agent_id=AGENT)
    held.record(
        connection,
        {
            "run_id": run_id, "sync_type": "customers", "agent_id": AGENT, "rule": "row-drop", "message": "fewer", "hint": None,
            "acceptable": True,
            "sha256": None, "rows_valid": 1, "sample": [], "planned": {}, "changes": [], "findings": [],
        },
    )  # fmt: skip
    assert held.held_exports(connection) == []
    assert [h.decision for h in held.held_exports(connection, include_decided=True)] == ["withdrawn"]
    assert events(connection) == []


def test_a_change_that_is_rolled_back_leaves_no_notice(connection: Database, anna: Path) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("update system.sync_state set consecutive_failures = 3 where sync_type = 'customers'")
        assert len(events(connection)) == 1
    assert events(connection) == []
