"""Raw rows of a table as typed records of a sync type. A row that can't be read is quarantined; its values are never guessed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from archisync import formats
from archisync.formats.copylines import PlainLine
from archisync.formats.knownlines import LineDigests
from archisync.formats.rows import (
    BadRow,
    LineTable,
    NestedText,
    NumberText,
    PlainLines,
    RawRow,
    Table,
)
from archisync.rules import values
from archisync.rules.synctypes import Field, Kind, SyncType
from archisync.rules.values import (
    BadValueError,
    Locale,
    Notations,
    Parser,
    Value,
    clean,
    has_other_notation,
    parse,
    parser,
)
from archisync.sync.labels import Layout, map_labels, needs_column

_MAX_PLAIN_COLUMNS = 400  # a table of PostgreSQL has room for 1,600
_SHOWN_CHARS = 40
_NO_ALIASES: Mapping[str, str] = {}
_DECIDING = ("format", "delimiter", "quoting")
"""What was detected and decides, besides a line's text, about the row that the line becomes."""


class Record(NamedTuple):
    """One good row: `values` in the order of `layout.columns`. `digest` is its raw line's, where digests were asked for."""

    line: int
    values: tuple[Value, ...]
    digest: bytes | None = None


class Quarantined(NamedTuple):
    """One bad row. `field` is None when the row as a whole is bad.

    `key` is the row's key when all of it could be read: the row must not count as absent then. `keyless`: a part of the key that must be
    filled is empty, as in a line of totals, so the row is none of the known ones.
    """

    line: int
    field: str | None
    reason: str
    key: tuple[Value, ...] | None
    keyless: bool = False


class _EmptyError(BadValueError):
    """A cell that must be filled is empty."""


class RecordReader:
    """The records of one table. It counts what it has read; each iteration starts again.

    `seen` are all rows that are not blank, bad ones included. Iterating raises what `Table.rows` raises.
    """

    def __init__(self, table: Table, lines: LineTable | None, reading: _Reading, key_length: int) -> None:
        self.layout = reading.layout
        self.line_layout = reading.seed
        """The seed of the digests of the table's lines; of a table whose rows are no lines, of its rows."""
        self.delimiter = lines.delimiter if lines else ","
        self.seen = 0
        self.quarantined = 0
        self.control_characters_removed = 0
        self.blank: Counter[str] = Counter()
        """Empty cells of boolean columns, by field; a missing yes looks like a no."""
        self.other_notation: Counter[str] = Counter()
        """Numbers that were rejected because the other locale writes them so, by field."""
        self.notations: Notations = set()
        """Unusual ways in which values are written that were understood."""
        self.locale = reading.locale
        self._table = table
        self._lines = lines
        self._cells = reading.cells
        self._key_length = key_length
        self._plain = reading.plain

    @property
    def detected(self) -> dict[str, str]:
        """How the export is written, as far as it has been read."""
        found = {"labels": ", ".join(self.layout.alike), "notations": ", ".join(sorted(self.notations))}
        return {**self._table.detected, **{name: what for name, what in found.items() if what}}

    @property
    def skipped(self) -> int:
        """Rows that are no records, such as a printed report's footer."""
        return self._table.skipped

    @property
    def missing(self) -> int:
        """Rows that the export announces and does not have; known when all rows have been read."""
        return self._table.missing

    @property
    def open_ended(self) -> bool:
        """Whether the last line has no line end, and nobody has said that the ERP writes it so."""
        return self._lines is not None and self._lines.open_ended

    @property
    def names_in_file_order(self) -> list[str]:
        """A name for each column of the file: its field's, or one of `ignored_names`."""
        return [f.name if f else _ignored_name(i) for i, f in enumerate(self._fields_in_file_order())]

    @property
    def ignored_names(self) -> list[str]:
        """Names for the columns that are no field. Unparsed lines bring these columns along; without such lines the list is empty."""
        if self._plain is None:
            return []
        return [_ignored_name(i) for i, f in enumerate(self._fields_in_file_order()) if f is None]

    def _fields_in_file_order(self) -> list[Field | None]:
        return self.layout.in_file_order(len(self._table.labels))

    def batches(self, digests: LineDigests | None = None) -> Iterator[Record | Quarantined | PlainLines]:
        """The same records, except that lines which PostgreSQL can read as they are come unparsed, many at a time.

        Their cells are in the order of the file, between `delimiter`s; an empty one is NULL. With digests each record comes with its own,
        and lines that the digests know are only counted. Raises SpanningRecordError when records can't be told apart line by line.
        """
        return self._batches(self._plain, digests)

    def parsed(self, digests: LineDigests | None) -> Iterator[Record | Quarantined]:
        """The records, each with its digest; those that the digests know are only counted. Raises as `batches` does."""
        for record in self._batches(None, digests):
            assert not isinstance(record, PlainLines)  # no line is plain without a pattern
            yield record

    def _batches(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[Record | Quarantined | PlainLines]:
        self._begin()
        if self._lines is not None:
            rows: Iterator[RawRow | BadRow | PlainLines] = self._lines.rows_and_lines(plain, digests)
        else:
            rows = self._table.rows() if digests is None else _new_rows(self._table, digests)
        for row in rows:
            if isinstance(row, PlainLines):
                self.seen += len(row.lines)
                yield row
            elif (record := self._one(row)) is not None:
                yield record
        self.seen += digests.left_out if digests else 0

    def __iter__(self) -> Iterator[Record | Quarantined]:
        self._begin()
        for row in self._table.rows():
            if (record := self._one(row)) is not None:
                yield record

    def _begin(self) -> None:
        self.seen = self.quarantined = self.control_characters_removed = 0
        self.blank.clear()
        self.other_notation.clear()
        self.notations.clear()

    def _one(self, row: RawRow | BadRow) -> Record | Quarantined | None:
        """None for a row of blank cells, which is no row."""
        result = Quarantined(row.line, None, row.reason, None) if isinstance(row, BadRow) else self._read(row)
        if result is None:
            return None
        self.seen += 1
        if isinstance(result, Quarantined):
            self.quarantined += 1
        return result

    def _read(self, row: RawRow) -> Record | Quarantined | None:
        values: list[Value] = []
        add = values.append
        raw = row.cells
        try:
            for position, read in self._cells:
                add(read(raw[position] if position >= 0 else None, self))
        except BadValueError as exc:
            bad = len(values)  # the key comes first, so it is complete when a later cell is bad
            key = tuple(values[: self._key_length]) if bad >= self._key_length else None
            keyless = key is None and isinstance(exc, _EmptyError)
            if keyless and not any(cell is not None and clean(cell)[0] for cell in raw):
                return None
            self._note_notation(self.layout.columns[bad], raw, self._cells[bad][0])
            return Quarantined(row.line, self.layout.columns[bad].name, str(exc), key, keyless)
        return Record(row.line, tuple(values), row.digest)

    def _note_notation(self, field: Field, raw: Sequence[str | None], position: int) -> None:
        cell = raw[position] if position >= 0 else None
        if field.kind is Kind.NUMBER and type(cell) is str and has_other_notation(cell, self.locale):
            self.other_notation[field.name] += 1


def _new_rows(table: Table, digests: LineDigests) -> Iterator[RawRow | BadRow]:
    """The rows that the digests don't know, each with the digest of its cells."""
    for row in table.rows():
        if isinstance(row, BadRow):
            yield row
            continue
        digest = digests.of([_row_text(row.cells)])
        if digests.new(digest):
            yield row._replace(digest=digest[0])


def _row_text(cells: Sequence[str | None]) -> bytes:
    """The cells with their types, without which a number literal would be a text."""
    marks = {str: "=", NumberText: "#", NestedText: "{"}
    parts = ["" if cell is None else f"{marks[type(cell)]}{len(cell)}:{cell}" for cell in cells]
    return "\0".join(parts).encode("utf-8", "surrogatepass")


def _ignored_name(position: int) -> str:
    return f"ignored_{position}"


_ReadCell = Callable[[str | None, RecordReader], Value]
_Cell = tuple[int, _ReadCell]  # position in the table, function


def read_records(
    table: Table,
    sync_type: SyncType,
    *,
    locale: Locale,
    zone: ZoneInfo,
    extra_aliases: Mapping[str, str] = _NO_ALIASES,
    owned: Sequence[str] = (),
) -> RecordReader:
    """Map the table's labels and prepare a function for each column; no row is read yet. `owned`: see `map_labels`, which raises."""
    lines = table if isinstance(table, LineTable) else None
    reading = _reading(
        table.labels,
        sync_type,
        locale,
        zone,
        tuple(extra_aliases.items()),  # in their order: the last of two labels that fold alike counts
        tuple((name, table.detected.get(name)) for name in _DECIDING),
        (lines.delimiter, lines.quoted) if lines else None,
        tuple(sorted(owned)),
    )
    return RecordReader(table, lines, reading, len(sync_type.key))


class _Reading(NamedTuple):
    """How the rows of a table are read. `plain` is None where no line can be read as it is."""

    layout: Layout
    cells: Sequence[_Cell]
    plain: PlainLine | None
    seed: int
    locale: Locale


@lru_cache(maxsize=128)
def _reading(
    labels: tuple[str, ...],
    sync_type: SyncType,
    locale: Locale,
    zone: ZoneInfo,
    aliases: tuple[tuple[str, str], ...],
    detected: tuple[tuple[str, str | None], ...],
    line_form: tuple[str, bool] | None,
    owned: tuple[str, ...],
) -> _Reading:
    """The same for every export with these labels. `line_form`: delimiter, and whether cells may be quoted."""
    layout = map_labels(labels, sync_type, dict(aliases), owned)
    cells = [
        (position, _cell_reader(field, sync_type, locale, zone))
        for field, position in zip(layout.columns, layout.positions, strict=True)
    ]
    plain = None
    if line_form is not None and len(labels) <= _MAX_PLAIN_COLUMNS:
        fields = layout.in_file_order(len(labels))
        filled = [field is not None and not _empty_is_null(field, sync_type) for field in fields]
        plain = PlainLine(fields, filled, locale, line_form[0], quoted=line_form[1])
    seed = _layout_seed(sync_type, labels, layout, list(detected), locale, zone.key)
    return _Reading(layout, cells, plain, seed, locale)


def _layout_seed(*parts: object) -> int:
    """A seed of 64 bits from whatever decides, besides a line's text, about the row that the line becomes."""
    text = "\0".join([_parser_version(), *map(repr, parts)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


@cache
def _parser_version() -> str:
    """A fingerprint of the modules that make values of text. Another version may make other values, so it reads all lines once."""
    digest = hashlib.sha256()
    for file in (Path(values.__file__), Path(__file__), *sorted(Path(formats.__file__).parent.rglob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _empty_is_null(field: Field, sync_type: SyncType) -> bool:
    return not needs_column(field, sync_type) and field.empty is None and field.kind is not Kind.BOOLEAN


def _cell_reader(field: Field, sync_type: SyncType, locale: Locale, zone: ZoneInfo) -> _ReadCell:
    """The function that reads one column's cells."""
    parse_text = parser(field.kind, locale, zone)
    parse_literal = _literal_parser(field.kind, locale, zone)
    empty = _empty_value(field, zone)
    must_be_filled = needs_column(field, sync_type)

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
                raise _EmptyError("is empty")
            if empty is False:
                reader.blank[field.name] += 1
            return empty
        return (parse_literal if type(cell) is NumberText else parse_text)(text, reader.notations)

    return read


def _empty_value(field: Field, zone: ZoneInfo) -> Value:
    """What an empty cell means. The registry writes it as `iso` does; for a text field it may be the empty text."""
    if field.empty is None:
        return False if field.kind is Kind.BOOLEAN else None
    if field.kind in (Kind.TEXT, Kind.IDENTIFIER):
        return field.empty
    return parse(field.kind, field.empty, "iso", zone)


def _literal_parser(kind: Kind, locale: Locale, zone: ZoneInfo) -> Parser:
    """The function for JSON number literals: their decimal sign is a dot, also where the export's locale is `it`."""
    if kind in (Kind.NUMBER, Kind.INTEGER):
        return parser(kind, "iso", zone)
    parse_text = parser(kind, locale, zone)
    return _identifier_literal(parse_text) if kind is Kind.IDENTIFIER else parse_text


def _identifier_literal(parse_text: Parser) -> Parser:
    """An id that went through a float has lost its trailing zeros (`54.280` → `54.28`), and nobody can restore them."""

    def read(text: str, notations: Notations) -> Value:
        if not text.isdecimal():
            raise BadValueError(
                f"{text[:_SHOWN_CHARS]!r} is an identifier written as a number that is not whole; write it as text"
            )
        return parse_text(text, notations)

    return read
