"""What each JSON document has, field by field: read from documents.md beside this module, which people read too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", re.M)
_REQUEST = re.compile(r"(GET|POST) \S+")


@dataclass(frozen=True, kw_only=True)
class Field:
    """A documented field. `kind`: text, time, list of object …, or the name of an object that several documents have. `fields`: those of an
    object, or of the objects in a list."""

    kind: str
    nullable: bool
    sometimes: bool
    meaning: str
    fields: Mapping[str, Field]


Fields = Mapping[str, Field]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """`commands` and `requests`: what a command (archisync held list) prints, and what only the API answers (GET pairs). `objects`: those
    that several documents have, by kind (held export)."""

    commands: Mapping[str, Fields]
    requests: Mapping[str, Fields]
    objects: Mapping[str, Fields]

    def of(self, name: str) -> Fields:
        """The fields of the document of a command or a request."""
        return self.commands[name] if name in self.commands else self.requests[name]


@cache
def documents() -> Documents:
    """All of them, in the order of the page."""
    text = Path(__file__).with_name("documents.md").read_text("utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    found = {heading: tree(_ROW.findall(part)) for heading, part in zip(parts[1::2], parts[2::2], strict=True)}
    found = {heading: fields for heading, fields in found.items() if fields}
    commands = {heading: fields for heading, fields in found.items() if heading.startswith("archisync ")}
    requests = {heading: fields for heading, fields in found.items() if _REQUEST.fullmatch(heading)}
    objects = {
        re.sub("^An? ", "", heading).lower(): fields
        for heading, fields in found.items()
        if heading not in commands and heading not in requests
    }
    return Documents(commands=commands, requests=requests, objects=objects)


def tree(rows: list[tuple[str, str, str]]) -> dict[str, Field]:
    """Fields by name from rows of path, type and meaning; `a.b` and `a[].b` are fields of a."""
    tops = [row for row in rows if not re.search(r"[.\[]", row[0])]
    found = {}
    for name, kind, meaning in tops:
        inner = [(m[1], k, text) for path, k, text in rows if (m := re.fullmatch(rf"{name}(?:\[\])?\.(.+)", path))]
        bare = kind.removesuffix(", sometimes")
        found[name] = Field(
            kind=bare.removesuffix(" or null"),
            nullable=bare.endswith(" or null"),
            sometimes=kind.endswith(", sometimes"),
            meaning=meaning,
            fields=tree(inner),
        )
    left = {path for path, _, _ in rows} - {name for name, _, _ in tops}
    assert all(re.split(r"[.\[]", path)[0] in found for path in left), left
    return found
