"""Applying a read export to its table: COPY into a temporary table, then a few set-based statements, in the caller's transaction.
An agent's first export has nothing to be compared with and is copied straight into the table. Of a later one only the lines that are
not known yet are copied, and compared with the rows whose lines are gone (archisync.formats.knownlines); all other rows are as they
should be, and no statement looks at them again.

What holds for every statement here: it is filtered by agent (shared tables have none); it touches the columns that the export
owns and no other; a row that is already as the export says is not written. Absence is confirmed twice: a row that is missing
is marked, and deleted by the next export in a row without it. A row that was quarantined is present all the same when its key
could be read; when even that failed, or the export has fewer rows than it says, nothing is taken for absent in this run.

The SQL is built from the registry of types, so that six types have one apply.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from archisync.formats.knownlines import LineDigests, SpanningRecordError
from archisync.rules.guard import Plan
from archisync.rules.synctypes import Field, Kind, Scope, SyncType
from archisync.store.database import Database, Params
from archisync.store.runs import Counts
from archisync.sync.knownrows import KnownRows
from archisync.sync.records import RecordReader
from archisync.sync.staging import SAMPLE_SIZE, Loader, Staged

STAGE = sql.Identifier("archisync_stage")
OTHERS = sql.Identifier("archisync_others")
MOST_KNOWN = 120_000
"""Rows whose digests are kept in memory, some 30 MB. A larger table is compared as a whole: 1,000,000 rows take seconds, and no memory."""

_SQL_TYPE = {
    Kind.TEXT: "text",
    Kind.IDENTIFIER: "text",
    Kind.NUMBER: "numeric",
    Kind.INTEGER: "bigint",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.BOOLEAN: "boolean",
}


class Apply:
    """One export of one agent on its way into `sync_type.table`. `columns`: what the export owns, all key fields first."""

    def __init__(self, db: Database, sync_type: SyncType, agent_id: str, columns: tuple[Field, ...]) -> None:
        self._db = db
        self._type = sync_type
        self._columns = columns
        self._owned = tuple(c for c in columns if c.name not in sync_type.key)
        self._agent: Params = {"agent_id": agent_id}
        self._loaded = False
        self._left_out: LineDigests | None = None
        self._nothing_read = False
        self._all_change = False
        self._table = _table_of(sync_type)

    @property
    def nothing_read(self) -> bool:
        """Every line was known already."""
        return self._nothing_read

    # --- pieces of SQL ----------------------------------------------------------------------------------------

    def _mine(self, alias: str) -> sql.Composable:
        """`alias.agent_id = …` for tables of agents, `true` for shared ones."""
        if self._type.scope is Scope.SHARED:
            return sql.SQL("true")
        return sql.SQL("{}.agent_id = %(agent_id)s").format(sql.Identifier(alias))

    def _compared(self) -> sql.Composable:
        """`_mine("t")`, without the rows whose lines are known: those others are looked up by their places."""
        if self._left_out is None:
            return self._mine("t")
        places = sql.SQL(" and t.ctid = any (array(select o.version from {} o))").format(OTHERS)
        return self._mine("t") + places

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
        return self._db.execute(
            sql.SQL(template).format(stage=STAGE, table=self._table, mine=self._compared(), **parts), self._agent
        ).rowcount

    def _count(self, template: str, **parts: sql.Composable) -> int:
        statement = sql.SQL(template).format(stage=STAGE, table=self._table, mine=self._compared(), **parts)
        row = self._db.execute(statement, self._agent).fetchone()
        assert row is not None
        return int(row["n"])

    # --- a first load -----------------------------------------------------------------------------------------

    def load(self, records: RecordReader) -> Staged | None:
        """Copy the export straight into the table when it has no row of this agent: there is nothing to compare. None, and
        nothing written, when it has, or when a key stands in the export twice: `stage` tells then what is wrong with it.

        May raise what reading raises. The transaction must have begun with `applied_exports.begin_apply`.
        """
        if records.ignored_names or self._count(
            "select count(*) as n from (select from {table} t where {mine} limit 1) r"
        ):
            return None
        try:
            with self._db.transaction():
                staged = Loader(self._db, records, self._columns, self._table, _digests(records), key=None).load()
        except psycopg.errors.UniqueViolation:
            return None
        self._loaded = True
        return staged

    # --- staging ----------------------------------------------------------------------------------------------

    def stage_new(self, records: RecordReader) -> Staged | None:
        """Stream into the temporary table what the table's rows don't say already. None, and nothing staged, when that can't be told
        line by line; `stage` then reads everything. Only while nobody else has written to the rows. May raise what reading raises.
        """
        known = self._known_rows() if records.line_layout is not None else None
        if known is None:
            return None
        digests = LineDigests(records.line_layout or 0, known.by_digest())
        try:
            with self._db.transaction():
                staged = self._stage(records, digests)
                if digests.matched:
                    self._narrow(known, digests)
        except SpanningRecordError:
            self._left_out = None
            return None
        if digests.matched:
            self._nothing_read = digests.all_matched and staged.seen == digests.left_out
            staged.valid += digests.matched
            staged.repeated += digests.left_out - digests.matched
        return staged

    def _known_rows(self) -> KnownRows | None:
        """The agent's rows whose lines are known, and the places of the others; None when there are none of the first, or too many."""
        statement = sql.SQL(
            "select string_agg(uuid_send(r.line_digest) || tidsend(r.place), '') filter (where r.line_digest is not null) as known,"
            "       array_agg(r.place::text) filter (where r.line_digest is null) as others"
            "  from (select t.line_digest, t.ctid as place from {table} t where {mine} limit {most}) r"
        ).format(table=self._table, mine=self._mine("t"), most=sql.Literal(MOST_KNOWN + 1))
        row = self._db.execute(statement, self._agent, binary=True).fetchone()
        if row is None or row["known"] is None:
            return None
        known = KnownRows(row["known"], row["others"] or [])
        return known if len(known) <= MOST_KNOWN else None  # else the limit has cut rows off

    def _narrow(self, known: KnownRows, digests: LineDigests) -> None:
        """From here on only those rows are looked at that may differ from the export: their line is gone, or was never known.

        Raises SpanningRecordError when another row's key stands in a line that is new: the export then has it twice, and only a look at
        all rows can tell what that means.
        """
        self._left_out = digests
        self._db.execute(sql.SQL("create temp table {} (version tid) on commit drop").format(OTHERS))
        with self._db.cursor() as cursor, cursor.copy(sql.SQL("copy {} from stdin").format(OTHERS)) as copy:
            for place in known.places_but_of(digests):
                copy.write_row((place,))
        # Each key is looked up in the index, whatever the statistics say of a table that has just been filled or emptied.
        self._db.execute("set local enable_nestloop = on; set local enable_seqscan = off")
        twice = self._count(
            "select count(*) as n from {stage} s cross join lateral"
            " (select t.ctid as version from {table} t where {whose} and {same} limit 1) r"
            " where not exists (select from {others} o where o.version = r.version)",
            whose=self._mine("t"),
            same=self._same_key("t", "s"),
            others=OTHERS,
        )
        self._db.execute("set local enable_nestloop = off; set local enable_seqscan = on")
        if twice:
            raise SpanningRecordError

    def stage(self, records: RecordReader) -> Staged:
        """Stream the export into the temporary table; nothing else is written. May raise what reading raises."""
        return self._stage(records, _digests(records))

    def _stage(self, records: RecordReader, digests: LineDigests | None) -> Staged:
        # Neither the stage nor a table that was just filled or emptied has statistics that can be believed: a nested loop over it takes
        # hours for a first load. A hash join is at worst twice as slow as the best plan.
        self._db.execute("set local enable_nestloop = off; set local enable_mergejoin = off; set local jit = off")
        self._db.execute("set local work_mem = '64MB'")  # a hash of 100,000 rows; with 4 MB it goes to disk and back
        definitions = [
            sql.SQL("{} {} default {}").format(  # the default is for a key field that has no column in the file
                sql.Identifier(c.name), sql.SQL(_SQL_TYPE[c.kind]), sql.Literal(c.empty)
            )
            for c in self._columns
        ]
        definitions += [sql.SQL("{} text").format(sql.Identifier(name)) for name in records.ignored_names]
        self._db.execute(
            sql.SQL(
                "create temp table {} (ok boolean not null default true, line_digest uuid, {}) on commit drop"
            ).format(STAGE, sql.SQL(", ").join(definitions))
        )
        staged = Loader(self._db, records, self._columns, STAGE, digests, key=self._type.key).load()
        self._drop_repeated(staged)
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
        staged.valid = self._count("select count(*) as n from {stage} where ok")

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
            " count(*) filter (where rewrites is not null) as changed,"
            " count(*) filter (where rewrites and not gone) as rewritten"
            # compared once, not in each filter; `rewrites` is null where nothing changes
            " from (select s.ok, t.absent_since is not null as gone, case when s.ok and {changed} then {rewritten} end as rewrites"
            "         from {table} t left join {stage} s on {same} where {mine} offset 0) r"
        ).format(
            stage=STAGE,
            table=self._table,
            mine=self._compared(),
            same=self._same_key("t", "s"),
            changed=self._changed(),
            rewritten=self._rewritten(),
        )
        row = self._db.execute(statement, self._agent).fetchone()
        assert row is not None
        left_out = self._left_out.matched if self._left_out else 0
        new = staged.valid - left_out - row["matched"]
        # New rows match the stage too, once they are inserted.
        self._all_change = row["changed"] == row["matched"] and not new
        return Plan(
            known=row["known"] + left_out,
            vanishing=row["missing"] if staged.all_keys_known else 0,
            deleted=row["deleting"] if staged.all_keys_known else 0,
            restored=row["restored"],
            changed=row["changed"],
            rewritten=row["rewritten"],
            new=new,
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
        """Whether more than half of the owned columns that had a value get another one, and at least two: where an export has no more
        than a price, every new price list would be a rewrite."""
        if not self._owned:
            return sql.SQL("false")
        return sql.SQL("2 * num_nonnulls({}) > greatest(num_nonnulls({}), 2)").format(
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
            "select array[{key}] as key, (select jsonb_object_agg(o.key, jsonb_build_array(o.value #>> '{{}}', n.value #>> '{{}}'))"
            "   from jsonb_each(to_jsonb(t)) o join jsonb_each(to_jsonb(s)) n on n.key = o.key"
            "  where o.key = any (%(owned)s::text[]) and o.value is distinct from n.value) as fields"
            " from {table} t join {stage} s on {same} where {mine} and s.ok and {changed} order by 1 limit {size}"
        ).format(
            stage=STAGE,
            table=self._table,
            mine=self._compared(),
            key=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in self._type.key),
            same=self._same_key("t", "s"),
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
            stage=STAGE,
            table=self._table,
            mine=self._compared(),
            key=key,
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
        if plan.deleted:
            counts.deleted = self._delete()
        if plan.vanishing:
            counts.absent = self._mark_absent()
        if plan.new:  # before the updates, which move the rows that are looked up by their place
            counts.inserted = self._insert()
        if plan.changed:
            counts.updated = self._update()
        if plan.restored:
            self._restore()
            counts.restored = plan.restored
        counts.unchanged = staged.valid - counts.updated - counts.inserted
        return counts

    def _delete(self) -> int:
        """Of the rows that an earlier export has lacked, those that this one lacks too."""
        return self._run(
            "delete from {table} t where {mine} and t.absent_since is not null and not {present}",
            present=self._in_stage("t"),
        )

    def _mark_absent(self) -> int:
        return self._run(
            "update {table} t set absent_since = system.clock(), line_digest = null, run_id = %(run_id)s"
            " where {mine} and t.absent_since is null and not {present}",
            present=self._in_stage("t"),
        )

    def _update(self) -> int:
        if not self._owned:
            return 0
        return self._run(
            "update {table} t set {assign}, absent_since = null, line_digest = s.line_digest, updated_at = c.now,"
            " run_id = %(run_id)s"
            " from {stage} s, (select system.clock() as now offset 0) c"
            " where {mine} and s.ok and {same} and {changed}",
            assign=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(f.name), sql.Identifier("s", f.name)) for f in self._owned
            ),
            same=self._same_key("t", "s"),
            changed=sql.SQL("true") if self._all_change else self._changed(),  # as the plan has seen
        )

    def _restore(self) -> None:
        """The rows that are back as they were; those that have changed meanwhile are back already."""
        self._run(
            "update {table} t set absent_since = null, line_digest = s.line_digest, updated_at = system.clock(),"
            " run_id = %(run_id)s from {stage} s where {mine} and t.absent_since is not null and {same}",
            same=self._same_key("t", "s"),
        )

    def renew_digests(self) -> None:
        """Give each row that was compared the digest of the line that it was compared with. After a change of the layout, so that the
        next export is read by its new lines only; and after somebody else wrote to the rows, whose digests say nothing any more. After
        `stage`, which compares all rows, or `load`.
        """
        if self._loaded:
            return
        assert self._left_out is None
        self._run(
            "update {table} t set line_digest = s.line_digest from {stage} s"
            " where {mine} and {same} and t.line_digest is distinct from s.line_digest",
            same=self._same_key("t", "s"),
        )
        self._run(  # not marked absent, if the export has a row without a readable key
            "update {table} t set line_digest = null where {mine} and t.line_digest is not null and not {present}",
            present=self._in_stage("t"),
        )

    def _insert(self) -> int:
        agent_column, agent_value = sql.SQL(""), sql.SQL("")
        if self._type.scope is Scope.AGENT:
            agent_column, agent_value = sql.SQL("agent_id, "), sql.SQL("%(agent_id)s, ")
        return self._run(
            "insert into {table} ({agent_column}{names}, line_digest, run_id)"
            " select {agent_value}{values}, s.line_digest, %(run_id)s from {stage} s"
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
        """`… s where …`: the good rows of the export, wherever they are once it is written."""
        if self._loaded:
            return sql.SQL("{} s where {}").format(self._table, self._mine("s"))
        if self._left_out is None:
            return sql.SQL("{} s where s.ok").format(STAGE)
        bad = sql.SQL("exists (select from {} b where not b.ok and {})").format(STAGE, self._same_key("b", "s"))
        return sql.SQL("{} s where {} and s.absent_since is null and not {}").format(self._table, self._mine("s"), bad)


def _digests(records: RecordReader) -> LineDigests | None:
    """For lines of which none is known."""
    return LineDigests(records.line_layout) if records.line_layout is not None else None


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
