"""Values of an export that don't fit together. Exports arrive independently, so this is a warning and holds nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from psycopg import sql

from archisync.store.database import Params
from archisync.sync.copying import Staged
from archisync.sync.target import STAGE, Target


class GoodRows(NamedTuple):
    """The good rows of the export, wherever they are once it is written: the `name` of that place, under which statements are kept, and
    what they need: `… s where …`, and its parameters."""

    name: str
    rows: Callable[[], sql.Composable]
    params: Params


def unknown_orders(target: Target, good: GoodRows) -> int:
    """Rows that name an order which this agent does not have (yet)."""
    reference = target.type.order_reference
    if reference is None:
        return 0
    return _count(
        target,
        good,
        "select count(*) as n from {rows} and {column} not in"  # a hash, which is right whatever the statistics say
        " (select o.order_number from agents.orders o where o.agent_id = %(agent_id)s and o.order_number is not null)",
        reference,
    )


def repeated_values(target: Target, good: GoodRows) -> dict[str, int]:
    """How many values of a field several rows of the export share, for each field that the type declares `distinct`; without zeros."""
    counts = {field.name: _repeated(target, good, field.name) for field in target.columns if field.distinct}
    return {name: number for name, number in counts.items() if number}


def _repeated(target: Target, good: GoodRows, name: str) -> int:
    return _count(
        target,
        good,
        "select count(*) as n from (select from {rows} and {column} is not null group by {column} having count(*) > 1) d",
        name,
    )


def _count(target: Target, good: GoodRows, template: str, column: str) -> int:
    statement = target.compiled(
        f"{template} {column} {good.name}",
        lambda: target.statement(template, rows=good.rows(), column=sql.Identifier("s", column)),
    )
    row = target.db.execute(statement, target.params | good.params, prepare=True).fetchone()
    assert row is not None
    return int(row["n"])


def good_rows(target: Target, staged: Staged) -> GoodRows:
    """Those of an export that is staged or loaded."""
    if staged.loaded:
        return GoodRows("loaded", lambda: sql.SQL("{} s where {}").format(target.table, target.mine("s")), {})
    if not staged.known:
        return GoodRows("staged", lambda: sql.SQL("{} s where s.ok").format(STAGE), {})
    bad = sql.SQL("exists (select from {} b where not b.ok and {})").format(STAGE, target.same_key("b", "s"))
    rows = sql.SQL("{} s where {} and s.absent_since is null and not {}").format(target.table, target.mine("s"), bad)
    return GoodRows("known or staged", lambda: rows, {})
