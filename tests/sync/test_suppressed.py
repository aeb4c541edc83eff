"""A run whose writes somebody suppresses fails, says who did, and writes nothing, however the export reaches the table."""

from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database
from archisync.sync import inmemory
from tests.support.rows import do_run

AGENT = "anna.bianchi"
HEADER = "customer_id,name,city\n"
TRIGGER = """
create function public.drop_it() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger quiet before {kind} on agents.customers for each row execute function public.drop_it()
"""
WRITES = {
    "first load": ("insert", None, "1,Bar,Milano\n2,Osteria,Torino\n", "0 of 2 planned rows of agents.customers were copied"),
    "first load, quoted": ("insert", None, '1,"Bar, Sport",Milano\n', "0 of 1 planned rows of agents.customers were copied"),
    "a new row": ("insert", "1,Bar,Milano\n", "1,Bar,Milano\n2,Osteria,Torino\n", "0 of 1 planned rows of agents.customers were inserted"),
    "a change": ("update", "1,Bar,Milano\n", "1,Bar,Torino\n", "0 of 1 planned rows of agents.customers were updated"),
    "an absence": ("update", "1,Bar,Milano\n2,Osteria,Torino\n", "1,Bar,Milano\n", "0 of 1 planned rows of agents.customers were absent"),
}  # fmt: skip


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
    if known:
        export.write_text(HEADER + known)
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
    assert found.state == "failed"
    if by == "rule" and most_rows:
        assert "RETURNING" in str(found.message)  # PostgreSQL itself refuses that statement
        return
    assert found.reason == "writes-suppressed"
    assert found.message == f"{said}, so nothing was written (the {by} quiet may have suppressed the others)"


def run(db: Database, config: Config) -> int:
    run_id = queued_runs.force(db, "customers", AGENT, by="test", why=None).run_id
    do_run(db, config, run_id)
    return run_id


def rows(db: Database) -> list[dict[str, object]]:
    return db.execute("select * from agents.customers order by customer_id").fetchall()
