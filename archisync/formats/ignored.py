"""Lines that are no rows: those whose first filled cell begins with a configured word, such as a total, and lines of dashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol


class LinePattern(Protocol):
    """What tells the lines that need no parsing, such as `archisync.formats.copylines.PlainLine`."""

    def match(self, lines: Sequence[bytes], /) -> bool:
        """Whether all of these lines match."""
        ...


class IgnoredRows:
    """`words` are compared without regard to capitals, and as whole words: `TOTALE` is not the beginning of `TOTALERG`. A `*` before a
    blank is any word, as in `* rows`.

    `delimiter` is the one between the cells of a line.
    """

    def __init__(self, words: Sequence[str], delimiter: str = "") -> None:
        either = "|".join(re.escape(word).replace(r"\*\ ", r"\S*\ ") for word in words)
        whole = rf"(?:{either})(?!(?<=\w)\w)"
        self._cell = re.compile(rf"\s*{whole}", re.IGNORECASE)
        self._line = re.compile(rf'(?:^|\n)["=(\s{re.escape(delimiter)}]*{whole}', re.IGNORECASE)

    def has(self, cells: Sequence[str]) -> bool:
        """Whether the record with these cells is ignored; a record that can't be read is not."""
        first = "" if isinstance(cells, str) else next((cell for cell in cells if cell.strip()), "")
        return self._cell.match(first) is not None

    def outside(self, pattern: LinePattern) -> LinePattern:
        """The lines that match the pattern, without those that may be ignored."""
        return _Outside(pattern, self._line)


_RULE = re.compile(r"[-=+_|\s]{2,}")
_NUMBER_AND_WORD = re.compile(r"([^\w\s,]*)[0-9.]+( [^\W\d_]+)")
_ENDS_WORD = ("", " ", ":", ".", ")")
_WORD_OR_SIGNS = re.compile(r"[^\w\s,]*[^\W\d_]+|[^\w\s,]{1,3}")


def is_rule(cells: Sequence[str], labels: Sequence[str] = ()) -> bool:
    """Whether the record is a line that a program draws: of dashes and the like, under all of the `labels`."""
    if not _RULE.fullmatch("".join(cells)):
        return False
    return all(cell.strip() for cell, label in zip(cells, labels, strict=False) if label.strip())


def word_to_ignore(cell: str) -> str:
    """How ARCHISYNC_CSV_IGNORE_ROWS names the lines that begin with such a cell; empty for what may be an identifier.

    `Totale: 5` is `Totale`, `(46 rows affected)` is `(* rows`, and `-----` is `---`.
    """
    text = cell.strip()
    if found := _NUMBER_AND_WORD.match(text):
        return f"{found[1]}*{found[2]}"
    found = _WORD_OR_SIGNS.match(text)
    return found[0] if found and text[found.end() :][:1] in (*_ENDS_WORD, found[0][-1]) else ""


class Without:
    """The lines that match the pattern, without these, of which there may be more later."""

    def __init__(self, pattern: LinePattern, lines: Sequence[bytes]) -> None:
        self._pattern = pattern
        self._lines = lines

    def match(self, lines: Sequence[bytes]) -> bool:
        """Whether all of these lines match and none is one of those."""
        for line in self._lines:  # `any` takes longer than the comparison
            if line in lines:
                return False
        return self._pattern.match(lines)


class _Outside:
    def __init__(self, pattern: LinePattern, ignored: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._ignored = ignored

    def match(self, lines: Sequence[bytes]) -> bool:
        """Whether all of these lines match and none may be ignored."""
        if not self._pattern.match(lines):
            return False
        return self._ignored.search(b"\n".join(lines).decode("utf-8", "surrogatepass")) is None
