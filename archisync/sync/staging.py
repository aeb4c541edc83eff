"""Copying an export's records to PostgreSQL: lines that need no parsing as they stand, the others one by one."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from archisync.formats import PlainLines
from archisync.formats.knownlines import DIGEST_BYTES, LineDigests
from archisync.rules.synctypes import Field
from archisync.rules.values import Value
from archisync.store.database import Database
from archisync.sync.records import Quarantined, Record, RecordReader

SAMPLE_SIZE = 20
_MANY = 2000
"""Parsed rows that wait in memory for their turn: a connection has one COPY at a time."""
_MANY_CHARS = 16 * 1024 * 1024
"""The same of their text: a cell may have 64 KiB."""


@dataclass(kw_only=True)
class Staged:
    """What was read of an export. `unkeyed`: quarantined rows without a readable key; `lacking`: rows that it says it has, and has
    not: in either case nobody knows which keys are absent. `conflicting`: keys with different values;
    `repeated`: rows dropped because an identical one is there; `valid`: good rows, each key counted once."""

    seen: int = 0
    valid: int = 0
    quarantined: int = 0
    unkeyed: int = 0
    lacking: int = 0
    repeated: int = 0
    conflicting: int = 0
    quarantine_sample: list[dict[str, object]] = field(default_factory=list)

    @property
    def all_keys_known(self) -> bool:
        """Whether a row that is missing is known to be missing."""
        return not (self.unkeyed or self.lacking)


class Loader:
    """Copies records into a table: each with the digest of its line, as far as there is one. `key`: names of the key fields, where
    quarantined rows are to be kept as `ok = false` and nothing but their key."""

    def __init__(
        self,
        db: Database,
        records: RecordReader,
        columns: tuple[Field, ...],
        target: sql.Identifier,
        digests: LineDigests | None,
        *,
        key: tuple[str, ...] | None,
    ) -> None:
        self._db = db
        self._records = records
        self._digests = digests
        self._staged = Staged()
        self._good: list[tuple[Value, ...]] = []
        self._bad: list[tuple[Value, ...]] = []
        self._chars = 0
        self._keep_bad = key is not None
        self._copy_good = _copy_into(target, [*(c.name for c in columns), "line_digest"])
        self._copy_bad = _copy_into(target, ["ok", *(key or ())])
        self._copy_lines = _copy_lines_into(target, records, with_digests=digests is not None)
        self._delimiter = records.delimiter.encode()

    def load(self) -> Staged:
        """What was read; `valid` counts the rows that were copied. In the caller's transaction."""
        self._db.execute("set local datestyle = 'ISO, DMY'")  # of plain lines, where a date may be day first
        batches = self._records.batches(self._digests)
        for first in batches:
            if isinstance(first, PlainLines):
                self._lines(first, batches)
            else:
                self._take(first)
            if self._many_wait():
                self._flush()
        self._flush()
        self._staged.seen, self._staged.quarantined = self._records.seen, self._records.quarantined
        self._staged.lacking = self._records.lacking
        return self._staged

    def _lines(self, first: PlainLines, batches: Iterator[Record | Quarantined | PlainLines]) -> None:
        """These lines, and all that follow until too many records have come between them."""
        with self._db.cursor() as cursor:
            with cursor.copy(self._copy_lines) as copy:
                copy.write(self._text(first))
                for batch in batches:
                    if isinstance(batch, PlainLines):
                        copy.write(self._text(batch))
                        continue
                    self._take(batch)
                    if self._many_wait():
                        break
            self._staged.valid += cursor.rowcount

    def _text(self, plain: PlainLines) -> bytes:
        """The lines as COPY takes them, each with its digest behind it."""
        if not plain.digests:
            return b"\n".join(plain.lines) + b"\n"
        digests = hexlify(b"".join(plain.digests), "\n", DIGEST_BYTES).split(b"\n")
        return b"\n".join(map(self._delimiter.join, zip(plain.lines, digests, strict=True))) + b"\n"

    def _take(self, record: Record | Quarantined) -> None:
        if isinstance(record, Record):
            self._chars += sum([len(value) for value in record.values if type(value) is str])
            self._good.append((*record.values, record.digest.hex() if record.digest else None))
            return
        staged = self._staged
        if len(staged.quarantine_sample) < SAMPLE_SIZE:
            staged.quarantine_sample.append({"line": record.line, "field": record.field, "reason": record.reason})
        if record.key is None:
            staged.unkeyed += 1
        elif self._keep_bad:
            self._bad.append((False, *record.key))

    def _many_wait(self) -> bool:
        return len(self._good) + len(self._bad) >= _MANY or self._chars >= _MANY_CHARS

    def _flush(self) -> None:
        for statement, rows in ((self._copy_good, self._good), (self._copy_bad, self._bad)):
            self._staged.valid += len(rows) if rows is self._good else 0
            if rows:
                with self._db.cursor() as cursor, cursor.copy(statement) as copy:
                    for row in rows:
                        copy.write_row(row)
            rows.clear()
        self._chars = 0


def _copy_into(target: sql.Identifier, names: Sequence[str]) -> sql.Composed:
    return sql.SQL("copy {} ({}) from stdin").format(target, sql.SQL(", ").join(map(sql.Identifier, names)))


def _copy_lines_into(target: sql.Identifier, records: RecordReader, *, with_digests: bool) -> sql.Composed:
    """An empty cell is NULL, in quotes or not."""
    names = list(map(sql.Identifier, records.names_in_file_order))
    form = sql.SQL(" with (format csv, delimiter {}, force_null ({}))").format(
        sql.Literal(records.delimiter), sql.SQL(", ").join(names)
    )
    return _copy_into(target, [*records.names_in_file_order, *(["line_digest"] if with_digests else [])]) + form
