"""Applying a read export to its table: COPY into a temporary table, then a few set-based statements, in the caller's transaction.
An agent's first export has nothing to be compared with and is copied straight into the table.

What holds for every statement here: it is filtered by agent (shared tables have none); it touches the columns that the export
owns and no other; a row that is already as the export says is not written. Absence is confirmed twice: a row that is missing
is marked, and deleted by the next export in a row without it. A row that was quarantined is present all the same when its key
could be read; when even that failed, nothing is taken for absent in this run.

The SQL is built from the registry of types, so that six types have one apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from archisync.database import Database, Params
from archisync.formats import PlainLines
from archisync.guard import Plan
from archisync.records import Quarantined, Record, RecordReader
from archisync.store.runs import Counts
from archisync.synctypes import Field, Kind, Scope, SyncType
from archisync.values import Value

STAGE = sql.Identifier("archisync_stage")
SAMPLE_SIZE = 20

_SQL_TYPE = {
    Kind.TEXT: "text",
    Kind.IDENTIFIER: "text",
    Kind.NUMBER: "numeric",
    Kind.INTEGER: "bigint",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.BOOLEAN: "boolean",
}


@dataclass(kw_only=True)
class Staged:
    """What lies in the temporary table. `unkeyed`: quarantined rows without a readable key. `conflicting`: keys with
    different values; `repeated`: rows dropped because an identical one is there."""

    seen: int = 0
    valid: int = 0
    quarantined: int = 0
    unkeyed: int = 0
    repeated: int = 0
    conflicting: int = 0
    quarantine_sample: list[dict[str, object]] = field(default_factory=list)


class _Loader:
    """Copies records into the stage: lines that need no parsing as they stand, the others one by one.

    A connection has one COPY at a time, so parsed rows wait in memory, `MANY` at most, until it is their turn.
    """

    MANY = 2000

    def __init__(
        self,
        db: Database,
        records: RecordReader,
        columns: tuple[Field, ...],
        key: tuple[str, ...],
        target: sql.Identifier = STAGE,
    ) -> None:
        self._db = db
        self._records = records
        self._key_length = len(key)
        self._staged = Staged()
        self._good: list[tuple[Value, ...]] = []
        self._bad: list[tuple[Value, ...]] = []
        self._keep_bad = target is STAGE
        self._copy_good = _copy_into(target, [c.name for c in columns])
        self._copy_bad = _copy_into(target, ["ok", *key])
        self._copy_lines = _copy_into(target, records.names_in_file_order, csv_delimiter=records.delimiter)

    def load(self) -> Staged:
        """What was read; `valid` counts the rows that were copied."""
        batches = self._records.batches()
        for first in batches:
            if isinstance(first, PlainLines):
                self._lines(first, batches)
            else:
                self._take(first)
            if len(self._good) + len(self._bad) >= self.MANY:
                self._flush()
        self._flush()
        self._staged.seen, self._staged.quarantined = self._records.seen, self._records.quarantined
        return self._staged

    def _lines(self, first: PlainLines, batches: Iterator[Record | Quarantined | PlainLines]) -> None:
        """These lines, and all that follow until too many records have come between them."""
        with self._db.cursor() as cursor:
            with cursor.copy(self._copy_lines) as copy:
                copy.write(first.text.replace("\r", ""))
                for batch in batches:
                    if isinstance(batch, PlainLines):
                        copy.write(batch.text.replace("\r", ""))
                        continue
                    self._take(batch)
                    if len(self._good) + len(self._bad) >= self.MANY:
                        break
            self._staged.valid += cursor.rowcount

    def _take(self, record: Record | Quarantined) -> None:
        if isinstance(record, Record):
            self._good.append(record.values)
            return
        staged = self._staged
        if len(staged.quarantine_sample) < SAMPLE_SIZE:
            staged.quarantine_sample.append({"line": record.line, "field": record.field, "reason": record.reason})
        if record.key is None:
            staged.unkeyed += 1
        elif self._keep_bad:
            self._bad.append((False, *record.key))

    def _flush(self) -> None:
        for statement, rows in ((self._copy_good, self._good), (self._copy_bad, self._bad)):
            self._staged.valid += len(rows) if rows is self._good else 0
            if rows:
                with self._db.cursor() as cursor, cursor.copy(statement) as copy:
                    for row in rows:
                        copy.write_row(row)
            rows.clear()


def _copy_into(target: sql.Identifier, names: Sequence[str], *, csv_delimiter: str | None = None) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    form: sql.Composable = sql.SQL("")
    if csv_delimiter is not None:
        form = sql.SQL(" with (format csv, delimiter {})").format(sql.Literal(csv_delimiter))
    return sql.SQL("copy {} ({}) from stdin").format(target, columns) + form


class Apply:
    """One export of one agent on its way into `sync_type.table`. `columns`: what the export owns, all key fields first."""

    def __init__(self, db: Database, sync_type: SyncType, agent_id: str, columns: tuple[Field, ...]) -> None:
        self._db = db
        self._type = sync_type
        self._columns = columns
        self._owned = tuple(c for c in columns if c.name not in sync_type.key)
        self._agent: Params = {"agent_id": agent_id}
        self._loaded = False
        self._table = _table_of(sync_type)

    # --- pieces of SQL ----------------------------------------------------------------------------------------

    def _mine(self, alias: str) -> sql.Composable:
        """`alias.agent_id = …` for tables of agents, `true` for shared ones."""
        if self._type.scope is Scope.SHARED:
            return sql.SQL("true")
        return sql.SQL("{}.agent_id = %(agent_id)s").format(sql.Identifier(alias))

    def _same_key(self, left: str, right: str) -> sql.Composable:
        """Equality that a hash join can use, also for a key part that may be NULL."""
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(self._key_part(left, name), self._key_part(right, name))
            for name in self._type.key
        )

    def _key_part(self, alias: str, name: str) -> sql.Composable:
        column = sql.Identifier(alias, name)
        if name in self._type.nullable_key:
            return sql.SQL("coalesce({}, '-infinity')").format(column)
        return column

    def _names(self, fields: Iterable[Field]) -> list[sql.Identifier]:
        return [sql.Identifier(f.name) for f in fields]

    def _in_stage(self, alias: str) -> sql.Composable:
        return sql.SQL("exists (select from {stage} s where {same})").format(
            stage=STAGE, same=self._same_key("s", alias)
        )

    def _run(self, template: str, **parts: sql.Composable) -> int:
        statement = sql.SQL(template).format(stage=STAGE, table=self._table, mine=self._mine("t"), **parts)
        return self._db.execute(statement, self._agent).rowcount

    def _count(self, template: str, **parts: sql.Composable) -> int:
        statement = sql.SQL(template).format(stage=STAGE, table=self._table, mine=self._mine("t"), **parts)
        row = self._db.execute(statement, self._agent).fetchone()
        assert row is not None
        return int(row["n"])

    # --- a first load -----------------------------------------------------------------------------------------

    def load(self, records: RecordReader) -> Staged | None:
        """Copy the export straight into the table when it has no row of this agent: there is nothing to compare. None, and
        nothing written, when it has, or when a key stands in the export twice: `stage` tells then what is wrong with it.

        May raise what reading raises. The transaction must have begun with `runs.begin_apply`.
        """
        self._db.execute("set local datestyle = 'ISO, DMY'")  # of plain lines, where a date may be day first
        if records.ignored_names or self._count(
            "select count(*) as n from (select from {table} t where {mine} limit 1) r"
        ):
            return None
        try:
            with self._db.transaction():
                staged = _Loader(self._db, records, self._columns, self._type.key, self._table).load()
        except psycopg.errors.UniqueViolation:
            return None
        self._loaded = True
        return staged

    # --- staging ----------------------------------------------------------------------------------------------

    def stage(self, records: RecordReader) -> Staged:
        """Stream the export into the temporary table; nothing else is written. May raise what reading raises."""
        # A table that was just emptied has statistics that promise no rows; a nested loop over it takes hours for a first load.
        self._db.execute("set local enable_nestloop = off")
        self._db.execute("set local work_mem = '64MB'")  # a hash of 100,000 rows; with 4 MB it goes to disk and back
        definitions = [
            sql.SQL("{} {} default {}").format(  # the default is for a key field that has no column in the file
                sql.Identifier(c.name), sql.SQL(_SQL_TYPE[c.kind]), sql.Literal(c.empty)
            )
            for c in self._columns
        ]
        definitions += [sql.SQL("{} text").format(sql.Identifier(name)) for name in records.ignored_names]
        self._db.execute(
            sql.SQL("create temp table {} (ok boolean not null default true, {}) on commit drop").format(
                STAGE, sql.SQL(", ").join(definitions)
            )
        )
        staged = _Loader(self._db, records, self._columns, self._type.key).load()
        # Without it an anti-join of a first load is ten times slower; only keys are joined by.
        self._db.execute(
            sql.SQL("analyze {} (ok, {})").format(STAGE, sql.SQL(", ").join(map(sql.Identifier, self._type.key)))
        )
        self._drop_repeated(staged)
        staged.valid = self._count("select count(*) as n from {stage} where ok")
        return staged

    def _drop_repeated(self, staged: Staged) -> None:
        """Identical rows become one; keys that remain twice with different values are counted. A quarantined twin of a
        valid row goes as well: its key is present either way."""
        keys = sql.SQL(", ").join(self._key_part("d", name) for name in self._type.key)
        twice = "select count(*) as n from (select from {stage} d group by {keys} having count(*) > 1 limit 1) r"
        if not self._count(twice, keys=keys):
            return
        row = sql.SQL(", ").join(sql.Identifier("d", c.name) for c in self._columns)
        staged.repeated = self._run(
            """
            delete from {stage} s using (
              select ctid, ok, row_number() over (partition by {keys}, ok, {row} order by ctid) as n,
                     row_number() over (partition by {keys} order by ok desc, ctid) as of_key
                from {stage} d) r
            where s.ctid = r.ctid and (r.n > 1 or (r.of_key > 1 and not r.ok))
            """,
            keys=keys,
            row=row,
        )
        staged.conflicting = self._count(
            "select count(*) as n from (select from {stage} d where ok group by {keys} having count(*) > 1) c",
            keys=keys,
        )

    # --- what would happen ------------------------------------------------------------------------------------

    def plan(self, staged: Staged) -> Plan:
        """What `write` would do, counted and not done; or what `load` has done."""
        if self._loaded:
            return Plan(new=staged.valid)
        statement = sql.SQL(
            "select count(*) filter (where not gone) as known,"
            " count(*) filter (where ok is null and not gone) as missing,"
            " count(*) filter (where ok is null and gone) as deleting,"
            " count(*) filter (where ok is not null and gone) as restored,"
            " count(*) filter (where ok) as matched,"
            " count(*) filter (where changes) as changed,"
            " count(*) filter (where changes and not gone and rewrites) as rewritten"
            " from (select s.ok, t.absent_since is not null as gone, s.ok and {changed} as changes,"
            "              case when s.ok and {changed} then {rewritten} end as rewrites"
            "         from {table} t left join {stage} s on {same} where {mine} offset 0) r"  # compared once, not in each filter
        ).format(
            stage=STAGE,
            table=self._table,
            mine=self._mine("t"),
            same=self._same_key("t", "s"),
            changed=self._changed(),
            rewritten=self._rewritten(),
        )
        row = self._db.execute(statement, self._agent).fetchone()
        assert row is not None
        return Plan(
            known=row["known"],
            vanishing=0 if staged.unkeyed else row["missing"],
            deleted=0 if staged.unkeyed else row["deleting"],
            restored=row["restored"],
            changed=row["changed"],
            rewritten=row["rewritten"],
            new=staged.valid - row["matched"],
        )

    def _changed(self) -> sql.Composable:
        """Whether the export's values differ from the table's in any owned column."""
        if not self._owned:
            return sql.SQL("false")
        return sql.SQL("({}) is distinct from ({})").format(
            sql.SQL(", ").join(sql.Identifier("t", f.name) for f in self._owned),
            sql.SQL(", ").join(sql.Identifier("s", f.name) for f in self._owned),
        )

    def _rewritten(self) -> sql.Composable:
        """Whether more than half of the owned columns that had a value get another one."""
        if not self._owned:
            return sql.SQL("false")
        return sql.SQL("2 * num_nonnulls({}) > num_nonnulls({})").format(
            sql.SQL(", ").join(
                sql.SQL("case when {t} is distinct from {s} then {t} end").format(
                    t=sql.Identifier("t", f.name), s=sql.Identifier("s", f.name)
                )
                for f in self._owned
            ),
            sql.SQL(", ").join(sql.Identifier("t", f.name) for f in self._owned),
        )

    def changes_sample(self) -> list[dict[str, object]]:
        """Some of the rows that would change: key, and of each changed field the old and the new value as text."""
        if self._loaded:
            return []  # there was no row to change, and nothing is staged
        statement = sql.SQL(
            "select array[{key}] as key, (select jsonb_object_agg(o.key, jsonb_build_array(o.value, n.value))"
            "   from jsonb_each_text(to_jsonb(t)) o join jsonb_each_text(to_jsonb(s)) n on n.key = o.key"
            "  where o.key = any (%(owned)s::text[]) and o.value is distinct from n.value) as fields"
            " from {table} t join {stage} s on {same} where {mine} and s.ok and {changed} order by 1 limit {size}"
        ).format(
            key=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in self._type.key),
            table=self._table,
            stage=STAGE,
            same=self._same_key("t", "s"),
            mine=self._mine("t"),
            changed=self._changed(),
            size=sql.Literal(SAMPLE_SIZE),
        )
        rows = self._db.execute(statement, self._agent | {"owned": [f.name for f in self._owned]}).fetchall()
        return [{"key": [part or "" for part in row["key"]], "fields": row["fields"] or {}} for row in rows]

    def vanishing_sample(self) -> list[list[str]]:
        """The keys of some known rows that the staged export lacks."""
        if self._loaded:
            return []
        key = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in self._type.key)
        statement = sql.SQL(
            "select array[{key}] as key from {table} t where {mine} and t.absent_since is null and not {present}"
            " order by 1 limit {size}"
        ).format(
            key=key,
            table=self._table,
            mine=self._mine("t"),
            present=self._in_stage("t"),
            size=sql.Literal(SAMPLE_SIZE),
        )
        rows = self._db.execute(statement, self._agent).fetchall()
        return [[part if part is not None else "" for part in row["key"]] for row in rows]

    # --- writing ----------------------------------------------------------------------------------------------

    def write(self, staged: Staged, plan: Plan, run_id: int) -> Counts:
        """Make the table what the export says; what the plan has none of is not even looked for. The caller holds the run's
        fence and commits."""
        self._agent["run_id"] = run_id
        counts = Counts(seen=staged.seen, quarantined=staged.quarantined)
        if self._loaded:
            counts.inserted = staged.valid
            return counts
        if plan.vanishing or plan.deleted:
            counts.deleted, counts.absent = self._vanish()
        if plan.restored:
            counts.restored = self._run(
                "update {table} t set absent_since = null, updated_at = system.clock(), run_id = %(run_id)s"
                " where {mine} and t.absent_since is not null and {present}",
                present=self._in_stage("t"),
            )
        if plan.changed:
            counts.updated = self._update()
        if plan.new:
            counts.inserted = self._insert()
        counts.unchanged = staged.valid - counts.updated - counts.inserted
        return counts

    def _vanish(self) -> tuple[int, int]:
        missing = sql.SQL("not {}").format(self._in_stage("t"))
        deleted = self._run(
            "delete from {table} t where {mine} and t.absent_since is not null and {missing}", missing=missing
        )
        absent = self._run(
            "update {table} t set absent_since = system.clock(), run_id = %(run_id)s"
            " where {mine} and t.absent_since is null and {missing}",
            missing=missing,
        )
        return deleted, absent

    def _update(self) -> int:
        if not self._owned:
            return 0
        return self._run(
            "update {table} t set {assign}, updated_at = system.clock(), run_id = %(run_id)s from {stage} s"
            " where {mine} and s.ok and {same} and {changed}",
            assign=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(f.name), sql.Identifier("s", f.name)) for f in self._owned
            ),
            same=self._same_key("t", "s"),
            changed=self._changed(),
        )

    def _insert(self) -> int:
        agent_column, agent_value = sql.SQL(""), sql.SQL("")
        if self._type.scope is Scope.AGENT:
            agent_column, agent_value = sql.SQL("agent_id, "), sql.SQL("%(agent_id)s, ")
        return self._run(
            "insert into {table} ({agent_column}{names}, run_id) select {agent_value}{values}, %(run_id)s from {stage} s"
            " where s.ok and not exists (select from {table} t where {mine} and {same})",
            agent_column=agent_column,
            agent_value=agent_value,
            names=sql.SQL(", ").join(self._names(self._columns)),
            values=sql.SQL(", ").join(sql.Identifier("s", c.name) for c in self._columns),
            same=self._same_key("t", "s"),
        )

    # --- warnings ---------------------------------------------------------------------------------------------

    def unknown_orders(self) -> int:
        """Rows that name an order which this agent does not have (yet): exports arrive independently."""
        reference = self._type.order_reference
        if reference is None:
            return 0
        return self._count(
            "select count(*) as n from {rows} and {number} is not null and not exists"
            " (select from agents.orders o where o.agent_id = %(agent_id)s and o.order_number = {number})",
            rows=self._rows(),
            number=sql.Identifier("s", reference),
        )

    def repeated_order_numbers(self) -> int:
        """Order numbers that several orders of the export share. Only for orders; others give 0."""
        if self._type.name != "orders" or not any(c.name == "order_number" for c in self._columns):
            return 0
        return self._count(
            "select count(*) as n from (select from {rows} and s.order_number is not null"
            " group by s.order_number having count(*) > 1) d",
            rows=self._rows(),
        )

    def _rows(self) -> sql.Composable:
        """`… s where …`: the good rows of the export, wherever they are."""
        if self._loaded:
            return sql.SQL("{} s where {}").format(self._table, self._mine("s"))
        return sql.SQL("{} s where s.ok").format(STAGE)


def count_rows(db: Database, kind: SyncType, agent_id: str | None) -> int:
    """Rows of one agent (of a shared type: all), or of all agents when it is None."""
    statement = sql.SQL("select count(*) as n from {}{}").format(_table_of(kind), _of(kind, agent_id))
    row = db.execute(statement, {"agent_id": agent_id}).fetchone()
    assert row is not None
    return int(row["n"])


def delete_rows(db: Database, kind: SyncType, agent_id: str | None) -> int:
    """Delete them, marked absent or not; the number of rows. In the caller's transaction, which forgets their state too."""
    statement = sql.SQL("delete from {}{}").format(_table_of(kind), _of(kind, agent_id))
    return db.execute(statement, {"agent_id": agent_id}).rowcount


def _table_of(kind: SyncType) -> sql.Identifier:
    return sql.Identifier(*kind.table.split("."))


def _of(kind: SyncType, agent_id: str | None) -> sql.Composable:
    if kind.scope is Scope.SHARED or agent_id is None:
        return sql.SQL("")
    return sql.SQL(" where agent_id = %(agent_id)s")
