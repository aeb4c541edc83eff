"""The table that an export goes into, and the SQL that all statements about it are made of.

Every statement is filtered by agent (a shared table has none) and touches only the columns that the export owns. The SQL is built from
the registry of types, so all types share one apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from psycopg import sql
from psycopg.rows import tuple_row

from archisync.rules.synctypes import Field, Scope, SyncType
from archisync.rules.values import Value
from archisync.store.database import Database, Params, one
from archisync.store.typetables import COLUMN_TYPE, table_of

STAGE = sql.Identifier("archisync_stage")
OTHERS = sql.Identifier("archisync_others")
Key = tuple[Value, ...]
"""Values of a type's key fields."""

_compiled: dict[tuple[str, tuple[str, ...], tuple[Field, ...], str], bytes] = {}


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
        self._others = False

    def compare_all(self) -> None:
        """Let statements look at all of the agent's rows."""
        self._others = False

    def compare_others(self) -> None:
        """Let statements look only at the rows whose places are in the table OTHERS."""
        self._others = True

    @property
    def _compared(self) -> sql.Composable:
        if not self._others:
            return self.mine("t")
        places = sql.SQL(" and (t.tableoid, t.ctid) in (select o.part, o.version from {} o)").format(OTHERS)
        return sql.Composed([self.mine("t"), places])

    def forget_stage(self) -> None:
        """So that the same transaction may compare another export."""
        self.db.execute(sql.SQL("drop table if exists pg_temp.{}, pg_temp.{}").format(STAGE, OTHERS))

    def staying(self) -> sql.Composable:
        """Whether the export has the row: it is in the stage, or it was not compared because its line is known."""
        if not self._others:
            return self.statement("{present}")
        return self.statement(
            "({present} or not exists (select from {others} o where o.part = t.tableoid and o.version = t.ctid))",
            others=OTHERS,
        )

    def execute(self, template: str, **parts: sql.Composable) -> int:
        """Execute a statement. Returns the number of rows."""
        return self.db.execute(self.statement(template, **parts), self.params).rowcount

    def count(self, template: str, **parts: sql.Composable) -> int:
        """The number `n` that a query gives."""
        return int(one(self.db, self.statement(template, **parts), self.params, prepare=True)["n"])

    def row(self, template: str, **parts: sql.Composable) -> dict[str, Any]:
        """The one row of a query, which counts."""
        return one(self.db, self.statement(template, **parts), self.params)

    def statement(self, template: str, **parts: sql.Composable) -> sql.Composed:
        """Fill in `parts`, and what most statements need: `{table}`, `{stage}`, `{mine}` (the rows to look at), `{same}` (the key),
        `{present}` (the key is in the stage), `{changed}` (a value differs)."""
        return sql.SQL(template).format(**self._parts | {"mine": self._compared} | parts)

    def compiled(self, name: str, build: Callable[[], sql.Composed]) -> bytes:
        """The statement of that name as text, built once for each table and set of columns: that takes as long as a small query."""
        key = (self.type.table, self.type.key, self.columns, name)
        if key not in _compiled:
            _compiled[key] = build().as_bytes(self.db)
        return _compiled[key]

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
        """The table's key as a list of texts, for people to read; a part that is NULL is empty."""
        return comma(sql.SQL("coalesce({}::text, '')").format(sql.Identifier("t", name)) for name in self.type.key)

    # --- keys as arrays ---------------------------------------------------------------------------------------

    def key_arrays(self, prefix: str, keys: Sequence[tuple[Value, ...]]) -> Params:
        """Parameters for `unnest_keys`: an array for each part of the key."""
        return {f"{prefix}_{number}": [key[number] for key in keys] for number in range(len(self.type.key))}

    def unnest_keys(self, prefix: str, *, with_digest: bool = False) -> sql.Composed:
        """`unnest(…) as s (key columns)`, and `line_digest` if asked for.

        Each array is a query's result, which PostgreSQL takes for ten elements, however many it has: so it keeps the plan of the prepared
        statement. Given the array itself, it would plan the statement anew each time, which takes thrice as long as finding a few rows.
        """
        kinds = {column.name: COLUMN_TYPE[column.kind] for column in self.columns}
        arrays = [(f"{prefix}_{number}", kinds[name]) for number, name in enumerate(self.type.key)]
        names = list(self.type.key)
        if with_digest:
            arrays.append((f"{prefix}_digest", "uuid"))
            names.append("line_digest")
        given = [sql.SQL("(select {}::{}[])").format(sql.Placeholder(array), sql.SQL(kind)) for array, kind in arrays]
        return sql.SQL("unnest({}) as s ({})").format(comma(given), comma(map(sql.Identifier, names)))

    def among(self, prefix: str, alias: str = "t") -> sql.Composed:
        """Whether the row's key is in the arrays."""
        other = "s" if alias != "s" else "k"
        rows = self.unnest_keys(prefix)
        if other == "k":
            rows = sql.SQL("(select * from {}) k").format(rows)
        return sql.SQL("exists (select from {} where {})").format(rows, self.same_key(alias, other))

    def tuples(self, statement: bytes, params: Params) -> list[tuple[Any, ...]]:
        """The rows of a query, as tuples."""
        with self.db.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(statement, params, prepare=True).fetchall()


def columns_of(alias: str, fields: Sequence[Field]) -> sql.Composed:
    return comma(sql.Identifier(alias, field.name) for field in fields)


def comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
