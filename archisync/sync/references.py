"""Order numbers that don't fit together. Exports arrive independently, so this is a warning and holds nothing."""

from __future__ import annotations

from psycopg import sql

from archisync.sync.copying import Staged
from archisync.sync.target import STAGE, Target


def unknown_orders(target: Target, staged: Staged) -> int:
    """Rows that name an order which this agent does not have (yet). After `apply.write`."""
    reference = target.type.order_reference
    if reference is None:
        return 0
    return target.count(
        "select count(*) as n from {rows} and {number} is not null and not exists"
        " (select from agents.orders o where o.agent_id = %(agent_id)s and o.order_number = {number})",
        rows=_good_rows(target, staged),
        number=sql.Identifier("s", reference),
    )


def repeated_order_numbers(target: Target, staged: Staged) -> int:
    """Order numbers that several orders of the export share; 0 for other types. After `apply.write`."""
    if target.type.name != "orders" or not any(c.name == "order_number" for c in target.columns):
        return 0
    return target.count(
        "select count(*) as n from (select from {rows} and s.order_number is not null"
        " group by s.order_number having count(*) > 1) d",
        rows=_good_rows(target, staged),
    )


def _good_rows(target: Target, staged: Staged) -> sql.Composable:
    """`… s where …`: the good rows of the export, wherever they are once it is written."""
    if staged.loaded:
        return sql.SQL("{} s where {}").format(target.table, target.mine("s"))
    if not staged.known:
        return sql.SQL("{} s where s.ok").format(STAGE)
    bad = sql.SQL("exists (select from {} b where not b.ok and {})").format(STAGE, target.same_key("b", "s"))
    return sql.SQL("{} s where {} and s.absent_since is null and not {}").format(target.table, target.mine("s"), bad)
