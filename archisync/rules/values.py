"""How the text of one cell becomes a value: pure, without a guess, without a float. An unclear text is a BadValueError.

* Numbers. `iso`: a dot is the decimal sign, and any comma is refused (`1,234` may mean either). `it`: a comma is the decimal sign, and dots
  must separate thousands (`1.234.567`), so `1234.56` and `0.123` are refused. Blanks between digits are accepted only where they
  separate thousands. An exponent (`1E+3`) is accepted under `iso` only, because only machines write it. `5.` is refused: it may be the
  beginning of `5.60`.
* Integers may have a fraction of zeros (`5.0`), but under `iso` not exactly three (`1.000` may be a thousand).
* Dates are `2025-12-31`, `20251231`, `31/12/2025`, `31.12.2025` or `31-DIC-2025` (Italian or English months, short or in full), with two
  digits for day and month. A time of day is dropped, after conversion into the zone if it has an offset.
* Timestamps are returned in UTC. An ambiguous local time (clocks go back) is the first of the two; a skipped one (clocks go forward) is
  read with the offset before the change.
* Identifiers lose thousands dots only where a number would have them: `70.962`, but not `001.234`.

Ways of writing other than those of a machine are noted, so that the run's record has them (`Notations`).
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Literal, assert_never
from zoneinfo import ZoneInfo

from archisync.rules.labels import strip_accents
from archisync.rules.typemodel import Kind

Locale = Literal["iso", "it"]
Value = str | Decimal | int | date | datetime | bool | None
Notations = set[str]
"""The unusual ways in which values were written, by an example or in words: `31.12.2025`, `vero`, `exponent`."""
Parser = Callable[[str, Notations], Value]

MAX_CELL_BYTES = 64 * 1024
MAX_IDENTIFIER_CHARS = 256
"""Identifiers are keys: two of them, with four bytes a character, and an agent id fit into one entry of a PostgreSQL index."""
MAX_DIGITS = 30  # of a number, on both sides of the decimal sign
MAX_DECIMALS = 12
MIN_YEAR = 1900
_MAX_NUMBER_CHARS = 80  # 30 digits with blanks, signs and separators fit; a longer text is refused before any regex
_SHOWN_CHARS = 40
_INT64_MAX = 2**63 - 1


class BadValueError(ValueError):
    """A cell that puts its row into quarantine. The message is the reason, and shows at most 40 characters of the cell."""


# Control characters, without the white space that `str.split` splits at, and lone surrogates (JSON's "\ud800"), which UTF-8 can't encode.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")


def clean(text: str) -> tuple[str | None, int]:
    """The text with each run of white space as one blank (None when nothing is left), and the number of control characters removed.

    Raises BadValueError for a cell above 64 KiB of UTF-8.
    """
    if len(text) > MAX_CELL_BYTES // 4 and len(text.encode("utf-8", "surrogatepass")) > MAX_CELL_BYTES:
        raise BadValueError(f"is longer than {MAX_CELL_BYTES // 1024} KiB")
    removed = 0
    if not text.isprintable():  # most cells are printable and skip the regex
        kept = _CONTROL.sub("", text)
        removed = len(text) - len(kept)
        text = kept
    return " ".join(text.split()) or None, removed


def parse(kind: Kind, text: str, locale: Locale, zone: ZoneInfo) -> Value:
    """The value of one cell. An empty cell is None, but an empty boolean is False.

    Times without an offset are in `zone`. Raises BadValueError.
    """
    cleaned, _ = clean(text)
    if cleaned is None:
        return False if kind is Kind.BOOLEAN else None
    return parser(kind, locale, zone)(cleaned, set())


def parser(kind: Kind, locale: Locale, zone: ZoneInfo) -> Parser:
    """The function that parses the non-empty texts that `clean` returns, for a whole column, and notes how they are written."""
    match kind:
        case Kind.TEXT:
            return _text
        case Kind.IDENTIFIER:
            return _identifier
        case Kind.NUMBER:
            return _number_iso if locale == "iso" else _number_it
        case Kind.INTEGER:
            return _integer_iso if locale == "iso" else _integer_it
        case Kind.DATE:
            return lambda text, notations: _date(text, zone, notations)
        case Kind.TIMESTAMP:
            return lambda text, notations: _timestamp(text, zone, notations)
        case Kind.BOOLEAN:
            return _boolean
        case _:
            assert_never(kind)


def _bad(text: str, why: str) -> BadValueError:
    shown = repr(text[:_SHOWN_CHARS]) + ("…" if len(text) > _SHOWN_CHARS else "")
    return BadValueError(f"{shown} {why}")


# -- text, identifiers, booleans


def _text(text: str, _: Notations) -> str:
    return text


_DOTTED_ID = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+")


def _identifier(text: str, notations: Notations) -> str:
    if len(text) > MAX_IDENTIFIER_CHARS:
        raise _bad(text, f"is longer than {MAX_IDENTIFIER_CHARS} characters")
    if not _DOTTED_ID.fullmatch(text):
        return text
    notations.add("thousands dots in identifiers")
    return text.replace(".", "")


_BOOLEANS = {
    **dict.fromkeys(("si", "s", "yes", "true", "vero", "checked", "x", "1"), True),
    **dict.fromkeys(("no", "n", "false", "falso", "unchecked", "0"), False),
}


_USUAL_BOOLEANS = frozenset({"true", "false", "1", "0"})


def _boolean(text: str, notations: Notations) -> bool:
    folded = strip_accents(text).casefold()
    value = _BOOLEANS.get(folded)
    if value is None:
        raise _bad(text, "is not yes or no")
    if folded not in _USUAL_BOOLEANS:
        notations.add(folded)
    return value


# -- numbers

_MINUS = "\\-\N{MINUS SIGN}"  # for use inside [...], where a bare - would span everything between its neighbours
# A sign, a currency or percent sign and brackets around the digits, in any usual order; `_undress` refuses two signs.
_DRESSED = re.compile(
    rf"(?P<open>\()? ?(?P<before>[+{_MINUS}])? ?€? ?(?P<inner>[+{_MINUS}])? ?"
    rf"(?P<digits>[0-9.,][0-9., ]*(?:[eE][+-]?[0-9]{{1,3}})?)"
    rf" ?(?P<after>[{_MINUS}])? ?[€%]? ?(?P<last>[{_MINUS}])? ?(?P<close>\))?"
)
_DIGITS_ISO = re.compile(r"(?:[0-9]+|[1-9][0-9]{0,2}(?: [0-9]{3})+)?(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_DIGITS_IT = re.compile(r"(?:[0-9]+|[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+|(?: [0-9]{3})+))?(?:,[0-9]+)?")
_PLAIN_ISO = re.compile(r"-?[0-9]{1,17}(?:\.[0-9]{1,12})?")  # nearly every cell; it is within all limits


_UNUSUAL_NUMBER = re.compile(r"[^0-9.,-]|(?<!^)-")
_UNUSUAL_SIGNS = {
    " ": "blanks in numbers", "\N{MINUS SIGN}": "Unicode minus", "(": "brackets for a minus", "€": "currency", "%": "percent",
    "e": "exponent", "E": "exponent",
}  # fmt: skip


def _note_number(text: str, notations: Notations) -> None:
    if _UNUSUAL_NUMBER.search(text):
        notations.update(name for sign, name in _UNUSUAL_SIGNS.items() if sign in text)
        if text.rstrip("€% ")[-1] in "-\N{MINUS SIGN}":
            notations.add("minus behind a number")


def _number_iso(text: str, notations: Notations) -> Decimal:
    if _PLAIN_ISO.fullmatch(text):
        return _limited(Decimal(text), text)
    negative, digits = _undress(text)
    if not _DIGITS_ISO.fullmatch(digits) or digits[0] in "eE":
        raise _bad(text, "is not a number with a decimal point")
    _note_number(text, notations)
    return _signed(digits.replace(" ", ""), text, negative=negative)


def _number_it(text: str, notations: Notations) -> Decimal:
    negative, digits = _undress(text)
    if not _DIGITS_IT.fullmatch(digits):
        raise _bad(text, "is not a number with a decimal comma")
    _note_number(text, notations)
    return _signed(digits.replace(" ", "").replace(".", "").replace(",", "."), text, negative=negative)


def _undress(text: str) -> tuple[bool, str]:
    """Whether the number is negative, and its digits with separators."""
    found = _DRESSED.fullmatch(text) if len(text) <= _MAX_NUMBER_CHARS else None
    if found is None:
        raise _bad(text, "is not a number")
    signs = [sign for sign in found.group("before", "inner", "after", "last") if sign]
    brackets = found.group("open", "close") == ("(", ")")
    if len(signs) + brackets > 1 or (found["open"] is None) != (found["close"] is None):
        raise _bad(text, "is not a number: its signs contradict each other")
    return brackets or (bool(signs) and signs[0] != "+"), found["digits"].strip()


def _signed(digits: str, text: str, *, negative: bool) -> Decimal:
    value = Decimal(digits)
    # copy_negate, because the minus operator rounds to the context's 28 digits
    return _limited(value.copy_negate() if negative else value, text)


def _limited(value: Decimal, text: str) -> Decimal:
    """The value without an exponent and without a negative zero. Raises BadValueError for too many digits."""
    exponent = int(value.as_tuple().exponent)
    whole_digits = max(value.adjusted() + 1, 0)
    if exponent < -MAX_DECIMALS or whole_digits + max(-exponent, 0) > MAX_DIGITS:
        raise _bad(text, f"has more than {MAX_DIGITS} digits or {MAX_DECIMALS} decimals")
    if exponent > 0:
        value = Decimal(format(value, "f"))
    return value if value else value.copy_abs()


_WITH_COMMA = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})*,[0-9]+|[0-9]+,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_WITH_POINT = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})*\.[0-9]+|[0-9]+\.[0-9]+|[0-9]{1,3}(?:,[0-9]{3}){2,}")
_EITHER = re.compile(r"[0-9]{1,3}[.,][0-9]{3}")


def has_other_notation(text: str, locale: Locale) -> bool:
    """Whether the text is a number that only the other locale can have written: `1.234,56` under `iso`. `1,234` may be either."""
    cleaned, _ = clean(text)
    try:
        _, digits = _undress(cleaned or "")
    except BadValueError:
        return False
    other = _WITH_COMMA if locale == "iso" else _WITH_POINT
    return other.fullmatch(digits) is not None and not _EITHER.fullmatch(digits)


_THREE_DECIMALS = re.compile(r"\.[0-9]{3}(?![0-9])")


def _integer_iso(text: str, notations: Notations) -> int:
    if _THREE_DECIMALS.search(text):
        raise _bad(text, "may have a thousands dot, which is not clear where the dot is the decimal sign")
    return _integer(_number_iso(text, notations), text)


def _integer_it(text: str, notations: Notations) -> int:
    return _integer(_number_it(text, notations), text)


def _integer(value: Decimal, text: str) -> int:
    whole = int(value)
    if whole != value:
        raise _bad(text, "is not a whole number")
    if not -_INT64_MAX - 1 <= whole <= _INT64_MAX:
        raise _bad(text, "is too large for a 64-bit integer")
    return whole


# -- dates and timestamps

_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})"
_ISO_MOMENT = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    rf"(?:[T ]{_CLOCK}(?:\.(?P<fraction>[0-9]{{1,9}}))?)?"
    r" ?(?P<offset>[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?"
)
_PLAIN_DAY = re.compile(r"(?:19|[2-9][0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}")  # nearly every date; it is not before MIN_YEAR
_COMPACT = re.compile(r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})")
_DAY_FIRST = re.compile(
    rf"(?P<day>[0-9]{{2}})(?P<sign>[/.])(?P<month>[0-9]{{2}})(?P=sign)(?P<year>[0-9]{{4}})(?: {_CLOCK})?)?"
)
_NAMED_MONTH = re.compile(
    rf"(?P<day>[0-9]{{2}})(?P<sign>[-/. ])(?P<month>[^\W\d_]{{3,9}})\.?(?P=sign)(?P<year>[0-9]{{4}})(?: {_CLOCK})?)?"
)
_MONTHS = {
    name: number
    for names in (
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "january february march april may june july august september october november december",
    )
    for number, full in enumerate(names.split(), 1)
    for name in (full, full[:3])
}


def _date(text: str, zone: ZoneInfo, notations: Notations) -> date:
    if _PLAIN_DAY.fullmatch(text):
        with suppress(ValueError):
            return date.fromisoformat(text)
    local = _moment(text, "a date", notations)
    try:
        return (local.astimezone(zone) if local.tzinfo else local).date()
    except OverflowError as exc:
        raise _bad(text, "is out of range") from exc


def _timestamp(text: str, zone: ZoneInfo, notations: Notations) -> datetime:
    local = _moment(text, "a time", notations)
    try:
        return (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError as exc:
        raise _bad(text, "is out of range") from exc


_MOMENTS = {_ISO_MOMENT: "2025-12-31", _DAY_FIRST: "31.12.2025", _COMPACT: "20251231", _NAMED_MONTH: "31-DIC-2025"}
"""Each form, with what is noted of it."""


def _moment(text: str, what: str, notations: Notations) -> datetime:
    """The moment as it is written: aware if it has an offset, else naive."""
    found = next((match for pattern in _MOMENTS if (match := pattern.fullmatch(text))), None)
    month = None if found is None else _month(found["month"])
    if found is None or month is None:
        raise _bad(text, f"is not {what} (YYYY-MM-DD or DD/MM/YYYY)")
    parts = found.groupdict()
    if int(parts["year"]) < MIN_YEAR:
        raise _bad(text, f"is before the year {MIN_YEAR}")
    # PostgreSQL stores no digits below a microsecond
    microsecond = int((parts.get("fraction") or "0")[:6].ljust(6, "0"))
    hour, minute, second = (int(parts.get(name) or 0) for name in ("hour", "minute", "second"))
    try:
        day = date(int(parts["year"]), month, int(parts["day"]))
        moment = datetime.combine(day, time(hour, minute, second, microsecond, tzinfo=_offset(parts.get("offset"))))
    except ValueError:
        raise _bad(text, "is an impossible date or time") from None
    if len(parts.get("hour") or "00") == 1:
        notations.add("8:30")
    if found.re is not _ISO_MOMENT and (found.re is not _DAY_FIRST or parts["sign"] == "."):
        notations.add(_MOMENTS[found.re])
    return moment


def _month(text: str) -> int | None:
    return int(text) if text.isdecimal() else _MONTHS.get(text.casefold())


def _offset(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-delta if text[0] == "-" else delta)
