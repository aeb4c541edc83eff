"""Copying an export's records to PostgreSQL: plain lines unparsed and many at once, other records parsed."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from psycopg import sql

from archisync.formats import PlainLines
from archisync.formats.knownlines import DIGEST_BYTES, LineDigests, least_digests
from archisync.rules.values import Locale, Value
from archisync.sync.records import Quarantined, Record, RecordReader
from archisync.sync.suppressed import check
from archisync.sync.target import Target

SAMPLE_SIZE = 20
LONG_GONE = sql.SQL("coalesce(t.absent_since <= system.clock() - interval '7 days', false)")
"""Whether a row was marked absent long ago: it is deleted then though it may be one of the rows whose keys can't be read."""
_MOST_WAITING = 2000
"""Parsed rows that wait in memory while lines are copied: a connection does one COPY at a time."""
_MOST_WAITING_CHARS = 16 * 1024 * 1024
"""A cell may have 64 KiB, so their text has a limit of its own."""


@dataclass(kw_only=True)
class Staged:
    """What was read of an export, in rows.

    `valid` are good rows, each key counted once. `repeated` rows were dropped because an identical one is there. `conflicting` keys
    have several rows with different values. `keyless` are quarantined rows with an empty key, which are none of the known rows.
    `unkeyed` are those whose key can't be read: a known row that is missing may be one of them. `missing` are the rows that the export
    announces and does not have: nobody knows then which rows are absent. `open_ended`: the last line has no line end, and nobody has
    said that the ERP writes it so. `blank`: empty cells of boolean columns that were parsed. `other_notation`: numbers that were rejected
    because the other locale writes them so, by field; `locale` is this one's.

    `loaded`: the export was copied straight into the table, not into the stage. `known` rows are valid, and were left out of the stage
    because their lines are known. `nothing_new`: every line of the export is known, and so is every row of the table. `lines` tells
    which lines were left out; None when none were. `least`: the first digests of the good rows that were not.
    """

    seen: int = 0
    valid: int = 0
    quarantined: int = 0
    keyless: int = 0
    unkeyed: int = 0
    missing: int = 0
    open_ended: bool = False
    repeated: int = 0
    conflicting: int = 0
    known: int = 0
    loaded: bool = False
    nothing_new: bool = False
    quarantine_sample: list[dict[str, object]] = field(default_factory=list)
    blank: dict[str, int] = field(default_factory=dict)
    other_notation: dict[str, int] = field(default_factory=dict)
    locale: Locale = "iso"
    lines: LineDigests | None = field(default=None, compare=False)
    least: list[bytes] = field(default_factory=list, compare=False)

    def take_counts(self, records: RecordReader) -> None:
        """What the reader knows when it has read all rows."""
        self.seen, self.quarantined, self.missing = records.seen, records.quarantined, records.missing
        self.open_ended, self.locale = records.open_ended, records.locale
        self.blank, self.other_notation = dict(records.blank), dict(records.other_notation)

    def take_bad(self, record: Quarantined) -> None:
        """Count the key of a quarantined row, and keep some of these rows to show."""
        if len(self.quarantine_sample) < SAMPLE_SIZE:
            self.quarantine_sample.append({"line": record.line, "field": record.field, "reason": record.reason})
        self.keyless += record.keyless
        self.unkeyed += record.key is None and not record.keyless

    def least_digest(self, last: str | None) -> str | None:
        """The first of all good rows' digests, in order. `last`: the one of the last export."""
        if self.lines:
            before = UUID(last).bytes if last else None
            kept = [before] if before and self.lines.is_found(before) else self.lines.found()
            self.least = least_digests(self.least, kept)
        return str(UUID(bytes=self.least[0])) if self.least else None


class Copier:
    """Copies records into a table, each with the digest of its line where it has one.

    `keep_bad`: rows that are quarantined and have a readable key are kept too, with `ok = false` and no other values.
    """

    def __init__(
        self,
        target: Target,
        records: RecordReader,
        table: sql.Identifier,
        digests: LineDigests | None,
        *,
        keep_bad: bool,
    ) -> None:
        self._db, self._target = target.db, target
        self._records = records
        self._digests = digests
        self._keep_bad = keep_bad
        self._staged = Staged()
        self._good: list[tuple[Value, ...]] = []
        self._bad: list[tuple[Value, ...]] = []
        self._chars = 0
        self._copy_good = _copy_into(table, [*(c.name for c in target.columns), "line_digest"])
        self._copy_bad = _copy_into(table, ["ok", *target.type.key])
        self._copy_lines = _copy_lines_into(table, records, with_digests=digests is not None)
        self._delimiter = records.delimiter.encode()

    def copy(self) -> Staged:
        """Copy everything, in the caller's transaction. `valid` counts the rows that were copied."""
        batches = self._records.batches(self._digests)
        for first in batches:
            if isinstance(first, PlainLines):
                self._copy_lines_from(first, batches)
            else:
                self._take(first)
            if self._many_wait():
                self._flush()
        self._flush()
        self._staged.take_counts(self._records)
        return self._staged

    def _copy_lines_from(self, first: PlainLines, batches: Iterator[Record | Quarantined | PlainLines]) -> None:
        """Copy these lines and those that follow, until too many other records have come between them."""
        sent = len(first.lines)
        with self._db.cursor() as cursor:
            with cursor.copy(self._copy_lines) as copy:
                copy.write(self._text(first))
                for batch in batches:
                    if isinstance(batch, PlainLines):
                        copy.write(self._text(batch))
                        sent += len(batch.lines)
                        continue
                    self._take(batch)
                    if self._many_wait():
                        break
            check(self._target, "copied", planned=sent, written=cursor.rowcount)
        self._staged.valid += sent

    def _text(self, plain: PlainLines) -> bytes:
        """The lines as COPY takes them, each followed by its digest."""
        if not plain.digests:
            return b"\n".join(plain.lines) + b"\n"
        self._staged.least = least_digests(self._staged.least, plain.digests)
        digests = hexlify(b"".join(plain.digests), "\n", DIGEST_BYTES).split(b"\n")
        return b"\n".join(map(self._delimiter.join, zip(plain.lines, digests, strict=True))) + b"\n"

    def _take(self, record: Record | Quarantined) -> None:
        if isinstance(record, Record):
            self._chars += sum([len(value) for value in record.values if type(value) is str])
            self._good.append((*record.values, record.digest.hex() if record.digest else None))
            if record.digest:
                self._staged.least = least_digests(self._staged.least, [record.digest])
            return
        self._staged.take_bad(record)
        if record.key is not None and self._keep_bad:
            self._bad.append((False, *record.key))

    def _many_wait(self) -> bool:
        return len(self._good) + len(self._bad) >= _MOST_WAITING or self._chars >= _MOST_WAITING_CHARS

    def _flush(self) -> None:
        self._staged.valid += len(self._good)
        for statement, rows in ((self._copy_good, self._good), (self._copy_bad, self._bad)):
            if rows:
                with self._db.cursor() as cursor:
                    with cursor.copy(statement) as copy:
                        for row in rows:
                            copy.write_row(row)
                    check(self._target, "copied", planned=len(rows), written=cursor.rowcount)
            rows.clear()
        self._chars = 0


def _copy_into(table: sql.Identifier, names: Sequence[str]) -> sql.Composed:
    return sql.SQL("copy {} ({}) from stdin").format(table, sql.SQL(", ").join(map(sql.Identifier, names)))


def _copy_lines_into(table: sql.Identifier, records: RecordReader, *, with_digests: bool) -> sql.Composed:
    """An empty cell is NULL, in quotes or not."""
    names = records.names_in_file_order
    form = sql.SQL(" with (format csv, delimiter {}, force_null ({}))").format(
        sql.Literal(records.delimiter), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    return _copy_into(table, [*names, *(["line_digest"] if with_digests else [])]) + form
