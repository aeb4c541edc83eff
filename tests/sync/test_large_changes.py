"""A large difference is found by PostgreSQL, and its work grows with the export: no statement compares each row with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from archisync.store.database import Database
from archisync.store.runs import Counts
from tests.sync.conftest import Deliver

ROWS = 20_000
PLANS = (
    "load 'auto_explain'",
    "set auto_explain.log_min_duration = 0",
    "set auto_explain.log_analyze = on",
    "set auto_explain.log_timing = off",
    "set auto_explain.log_format = json",
    "set auto_explain.log_level = notice",
)


def text_of(rows: Mapping[int, str]) -> str:
    return "customer_id,name,phone,email,street,city,url\n" + "".join(
        f"C{n:07},Ditta {n},{phone},info@ditta{n}.example,Via Garibaldi {n % 300},Roma,https://ditta{n}.example\n"
        for n, phone in rows.items()
    )


def compared(plan: Mapping[str, Any]) -> Iterator[int]:
    """For each join the pairs of rows that it looked at."""
    if "Join Type" in plan:
        pairs = plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0)
        yield round(plan["Actual Loops"] * pairs)
    for part in plan.get("Plans", ()):
        yield from compared(part)


@pytest.mark.parametrize("statistics", ["analyze agents.customers", "select"])
def test_no_join_compares_each_row_with_each(deliver: Deliver, connection: Database, statistics: str) -> None:
    before = {n: f"06 {n:07}" for n in range(ROWS)}
    deliver(text_of(before))
    connection.execute(statistics.encode())
    after = {n: f"06 {(n if n % 20 else n + 1):07}" for n in range(1_000, ROWS + 1_200)}
    plans: list[dict[str, Any]] = []

    def keep(diagnostic: psycopg.errors.Diagnostic) -> None:
        _, found, plan = (diagnostic.message_primary or "").partition("plan:")
        if found:
            plans.append(json.loads(plan))

    for statement in PLANS:
        connection.execute(statement.encode())
    connection.add_notice_handler(keep)
    try:
        run = deliver(text_of(after))
    finally:
        connection.remove_notice_handler(keep)
        connection.execute("set auto_explain.log_min_duration = -1")
    assert run.counts == Counts(
        seen=len(after), inserted=1_200, updated=ROWS // 20 - 50, absent=1_000, unchanged=ROWS // 20 * 19 - 950
    )
    joins = [(pairs, plan["Query Text"]) for plan in plans for pairs in compared(plan["Plan"])]
    assert joins
    assert not [join for join in joins if join[0] > 2 * len(after)]
