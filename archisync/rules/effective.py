"""The settings that are in force: each with its value as it may be shown, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from archisync.base.envfile import FOLDER_VARIABLE
from archisync.base.errors import ConfigurationError
from archisync.base.text import redact
from archisync.rules.config import SETTINGS, Config, variable_names
from archisync.rules.settings import Variable

HIDDEN = "***"
OTHER_VARIABLES = frozenset({FOLDER_VARIABLE, "ARCHISYNC_DEBUG"})
"""Variables of ours that are no settings."""


class Origin(StrEnum):
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Effective:
    """One variable. `value`: None where nothing is set and there is no default; a secret is `***`."""

    name: str
    value: str | None
    origin: Origin


def effective(environment: Mapping[str, str], file: Mapping[str, str]) -> list[Effective]:
    """Every setting, in the order of the table, and those that a type has for itself where they are set. `file`: what the file says."""
    return [
        _effective(setting, name, environment, file)
        for setting in SETTINGS
        for name in setting.variables()
        if name == setting.name or environment.get(name, "").strip()
    ]


def _effective(setting: Variable, name: str, environment: Mapping[str, str], file: Mapping[str, str]) -> Effective:
    given = environment.get(name, "").strip()
    if not given:
        return Effective(name=name, value=setting.default or None, origin=Origin.DEFAULT)
    origin = Origin.FILE if file.get(name, "").strip() == given else Origin.ENVIRONMENT
    return Effective(name=name, value=HIDDEN if setting.secret else shown(setting, given), origin=origin)


def shown(setting: Variable, value: str) -> str:
    """The value without its passwords. Of a source, also without what its query gives by itself: it may be a signature."""
    text = redact(value)
    if setting is not Config.source or "://" not in text:
        return text
    return re.sub(r"([?&][^=&\s]+=)[^&{}\s]+(?=&|$)", rf"\1{HIDDEN}", text)


def problems(environment: Mapping[str, str]) -> Iterator[ConfigurationError]:
    """What is wrong with the settings, those that are missing included, each thing once."""
    seen: set[str] = set()
    for setting in SETTINGS:
        for problem in setting.problems(environment):
            if problem.message not in seen:
                seen.add(problem.message)
                yield problem


def misspelt(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that nobody reads, each with the one that was probably meant. Those like no setting may be a plug-in's."""
    known = [*variable_names(), *OTHER_VARIABLES]
    for name in sorted(environment):
        if (
            name.startswith("ARCHISYNC_")
            and name not in known
            and (alike := get_close_matches(name, known, n=1, cutoff=0.85))
        ):
            yield name, alike[0]
