"""Comparing an export with its table in memory, where the difference is small: no temporary table, few statements.

A line whose digest a row of the table has says what that row says, so it is neither parsed nor compared
(archisync.formats.knownlines). What remains are the records of the other lines, and the rows whose lines are gone. Both are held here,
matched by their keys, and written with arrays. When a person forced the run, or somebody else wrote to the rows, every record is compared
with every row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from archisync.formats.knownlines import DIGEST_BYTES, LineDigests, SpanningRecordError, least_digests
from archisync.rules.changedrows import shown
from archisync.rules.guard import Plan
from archisync.rules.values import Value
from archisync.store.database import Params
from archisync.store.runs import Counts
from archisync.sync import references
from archisync.sync.changes import Changes
from archisync.sync.comparison import check_written
from archisync.sync.copying import LONG_GONE, SAMPLE_SIZE, Staged
from archisync.sync.planning import ChangedSample
from archisync.sync.records import Quarantined, Record, RecordReader
from archisync.sync.suppressed import check
from archisync.sync.target import Key, Target, comma

MOST_ROWS = 2_000
"""Records, or rows, that are held in memory; a larger difference goes through the stage."""
MOST_CHARS = 8 * 1024 * 1024
MOST_DIGESTS = 120_000
"""Digests of rows that are looked at: 2 MB from the server, some 20 MB here."""


class KnownLines(NamedTuple):
    """The agent's rows before the export is read. `digests`: those of the lines that the rows came from; `rows`: their number, and
    `without` the number of those that have no digest. With more rows than MOST_DIGESTS `digests` is empty."""

    digests: frozenset[bytes]
    rows: int
    without: int

    @property
    def comparable(self) -> bool:
        """Whether the rows that must be compared may be few."""
        return self.rows <= MOST_DIGESTS and self.without <= MOST_ROWS


def known_lines(target: Target) -> KnownLines:
    """Ask for the agent's rows."""
    statement = target.compiled(
        "known lines",
        lambda: target.statement(
            "select string_agg(uuid_send(r.line_digest), '') as packed, count(*) as rows, count(*) - count(r.line_digest) as without"
            "  from (select t.line_digest from {table} t where {mine} limit {most}) r",
            most=sql.Literal(MOST_DIGESTS + 1),
        ),
    )
    row = target.db.execute(statement, target.params, binary=True, prepare=True).fetchone()
    assert row is not None
    packed: bytes = row["packed"] or b""
    if row["rows"] > MOST_DIGESTS:
        packed = b""
    digests = frozenset(struct.unpack(f"{DIGEST_BYTES}s" * (len(packed) // DIGEST_BYTES), packed))
    return KnownLines(digests, row["rows"], row["without"])


class UnreadableRowError(Exception):
    """A row has a value that Python has no object for: somebody else wrote the date `infinity`, say."""


class OldRow(NamedTuple):
    """A row of the table: its key, the values of the columns that the export owns, and whether an earlier export marked it absent, perhaps
    long ago."""

    key: Key
    values: tuple[Value, ...]
    gone: bool
    long_gone: bool
    digest: bytes | None


class _Read:
    """What is read of the export: good records by key, and the keys of quarantined rows."""

    def __init__(self, key_length: int) -> None:
        self.records: dict[Key, Record] = {}
        self.bad_keys: set[Key] = set()
        self.conflicting: dict[Key, set[tuple[Value, ...]]] = {}
        """For each key with different values those that are not in `records`."""
        self.staged = Staged()
        self._key_length = key_length
        self._kept = 0
        self._chars = 0

    def take(self, record: Record | Quarantined) -> None:
        if isinstance(record, Quarantined):
            self.staged.take_bad(record)
            if record.key is not None:
                self.bad_keys.add(record.key)
            return
        key = record.values[: self._key_length]
        first = self.records.setdefault(key, record)
        if first is not record:
            if first.values == record.values or record.values in self.conflicting.setdefault(key, set()):
                self.staged.repeated += 1
                return
            self.conflicting[key].add(record.values)
        self._kept += 1
        self._chars += sum([len(value) for value in record.values if type(value) is str])

    @property
    def too_much(self) -> bool:
        return self._kept + len(self.bad_keys) > MOST_ROWS or self._chars > MOST_CHARS


def compare_in_memory(
    target: Target, records: RecordReader, known: KnownLines, *, compare_all: bool
) -> InMemoryComparison | None:
    """Read the export and compare it with the agent's rows. `compare_all`: no row is known by its digest.

    Returns None when the difference is too large, or a row has a value that only PostgreSQL can express; nothing is written then. Raises
    what reading raises.
    """
    if not known.comparable or (compare_all and known.rows > MOST_ROWS):
        return None
    try:
        if not compare_all and known.digests:
            lines = LineDigests(records.line_layout, known.digests)
            with suppress(SpanningRecordError):  # the lines can't be told apart: compare every record
                return _compare(target, records, lines, known)
        if known.rows > MOST_ROWS:
            return None
        return _compare(target, records, LineDigests(records.line_layout), known)
    except UnreadableRowError:
        return None


def _compare(
    target: Target, records: RecordReader, digests: LineDigests, known: KnownLines
) -> InMemoryComparison | None:
    """Raises SpanningRecordError when only a comparison of every record can tell what the export means."""
    read = _Read(len(target.type.key))
    for record in records.parsed(digests):
        read.take(record)
        if read.too_much:
            return None
    by_digest = digests.leaves_out
    missing = digests.missing if by_digest else None
    if missing is not None and len(missing) + known.without > MOST_ROWS:
        return None
    old = _old_rows(target, missing, known, {*read.records, *read.bad_keys})
    if by_digest and any(digests.is_found(row.digest) for row in old.values()):
        raise SpanningRecordError  # the export has a key of a known line once more
    staged = read.staged
    staged.take_counts(records)
    staged.conflicting = len(read.conflicting)
    if by_digest:
        staged.known, staged.lines = digests.matched, digests
        staged.repeated += digests.left_out - digests.matched
        staged.nothing_new = digests.all_matched and not known.without and staged.seen == digests.left_out
    staged.valid = len(read.records) + staged.known
    staged.least = least_digests([], (record.digest for record in read.records.values() if record.digest))
    return InMemoryComparison(target, staged, read.records, read.bad_keys, old)


def _old_rows(target: Target, missing: Set[bytes] | None, known: KnownLines, keys: Set[Key]) -> dict[Key, OldRow]:
    """The rows that the export is compared with, by key: those whose line is gone or unknown, and those with one of the keys. All rows when
    `missing` is None."""
    if missing is None:
        if not known.rows:
            return {}
        return _fetched(target, "{mine}", {})
    found = _fetched(target, "{mine} and {among}", {}, keys=keys) if keys else {}
    # A line that has changed is gone, and its row has been found by its key.
    gone = missing - {row.digest for row in found.values()}
    if gone or known.without > sum(row.digest is None for row in found.values()):
        params = {"missing": [digest.hex() for digest in gone]}
        found |= _fetched(
            target, "{mine} and (t.line_digest is null or t.line_digest = any (%(missing)s::uuid[]))", params
        )
    return found


def _fetched(
    target: Target, condition: str, params: Mapping[str, Any], *, keys: Iterable[Key] = ()
) -> dict[Key, OldRow]:
    more = dict(params) | (target.key_arrays("k", list(keys)) if keys else {})
    statement = target.compiled(
        condition,
        lambda: target.statement(
            f"select {{columns}}, t.absent_since is not null, {{long_gone}}, uuid_send(t.line_digest) from {{table}} t where {condition}",  # noqa: S608
            columns=comma(sql.Identifier("t", column.name) for column in target.columns),
            among=target.among("k"),
            long_gone=LONG_GONE,
        ),
    )
    length = len(target.type.key)
    try:
        rows = target.tuples(statement, target.params | more)
    except psycopg.DataError as exc:
        if exc.sqlstate is not None:
            raise
        raise UnreadableRowError from None
    return {row[:length]: OldRow(row[:length], row[length:-3], row[-3], row[-2], row[-1]) for row in rows}


class InMemoryComparison:
    """The records of an export that are not known, and the rows that they were compared with."""

    def __init__(
        self,
        target: Target,
        staged: Staged,
        records: Mapping[Key, Record],
        bad_keys: Iterable[Key],
        old: Mapping[Key, OldRow],
    ) -> None:
        self._target = target
        self.staged = staged
        self._old = old
        self._bad_keys = [key for key in bad_keys if key not in records]
        length = len(target.type.key)
        self._records = records
        self._new = [record for key, record in records.items() if key not in old]
        pairs = [(old[key], record) for key, record in records.items() if key in old]
        self._changed = [(row, record) for row, record in pairs if row.values != record.values[length:]]
        same = [(row, record) for row, record in pairs if row.gone and row.values == record.values[length:]]
        present = {*records, *self._bad_keys}
        self._missing = [row for key, row in old.items() if key not in present]
        bad_back = [old[key] for key in self._bad_keys if key in old and old[key].gone]
        self._back = [(row.key, record.digest) for row, record in same] + [(row.key, None) for row in bad_back]

    def plan(self) -> Plan:
        staged, old = self.staged, self._old.values()
        restored = len(self._back) + sum(row.gone for row, _ in self._changed)
        return Plan(
            known=sum(not row.gone for row in old) + staged.known,
            vanishing=0 if staged.missing else sum(not row.gone for row in self._missing),
            deleted=0 if staged.missing else len(self._to_delete()),
            restored=restored,
            changed=len(self._changed),
            rewritten=sum(not row.gone and self._is_rewrite(row, record) for row, record in self._changed),
            new=len(self._new),
        )

    def _to_delete(self) -> list[OldRow]:
        return [row for row in self._missing if (row.long_gone if self.staged.unkeyed else row.gone)]

    def _is_rewrite(self, row: OldRow, record: Record) -> bool:
        """Whether more than half of the filled columns, and at least two, get another value. With one column alone, every new price list
        would be a rewrite."""
        values = record.values[len(row.key) :]
        filled = sum(value is not None for value in row.values)
        different = sum(before is not None and before != now for before, now in zip(row.values, values, strict=True))
        return 2 * different > max(filled, 2)

    def changed_rows(self, most: int) -> ChangedSample:  # all are here
        rows = [((*row.key, *row.values), record.values) for row, record in self._changed if not row.gone]
        return ChangedSample(rows, len(rows))

    def decimals(self, name: str) -> int:
        place = [column.name for column in self._target.columns].index(name)
        values = [record.values[place] for record in self._records.values()]
        return sum(isinstance(value, Decimal) and value.as_tuple().exponent not in (0, -3) for value in values)

    def digests(self) -> tuple[sql.Composable, Params]:
        return sql.SQL("select unnest(%(digests)s::uuid[])"), {
            "digests": [digest.hex() for digest in self._new_digests()]
        }

    def _new_digests(self) -> list[bytes]:
        return [record.digest for record in self._records.values() if record.digest]

    def staying(self) -> tuple[sql.Composable, Params]:
        missing = [row.key for row in self._missing if not row.gone]
        if not missing or self.staged.missing:
            return sql.SQL("true"), {}
        return sql.SQL("not {}").format(self._target.among("missing")), self._target.key_arrays("missing", missing)

    def sample_changes(self) -> list[dict[str, object]]:
        if self.staged.conflicting:
            return []
        pairs = sorted(self._changed, key=lambda pair: _as_text(pair[0].key))[:SAMPLE_SIZE]
        names = [field.name for field in self._target.value_columns]
        return [
            {
                "key": _as_text(row.key),
                "fields": {
                    name: [shown(before), shown(now)]
                    for name, before, now in zip(names, row.values, record.values[len(row.key) :], strict=True)
                    if before != now
                },
            }
            for row, record in pairs
        ]

    def sample_vanishing(self) -> list[list[str]]:
        return sorted(_as_text(row.key) for row in self._missing if not row.gone)[:SAMPLE_SIZE]

    def write(self, plan: Plan) -> Counts:
        counts = Counts(seen=self.staged.seen, quarantined=self.staged.quarantined)
        changes = Changes(self._target)
        if plan.deleted:
            changes.delete([row.key for row in self._to_delete()])
        if plan.vanishing:
            changes.mark_absent([row.key for row in self._missing if not row.gone])
        if self._new:
            changes.insert(self._new)
        if self._changed:
            changes.update([record for _, record in self._changed])
        if self._back:
            changes.restore(self._back)
        written = changes.execute()
        counts.deleted, counts.absent = written.get("deleted", 0), written.get("absent", 0)
        counts.inserted, counts.updated = written.get("inserted", 0), written.get("updated", 0)
        counts.restored = written.get("restored", 0) + sum(row.gone for row, _ in self._changed)
        counts.unchanged = self.staged.valid - counts.updated - counts.inserted
        check_written(self._target, plan, counts)
        return counts

    def renew_digests(self) -> None:
        stale = [
            (key, record.digest)
            for key, record in self._records.items()
            if key in self._old and self._old[key].digest != record.digest
        ]
        # Rows that are missing and not marked, because the export has fewer rows than it announces.
        stale += [(row.key, None) for row in self._missing if row.digest is not None]
        if stale:
            changes = Changes(self._target)
            changes.set_digests(stale)
            written = changes.execute()
            check(self._target, "given their digests", planned=len(stale), written=written["digests"])

    def unknown_orders(self) -> int:
        return references.unknown_orders(self._target, self._good_rows())

    def repeated_values(self) -> dict[str, int]:
        return references.repeated_values(self._target, self._good_rows())

    def _good_rows(self) -> references.GoodRows:
        if not self._bad_keys:
            return references.GoodRows("in the table", self._present, {})
        bad = self._target.among("bad", alias="s")
        params = self._target.key_arrays("bad", self._bad_keys)
        return references.GoodRows("and not bad", lambda: self._present() + sql.SQL(" and not {}").format(bad), params)

    def _present(self) -> sql.Composed:
        target = self._target
        return sql.SQL("{} s where {} and s.absent_since is null").format(target.table, target.mine("s"))


def _as_text(key: Key) -> list[str]:
    return [shown(part) or "" for part in key]
