"""Names that change: an export whose name has a date or a counter in it, and options at the end of a template. Pure.

    /srv/exports/{agent}/orders_{date:%Y%m%d}.csv      the greatest date
    /srv/exports/{agent}/orders_*.csv                  the greatest name
    /srv/exports/{agent}/orders_*.csv?newest=mtime     the youngest file
    /srv/exports/{agent}/orders.csv?settle=30s         not before the file is 30 s old
    /srv/exports/{agent}/orders_{date:%j}_*.csv?all=1  all files of the greatest date, as one export
    /srv/exports/{agent}/orders_*.csv?done=read        moved into the folder `read` beside it once it is applied

An export in the folder of `done` is still the export until a newer one comes: it is found unchanged, or read again when that is wanted.
So nothing depends on the moment of the move, and data never goes back to an older file that was left behind.

Only the last part of a path may change, it does not begin with `*`, and nothing is guessed: where two names may both be the newest, the
error names both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from time import time
from typing import Any, NamedTuple

from archisync.base.errors import ConfigurationError, NoExportError, NotSettledError, SourceError
from archisync.base.text import printable

MAX_NAMES = 10_000
"""Names that are looked at in one folder. A folder with more is no place for exports; somebody must clean it up."""
MAX_DONE_NAMES = 100_000
"""The same for the folder of `done`, which archisync itself fills."""
_CLOCKS_APART_S = 300
"""The clock of the machine that wrote a file may be ahead of ours by so much: then it is young. One that is further ahead is wrong."""
_WILD = re.compile(r"\*|\{date:([^{}]*)\}")
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3}
_DIRECTIVE = re.compile(r"%(.?)")
_OPTIONS = re.compile(r"\?((?=newest=|settle=|done=|all=)(?:done=[^?&]*|[^?/&]*)(?:&(?:done=[^?&]*|[^?/&]*))*)\Z")
_SETTLE = re.compile(r"([0-9]{1,5})s")
_DAY_FIRST = re.compile(r"(?<![0-9])([0-3][0-9])([-._]?)([01][0-9])\2((?:19|20)[0-9]{2})(?![0-9])")
_A_DATE, _BY_TIME = "{date:%Y%m%d} in the name", "?newest=mtime"
_HINT = "for example /srv/exports/{agent}/{type}_{date:%Y%m%d}.csv or …/{type}_*.csv?newest=mtime&settle=30s"


class Options(NamedTuple):
    """`by_time`: the newest file is the one that was written last. `settle_s`: a younger file is left to a later run. `done`: the folder
    that an applied export is moved to, with placeholders; relative to the export's own. `all`: the files of one date are one export."""

    by_time: bool = False
    settle_s: int = 0
    done: str = ""
    all: bool = False


class Listed(NamedTuple):
    """A name in a folder. `written` is its time of modification, in seconds since 1970. `done`: it is in the folder of `done`."""

    name: str
    written: float
    done: bool = False


def split_options(template: str) -> tuple[str, Options]:
    """The template without its options, and these. Raises ConfigurationError."""
    found = _OPTIONS.search(template)
    if found is None:
        return template, Options()
    options = Options()
    for part in found[1].split("&"):
        name, _, value = part.partition("=")
        seconds = _SETTLE.fullmatch(value)
        if name == "newest" and value in ("mtime", "name"):
            options = options._replace(by_time=value == "mtime")
        elif name == "settle" and seconds:
            options = options._replace(settle_s=int(seconds[1]))
        elif name == "done" and value.strip("./") and not _WILD.search(value):
            options = options._replace(done=value.rstrip("/"))
        elif name == "all" and value in ("0", "1"):
            options = options._replace(all=value == "1")
        else:
            raise ConfigurationError(f"the source has the option {printable(part, limit=60)!r}", hint=_HINT)
    return template[: found.start()], options


def checked_pattern(path: str, options: Options) -> NamePattern | None:
    """The pattern of the path's last part; None when nothing in it changes. Raises ConfigurationError, also for options that don't fit."""
    pattern = name_pattern(path)
    if options.all and (pattern is None or not pattern.has_date or options.by_time):
        raise ConfigurationError(
            "the source has all=1 without a date in the file name, which says what belongs together",
            hint="for example /srv/exports/{agent}/{type}_{date:%Y%m%d}_*.csv?all=1",
        )
    return pattern


def name_pattern(path: str) -> NamePattern | None:
    folder, _, name = path.rpartition("/")
    if _WILD.search(folder):
        raise ConfigurationError("the source has a folder with * or {date:…} in its name", hint=_HINT)
    if not _WILD.search(name):
        return None
    if name.startswith("*") or not _WILD.sub("", name).strip("."):
        raise ConfigurationError("the source's file name begins with *, so it may be any file", hint=_HINT)
    return NamePattern(name)


class NamePattern:
    """A file name with `*`, which stands for any characters, and at most one `{date:…}`."""

    def __init__(self, name: str) -> None:
        self._date = ""
        expression, end = "", 0
        for wild in _WILD.finditer(name):
            expression += re.escape(name[end : wild.start()]) + self._group(wild)
            end = wild.end()
        self._name = re.compile(expression + re.escape(name[end:]), re.DOTALL)
        self.shown = name

    @property
    def has_date(self) -> bool:
        return bool(self._date)

    def _group(self, wild: re.Match[str]) -> str:
        if wild[0] == "*":
            return "(.*)"
        if self._date:
            raise ConfigurationError("the source has two dates in its file name", hint=_HINT)
        self._date = wild[1]
        unknown = [found[1] for found in _DIRECTIVE.finditer(self._date) if found[1] not in _DIGITS]
        if unknown or "%" not in self._date:
            raise ConfigurationError(
                f"the source has the date {printable(self._date, limit=40)!r}",
                hint="a date has "
                + ", ".join(f"%{directive}" for directive in _DIGITS)
                + ", for example {date:%Y%m%d}",
            )
        pieces = re.split(r"(%.)", self._date)
        digits = [f"[0-9]{{{_DIGITS[piece[1]]}}}" if piece[:1] == "%" else re.escape(piece) for piece in pieces]
        return f"(?P<date>{''.join(digits)})"

    def chosen(self, names: Iterable[Listed], options: Options, *, folder: str) -> list[Listed]:
        """The export's files: the newest one, or all of its date if they are wanted. Raises as `newest` does."""
        if options.all:
            return self._all_newest(names, options, folder=folder)
        return [self.newest(names, options, folder=folder)]

    def newest(self, names: Iterable[Listed], options: Options, *, folder: str) -> Listed:
        """The newest of the names that match. Raises NoExportError, and SourceError when it is not clear which one it is."""
        matching = self._matching(names, options, folder)
        if options.by_time:
            return _greatest(
                matching, lambda listed, match: listed.written, why="were written at the same time", advice=_A_DATE
            )
        if self._date:
            return _greatest(
                matching,
                lambda listed, match: self._moment(match),
                why="have the same date",
                advice=f"{_BY_TIME}, or ?all=1 for both",
            )
        for listed, match in sorted(matching, key=lambda pair: pair[0].name):
            if any(_is_day_first(part) for part in match.groups()):
                raise SourceError(
                    f"{printable(listed.name)} may have a date that begins with the day, so the greatest name is not the newest",
                    hint="say how the date is written, for example {date:%d%m%Y}, or ?newest=mtime",
                )
        return _greatest_name([listed for listed, _ in matching])

    def _all_newest(self, names: Iterable[Listed], options: Options, *, folder: str) -> list[Listed]:
        """All names with the greatest date, in order; numbers in them count as such. Raises NoExportError."""
        matching = self._matching(names, options, folder)
        greatest = max(self._moment(match) for _, match in matching)
        found = [listed for listed, match in matching if self._moment(match) == greatest]
        return sorted(found, key=lambda listed: (_numbers_and_letters(listed.name), listed.name))

    def _matching(self, names: Iterable[Listed], options: Options, folder: str) -> list[tuple[Listed, re.Match[str]]]:
        """The names that match; of a name that is in both folders the one that is not done, for it came later."""
        found: dict[str, tuple[Listed, re.Match[str]]] = {}
        left = {False: MAX_NAMES, True: MAX_DONE_NAMES}
        for listed in names:
            if not left[listed.done]:
                raise _too_many(options.done if listed.done else folder, MAX_DONE_NAMES if listed.done else MAX_NAMES)
            left[listed.done] -= 1
            match = self._name.fullmatch(listed.name)
            if match is not None and self._is_possible(match) and not (listed.done and listed.name in found):
                found[listed.name] = (listed, match)
        if not found:
            raise NoExportError(f"no export {self.shown} in {folder}", hint=f"ls {folder}")
        return list(found.values())

    def _is_possible(self, match: re.Match[str]) -> bool:
        try:
            return not self._date or bool(self._moment(match))
        except ValueError:
            return False

    def _moment(self, match: re.Match[str]) -> datetime:
        return datetime.strptime(match["date"], self._date)  # noqa: DTZ007 - compared with each other only


def _too_many(folder: str, number: int) -> SourceError:
    return SourceError(f"{folder} has more than {number} names", hint="move old exports away")


def _greatest(
    matching: list[tuple[Listed, re.Match[str]]], key: Callable[[Listed, re.Match[str]], Any], *, why: str, advice: str
) -> Listed:
    greatest = max(key(*pair) for pair in matching)
    first, *others = (pair[0] for pair in matching if key(*pair) == greatest)
    if others:
        raise _tie(first, others[0], why, advice)
    return first


def _greatest_name(listed: list[Listed]) -> Listed:
    """By letters and by numbers, which must agree: `orders_10` is newer than `orders_9`, and less by letters."""
    by_letters = max(listed, key=lambda one: one.name)
    by_numbers = max(listed, key=lambda one: _numbers_and_letters(one.name))
    if by_letters.name != by_numbers.name:
        raise _tie(
            by_letters, by_numbers, "are each the greatest, by letters or by numbers", f"{_A_DATE}, or {_BY_TIME}"
        )
    return by_letters


def _numbers_and_letters(name: str) -> list[int | str]:
    """Texts and numbers in turns."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _tie(first: Listed, second: Listed, why: str, advice: str) -> SourceError:
    names = " and ".join(sorted(printable(one.name, limit=100) for one in (first, second)))
    return SourceError(f"{names} {why}", hint=f"say what is the newest: {advice}")


def _is_day_first(text: str) -> bool:
    return any(1 <= int(day) <= 31 and 1 <= int(month) <= 12 for day, _, month, _ in _DAY_FIRST.findall(text))


def require_settled(written: float, options: Options, *, origin: str) -> None:
    """Raise NotSettledError for a file that was written less than `settle_s` ago."""
    age_s = time() - written
    if options.settle_s and -_CLOCKS_APART_S < age_s < options.settle_s:
        raise NotSettledError(
            f"{origin} was written {max(int(age_s), 0)} s ago, and is read when it is {options.settle_s} s old",
            hint="wait for the next run",
        )
