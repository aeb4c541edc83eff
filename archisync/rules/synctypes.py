"""The registry of sync types: what an export contains, which table it goes to, how often it is fetched.

The built-in types are declared in `archisync/rules/builtin`, a TOML file each. `built_in.json` is the same in a form that is read in a
tenth of the time; a test compares the two, and says how to write it anew. Everything that needs "all types" reads `SYNC_TYPES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from archisync.base.errors import UsageError
from archisync.rules.typemodel import (
    MAX_INTERVAL_MINUTES,
    MIN_INTERVAL_MINUTES,
    SHARED_AGENT,
    Field,
    Kind,
    Role,
    Scope,
    SyncType,
    Tracking,
)

__all__ = [
    "MAX_INTERVAL_MINUTES",
    "MIN_INTERVAL_MINUTES",
    "SHARED_AGENT",
    "SYNC_TYPES",
    "Field",
    "Kind",
    "Role",
    "Scope",
    "SyncType",
    "Tracking",
    "sync_type",
]


BUILT_IN = Path(__file__).with_name("builtin")
"""The folder of the built-in types' declarations, which are numbered in the order in which types are listed."""


class Registry(Mapping[str, SyncType]):
    """The sync types by name. A declaration is read when somebody asks for its type: an idle tick needs none."""

    def __init__(self) -> None:
        self._types: dict[str, SyncType] = {}

    @cached_property
    def _documents(self) -> Mapping[str, Mapping[str, Any]]:
        """The declarations of the types that come with archisync."""
        import json

        documents = json.loads((BUILT_IN / "built_in.json").read_text("utf-8"))
        return {document["name"]: document for document in documents}

    def __getitem__(self, name: str) -> SyncType:
        if name not in self._types:
            self._types[name] = self._read(name)
        return self._types[name]

    def _read(self, name: str) -> SyncType:
        from archisync.rules.declarations import levels, read

        after = {other: document.get("after", ()) for other, document in self._documents.items()}
        declared = read(self._documents[name], file="built_in.json")
        return replace(declared, level=levels(after, file="built_in.json")[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, name: object) -> bool:
        return name in self._documents


SYNC_TYPES = Registry()


def sync_type(name: str) -> SyncType:
    """The type of that name. Raises UsageError, which says what is allowed."""
    found = SYNC_TYPES.get(name)
    if found is None:
        from archisync.rules.declarations import did_you_mean

        hint = did_you_mean(name, SYNC_TYPES) + "allowed: " + ", ".join(SYNC_TYPES)
        raise UsageError(f"there is no sync type {name!r}", hint=hint)
    return found
