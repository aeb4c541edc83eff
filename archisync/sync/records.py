"""A table's raw rows to typed records of a sync type; what can't be read is quarantined, never repaired by guessing.

Columns are found by their labels, so a moved or added column changes nothing, and a field without a column is not owned
by the export. Two columns for one field hold the export: which of them is right can't be known.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from archisync.base.errors import ConfigurationError, ExportError
from archisync.formats import copylines, csv, jsonl
from archisync.formats.copylines import PlainLine
from archisync.formats.knownlines import LineDigests
from archisync.formats.rows import (
    BadRow,
    LineTable,
    NestedText,
    NumberText,
    PlainLines,
    RawRow,
    SkippingTable,
    Table,
)
from archisync.rules import values
from archisync.rules.synctypes import Field, Kind, SyncType
from archisync.rules.values import BadValueError, Locale, Value, clean, parse, parser, strip_accents

_SHOWN_LABELS = 40
_MAX_PLAIN_COLUMNS = 400  # a table of PostgreSQL has room for 1,600
_SHOWN_CHARS = 40
_NO_ALIASES: Mapping[str, str] = {}


class MissingColumnError(ExportError):
    """The export lacks a column that the sync type can't do without."""

    reason = "missing-column"


def fold_label(label: str) -> str:
    """How labels are compared: upper case, no accents, no trailing colon, blanks collapsed; `_` is kept."""
    folded = strip_accents(label.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").upper())
    return " ".join(folded.split()).rstrip(": ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which column of the table holds which field.

    `columns` are all key fields in key order, then every other field that has a column, in the type's order.
    `positions[i]` is the table column of `columns[i]`, or -1 for a key field without one; `ignored` are unknown labels.
    """

    columns: tuple[Field, ...]
    positions: tuple[int, ...]
    ignored: tuple[str, ...]

    def in_file_order(self, width: int) -> list[Field | None]:
        """The field of each of the table's `width` columns, None where it is ignored."""
        fields: list[Field | None] = [None] * width
        for field, position in zip(self.columns, self.positions, strict=True):
            if position >= 0:
                fields[position] = field
        return fields


def map_labels(labels: Sequence[str], sync_type: SyncType, extra_aliases: Mapping[str, str] = _NO_ALIASES) -> Layout:
    """Find the type's fields among the labels.

    `extra_aliases` is label → field name and wins over the type's own aliases; an empty field name means that the
    column is ignored. A column without a label is ignored too, and not listed. Of two columns with the same label the second is
    the field that `sync_type.same_label` names.
    Raises MissingColumnError, ExportError (two columns for one field) and ConfigurationError (unknown field).
    """
    names = _names_by_label(sync_type, extra_aliases)
    after = dict(sync_type.same_label)
    found: dict[str, int] = {}
    ignored: list[str] = []
    for position, label in enumerate(labels):
        name = names.get(fold_label(label))
        if not name:
            ignored.extend([label] if label.strip() else [])
        elif name in found and name in after and after[name] not in found and _same(labels[found[name]], label):
            found[after[name]] = position
        elif name in found:
            raise _twice(labels[found[name]], label, name)
        else:
            found[name] = position
    _require_columns(labels, sync_type, found)
    columns = _ordered(sync_type, found)
    return Layout(
        columns=columns, positions=tuple(found.get(field.name, -1) for field in columns), ignored=tuple(ignored)
    )


def _names_by_label(sync_type: SyncType, extra_aliases: Mapping[str, str]) -> dict[str, str]:
    """Folded label → field name."""
    names = {fold_label(label): field.name for field in sync_type.fields for label in (field.name, *field.aliases)}
    known = {field.name for field in sync_type.fields}
    for label, name in extra_aliases.items():
        if name and name not in known:
            raise ConfigurationError(
                f"the column {_shown(label)} is assigned to {name!r}, which is no field of {sync_type.name}",
                hint="fields: " + ", ".join(field.name for field in sync_type.fields),
            )
        names[fold_label(label)] = name
    return names


def _same(first: str, second: str) -> bool:
    return fold_label(first) == fold_label(second)


def _twice(first: str, second: str, name: str) -> ExportError:
    hint = "remove one of them from the ERP's export"
    if _same(first, second):
        return ExportError(f"column {_shown(second)} stands twice", hint=hint)
    return ExportError(f"columns {_shown(first)} and {_shown(second)} both stand for {name}", hint=hint)


def _require_columns(labels: Sequence[str], sync_type: SyncType, found: Mapping[str, int]) -> None:
    missing = [field.name for field in sync_type.fields if _needs_column(field, sync_type) and field.name not in found]
    if not missing:
        return
    shown = ", ".join(_shown(label) for label in labels[:_SHOWN_LABELS])
    if len(labels) > _SHOWN_LABELS:
        shown += f" and {len(labels) - _SHOWN_LABELS} more"
    raise MissingColumnError(
        f"the export has no column for {', '.join(missing)}; its columns are {shown}",
        hint="make the column visible in the ERP's export, or give its label as an alias",
    )


def _needs_column(field: Field, sync_type: SyncType) -> bool:
    return field.required or (field.name in sync_type.key and _key_must_be_filled(field, sync_type))


def _key_must_be_filled(field: Field, sync_type: SyncType) -> bool:
    return field.empty is None and field.name not in sync_type.nullable_key


def _ordered(sync_type: SyncType, found: Mapping[str, int]) -> tuple[Field, ...]:
    key = tuple(sync_type.field(name) for name in sync_type.key)
    return key + tuple(field for field in sync_type.fields if field.name in found and field.name not in sync_type.key)


def _shown(label: str) -> str:
    return repr(label[:_SHOWN_CHARS]) + ("…" if len(label) > _SHOWN_CHARS else "")


class Record(NamedTuple):
    """One good row: `values` in the order of `layout.columns`; `digest` that of its raw line, where digests were asked for."""

    line: int
    values: tuple[Value, ...]
    digest: bytes | None = None


class Quarantined(NamedTuple):
    """One bad row. `field` is None when the row as a whole is bad.

    `key` is the row's key when all of it could be read: a bad row of a known key must not be taken for a vanished one.
    """

    line: int
    field: str | None
    reason: str
    key: tuple[Value, ...] | None


class RecordReader:
    """The records of one table; counts what passes while it is iterated, and starts again with each iteration.

    `seen` are all rows that are not blank, bad ones included. Iterating raises what `Table.rows` raises.
    """

    def __init__(
        self,
        table: Table,
        layout: Layout,
        cells: "Sequence[_Cell]",
        key_length: int,
        plain: PlainLine | None = None,
        seed: int = 0,
    ) -> None:
        self.layout = layout
        self.delimiter = table.delimiter if isinstance(table, LineTable) else ","
        self.seen = 0
        self.quarantined = 0
        self.control_characters_removed = 0
        self._table = table
        self._cells = cells
        self._key_length = key_length
        self._plain = plain
        self._seed = seed

    @property
    def line_layout(self) -> int | None:
        """The seed of the digests of the table's lines; None when its rows are no lines."""
        return self._seed if isinstance(self._table, LineTable) else None

    @property
    def skipped(self) -> int:
        """Rows that were no records, such as a printed report's footer."""
        return self._table.skipped if isinstance(self._table, SkippingTable) else 0

    @property
    def lacking(self) -> int:
        """Rows that the export says it has, and has not; known when all have been read."""
        return self._table.lacking if isinstance(self._table, SkippingTable) else 0

    @property
    def names_in_file_order(self) -> list[str]:
        """A name for each column of the file: its field's, or one of `ignored_names`."""
        width = len(self._table.labels)
        return [f.name if f else _ignored_name(i) for i, f in enumerate(self.layout.in_file_order(width))]

    @property
    def ignored_names(self) -> list[str]:
        """Names for the columns of the file that stand for no field, as far as unparsed lines bring them along."""
        if self._plain is None:
            return []
        return [_ignored_name(i) for i, f in enumerate(self.layout.in_file_order(len(self._table.labels))) if f is None]

    def batches(self, digests: LineDigests | None = None) -> Iterator[Record | Quarantined | PlainLines]:
        """The same records, but lines that PostgreSQL may read as they stand come unparsed, many at a time: cells in the
        order of the file, between `delimiter`s, empty ones NULL. With digests (of `line_layout`) each record comes with its own, and
        lines that they know are only counted; SpanningRecordError says that this can't be done line by line."""
        if not isinstance(self._table, LineTable):
            yield from self
            return
        self.seen = self.quarantined = self.control_characters_removed = 0
        for row in self._table.rows_and_lines(self._plain, digests):
            if isinstance(row, PlainLines):
                self.seen += len(row.lines)
                yield row
            else:
                yield self._one(row)
        self.seen += digests.left_out if digests else 0

    def __iter__(self) -> Iterator[Record | Quarantined]:
        self.seen = self.quarantined = self.control_characters_removed = 0
        for row in self._table.rows():
            yield self._one(row)

    def _one(self, row: RawRow | BadRow) -> Record | Quarantined:
        self.seen += 1
        result = self._unreadable(row) if isinstance(row, BadRow) else self._read(row)
        if isinstance(result, Quarantined):
            self.quarantined += 1
        return result

    def _unreadable(self, row: BadRow) -> Quarantined:
        return Quarantined(row.line, None, row.reason, None)

    def _read(self, row: RawRow) -> Record | Quarantined:
        values: list[Value] = []
        add = values.append
        raw = row.cells
        try:
            for position, read in self._cells:
                add(read(raw[position] if position >= 0 else None, self))
        except BadValueError as exc:
            bad = len(values)  # the key comes first, so it is complete when a later cell is bad
            key = tuple(values[: self._key_length]) if bad >= self._key_length else None
            return Quarantined(row.line, self.layout.columns[bad].name, str(exc), key)
        return Record(row.line, tuple(values), row.digest)


def _ignored_name(position: int) -> str:
    return f"ignored_{position}"


_ReadCell = Callable[[str | None, RecordReader], Value]
_Cell = tuple[int, _ReadCell]  # position in the table, function


@cache
def parser_version() -> str:
    """Of the modules that make values of text: another text may make other values, so their lines are read again once."""
    digest = hashlib.sha256()
    for file in (values.__file__, __file__, copylines.__file__, csv.__file__, jsonl.__file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def layout_seed(*parts: object) -> int:
    """A seed of 64 bits from whatever decides, beside a line's text, about the row that comes of it."""
    text = "\0".join([parser_version(), *map(repr, parts)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def read_records(
    table: Table,
    sync_type: SyncType,
    *,
    locale: Locale,
    zone: ZoneInfo,
    extra_aliases: Mapping[str, str] = _NO_ALIASES,
) -> RecordReader:
    """Map the table's labels and prepare a function for each column; reads no row. Raises what `map_labels` raises."""
    layout = map_labels(table.labels, sync_type, extra_aliases)
    cells = [
        (position, _cell_reader(field, sync_type, locale, zone))
        for field, position in zip(layout.columns, layout.positions, strict=True)
    ]
    plain = None
    if isinstance(table, LineTable) and len(table.labels) <= _MAX_PLAIN_COLUMNS:
        plain = _plain_line(table, layout, sync_type, locale)
    detected = sorted(table.detected.items())
    seed = layout_seed(sync_type, table.labels, layout, detected, locale, zone.key)
    return RecordReader(table, layout, cells, len(sync_type.key), plain, seed)


def _plain_line(table: LineTable, layout: Layout, sync_type: SyncType, locale: Locale) -> PlainLine:
    fields = layout.in_file_order(len(table.labels))
    filled = [field is not None and not _empty_is_null(field, sync_type) for field in fields]
    return PlainLine(fields, filled, locale, table.delimiter, quoted=table.quoted)


def _empty_is_null(field: Field, sync_type: SyncType) -> bool:
    return not _needs_column(field, sync_type) and field.empty is None and field.kind is not Kind.BOOLEAN


def _cell_reader(field: Field, sync_type: SyncType, locale: Locale, zone: ZoneInfo) -> _ReadCell:
    """The function that reads one column's cells."""
    parse_text = parser(field.kind, locale, zone)
    parse_literal = _literal_parser(field.kind, locale, zone)
    empty = _empty_value(field, zone)
    must_be_filled = _needs_column(field, sync_type)

    def read(cell: str | None, reader: RecordReader) -> Value:
        text: str | None = None
        if cell:
            if type(cell) is NestedText:
                raise BadValueError("is an object or array")
            text, removed = clean(cell)
            if removed:
                reader.control_characters_removed += removed
        if text is None:
            if must_be_filled:
                raise BadValueError("is empty")
            return empty
        return parse_literal(text) if type(cell) is NumberText else parse_text(text)

    return read


def _empty_value(field: Field, zone: ZoneInfo) -> Value:
    """What an empty cell means. `empty` comes from the registry, so it is `iso`; for text it may be the empty text."""
    if field.empty is None:
        return False if field.kind is Kind.BOOLEAN else None
    if field.kind in (Kind.TEXT, Kind.IDENTIFIER):
        return field.empty
    return parse(field.kind, field.empty, "iso", zone)


def _literal_parser(kind: Kind, locale: Locale, zone: ZoneInfo) -> Callable[[str], Value]:
    """How a JSON number literal is read: its dot is a decimal sign even where the export's text follows `it`."""
    if kind in (Kind.NUMBER, Kind.INTEGER):
        return parser(kind, "iso", zone)
    parse_text = parser(kind, locale, zone)
    return _identifier_literal(parse_text) if kind is Kind.IDENTIFIER else parse_text


def _identifier_literal(parse_text: Callable[[str], Value]) -> Callable[[str], Value]:
    """An id that went through a float has lost its trailing zeros (`54.280` → `54.28`): it can't be known any more."""

    def read(text: str) -> Value:
        if not text.isdecimal():
            raise BadValueError(f"{text[:_SHOWN_CHARS]!r} is an identifier written as a number that is not whole")
        return parse_text(text)

    return read
