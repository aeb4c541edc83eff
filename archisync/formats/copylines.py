"""The lines of a CSV file that COPY can read as they are, because our parser would change nothing in them.

Most lines of most exports are plain: no stray blanks, numbers and dates in the notation that COPY reads in the same way, and quotes
only around whole cells. A plain line is passed on unparsed, which is thirty times as fast as reading its cells. The rules are
strict. A line with anything else (a doubled quote, a backslash, a decimal comma, a local time, an impossible date, an empty
required cell) is parsed by `archisync.sync.records`. A property test compares the two ways on the same files.

A line is bytes, in UTF-8 and without its line end. Characters that no plain line may have are searched for in many lines at once,
which takes a nanosecond a byte. So the pattern of a line only has to match its cells.

The patterns have no possessive quantifiers: with them, Python 3.11.2 matches a blank that it has given up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from archisync.rules.synctypes import Field, Kind
from archisync.rules.values import MAX_IDENTIFIER_CHARS, Locale

MAX_LINE_BYTES = 16 * 1024
"""No cell of a plain line can be longer than the 64 KiB that a value may have."""

_QUOTE = '"'
_CONTROLS = bytes([*range(0x20), 0x7F])
# First bytes of the characters that `values.clean` removes or collapses. Other characters begin so too (°, €); _ODD decides.
_MAYBE_ODD = (b"\xc2", b"\xe1", b"\xe2", b"\xe3", b"\xed")
_ODD = re.compile("[\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]")

_YEAR = r"(?:19|2[0-9])[0-9]{2}"
_DATE_ISO = (
    rf"{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_DATE_DAY_FIRST = (
    rf"(?:(?:0[1-9]|1[0-9]|2[0-8])/(?:0[1-9]|1[0-2])|(?:29|30)/(?:0[13-9]|1[0-2])|31/(?:0[13578]|1[02]))/{_YEAR}"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"


def _cell(kind: Kind, locale: Locale, outside: str, *, filled: bool) -> str:
    """A pattern for the cells of that kind that need no parsing, in lines without odd characters.

    `outside` are the characters that end the cell; `filled`: whether the cell must not be empty.
    """
    match kind:
        case Kind.TEXT:
            return rf"(?! )[^{outside}]{'+' if filled else '*'}(?<! )"
        case Kind.IDENTIFIER:  # a dot may be a thousands separator
            return rf"[^{outside}. ]{{{filled:d},{MAX_IDENTIFIER_CHARS}}}"
        case _:
            value = _value(kind, locale)
            return value if filled else f"(?:{value})?"


def _value(kind: Kind, locale: Locale) -> str:
    match kind:
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
        case _:
            raise AssertionError(kind)


class PlainLine:
    """The pattern of one table's plain lines.

    `columns` has the field of each column of the file, or None for a column that is ignored. `filled` says for each column
    whether an empty cell needs the parser: it is an error or a value, and not NULL. `quoted`: whether cells may be in quotes.
    """

    def __init__(
        self, columns: Sequence[Field | None], filled: Sequence[bool], locale: Locale, delimiter: str, *, quoted: bool
    ) -> None:
        self._quoted = quoted
        self._controls = _CONTROLS.replace(delimiter.encode(), b"")
        end = re.escape(delimiter)
        within = _QUOTE + (end if delimiter < " " else "")  # a tab in a cell would be collapsed
        bare, in_quotes = [], []
        for field, must in zip(columns, filled, strict=True):
            kind = field.kind if field else Kind.TEXT
            # A class of one excluded character is three times as fast, and enough where there are no quotes.
            bare.append(_cell(kind, locale, end, filled=must))
            beside = _cell(kind, locale, end + '"', filled=must)
            in_quotes.append(f'(?:"{_cell(kind, locale, within, filled=must)}"|{beside})')
        self._bare = re.compile(end.join(bare).encode())
        self._in_quotes = re.compile(end.join(in_quotes).encode())

    def match(self, lines: Sequence[bytes]) -> bool:
        """Whether all of these lines are plain."""
        text = b"\n".join(lines)
        if self._odd(text, len(lines) - 1):
            return False
        pattern = self._bare
        if b'"' in text:
            if not self._quoted:
                return False
            pattern = self._in_quotes
        return len(max(lines, key=len)) <= MAX_LINE_BYTES and all(map(pattern.fullmatch, lines))

    def _odd(self, text: bytes, line_ends: int) -> bool:
        """Whether the text has a character that our parser would remove or collapse, or that has a meaning for COPY."""
        if b"\\" in text or b"  " in text or len(text.translate(None, self._controls)) != len(text) - line_ends:
            return True
        return (
            not text.isascii()
            and any(start in text for start in _MAYBE_ODD)
            and _ODD.search(text.decode("utf-8", "surrogatepass")) is not None
        )
