"""`diff` shows what a sync would do and writes nothing; `clear` deletes the rows of one agent and no other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, runs
from archisync.store.database import Database, connected
from archisync.store.locks import agent_lock
from tests.conftest import Cli
from tests.support.rows import count, fingerprint
from tests.support.rows import sync as sync_now

HEADER = "customer_id,name,phone,city,email\n"
Deliver = Callable[..., runs.Run]


def rows(*numbers: int, name: str = "Name") -> str:
    return HEADER + "".join(f"C{n},{name} {n},06 {n},Roma,{n}@x.it\n" for n in numbers)


@pytest.fixture
def env(exports: Path) -> dict[str, str]:
    return {"ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}


@pytest.fixture
def deliver(connection: Database, database_url: str, exports: Path, env: dict[str, str]) -> Deliver:
    """Write the customers of an agent and sync them."""
    config = Config.from_environment({"ARCHISYNC_DATABASE_URL": database_url} | env)
    for agent in ("anna", "luca"):
        agents.add(connection, agent, name=None, whitelisted=True)
        (exports / agent).mkdir()

    def run(agent: str, text: str) -> runs.Run:
        (exports / agent / "customers.csv").write_text(text, "utf-8")
        return sync_now(connection, config, "customers", agent)

    return run


def everything(db: Database) -> object:
    tables = (
        "agents.customers",
        "system.sync_state",
        "system.applied_exports",
        "system.sync_runs",
        "system.held_exports",
        "system.outside_changes",
    )
    return [db.execute(f"select * from {table} order by 1, 2").fetchall() for table in tables]


def test_diff_reads_dates_in_the_same_order_as_a_sync(
    deliver: Deliver, cli: Cli, connection: Database, exports: Path, env: dict[str, str]
) -> None:
    header, names = "customer_id,name,last_order_date\n", ("customers", "--agent", "anna", "--json")
    deliver("anna", header + "1,A,31/12/2024\n2,B,02/01/2024\n3,C,03/01/2024\n")
    dates = connection.execute(
        "select last_order_date::text as d from agents.customers order by customer_id"
    ).fetchall()
    assert [row["d"] for row in dates] == ["2024-12-31", "2024-01-02", "2024-01-03"]
    (exports / "anna" / "customers.csv").write_text(header + "1,A,31/12/2024\n2,B,02/01/2024\n3,C,04/01/2024\n")
    found = json.loads(cli("diff", *names, env=env).stdout)
    assert found["changes"] == [{"key": ["3"], "fields": {"last_order_date": ["2024-01-03", "2024-01-04"]}}]


def test_diff_shows_what_a_sync_would_do_and_writes_nothing(
    deliver: Deliver, cli: Cli, connection: Database, exports: Path, env: dict[str, str]
) -> None:
    deliver("anna", rows(*range(10)))
    changed = rows(1, 2, 3, 4, 5, 6, 7, 8, 11).replace("Name 1,", "Other 1,") + "C12,,06,Roma,x\n"
    (exports / "anna" / "customers.csv").write_text(changed, "utf-8")
    before = everything(connection)
    shown = cli("diff", "customers", "--agent", "anna", env=env)
    assert (shown.returncode, shown.stderr) == (0, "fetching customers of anna …\n")
    for line in ("  C0\n", "  C9\n", "  C1  name: 'Name 1' → 'Other 1'\n", "warning: 1 row quarantined\n"):
        assert line in shown.stdout
    found = json.loads(cli("diff", "customers", "--agent", "anna", "--json", env=env).stdout)
    assert {name: n for name, n in found["plan"].items() if n} == {"known": 10, "vanishing": 2, "changed": 1, "new": 1}
    assert (found["seen"], found["quarantined"], found["would_be_held"]) == (10, 1, None)
    assert everything(connection) == before
    run = deliver("anna", changed)
    assert run.counts is not None
    assert (run.counts.absent, run.counts.updated, run.counts.inserted) == (2, 1, 1)


def test_diff_says_that_an_export_would_be_held(
    deliver: Deliver, cli: Cli, connection: Database, exports: Path, env: dict[str, str]
) -> None:
    deliver("anna", rows(*range(10)))
    before = everything(connection)
    for text, rule in (
        (rows(1), "row-drop"),
        ("customer_id,phone\n1,2\n", "missing-column"),
        (rows(*range(10))[:-1], "no-final-line-end"),
    ):
        (exports / "anna" / "customers.csv").write_text(text, "utf-8")
        shown = cli("diff", "customers", "--agent", "anna", "--json", env=env)
        assert shown.returncode == 6
        assert json.loads(shown.stdout)["would_be_held"]["rule"] == rule
    assert everything(connection) == before


def test_diff_exits_7_while_a_run_of_the_agent_is_in_progress(
    deliver: Deliver, cli: Cli, database_url: str, env: dict[str, str]
) -> None:
    deliver("anna", rows(1))
    with connected(database_url, purpose="test") as other, agent_lock(other, "anna") as locked:
        assert locked
        assert cli("diff", "customers", "--agent", "anna", env=env).returncode == 7


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("diff", "customers"), 2, "which agent's customers?"),
        (("diff", "products", "--agent", "anna"), 2, "products are shared by all agents"),
        (("diff", "customers", "--agent", "nobody"), 5, "nobody"),
        (("diff", "customers", "--agent", "luca"), 1, "no export at"),
        (("clear", "customers", "--yes"), 2, "which agent's customers?"),
        (("clear", "customers", "--agent", "anna", "--all-agents", "--yes"), 2, "--all-agents"),
        (("clear", "products", "--all-agents", "--yes"), 2, "--all-agents"),
        (("clear", "customers", "--agent", "nobody", "--yes"), 5, "nobody"),
        (
            ("clear", "customers", "--agent", "anna"),
            2,
            "3 rows of customers of anna would be deleted; nothing was done",
        ),
    ],
)
def test_diff_and_clear_refuse_what_is_not_clear(
    deliver: Deliver,
    cli: Cli,
    connection: Database,
    env: dict[str, str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    deliver("anna", rows(1, 2, 3))
    before = everything(connection)
    done = cli(*arguments, env=env)
    assert (done.returncode, said in done.stderr, "hint: " in done.stderr) == (code, True, True)
    assert everything(connection) == before


def test_clear_empties_one_agent_and_the_next_sync_loads_again(
    deliver: Deliver, cli: Cli, connection: Database, env: dict[str, str]
) -> None:
    deliver("anna", rows(*range(10)))
    deliver("luca", rows(*range(5)))
    before = fingerprint(connection, SYNC_TYPES["customers"])
    done = cli("clear", "customers", "--agent", "anna", "--yes", env=env)
    assert (done.returncode, done.stdout) == (
        0,
        "deleted 10 rows of customers of anna; the next sync loads the export again\n",
    )
    assert count(connection, "select count(*) from agents.customers where agent_id = 'anna'") == 0
    assert count(connection, "select count(*) from agents.customers where agent_id = 'luca'") == 5
    assert deliver("anna", rows(*range(10))).message == "10 rows seen: 10 inserted"
    assert fingerprint(connection, SYNC_TYPES["customers"]) == before
    assert cli("clear", "customers", "--all-agents", "--yes", env=env).returncode == 0
    assert count(connection, "select count(*) from agents.customers") == 0


def test_clear_forgets_the_baseline_and_what_was_accepted(
    deliver: Deliver, cli: Cli, connection: Database, env: dict[str, str]
) -> None:
    deliver("anna", rows(*range(10)))
    held = deliver("anna", rows(1))
    assert cli("held", "accept", str(held.run_id), "--why", "sold", "--no-run").returncode == 0
    assert cli("clear", "customers", "--agent", "anna", "--yes", env=env).returncode == 0
    assert deliver("anna", rows(1)).reason == "applied"  # a first load; no acceptance is used
    assert count(connection, "select count(*) from system.held_exports where used_by_run is not null") == 0
