"""Backslash escapes, as MySQL writes them (`select … into outfile`, `mysql --batch`), and programs that follow it.

Inside a line they are replaced by characters that no text has (Unicode's noncharacters), so that an escaped quote or delimiter is not
taken for one, and in the cells they become what they stand for. An unknown escape is the character itself: `\\x` is `x`.
"""

from __future__ import annotations

import re

_FIRST = 0xFDD0
_MEANINGS = {"0": "", "b": "", "Z": "", "n": "\n", "r": "\r", "t": "\t", "N": ""}
"""A NUL, a backspace and Ctrl-Z are no text. `\\N`, alone in its cell, is NULL."""
_SPECIAL = ('"', "\\", ",", ";", "\t", "|", "'")
_HIDDEN = {sign: chr(_FIRST + place) for place, sign in enumerate((*_SPECIAL, *_MEANINGS))}
_SHOWN = {ord(code): _MEANINGS.get(sign, sign) for sign, code in _HIDDEN.items()}
_ESCAPE = re.compile(r"\\(.)")


def hidden(line: str) -> str:
    """The line with its escapes replaced."""
    return _ESCAPE.sub(lambda found: _HIDDEN.get(found[1], found[1]), line)


def shown(cell: str) -> str:
    """What the cell says."""
    return cell.translate(_SHOWN)
