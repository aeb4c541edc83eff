"""The JSON documents that commands print and the API answers: one notation and one `schema` number for both."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from archisync.base.text import iso

SCHEMA = 1
"""Rises when a field of any document changes its meaning or goes away, but not for a new field."""


def document(facts: dict[str, Any], *, ascii_only: bool = False, indent: int | None = 2) -> str:
    """The facts as one document, `schema` first. Dataclasses are objects, times ISO 8601 in UTC."""
    return json.dumps({"schema": SCHEMA, **facts}, default=_plain, ensure_ascii=ascii_only, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}  # asdict copies all that is in it
    raise TypeError(f"no JSON for {type(value).__name__}")
