"""A sync type as people declare it, in TOML: strict and pure. Whatever is not understood is refused, with file, key, reason and hint.

A declaration never gets SQL, defaults or expressions: what a column means beyond its kind is a view's work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from archisync.base.errors import ConfigurationError
from archisync.rules.labels import fold_label
from archisync.rules.reservedwords import OWN_COLUMNS, RESERVED
from archisync.rules.typemodel import (
    MAX_INTERVAL_MINUTES,
    MIN_INTERVAL_MINUTES,
    Field,
    Kind,
    Role,
    Scope,
    SyncType,
    Tracking,
)

MAX_FILE_BYTES = 128 * 1024
MAX_FIELDS = 500
MAX_KEY_FIELDS = 6
MAX_AFTER = 50
MAX_LABELS = 50
MAX_LABEL_CHARS = 200
MAX_NAME_BYTES = 63
"""What PostgreSQL keeps of a name."""

E = TypeVar("E", bound=StrEnum)
Check = Callable[["_Place", Any], Any]
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NAME_HINT = "a-z, 0-9 and _, beginning with a letter"
_SYSTEM_SCHEMAS = ("system", "information_schema")
_OWN_TABLES = ("agents.users",)
_NULLABLE = (Kind.DATE, Kind.TIMESTAMP, Kind.NUMBER)
_EMPTY = {
    Kind.IDENTIFIER: re.compile(r"[ -~]{0,63}"),
    Kind.NUMBER: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?"),
    Kind.INTEGER: re.compile(r"-?[0-9]{1,15}"),
}
_IGNORED = re.compile(r"ignored_[0-9]+")


class _Place:
    """Where in which file something stands, such as `fields.quantity.kind` in returns.toml."""

    def __init__(self, file: str, path: tuple[str, ...] = ()) -> None:
        self.file = file
        self.path = path

    def __truediv__(self, key: str) -> _Place:
        return _Place(self.file, (*self.path, key))

    def refuse(self, reason: str, hint: str) -> NoReturn:
        where = ".".join(part if _NAME.fullmatch(part) else shown(part) for part in self.path)
        raise ConfigurationError(f"{self.file}: {where}: {reason}" if where else f"{self.file}: {reason}", hint=hint)


def shown(value: object) -> str:
    """A value of the file, cut to what fits into a message."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deep, an integer of too many digits
        text = type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def did_you_mean(word: object, allowed: Iterable[str]) -> str:
    """The beginning of a hint, such as "did you mean date? "; empty when nothing is similar."""
    from difflib import get_close_matches

    close = get_close_matches(str(word)[:MAX_NAME_BYTES], list(allowed), n=1) if isinstance(word, str) else []
    return f"did you mean {close[0]}? " if close else ""


def parse_toml(content: bytes, file: str) -> dict[str, Any]:
    """The document of a TOML file. Raises ConfigurationError with the line that is wrong."""
    import tomllib

    place = _Place(file)
    if len(content) > MAX_FILE_BYTES:
        place.refuse(f"the file has {len(content)} bytes", f"a declaration has at most {MAX_FILE_BYTES // 1024} KiB")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        place.refuse(f"it is not UTF-8 (byte {exc.start})", "save it as UTF-8")
    if (long := next((n for n, line in enumerate(text.split("\n"), 1) if len(line) > 4000), None)) is not None:
        place.refuse(f"line {long} is longer than 4000 characters", "one field a line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        place.refuse("it is nested too deep", "a declaration has tables of tables, and no deeper ones")
    except ValueError as exc:  # also of an integer with too many digits
        place.refuse(
            f"it is not TOML: {str(exc)[:200]}", "https://toml.io; archisync type draft writes a file to begin with"
        )


def read(document: object, *, file: str) -> SyncType:
    """The sync type that a document declares. Its level is 0: `levels` finds it. `file` is named in messages.

    Raises ConfigurationError for anything that is not understood.
    """
    place = _Place(file)
    table = _table(place, document)
    _only(place, table, _TOP)
    values = {key: _TOP[key](place / key, table[key]) for key in table}
    for key in ("name", "scope", "interval", "key", "fields"):
        if key not in values:
            (place / key).refuse("it is missing", _MISSING[key])
    scope: Scope = values["scope"]
    schema = "agents" if scope is Scope.AGENT else "shared"
    tracking = values.get("tracking")
    declared = SyncType(
        name=values["name"],
        scope=scope,
        table=values.get("table", f"{schema}.{values['name']}"),
        default_interval_minutes=values["interval"],
        level=0,
        key=values["key"],
        fields=values["fields"],
        after=values.get("after", ()),
        adopt=values.get("adopt", False),
        nullable_key=values.get("nullable_key", ()),
        order_reference=values.get("order_reference"),
        same_label=values.get("same_label", ()),
        report_ids=values.get("report_ids", ()),
        tracking=Tracking(**tracking) if tracking else None,
    )
    return _consistent(place, declared)


def _consistent(place: _Place, declared: SyncType) -> SyncType:
    """The type with its key fields required, once what it says fits together. Raises ConfigurationError."""
    if declared.name in declared.after:
        (place / "after").refuse("a type can't come after itself", "leave it out")
    if declared.table in _OWN_TABLES:
        (place / "table").refuse(f"{declared.table} is a table of archisync itself", "choose another name")
    fields = {field.name: field for field in declared.fields}
    _known_fields(place, declared, fields)
    _check_key(place, declared, fields)
    if (reference := declared.order_reference) is not None:
        if declared.scope is Scope.SHARED:
            (place / "order_reference").refuse(
                "orders are an agent's, and this type is shared", 'leave it out, or scope = "agent"'
            )
        if fields[reference].kind is not Kind.IDENTIFIER:
            (place / "order_reference").refuse(
                f"{reference} is no identifier", f'fields: {reference} = {{ kind = "identifier" }}'
            )
    _check_labels(place, declared)
    required = set(declared.key) - set(declared.nullable_key)
    fields_ = (replace(f, required=True) if f.name in required and f.empty is None else f for f in declared.fields)
    return replace(declared, fields=tuple(fields_))


def _known_fields(place: _Place, declared: SyncType, fields: Mapping[str, Field]) -> None:
    """Whatever names a field names one that is declared."""
    tracking = declared.tracking
    named: dict[str, Iterable[str]] = {
        "key": declared.key,
        "nullable_key": declared.nullable_key,
        "order_reference": [declared.order_reference] if declared.order_reference else [],
        "same_label": [name for pair in declared.same_label for name in pair],
        "report_ids": declared.report_ids,
        "tracking": [tracking.courier, tracking.number, tracking.url] if tracking else [],
    }
    for key, names in named.items():
        for name in names:
            if name not in fields:
                hint = did_you_mean(name, fields) + "fields: " + ", ".join(list(fields)[:40])
                (place / key).refuse(f"{shown(name)} is no field of this type", hint)


def _check_key(place: _Place, declared: SyncType, fields: Mapping[str, Field]) -> None:
    for name in declared.key:
        field, at = fields[name], place / "fields" / name
        if field.kind is Kind.TEXT:
            (at / "kind").refuse(
                "a key can't have text, which may be of any length", f'{name} = {{ kind = "identifier" }}'
            )
        if field.required and (field.empty is not None or name in declared.nullable_key):
            (at / "required").refuse("what may be empty can't be required", "leave it out")
    for name in declared.nullable_key:
        if name not in declared.key:
            (place / "nullable_key").refuse(
                f"{name} is no part of the key", "only a part of the key needs to be named here"
            )
        if fields[name].kind not in _NULLABLE:
            hint = (
                f'fields: {name} = {{ kind = "{fields[name].kind}", empty = "…" }} says what an empty cell stands for'
            )
            (place / "nullable_key").refuse(f"{name} is neither a date, a timestamp nor a number", hint)
        if fields[name].empty is not None:
            (place / "fields" / name / "empty").refuse(
                "an empty cell can't mean that and NULL", "leave one of them out"
            )
    if set(declared.nullable_key) == set(declared.key):
        (place / "nullable_key").refuse("a row without any key is no row", "leave out the part that is never empty")
    for name, field in fields.items():
        if field.empty is not None and name not in declared.key:
            (place / "fields" / name / "empty").refuse(
                "only a part of the key has one", "leave it out: an empty cell is NULL"
            )


def _check_labels(place: _Place, declared: SyncType) -> None:
    """No label names two fields."""
    owner: dict[str, str] = {}
    for field in declared.fields:
        for label in (field.name, *field.aliases):
            other = owner.setdefault(fold_label(label), field.name)
            if other != field.name:
                (place / "fields" / field.name / "labels").refuse(
                    f"the label {shown(label)} is one of {other} too",
                    "a label belongs to one field; for two columns with one label: same_label",
                )


def levels(after: Mapping[str, Sequence[str]], *, file: str) -> dict[str, int]:
    """The level of each type: 0, or one more than the highest of those that it comes after. Raises ConfigurationError for a circle and
    for a type that there isn't; `file` is named in the message."""
    found: dict[str, int] = {}

    def level(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            circle = " after ".join([*path[path.index(name) :], name])
            _Place(file, ("after",)).refuse(f"a circle: {circle}", "leave out one of them")
        if name not in after:
            hint = did_you_mean(name, after) + "types: " + ", ".join(list(after)[:40])
            _Place(file, ("after",)).refuse(f"there is no type {shown(name)}", hint)
        if name not in found:
            found[name] = max((level(before, (*path, name)) + 1 for before in after[name]), default=0)
        return found[name]

    return {name: level(name, ()) for name in after}


# --- checks of one value: each takes its place and the value, returns what it means, or refuses -----------------------


def _table(place: _Place, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        place.refuse(f"{shown(value)} is no table", "a table of keys and values")
    return value


def _only(place: _Place, table: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    for key in table:
        if key not in allowed:
            (place / key).refuse("an unknown key", did_you_mean(key, allowed) + "keys: " + ", ".join(allowed))


def _text(place: _Place, value: object) -> str:
    if not isinstance(value, str):
        place.refuse(f"{shown(value)} is no text", 'in quotes: "…"')
    return value


def _name(place: _Place, value: object) -> str:
    name = _text(place, value)
    if not _NAME.fullmatch(name):
        place.refuse(f"{shown(name)} can't be a name", _NAME_HINT)
    if len(name) > MAX_NAME_BYTES:
        place.refuse(f"{shown(name)} has {len(name)} bytes", f"PostgreSQL keeps {MAX_NAME_BYTES} of a name")
    if name in RESERVED:
        place.refuse(
            f"{name} is a reserved word of SQL", f"{name}_ or another name; the ERP's own label goes into labels"
        )
    return name


def _type_name(place: _Place, value: object) -> str:
    name = _name(place, value)
    if name in ("all", "users"):
        place.refuse(f"{name} means something else to archisync", "choose another name")
    return name


def _table_name(place: _Place, value: object) -> str:
    schema, dot, table = _text(place, value).partition(".")
    if not dot or "." in table:
        place.refuse(f"{shown(value)} is no table", 'schema and table: "agents.returns"')
    _name(place, schema)
    _name(place, table)
    if schema in _SYSTEM_SCHEMAS or schema.startswith("pg_"):
        place.refuse(f"the schema {schema} is not for data", "agents, shared, or one of yours")
    return f"{schema}.{table}"


def _flag(place: _Place, value: object) -> bool:
    if not isinstance(value, bool):
        place.refuse(f"{shown(value)} is neither true nor false", "true or false, without quotes")
    return value


def _interval(place: _Place, value: object) -> int:
    hint = f"a whole number of minutes from {MIN_INTERVAL_MINUTES} to {MAX_INTERVAL_MINUTES}"
    if not isinstance(value, int) or isinstance(value, bool):
        place.refuse(f"{shown(value)} is no whole number", hint)
    if not MIN_INTERVAL_MINUTES <= value <= MAX_INTERVAL_MINUTES:
        place.refuse(f"{shown(value)} is out of range", hint)
    return value


def _word(words: type[E]) -> Callable[[_Place, object], E]:
    def check(place: _Place, value: object) -> E:
        try:
            return words(_text(place, value))
        except ValueError:
            place.refuse(f"{shown(value)} is not allowed", did_you_mean(value, words) + "allowed: " + ", ".join(words))

    return check


def _list(check: Check, *, least: int, most: int, of: str) -> Callable[[_Place, object], tuple[Any, ...]]:
    """A list of different values, each of which passes the check."""

    def check_list(place: _Place, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            place.refuse(f"{shown(value)} is no list", f"a list of {of} in brackets")
        if not least <= len(value) <= most:
            place.refuse(f"it has {len(value)} values", f"from {least} to {most} {of}")
        checked = tuple(check(place, one) for one in value)
        if twice := [one for number, one in enumerate(checked) if one in checked[:number]]:
            place.refuse(f"{shown(twice[0])} stands there twice", "once")
        return checked

    return check_list


def _label(place: _Place, value: object) -> str:
    label = _text(place, value)
    if not label.isprintable() or not fold_label(label):
        place.refuse(f"{shown(label)} can't be a label", "what the export writes above the column, in one line")
    if len(label) > MAX_LABEL_CHARS:
        place.refuse(f"the label {shown(label)} has {len(label)} characters", f"at most {MAX_LABEL_CHARS}")
    return label


def _pair(place: _Place, value: object) -> tuple[str, str]:
    first, second = _list(_name, least=2, most=2, of="field names")(place, value)
    return first, second


def _tracking(place: _Place, value: object) -> dict[str, str]:
    keys = {"courier": _name, "number": _name, "url": _name}
    table = _table(place, value)
    _only(place, table, keys)
    for key in keys:
        if key not in table:
            (place / key).refuse("it is missing", "courier, number and url each name a field")
    found = {key: _name(place / key, table[key]) for key in keys}
    if len(set(found.values())) < len(keys):
        place.refuse("one field stands there twice", "three fields")
    return found


def _fields(place: _Place, value: object) -> tuple[Field, ...]:
    table = _table(place, value)
    if not 1 <= len(table) <= MAX_FIELDS:
        place.refuse(f"there are {len(table)} fields", f"from 1 to {MAX_FIELDS}")
    return tuple(_field(place / name, name, one) for name, one in table.items())


def _field(place: _Place, name: str, value: object) -> Field:
    _name(place, name)
    if name in OWN_COLUMNS or _IGNORED.fullmatch(name):
        place.refuse(
            f"{name} is a column of archisync itself", "choose another name; the ERP's own label goes into labels"
        )
    if isinstance(value, str):
        return Field(name=name, kind=_word(Kind)(place, value))
    if not isinstance(value, dict):
        place.refuse(
            f"{shown(value)} is neither a kind nor a table",
            f'{name} = "date" or {name} = {{ kind = "date", labels = ["…"] }}',
        )
    _only(place, _table(place, value), _FIELD)
    found = {key: _FIELD[key](place / key, one) for key, one in value.items()}
    kind: Kind = found.get("kind", Kind.TEXT)
    empty: str | None = found.get("empty")
    if empty is not None and (kind not in _EMPTY or not _EMPTY[kind].fullmatch(empty)):
        (place / "empty").refuse(
            f"{shown(empty)} can't stand for an empty cell of kind {kind}",
            'an identifier ("" too), a number ("0") or an integer; another kind of key may be in nullable_key',
        )
    if found.get("distinct") and kind is not Kind.IDENTIFIER:
        (place / "distinct").refuse("only of an identifier", f'{name} = {{ kind = "identifier", distinct = true }}')
    return Field(
        name=name,
        kind=kind,
        required=found.get("required", False),
        aliases=found.get("labels", ()),
        empty=empty,
        role=found.get("role"),
        distinct=found.get("distinct", False),
    )


_FIELD: Mapping[str, Check] = {
    "kind": _word(Kind),
    "labels": _list(_label, least=0, most=MAX_LABELS, of="labels"),
    "required": _flag,
    "role": _word(Role),
    "distinct": _flag,
    "empty": _text,
}
_FIELD_NAMES = _list(_name, least=1, most=MAX_KEY_FIELDS, of="field names")
_TOP: Mapping[str, Check] = {
    "name": _type_name,
    "scope": _word(Scope),
    "interval": _interval,
    "after": _list(_name, least=0, most=MAX_AFTER, of="types"),
    "key": _FIELD_NAMES,
    "nullable_key": _list(_name, least=0, most=MAX_KEY_FIELDS, of="field names"),
    "table": _table_name,
    "adopt": _flag,
    "order_reference": _name,
    "same_label": _list(_pair, least=0, most=MAX_FIELDS, of="pairs of field names"),
    "report_ids": _FIELD_NAMES,
    "tracking": _tracking,
    "fields": _fields,
}
_MISSING = {
    "name": 'name = "returns"',
    "scope": 'scope = "agent", or "shared" for data that all agents have in common',
    "interval": f"interval = 30   (minutes, {MIN_INTERVAL_MINUTES} to {MAX_INTERVAL_MINUTES})",
    "key": 'key = ["return_number"]: the fields that tell one row from all others',
    "fields": "[fields], then a line for each column",
}
