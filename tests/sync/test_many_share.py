"""Where thousands of agents get one and the same export, the question whose it is costs what it costs with two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from archisync.store import applied_exports
from archisync.store.applied_exports import SQL_OTHER_BYTES, SQL_OTHER_ROWS, SQL_SAME_BYTES, SQL_SAME_LEAST, Other
from archisync.store.database import Database, Params, one

AGENTS = 3_000
FIRST = "a-01500"
BYTES, LEAST = "5" * 64, "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def sharing(connection: Database) -> Database:
    """A register of agents who share their customers from the start: all but one of them are known to."""
    connection.execute(
        "insert into agents.users (id, whitelisted) select 'a-' || to_char(n, 'FM00000'), true from generate_series(1, %s) n",
        [AGENTS],
    )
    connection.execute(
        "insert into system.applied_exports (sync_type, agent_id, source)"
        " select 'customers', u.id, jsonb_build_object('sha256', %s::text, 'least_digest', %s::text, 'first', true, 'shared', u.id <> %s)"
        "   from agents.users u where u.id like 'a-%%'",
        [BYTES, LEAST, FIRST],
    )
    connection.execute("update system.sync_state set known_rows = 200 where agent_id like 'a-%'")
    return connection


def rows_read(plan: Mapping[str, Any]) -> Iterator[float]:
    """By each scan of a table or an index."""
    if "Relation Name" in plan:
        yield plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    for part in plan.get("Plans", ()):
        yield from rows_read(part)


@pytest.mark.parametrize("statistics", ["analyze system.applied_exports, system.sync_state", "select"])
def test_nobody_reads_what_all_of_them_have(sharing: Database, statistics: str) -> None:
    sharing.execute(statistics.encode())
    params: Params = {
        "sync_type": "customers",
        "agent_id": "anna.bianchi",
        "sha256": BYTES,
        "least": [LEAST],
        "other": FIRST,
    }
    statements = (SQL_SAME_BYTES, SQL_OTHER_BYTES, SQL_SAME_LEAST, SQL_OTHER_ROWS)
    read = {s: sum(rows_read(plan_of(sharing, s, params))) for s in statements}
    assert read[SQL_SAME_BYTES] > 0
    assert max(read.values()) < AGENTS / 10, read


def plan_of(db: Database, statement: str, params: Params) -> Mapping[str, Any]:
    (found,) = one(db, f"explain (analyze, timing off, format json) {statement}", params)["QUERY PLAN"]
    return dict(found["Plan"])


def test_one_agent_with_other_bytes_is_found_among_them(sharing: Database) -> None:
    def other() -> Other | None:
        return applied_exports.agent_with(sharing, "customers", "anna.bianchi", BYTES)

    assert other() == Other(FIRST, from_start=True)
    for digit, shared in product(
        "09", (False, True)
    ):  # on either side; who is known to share may have the next one already
        sharing.execute(
            "update system.applied_exports set source = source || jsonb_build_object('sha256', repeat(%s, 64), 'shared', %s::boolean)"
            " where agent_id = 'a-00007'",
            [digit, shared],
        )
        assert other() == Other(FIRST, from_start=False)
    sharing.execute("update agents.users set whitelisted = false where id = 'a-00007'")
    assert other() == Other(FIRST, from_start=True)
