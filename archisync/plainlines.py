"""Which lines of a CSV file PostgreSQL may read as they stand: those that our own parser would not change.

Most lines of most exports are like that: no quotes, no stray blanks, numbers and dates in the one notation that means the same
here and in COPY. Such a line is handed on unparsed, which is thirty times as fast as reading its cells one by one. The pattern is
strict: whatever it does not know (a quote, a backslash, a decimal comma, a local time, an impossible date, an empty required
cell) goes to `archisync.records`, which judges it with care. A property test compares the two on the same files.

The patterns have no possessive quantifiers: Python 3.11.2 takes a blank for part of a match that it had given up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from archisync.synctypes import Field, Kind
from archisync.values import MAX_IDENTIFIER_CHARS, Locale

MAX_LINE_CHARS = 16 * 1024
"""So that no cell of a plain line can be above the 64 KiB that a cell may have."""

# What `values.clean` would remove or collapse, and what COPY's CSV reading gives a meaning.
_SPECIAL = r'\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff"\\'
_YEAR = r"(?:19|2[0-9])[0-9]{2}"
_DATE_ISO = (
    rf"{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_DATE_DAY_FIRST = (
    rf"(?:(?:0[1-9]|1[0-9]|2[0-8])/(?:0[1-9]|1[0-2])|(?:29|30)/(?:0[13-9]|1[0-2])|31/(?:0[13578]|1[02]))/{_YEAR}"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"


def cell_pattern(kind: Kind, locale: Locale, delimiter: str) -> str:
    """A regular expression of the non-empty cells of that kind that need no parsing."""
    special = _SPECIAL + re.escape(delimiter)
    match kind:
        case Kind.TEXT:
            return rf"[^{special}]+(?: [^{special}]+)*"
        case Kind.IDENTIFIER:  # a dot may be a thousands separator
            return rf"[^{special}.]{{1,{MAX_IDENTIFIER_CHARS}}}"
        case Kind.INTEGER:
            return r"-?[0-9]{1,17}"
        case Kind.NUMBER:
            return r"-?[0-9]{1,17}(?:\.[0-9]{1,12})?" if locale == "iso" else r"-?[0-9]{1,17}"
        case Kind.DATE:
            return f"(?:{_DATE_ISO}|{_DATE_DAY_FIRST})"
        case Kind.TIMESTAMP:
            return rf"{_DATE_ISO}[T ]{_CLOCK}{_OFFSET}"
        case Kind.BOOLEAN:
            return "(?:true|false|True|False|TRUE|FALSE|1|0)"


def line_pattern(
    columns: Sequence[Field | None], filled: Sequence[bool], locale: Locale, delimiter: str
) -> re.Pattern[str]:
    """Of one line with its line end. `columns`: the field of each column of the file, None for a column that is ignored;
    `filled[i]`: whether an empty cell of it is something else than NULL (an error, or a value of its own)."""
    cells = []
    for field, must in zip(columns, filled, strict=True):
        cell = cell_pattern(field.kind if field else Kind.TEXT, locale, delimiter)
        cells.append(cell if must else f"(?:{cell})?")
    return re.compile(re.escape(delimiter).join(cells) + "\r?\n")
