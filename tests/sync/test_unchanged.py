"""An unchanged export ends a run at once, unless somebody else has written to the table."""

import random

import psycopg
import pytest

from archisync.rules.config import Config
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import Counts
from tests.conftest import Cli
from tests.support.erp import Answer, Handler, running_erp
from tests.support.rows import count, sync
from tests.sync.conftest import AGENT, Deliver

HEADER = "customer_id,name,phone,city,region\n"
ROWS = [f"C{n},Name {n},06 {n},Roma,RM\n" for n in range(20)]


def shuffled() -> str:
    lines = ROWS[:]
    random.Random(1).shuffle(lines)
    return HEADER + "".join(lines)


def test_the_same_bytes_and_the_same_lines_in_another_order_change_nothing(deliver: Deliver) -> None:
    assert deliver(HEADER + "".join(ROWS)).counts == Counts(seen=20, inserted=20)
    same = deliver(HEADER + "".join(ROWS))
    assert (same.state, same.reason, same.counts) == ("succeeded", "unchanged-at-source", Counts(seen=20, unchanged=20))
    other = deliver(shuffled())
    assert (other.state, other.reason, other.counts) == ("succeeded", "unchanged", Counts(seen=20, unchanged=20))
    assert other.message == "20 rows seen: every line is known; nothing was compared"


OUTSIDE = {
    "updated": "update agents.customers set name = 'Another' where customer_id = 'C3'",
    "deleted": "delete from agents.customers where customer_id = 'C3'",
    "inserted": "insert into agents.customers (agent_id, customer_id, name) values ('anna.bianchi', 'C99', 'New')",
    "moved": "update agents.customers set agent_id = 'somebody.else' where customer_id = 'C3'",
    "truncated": "truncate agents.customers",
}


@pytest.mark.parametrize("statement", OUTSIDE.values(), ids=list(OUTSIDE))
@pytest.mark.parametrize("export", [HEADER + "".join(ROWS), shuffled()], ids=["same-bytes", "same-lines"])
def test_a_table_that_somebody_else_wrote_to_is_compared_and_repaired(
    deliver: Deliver, connection: Database, statement: str, export: str
) -> None:
    deliver(HEADER + "".join(ROWS))
    connection.execute(statement)
    mended = deliver(export)
    assert (mended.state, mended.reason) == ("succeeded", "applied")
    names = "select count(*) from agents.customers where agent_id = 'anna.bianchi' and absent_since is null and name like 'Name %'"
    assert count(connection, names) == 20
    if "insert" in statement:  # the first export without the row only marks it
        assert deliver(export).counts == Counts(seen=20, unchanged=20, deleted=1)
    assert deliver(export).reason in ("unchanged", "unchanged-at-source")


def test_a_change_that_commits_while_an_export_is_applied_is_seen_by_the_next_sync(
    deliver: Deliver, connection: Database, database_url: str
) -> None:
    deliver(HEADER + "".join(ROWS))
    with psycopg.connect(database_url) as other:
        other.execute("update agents.customers set name = 'Another' where customer_id = 'C3'")
        # Applied while the other transaction is open: the apply touches other rows and can't see the change.
        assert deliver(HEADER + "".join(ROWS[:-1]) + "C99,Name 99,06 99,Roma,RM\n").reason == "applied"
        other.commit()
    assert count(connection, "select count(*) from agents.customers where name = 'Another'") == 1
    again = deliver(HEADER + "".join(ROWS[:-1]) + "C99,Name 99,06 99,Roma,RM\n")
    assert (again.reason, again.counts and again.counts.updated) == ("applied", 1)


def test_each_outside_transaction_leaves_one_row_for_each_agent(deliver: Deliver, connection: Database) -> None:
    deliver(HEADER + "".join(ROWS))
    assert count(connection, "select count(*) from system.outside_changes") == 0
    connection.execute("update agents.customers set city = 'Milano'")
    connection.execute("update agents.customers set city = 'Torino'")
    assert count(connection, "select count(*) from system.outside_changes") == 2
    deliver(HEADER + "".join(ROWS))
    assert count(connection, "select count(*) from system.outside_changes") == 0


def test_a_forced_run_compares_an_unchanged_export(deliver: Deliver) -> None:
    deliver(HEADER + "".join(ROWS))
    assert deliver(HEADER + "".join(ROWS), trigger="forced").reason == "applied"


def test_an_unchanged_export_is_compared_again_after_absent_or_quarantined_rows(deliver: Deliver) -> None:
    deliver(HEADER + "".join(ROWS))
    fewer = HEADER + "".join(ROWS[:-2])
    assert deliver(fewer).counts == Counts(seen=18, unchanged=18, absent=2)
    assert deliver(fewer).counts == Counts(seen=18, unchanged=18, deleted=2)
    assert deliver(fewer).reason == "unchanged-at-source"
    bad = fewer + "C50,,06,Roma,RM\n"
    assert [deliver(bad).reason for _ in range(2)] == ["applied-with-warnings"] * 2


def test_a_first_export_with_a_repeated_key_is_held(deliver: Deliver, connection: Database) -> None:
    held = deliver(HEADER + ROWS[0] + ROWS[0].replace("Roma", "Milano"))
    assert (held.state, held.reason) == ("held", "duplicate-keys")
    assert count(connection, "select count(*) from agents.customers") == 0
    assert deliver(HEADER + ROWS[0] + ROWS[0]).counts == Counts(seen=2, inserted=1)


CLEARED = "select"  # `archisync clear` itself
DURING = OUTSIDE | {"cleared": CLEARED}


@pytest.mark.parametrize("statement", DURING.values(), ids=list(DURING))
@pytest.mark.parametrize("etag", ['"1"', None], ids=["not-modified", "same-bytes"])
def test_a_table_that_is_written_to_during_the_fetch_is_compared(
    connection: Database, database_url: str, cli: Cli, statement: str, etag: str | None
) -> None:
    """A fetch takes seconds to minutes; the table may change meanwhile."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    answer = Answer(body=(HEADER + "".join(ROWS)).encode(), etag=etag)

    def slowly(handler: Handler) -> None:
        if statement is CLEARED:
            env = {"ARCHISYNC_DATABASE_URL": database_url}
            assert cli("clear", "customers", "--agent", AGENT, "--yes", env=env).returncode == 0
        else:
            with psycopg.connect(database_url) as other:
                other.execute(statement)
        erp.answers["/customers.csv"] = answer  # if it is asked again
        handler.answer(answer, erp.asked[-1].headers)

    with running_erp() as erp:
        config = Config.from_environment(
            {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8:*"}
            | {"ARCHISYNC_SOURCE": f"{erp.url}/{{type}}.csv"}
        )
        erp.answers["/customers.csv"] = answer
        assert sync(connection, config, "customers", AGENT).reason == "applied"
        erp.answers["/customers.csv"] = slowly
        mended = sync(connection, config, "customers", AGENT, trigger="scheduled")
        assert (mended.state, mended.reason) == ("succeeded", "applied")
        assert len(erp.asked) == (3 if etag else 2)
        names = "select count(*) from agents.customers where agent_id = %s and absent_since is null and name like %s"
        assert count(connection, names, AGENT, "Name %") == 20
        sync(connection, config, "customers", AGENT, trigger="scheduled")  # somebody else's row is deleted
        last = sync(connection, config, "customers", AGENT, trigger="scheduled")
        assert (last.reason, len(erp.asked)) == ("unchanged-at-source" if etag else "unchanged", 5 if etag else 4)
