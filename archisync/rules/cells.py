"""What one changed cell gives away: is the new value the old one, damaged in a known way? Pure, and of a single pair of values."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from archisync.rules.values import clean

# -- numbers

SIGN = 1_000
"""What `factor` says of a number that only lost or got its minus sign."""


def factor(old: Decimal, new: Decimal) -> int:
    """The power of ten by which the number was multiplied: 2 for 1.20 → 120; SIGN for 5 → -5; else 0.

    A new number that was rounded counts, where two digits are left to compare.
    """
    if not old or not new:
        return 0
    if (old < 0) != (new < 0):
        return SIGN if new == -old else 0
    power = new.adjusted() - old.adjusted()  # nearly always 0: a new price has as many digits
    if not power:
        return 0
    exact = old.scaleb(power)
    if exact == new:
        return power
    last_digit = Decimal(1).scaleb(int(new.as_tuple().exponent))
    rounded = abs(exact - new) * 2 <= last_digit and len(new.normalize().as_tuple().digits) > 1
    return power if rounded else 0


def truncated(old: Decimal, new: Decimal) -> bool:
    """Whether the number lost its decimals, without being rounded: 12.90 → 12."""
    return old != new and new == int(old)


# -- dates


def swapped(day: date) -> date | None:
    """The date with day and month exchanged; None where that is no other date. A timestamp keeps its time."""
    if day.day > 12 or day.day == day.month:
        return None
    return day.replace(day=day.month, month=day.day)


def same_day_of_another_year(old: date, new: date) -> bool:
    """29 February may become the day before or after."""
    if old.year == new.year:
        return False
    return (old.month, old.day) == (new.month, new.day) or (
        (old.month, old.day) == (2, 29) and (new.month, new.day) in ((2, 28), (3, 1))
    )


# -- texts

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
beyond_ascii = _BEYOND_ASCII.search
_LETTERS = frozenset("àèéìòùáíóúâêîôûäëïöüçñãõåæøœßčšžćđýřěůłąęśźżńőűșțğış")
"""What European names are spelled with. Other characters beyond ASCII make a text look worse, such as the Ã of a text encoded twice."""


def _recoded(written_as: str, read_as: str) -> Callable[[str], str | None]:
    def recode(text: str) -> str | None:
        try:
            return text.encode(written_as).decode(read_as, "replace")
        except UnicodeEncodeError:
            return None

    return recode


def _twice(text: str) -> str | None:
    once = _recoded("utf-8", "cp1252")(text)
    return None if once is None else _recoded("utf-8", "cp1252")(once)


def _replaced(by: str) -> Callable[[str], str]:
    return lambda text: _BEYOND_ASCII.sub(by, text)


_CODE_PAGES = ("utf-8", "cp1252", "latin-1", "cp850", "mac_roman", "cp437")
_DAMAGES: list[Callable[[str], str | None]] = [
    *(_recoded(a, b) for a in _CODE_PAGES for b in (*_CODE_PAGES, "ascii") if a != b),
    _twice,
    *(_replaced(by) for by in ("?", "??", "\ufffd", "\ufffd\ufffd", "_")),
]


def garbled(old: str, new: str) -> bool:
    """Whether the new text is the old one encoded twice, read in another code page, with marks for its accents, or with HTML's entities.

    Each of these has an inverse, which is a repair: the new text must look worse. Accents that are left out (Citta) or written as an
    apostrophe are a way to write.
    """
    if not beyond_ascii(old):
        return False
    if "&" in new and html.unescape(new) == old:
        return True
    if any(_same_text(_BEYOND_ASCII.sub(by, old), new) for by in ("", " ")):
        return any(character.isalpha() for character in _BEYOND_ASCII.findall(old))  # a sign may be left out: ™
    if _ugliness(new) <= _ugliness(old):
        return False
    return any(_same_text(damage(old), new) for damage in _DAMAGES)


def _same_text(damaged: str | None, new: str) -> bool:
    """Reading the export has cleaned the new text."""
    return damaged is not None and (damaged == new or (clean(damaged)[0] or "") == new)


def _ugliness(text: str) -> float:
    """Question marks, replacement characters, characters that names don't have, capitals after small letters."""
    ugly = 2.0 * text.count("?") + 2.0 * text.count("\ufffd") + text.count("_")
    for before, character in zip(" " + text, text, strict=False):
        if character > "\x7f":
            ugly += 0.25 + (character.lower() not in _LETTERS) + (character.isupper() and before.islower())
    return ugly


def is_beginning(old: str, new: str) -> bool:
    return len(new) < len(old) and old.startswith(new)


def lost_zeros(old: str, new: str) -> bool:
    """Whether the text lost its leading zeros, as after a spreadsheet: 00123 → 123."""
    return old[:1] == "0" and old != new and old.isdigit() and old.lstrip("0") == new
