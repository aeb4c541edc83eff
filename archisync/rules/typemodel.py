"""What a sync type is: its table, its key, its fields. `archisync.rules.declarations` reads one, `archisync.rules.synctypes` has all."""

from dataclasses import dataclass
from enum import StrEnum

SHARED_AGENT = "service-account"
"""The agent id that shared types are fetched under; it is not in `agents.users`."""

MIN_INTERVAL_MINUTES = 5
MAX_INTERVAL_MINUTES = 1440


class Scope(StrEnum):
    AGENT = "agent"
    SHARED = "shared"


class Kind(StrEnum):
    """How a cell is read. NUMBER becomes a decimal, never a float; IDENTIFIER is opaque text, without thousands dots."""

    TEXT = "text"
    IDENTIFIER = "identifier"
    NUMBER = "number"
    INTEGER = "integer"
    DATE = "date"
    TIMESTAMP = "timestamp"
    BOOLEAN = "boolean"


class Role(StrEnum):
    """What is daily life for a column, so that the guard doesn't ask about it. Most columns have none of these."""

    ENUM = "enum"  # few values, recoded or set for all at once: a status, terms, a unit
    COUNTER = "counter"  # becomes 0, in all rows at the end of a year: stock, sales, what remains to be paid
    PLANNED = "planned"  # a day that many rows share, or that moves by some days: a delivery, a payment
    TERM = "term"  # an end that is moved on by whole years: of a contract, of a price
    TOUCHED = "touched"  # the row's own time stamp


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One column. `name` is the column in PostgreSQL and the standard label in exports.

    `aliases` are other labels, compared exactly after `archisync.rules.labels.fold_label`. `empty` is the text that an empty cell stands
    for: a part of a key that has a default. `role`: what the guard takes for daily life in it. `distinct`: an agent's rows should not
    share a value; a shared one is a warning of the run.
    """

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    aliases: tuple[str, ...] = ()
    empty: str | None = None
    role: Role | None = None
    distinct: bool = False

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """Fields that a printed report puts into one cell, that of `number`."""

    courier: str
    number: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncType:
    """One type of export. `level` orders the types of one tick: a type comes after those that it names in `after`.

    `key` are the fields of the natural key; those in `nullable_key` may be NULL, and NULL equals NULL. `adopt`: the table was there before
    the type, so it is never dropped.
    """

    name: str
    scope: Scope
    table: str
    default_interval_minutes: int
    level: int
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    after: tuple[str, ...] = ()
    adopt: bool = False
    nullable_key: tuple[str, ...] = ()
    order_reference: str | None = None  # field with the order_number of an order of the same agent
    same_label: tuple[tuple[str, str], ...] = ()  # (field, field of the next column with the same label)
    report_ids: tuple[
        str, ...
    ] = ()  # a printed row without any of these is no record; default: the first field of the key
    tracking: Tracking | None = None

    def __hash__(self) -> int:
        """As that of all fields, whose own hashes take longer than what is looked up with them."""
        return hash(self.name)

    @property
    def required(self) -> tuple[str, ...]:
        """Fields whose column must be in the export and whose cell must not be empty."""
        return tuple(f.name for f in self.fields if f.required)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)
