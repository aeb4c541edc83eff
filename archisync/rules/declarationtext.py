"""A sync type as text: the shortest declaration of it, as TOML for people and as JSON for the database."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from archisync.rules.typemodel import Field, Kind, Scope, SyncType


def document(type_: SyncType) -> dict[str, Any]:
    """The declaration without what goes without saying, its keys in a fixed order."""
    default_table = f"{'agents' if type_.scope is Scope.AGENT else 'shared'}.{type_.name}"
    required = set(type_.key) - set(type_.nullable_key)
    tracking = type_.tracking
    said: dict[str, Any] = {
        "name": type_.name,
        "scope": type_.scope.value,
        "interval": type_.default_interval_minutes,
        "after": list(type_.after),
        "key": list(type_.key),
        "nullable_key": list(type_.nullable_key),
        "table": type_.table if type_.table != default_table else None,
        "adopt": type_.adopt or None,
        "order_reference": type_.order_reference,
        "same_label": [list(pair) for pair in type_.same_label],
        "report_ids": list(type_.report_ids),
        "tracking": {"courier": tracking.courier, "number": tracking.number, "url": tracking.url} if tracking else None,
        "fields": {field.name: _field(field, implied=field.name in required) for field in type_.fields},
    }
    return {key: value for key, value in said.items() if value not in (None, [])}


def _field(field: Field, *, implied: bool) -> str | dict[str, Any]:
    said = {
        "kind": field.kind.value if field.kind is not Kind.TEXT else None,
        "labels": list(field.aliases) or None,
        "required": (field.required and not implied) or None,
        "role": field.role.value if field.role else None,
        "distinct": field.distinct or None,
        "empty": field.empty,
    }
    short = {key: value for key, value in said.items() if value is not None}
    return field.kind.value if short.keys() <= {"kind"} else short


def as_json(type_: SyncType) -> str:
    """The declaration as one line of JSON, for `system.sync_types`."""
    return json.dumps(document(type_), ensure_ascii=False, separators=(",", ":"))


def fingerprint(type_: SyncType) -> str:
    """The SHA-256 of the declaration: the same for two files that declare the same."""
    return hashlib.sha256(as_json(type_).encode()).hexdigest()


def as_toml(type_: SyncType) -> str:
    """The declaration as a TOML file."""
    said = document(type_)
    fields = said.pop("fields")
    lines = [f"{key} = {_value(value)}" for key, value in said.items()]
    lines += ["", "[fields]", *(f"{name} = {_value(value)}" for name, value in fields.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """TOML's inline form. A text in JSON's quotes is one in TOML's, as long as it has no control characters; labels have none."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
