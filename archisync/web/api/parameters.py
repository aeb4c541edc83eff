"""What may be sent, in the path, the query or the body: declared once, for the check and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import QueryParams

from archisync.base.errors import UsageError
from archisync.rules.synctypes import SYNC_TYPES, sync_type
from archisync.store.history import LARGEST_ID
from archisync.web.calls import storable

Kind = Literal["text", "integer", "boolean", "texts", "integers", "percents"]
LONGEST_TEXT = 1000
MOST_ITEMS = 1000
"""In a list: a body with more than that is refused for its size, as a rule."""
_WORDS = {
    "text": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "texts": "a list of texts",
    "integers": "a list of whole numbers",
    "percents": "an object with values that are null or a whole number",
}

_NUMBERS = ("integer", "integers", "percents")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One value that may be sent. `allowed`: the words that it may be. `least` and `most`: of a number; `longest`: of a text.
    `example`: what the OpenAPI document shows, and a test sends. `nullable`: null means that the value goes back to its default,
    as it always does in `percents`."""

    name: str
    kind: Kind = "text"
    meaning: str
    required: bool = False
    nullable: bool = False
    allowed: Callable[[], Sequence[str]] | None = None
    least: int = 0
    most: int = LARGEST_ID
    longest: int = LONGEST_TEXT
    default: Any = None
    example: Any = None

    def read(self, given: Sequence[str]) -> Any:
        """The value of texts in a path or a query. Raises UsageError."""
        if self.kind == "texts":
            return self.check(list(given))
        if len(given) > 1:
            raise UsageError(f"{self.name} comes twice", hint="send it once")
        text = given[0]
        if self.kind == "integer":
            return self.check(int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text)
        if self.kind == "boolean":
            return self.check({"true": True, "false": False}.get(text, text))
        return self.check(text)

    def check(self, value: Any) -> Any:
        """The value, if it is one that may be sent. Raises UsageError, which says what is allowed."""
        if value is None and self.nullable:
            return None
        if self.kind in ("texts", "integers"):
            if not isinstance(value, list) or not value:
                raise self._wrong(value)
            if len(value) > MOST_ITEMS:
                raise UsageError(f"{self.name} has {len(value)} items", hint=f"allowed: at most {MOST_ITEMS}")
            return [self._one(item) for item in value]
        if self.kind == "percents":
            if not isinstance(value, dict) or len(value) > MOST_ITEMS:
                raise self._wrong(value)
            return {storable(self.name, key): None if one is None else self._one(one) for key, one in value.items()}
        return self._one(value)

    def _one(self, value: Any) -> Any:
        if self.kind in _NUMBERS:
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            if not isinstance(whole, int) or isinstance(whole, bool) or not self.least <= whole <= self.most:
                raise self._wrong(value)
            return whole
        if self.kind == "boolean":
            if not isinstance(value, bool):
                raise self._wrong(value)
            return value
        if not isinstance(value, str) or not value.strip() or len(value) > self.longest:
            raise self._wrong(value)
        if self.allowed is type_names:
            sync_type(value)  # it knows what was probably meant
        elif self.allowed is not None and value not in self.allowed():
            raise self._wrong(value)
        return storable(self.name, value)

    def _wrong(self, value: Any) -> UsageError:
        allowed = _WORDS[self.kind]
        if self.allowed is not None:
            allowed = ", ".join(self.allowed())
        elif self.kind in _NUMBERS:
            allowed += f" from {self.least} to {self.most}"
        elif self.kind in ("text", "texts"):
            allowed += f" of 1 to {self.longest} characters"
        return UsageError(f"{self.name} is {ascii(value)[:40]}", hint=f"allowed: {allowed}")

    def schema(self) -> dict[str, Any]:
        """Its schema in OpenAPI 3.1."""
        one: dict[str, Any]
        if self.kind in _NUMBERS:
            one = {"type": "integer", "minimum": self.least, "maximum": self.most}
        elif self.kind == "boolean":
            one = {"type": "boolean"}
        else:
            one = {"type": "string", "minLength": 1, "maxLength": self.longest, "pattern": r"\S"}
        if self.allowed is not None:
            one = {"type": "string", "enum": list(self.allowed())}
        if self.kind in ("texts", "integers"):
            one = {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_ITEMS}
        if self.kind == "percents":
            values = {**one, "type": ["integer", "null"]}
            one = {"type": "object", "additionalProperties": values, "maxProperties": MOST_ITEMS}
        if self.nullable:
            one["type"] = [one["type"], "null"]
        return one | ({"default": self.default} if self.default is not None else {})


Given = Mapping[str, Any]
"""What was sent, by name; the default, or None, for what was not."""


def read_query(declared: Sequence[Parameter], query: QueryParams) -> dict[str, Any]:
    """Raises UsageError for an unknown name, for a wrong value, and for one that is missing."""
    _refuse_others(declared, query.keys(), "?", "parameter")
    return {p.name: p.read(query.getlist(p.name)) if p.name in query else _missing(p) for p in declared}


def read_body(declared: Sequence[Parameter], body: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_query`. What is null only because it was sent so, is there; `sent` below has the names of what was sent."""
    _refuse_others(declared, body.keys(), "", "field")
    found = {p.name: p.check(body[p.name]) if p.name in body else _missing(p) for p in declared}
    return {**found, SENT: frozenset(body)}


SENT = "(sent)"
"""Under this name are the names of the fields that were sent: a field that is null and one that is missing differ."""


def _missing(declared: Parameter) -> Any:
    if declared.required:
        raise UsageError(f"{declared.name} is missing", hint=declared.meaning)
    return declared.default


def _refuse_others(declared: Sequence[Parameter], names: Any, sign: str, noun: str) -> None:
    known = [p.name for p in declared]
    if others := [name for name in names if name not in known]:
        allowed = ", ".join(known) or f"no {noun} at all"
        raise UsageError(
            f"there is no {noun} {sign}{ascii(others[0])[1:41].rstrip(chr(39))}", hint=f"allowed: {allowed}"
        )


def type_names() -> list[str]:
    return list(SYNC_TYPES)
