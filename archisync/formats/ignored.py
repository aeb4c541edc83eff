"""Lines that are no rows, such as a total below them: those whose first filled cell begins with a configured word."""

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
    """`words` are compared without regard to capitals, and as whole words: `TOTALE` is not the beginning of `TOTALERG`.

    `delimiter` is the one between the cells of a line.
    """

    def __init__(self, words: Sequence[str], delimiter: str = "") -> None:
        either = "|".join(map(re.escape, words))
        self._cell = re.compile(rf"\s*(?:{either})(?!\w)", re.IGNORECASE)
        self._line = re.compile(rf'(?:^|\n)["=(\s{re.escape(delimiter)}]*(?:{either})(?!\w)', re.IGNORECASE)

    def has(self, cells: Sequence[str]) -> bool:
        """Whether the record with these cells is ignored; a record that can't be read is not."""
        first = "" if isinstance(cells, str) else next((cell for cell in cells if cell.strip()), "")
        return self._cell.match(first) is not None

    def outside(self, pattern: LinePattern) -> LinePattern:
        """The lines that match the pattern, without those that may be ignored."""
        return _Outside(pattern, self._line)


class _Outside:
    def __init__(self, pattern: LinePattern, ignored: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._ignored = ignored

    def match(self, lines: Sequence[bytes]) -> bool:
        """Whether all of these lines match and none may be ignored."""
        if not self._pattern.match(lines):
            return False
        return self._ignored.search(b"\n".join(lines).decode("utf-8", "surrogatepass")) is None
