"""What a setting is: the variable that it is read from, what it means, and how its text becomes a value or an error.

The table of all settings is `archisync.rules.config.Config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, overload

from archisync.base.envfile import FILE, FOLDER_VARIABLE
from archisync.base.errors import ConfigurationError

if TYPE_CHECKING:
    from archisync.rules.synctypes import SyncType

T = TypeVar("T")
Environment = Mapping[str, str]


class Given(NamedTuple):
    """A variable and its text: empty when it is not set and has no default."""

    name: str
    text: str


class Variable:
    """One row of the table. A variable with an `example` must be set; with a wrong one `checked_at_start` no worker starts.
    A `secret` one is never shown."""

    def __init__(
        self,
        name: str,
        meaning: str,
        *,
        default: str = "",
        example: str = "",
        checked_at_start: bool = True,
        secret: bool = False,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.default = default
        self.example = example
        self.checked_at_start = checked_at_start
        self.secret = secret

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    @property
    def shown_name(self) -> str:
        return self.name

    def variables(self) -> list[str]:
        """Every environment variable that the setting may be read from."""
        return [self.name]

    def problems(self, environment: Environment) -> Iterator[ConfigurationError]:
        """What is wrong with it."""
        raise NotImplementedError

    def _given(self, environment: Environment, *names: str) -> Given:
        """The first of these variables that is set; else the last one, with the default. Raises ConfigurationError."""
        for name in names:
            if text := environment.get(name, "").strip():
                return Given(name, text)
        if self.example:
            hint = f"export {names[-1]}={self.example}   (or try: archisync demo)"
            if folder := environment.get(FOLDER_VARIABLE):
                hint = f"{folder}/{FILE} does not set it, or is not there: `archisync up` makes it"
            raise ConfigurationError(f"{names[-1]} is not set", hint=hint)
        return Given(names[-1], self.default)


class Setting(Variable, Generic[T]):
    """A setting that holds for everything: `config.lease_s` is its value, or raises ConfigurationError. It is read once."""

    def __init__(self, name: str, parse: Callable[[str, str], T], meaning: str, **options: Any) -> None:
        super().__init__(name, meaning, **options)
        self._parse = parse

    @overload
    def __get__(self, config: None, owner: type) -> Self: ...
    @overload
    def __get__(self, config: object, owner: type) -> T: ...
    def __get__(self, config: Any, owner: type) -> Self | T:
        if config is None:
            return self
        value = vars(config)[self._attribute] = self.read(config.environment)
        return value

    def read(self, environment: Environment) -> T:
        return self._parse(*self._given(environment, self.name))

    def problems(self, environment: Environment) -> Iterator[ConfigurationError]:
        yield from _problem(partial(self.read, environment))


class TypeSetting(Variable, Generic[T]):
    """A setting that a sync type may have for itself: `config.source(sync_type)` is its value, or raises ConfigurationError. It is read
    once for each type.

    `common`: the variable without a type's name holds for the types that have none of their own.
    """

    def __init__(
        self, name: str, parse: Callable[[str, str, SyncType], T], meaning: str, *, common: bool = True, **options: Any
    ) -> None:
        super().__init__(name, meaning, **options)
        self._parse = parse
        self._common = common

    @overload
    def __get__(self, config: None, owner: type) -> Self: ...
    @overload
    def __get__(self, config: object, owner: type) -> Callable[[SyncType], T]: ...
    def __get__(self, config: Any, owner: type) -> Self | Callable[[SyncType], T]:
        if config is None:
            return self
        value = vars(config)[self._attribute] = lru_cache(partial(self.read, config.environment))
        return value

    def read(self, environment: Environment, sync_type: SyncType) -> T:
        names = [self.own_name(sync_type.name), *([self.name] if self._common else [])]
        return self._parse(*self._given(environment, *names), sync_type)

    def own_name(self, type_name: str) -> str:
        return f"{self.name}_{type_name.upper()}"

    @property
    def shown_name(self) -> str:
        return f"{self.name}[_<TYPE>]" if self._common else f"{self.name}_<TYPE>"

    def variables(self) -> list[str]:
        from archisync.rules.synctypes import SYNC_TYPES

        return [*([self.name] if self._common else []), *(self.own_name(name) for name in SYNC_TYPES)]

    def problems(self, environment: Environment) -> Iterator[ConfigurationError]:
        from archisync.rules.synctypes import SYNC_TYPES

        for sync_type in SYNC_TYPES.values():
            yield from _problem(partial(self.read, environment, sync_type))


class Credential(TypeSetting[str]):
    """One of the settings that go together: a type with one of its own gets none of the common ones (`Config.http_credentials`)."""

    def __init__(self, name: str, meaning: str, *, secret: bool = True) -> None:
        super().__init__(name, any_text, meaning, secret=secret)


def _problem(read: Callable[[], object]) -> Iterator[ConfigurationError]:
    try:
        read()
    except ConfigurationError as exc:
        yield exc


class WholeNumber(Protocol):
    """Reads a setting that is a whole number, of a type or for all."""

    def __call__(self, name: str, text: str, sync_type: SyncType | None = None, /) -> int: ...


# Ways to read a text: each takes the variable's name and text (and the type) and raises ConfigurationError.


def any_text(_name: str, text: str, _sync_type: SyncType | None = None) -> str:
    return text


def whole_number(low: int, high: int) -> WholeNumber:
    def parse(name: str, text: str, _sync_type: SyncType | None = None) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise ConfigurationError(f"{name} is {text!r}", hint=f"a whole number from {low} to {high}")
        return int(text)

    return parse


def choice(allowed: Mapping[str, T]) -> Callable[[str, str, SyncType], T | None]:
    """What the word stands for, in capitals or not; None where nothing is set."""

    def parse(name: str, text: str, _sync_type: SyncType) -> T | None:
        word = text.lower()
        if word and word not in allowed:
            raise ConfigurationError(f"{name} is {text!r}", hint="allowed: " + ", ".join(allowed))
        return allowed[word] if word else None

    return parse
