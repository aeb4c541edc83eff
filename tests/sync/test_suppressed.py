"""A run whose writes somebody suppresses fails, says who did, and writes nothing, however the export reaches the table."""

from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connected
from archisync.sync import inmemory
from tests.support.rows import do_run
from tests.support.users import logged_in_as

AGENT = "anna.bianchi"
HEADER = "customer_id,name,city\n"
TRIGGER = """
create function public.drop_it() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger quiet before {kind} on agents.customers for each row execute function public.drop_it()
"""
ONE, TWO, OTHER, BAD = "1,Bar,Milano\n", "2,Osteria,Torino\n", "2,Osteria,Roma\n", f"2,{'x' * 70_000},Roma\n"
WRITES = {
    "first load": ("insert", (), ONE + TWO, "0 of 2 planned rows of agents.customers were copied"),
    "first load, quoted": ("insert", (), '1,"Bar, Sport",Milano\n', "0 of 1 planned rows of agents.customers were copied"),
    "a new row": ("insert", (ONE,), ONE + TWO, "0 of 1 planned rows of agents.customers were inserted"),
    "a change": ("update", (ONE + TWO,), ONE + OTHER, "0 of 1 planned rows of agents.customers were updated"),
    "an absence": ("update", (ONE + TWO,), ONE, "0 of 1 planned rows of agents.customers were absent"),
    "a deletion": ("delete", (ONE + TWO, ONE), ONE, "0 of 1 planned rows of agents.customers were deleted"),
    "a return": ("update", (ONE + TWO, ONE), ONE + TWO, "0 of 1 planned rows of agents.customers were restored"),
    "a changed return": ("update", (ONE + TWO, ONE), ONE + OTHER, "0 of 1 planned rows of agents.customers were updated"),
    "an unreadable return": ("update", (ONE + TWO, ONE), ONE + BAD, "0 of 1 planned rows of agents.customers were restored"),
}  # fmt: skip
"""What is suppressed, the exports before, the export, and what the run says."""


@pytest.fixture
def config(database_url: str, redis_url: str, tmp_path: Path) -> Config:
    return Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{tmp_path}/{{type}}.csv",
            "ARCHISYNC_MAX_ATTEMPTS": "1",
        }
    )


@pytest.mark.parametrize("most_rows", [2_000, 0], ids=["in memory", "through the stage"])
@pytest.mark.parametrize("by", ["trigger", "rule"])
@pytest.mark.parametrize("name", WRITES)
def test_a_suppressed_write_fails_the_run_and_names_who_did_it(
    connection: Database,
    config: Config,
    tmp_path: Path,
    name: str,
    by: str,
    most_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, known, now, said = WRITES[name]
    if by == "rule" and "copied" in said:
        pytest.skip("COPY passes rules by")
    monkeypatch.setattr(inmemory, "MOST_ROWS", most_rows)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    export = tmp_path / "customers.csv"
    for text in known:
        export.write_text(HEADER + text)
        run(connection, config)
    export.write_text(HEADER + now)
    before = rows(connection)
    if by == "trigger":
        connection.execute(TRIGGER.format(kind=kind).encode())
    else:
        connection.execute(f"create rule quiet as on {kind} to agents.customers do instead nothing".encode())
    run_id = run(connection, config)
    found = history.get(connection, run_id)
    assert rows(connection) == before
    assert (found.state, found.reason) == ("failed", "writes-suppressed")
    if by == "rule" and most_rows:
        replaced = "a rule of agents.customers replaces what a sync writes, so nothing was written: "
        assert str(found.message).startswith(replaced)
        assert found.hint == "psql: \\d agents.customers shows the rule; drop rule NAME on agents.customers"
        return
    assert found.message == f"{said}, so nothing was written (the {by} quiet may have suppressed the others)"
    assert found.hint == "a trigger or rule of agents.customers must let each row pass: return new (or old), not null"


@pytest.mark.parametrize("most_rows", [2_000, 0], ids=["in memory", "through the stage"])
def test_a_row_never_keeps_the_digest_of_a_line_that_it_was_not_compared_with(
    connection: Database, config: Config, tmp_path: Path, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes a row, the ERP does the same; whoever suppresses the new digest would have the old line pass for the row."""
    monkeypatch.setattr(inmemory, "MOST_ROWS", most_rows)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    export = tmp_path / "customers.csv"
    export.write_text(HEADER + ONE + TWO)
    run(connection, config)
    connection.execute("update agents.customers set city = 'Roma' where customer_id = '2'")
    connection.execute(TRIGGER.format(kind="update").encode())
    export.write_text(HEADER + ONE + OTHER)
    found = history.get(connection, run(connection, config))
    assert (found.state, found.reason) == ("failed", "writes-suppressed")
    assert str(found.message).startswith("0 of 1 planned rows of agents.customers were given their digests, so ")


@pytest.mark.parametrize("most_rows", [2_000, 0], ids=["in memory", "through the stage"])
@pytest.mark.parametrize("name", [name for name, write in WRITES.items() if write[1]])
def test_row_security_fails_the_run_and_names_the_table(
    connection: Database,
    config: Config,
    database_url: str,
    tmp_path: Path,
    name: str,
    most_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, known, now, _ = WRITES[name]
    monkeypatch.setattr(inmemory, "MOST_ROWS", most_rows)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    export = tmp_path / "customers.csv"
    for text in known:
        export.write_text(HEADER + text)
        run(connection, config)
    export.write_text(HEADER + now)
    before = rows(connection)
    connection.execute("alter table agents.customers enable row level security")
    with logged_in_as(connection, database_url, "guarded") as url:
        for schema in ("system", "agents", "shared"):
            connection.execute(f"grant usage on schema {schema} to guarded".encode())
            connection.execute(f"grant all on all tables in schema {schema} to guarded".encode())
        with connected(url, purpose="test") as guarded:
            run_id = run(guarded, config)
    found = history.get(connection, run_id)
    assert rows(connection) == before
    assert (found.state, found.reason) == ("failed", "configuration")
    assert 'row-level security policy for table "customers"' in str(found.message)
    assert str(found.hint).endswith("alter role ROLE bypassrls")


def run(db: Database, config: Config) -> int:
    run_id = queued_runs.force(db, "customers", AGENT, by="test", why=None).run_id
    do_run(db, config, run_id)
    return run_id


def rows(db: Database) -> list[dict[str, object]]:
    return db.execute("select * from agents.customers order by customer_id").fetchall()
