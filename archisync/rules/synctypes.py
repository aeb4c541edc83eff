"""The registry of sync types: what an export contains, which table it goes to, how often it is fetched.

The built-in types are declared in `archisync/rules/builtin`, a TOML file each. `built_in.json` is the same in a form that is read in a
tenth of the time; a test compares the two, and says how to write it anew. A company's own types are rows of `system.sync_types`, which
`archisync.store.synctypes` brings here. Everything that needs "all types" reads `SYNC_TYPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from archisync import __version__
from archisync.base.errors import ConfigurationError, UsageError
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
    "OwnType",
    "Role",
    "Scope",
    "SyncType",
    "Tracking",
    "all_types",
    "sync_type",
]


_NAMED = 40
"""Types that a hint names."""
BUILT_IN = Path(__file__).with_name("builtin")
"""The folder of the built-in types' declarations, which are numbered in the order in which types are listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnType:
    """A type of the company's, as the database has it. `declaration` is JSON with the SHA-256 `sha256`."""

    name: str
    level: int
    sha256: str
    declaration: str


class Registry(Mapping[str, SyncType]):
    """The sync types by name, as this process knows them: those that come with archisync, then the company's own in alphabetical order.

    A declaration is read when somebody asks for its type: an idle tick needs none, and one that this version of archisync can't read
    (ConfigurationError) stops no other type.
    """

    def __init__(self) -> None:
        self._types: dict[str, SyncType] = {}
        self._own: Mapping[str, OwnType] = {}
        self.ask: Callable[[], object] = lambda: None
        """Asks the database for the company's own types, and calls `set_own`."""

    @cached_property
    def built_in(self) -> Mapping[str, Mapping[str, Any]]:
        """The declarations of the types that come with archisync."""
        import json

        documents = json.loads((BUILT_IN / "built_in.json").read_text("utf-8"))
        return {document["name"]: document for document in documents}

    @property
    def own(self) -> Mapping[str, OwnType]:
        """The company's own types."""
        return self._own

    def set_own(self, types: Mapping[str, OwnType]) -> None:
        """From now on these are the company's own types."""
        self._own = {name: types[name] for name in sorted(types) if name not in self.built_in}
        self._types = {name: type_ for name, type_ in self._types.items() if name in self.built_in}

    def __getitem__(self, name: str) -> SyncType:
        types = self._types
        if name not in types:
            types[name] = self._read(name)
        return types[name]

    def _read(self, name: str) -> SyncType:
        from archisync.rules.declarations import levels, read

        if (own := self._own.get(name)) is not None:
            import json

            try:
                return replace(read(json.loads(own.declaration), file=f"the type {name}"), level=own.level)
            except ConfigurationError as exc:
                hint = f"archisync {__version__} can't read it: install here the version that declared it"
                raise ConfigurationError(exc.message, hint=hint) from None
        declared = read(self.built_in[name], file="built_in.json")
        after = {other: document.get("after", ()) for other, document in self.built_in.items()}
        return replace(declared, level=levels(after, file="built_in.json")[name])

    def __iter__(self) -> Iterator[str]:
        return iter([*self.built_in, *self._own])

    def __len__(self) -> int:
        return len(self.built_in) + len(self._own)

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._own


SYNC_TYPES = Registry()


def all_types() -> list[SyncType]:
    """Every type, after the database was asked."""
    SYNC_TYPES.ask()
    return list(SYNC_TYPES.values())


def sync_type(name: str) -> SyncType:
    """The type of that name; the database is asked about one that is not known. Raises UsageError, which says what is allowed."""
    if name not in SYNC_TYPES:
        SYNC_TYPES.ask()
    if name not in SYNC_TYPES:
        from archisync.rules.declarations import did_you_mean

        hint = did_you_mean(name, SYNC_TYPES) + "allowed: " + ", ".join([*SYNC_TYPES][:_NAMED])
        raise UsageError(f"there is no sync type {name!r}", hint=hint)
    return SYNC_TYPES[name]
