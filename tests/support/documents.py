"""Comparing a JSON document with its description in archisync/observe/documents.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from archisync.observe.fields import Field, documents

OBJECTS = documents().objects
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Undocumented(AssertionError):
    """The output and its description differ."""


def compare(value: Any, field: Field, where: str, seen: set[str]) -> None:
    """Raise Undocumented unless the value is as documented. Adds each field that is there and not null to `seen`."""
    if value is None:
        if not field.nullable:
            raise Undocumented(f"{where} is null")
        return
    seen.add(where)
    _compare_kind(value, field.kind, field.fields, where, seen)


def _compare_kind(value: Any, kind: str, fields: Mapping[str, Field], where: str, seen: set[str]) -> None:
    if kind in OBJECTS:
        kind, fields = "object", OBJECTS[kind]
    if kind == "object":
        _require(isinstance(value, dict), where, kind, value)
        compare_keys(value, fields, where, seen)
    elif kind.startswith("list of "):
        _require(isinstance(value, list), where, kind, value)
        for item in value:
            _compare_kind(item, kind.removeprefix("list of "), fields, f"{where}[]", seen)
            seen.add(f"{where}[]")
    elif kind.startswith("map of "):
        _require(isinstance(value, dict), where, kind, value)
        for item in value.values():
            _compare_kind(item, kind.removeprefix("map of "), fields, f"{where}.*", seen)
            seen.add(f"{where}[]")
    else:
        plain = {
            "text": str,
            "time": str,
            "integer": int,
            "number": int | float,
            "boolean": bool,
            "value": str | None,
            "scalar": object,
        }
        right = isinstance(value, plain[kind]) and (kind == "scalar" or isinstance(value, bool) == (kind == "boolean"))
        _require(right and (kind != "time" or _is_time(value)), where, kind, value)


def _is_time(text: str) -> bool:
    return bool(TIME.fullmatch(text)) and datetime.fromisoformat(text) is not None


def _require(right: bool, where: str, kind: str, value: Any) -> None:
    if not right:
        raise Undocumented(f"{where} is no {kind}: {value!r}")


def compare_keys(value: Mapping[str, Any], fields: Mapping[str, Field], where: str, seen: set[str]) -> None:
    if extra := set(value) - set(fields):
        raise Undocumented(f"{where}: undocumented {sorted(extra)}")
    if missing := {name for name, field in fields.items() if not field.sometimes} - set(value):
        raise Undocumented(f"{where}: missing {sorted(missing)}")
    for name, item in value.items():
        compare(item, fields[name], f"{where}.{name}", seen)


def every_field(fields: Mapping[str, Field], where: str) -> Iterator[str]:
    """The path of each documented field, and of the values in maps and lists."""
    for name, field in fields.items():
        path = f"{where}.{name}"
        yield path
        if field.kind.startswith(("list of ", "map of ")):
            yield f"{path}[]"
        kind = field.kind.removeprefix("list of ")
        below = OBJECTS.get(kind, field.fields)
        yield from every_field(below, f"{path}[]" if field.kind.startswith("list of ") else path)
