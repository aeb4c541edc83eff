"""What one changed cell gives away: is the new value the old one, damaged in a known way? Pure, and of a single pair of values."""

from __future__ import annotations

import html
import quopri
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import unquote_plus

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
    near = abs(exact - new) < last_digit and len(new.normalize().as_tuple().digits) > 1
    return power if near else 0


def lost_point(old: Decimal, new: Decimal) -> bool:
    """Whether the new number has the old one's digits, without its decimal sign: 12.5 → 125, 12.25 → 1225."""
    plain = old.normalize()
    return new == plain.scaleb(-min(int(plain.as_tuple().exponent), 0)) != old


def multiplied_by(by: Decimal, old: Decimal, new: Decimal) -> bool:
    """Whether the new number is the old one times `by`, rounded as it is written."""
    last_digit = Decimal(1).scaleb(int(new.as_tuple().exponent))
    least = abs(new) * Decimal("0.00001")  # `by` was estimated
    return abs(old * by - new) <= max(last_digit * Decimal("0.51"), least) and abs(new) >= last_digit * 10


def rounded(old: Decimal, new: Decimal) -> bool:
    """Whether the number lost its decimals, rounded or not, or all digits but three: 12.90 → 12 or 13, 12345 → 12300."""
    if new != int(new) or old == new:
        return False
    if old != int(old):
        return abs(old - new) < 1
    unit = Decimal(1).scaleb(max(int(new.normalize().as_tuple().exponent), 0)) if new else Decimal(1)
    return unit >= 10 and abs(old - new) * 2 <= unit and abs(old - new) * 200 <= abs(old)


def lost_first_digits(old: Decimal, new: Decimal) -> bool:
    """Whether only the last digits before the decimal sign are left: 1234.50 → 34.50."""
    old, new = abs(old), abs(new)
    place = Decimal(10) ** max(new.adjusted() + 1, 1)
    return bool(new) and old > new and (old - new) % place == 0


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
    if escaped(old, new):
        return True
    if any(_same_text(_BEYOND_ASCII.sub(by, old), new) for by in ("", " ")):
        return any(character.isalpha() for character in _BEYOND_ASCII.findall(old))  # a sign may be left out: ™
    if _ugliness(new) <= _ugliness(old):
        return False
    return any(_same_text(damage(old), new) for damage in _DAMAGES)


def _unescaped(text: str) -> str | None:
    try:
        return text.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return None


_ESCAPES: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {
        "&": html.unescape,
        "%": unquote_plus,
        "+": unquote_plus,
        "=": lambda text: quopri.decodestring(text.encode("ascii", "replace")).decode("utf-8", "replace"),
        "\\": _unescaped,
    }
)
"""What begins an escape, and how it is read: HTML's, an address's, a mail's, and those of program text."""


def escaped(old: str, new: str) -> bool:
    """Whether the new text is the old one as a page, an address, a mail or a program spells it: & as &amp;, ò as \\u00f2."""
    return old != new and any(begin in new and read(new) == old for begin, read in _ESCAPES.items())


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
