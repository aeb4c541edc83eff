"""The table that an export goes into, and the SQL that all statements about it are made of.

Every statement is filtered by agent (a shared table has none) and touches only the columns that the export owns. The SQL is built from
the registry of types, so all types share one apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from psycopg import sql

from archisync.rules.synctypes import Field, Scope, SyncType
from archisync.store.database import Database, Params, one

STAGE = sql.Identifier("archisync_stage")
OTHERS = sql.Identifier("archisync_others")


class Target:
    """The table of a sync type for one agent's export, which run `run_id` writes.

    `columns` are the columns that the export owns, all key fields first. In the statements `t` is the table and `s` the stage.
    """

    def __init__(
        self, db: Database, sync_type: SyncType, agent_id: str, columns: tuple[Field, ...], *, run_id: int
    ) -> None:
        self.db = db
        self.type = sync_type
        self.agent_id = agent_id
        self.run_id = run_id
        self.columns = columns
        self.value_columns = tuple(c for c in columns if c.name not in sync_type.key)
        self.table = table_of(sync_type)
        self.params: Params = {"agent_id": agent_id, "run_id": run_id}
        self.compare_all()

    def compare_all(self) -> None:
        """Let statements look at all of the agent's rows."""
        self._compared = self.mine("t")

    def compare_others(self) -> None:
        """Let statements look only at the rows whose places are in the table OTHERS."""
        places = sql.SQL(" and t.ctid = any (array(select o.version from {} o))").format(OTHERS)
        self._compared = self.mine("t") + places

    def execute(self, template: str, **parts: sql.Composable) -> int:
        """Execute a statement. Returns the number of rows."""
        return self.db.execute(self.statement(template, **parts), self.params).rowcount

    def count(self, template: str, **parts: sql.Composable) -> int:
        """The number `n` that a query gives."""
        return int(self.row(template, **parts)["n"])

    def row(self, template: str, **parts: sql.Composable) -> dict[str, int]:
        """The one row of a query that counts."""
        return one(self.db, self.statement(template, **parts), self.params)

    def statement(self, template: str, **parts: sql.Composable) -> sql.Composed:
        """Fill in `parts`, and what most statements need: `{table}`, `{stage}`, `{mine}` (the rows to look at), `{same}` (the key),
        `{present}` (the key is in the stage), `{changed}` (a value differs)."""
        return sql.SQL(template).format(**self._parts | {"mine": self._compared} | parts)

    @cached_property
    def _parts(self) -> dict[str, sql.Composable]:
        present = sql.SQL("exists (select from {} s where {})").format(STAGE, self.same_key("s", "t"))
        changed: sql.Composable = sql.SQL("false")
        if self.value_columns:
            changed = sql.SQL("({}) is distinct from ({})").format(
                columns_of("t", self.value_columns), columns_of("s", self.value_columns)
            )
        return {
            "table": self.table,
            "stage": STAGE,
            "same": self.same_key("t", "s"),
            "present": present,
            "changed": changed,
        }

    def mine(self, alias: str) -> sql.Composable:
        """`alias.agent_id = …` for a table of agents, `true` for a shared one."""
        if self.type.scope is Scope.SHARED:
            return sql.SQL("true")
        return sql.SQL("{}.agent_id = %(agent_id)s").format(sql.Identifier(alias))

    def same_key(self, left: str, right: str) -> sql.Composable:
        """Equality of the key that a hash join can use, also where a part of the key may be NULL."""
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(left_part, right_part)
            for left_part, right_part in zip(self.key_parts(left), self.key_parts(right), strict=True)
        )

    def key_parts(self, alias: str) -> list[sql.Composable]:
        return [self._key_part(alias, name) for name in self.type.key]

    def _key_part(self, alias: str, name: str) -> sql.Composable:
        column = sql.Identifier(alias, name)
        if name in self.type.nullable_key:
            return sql.SQL("coalesce({}, '-infinity')").format(column)
        return column

    @property
    def key_as_text(self) -> sql.Composable:
        """The table's key as a list of texts, for people to read."""
        return comma(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in self.type.key)


def columns_of(alias: str, fields: Sequence[Field]) -> sql.Composed:
    return comma(sql.Identifier(alias, field.name) for field in fields)


def comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def table_of(sync_type: SyncType) -> sql.Identifier:
    return sql.Identifier(*sync_type.table.split("."))
