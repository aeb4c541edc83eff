"""Texts of cells and their values: what is read, what is refused and with which message. Nothing is guessed."""

from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.rules.labels import strip_accents
from archisync.rules.synctypes import Kind
from archisync.rules.values import (
    MAX_CELL_BYTES,
    MAX_DECIMALS,
    MAX_DIGITS,
    MAX_IDENTIFIER_CHARS,
    BadValueError,
    Locale,
    clean,
    has_other_notation,
    parse,
)

ROME = ZoneInfo("Europe/Rome")
LOCALES: tuple[Locale, ...] = ("iso", "it")


def number(text: str, locale: Locale = "iso") -> object:
    return parse(Kind.NUMBER, text, locale, ROME)


def integer(text: str, locale: Locale = "iso") -> object:
    return parse(Kind.INTEGER, text, locale, ROME)


def refusal(kind: Kind, text: str, locale: Locale = "iso") -> str:
    with pytest.raises(BadValueError) as refused:
        parse(kind, text, locale, ROME)
    return str(refused.value)


# -- cleaning


@pytest.mark.parametrize(
    ("text", "cleaned", "removed"),
    [
        ("x", "x", 0),
        ("", None, 0),
        (" \t\r\n\u00a0\u2003", None, 0),
        ("  a \n\t b  ", "a b", 0),
        ("a\x00b\x1bc\x7f", "abc", 3),
        ("\x00", None, 1),
        ("a\ud800b", "ab", 1),
        ("a\x85b", "a b", 0),  # NEL is white space
        ("\ufeffa", "\ufeffa", 0),  # no white space and no control character: text is kept as it is
    ],
)
def test_white_space_collapses_and_control_characters_are_removed(text: str, cleaned: str | None, removed: int) -> None:
    assert clean(text) == (cleaned, removed)


@pytest.mark.parametrize("unit", ["x", "€", "\U0001f600"])
def test_cell_of_64_kib_is_read_and_a_longer_one_is_refused(unit: str) -> None:
    fits = unit * (MAX_CELL_BYTES // len(unit.encode()))
    assert clean(fits) == (fits, 0)
    with pytest.raises(BadValueError, match=r"^is longer than 64 KiB$"):
        clean(fits + unit)


@given(st.text())
def test_cleaning_twice_equals_cleaning_once(text: str) -> None:
    once, _ = clean(text)
    assert once is None or clean(once) == (once, 0)


@given(st.text())
def test_cleaned_text_can_be_stored(text: str) -> None:
    cleaned, _ = clean(text)
    assert "\0" not in (cleaned or "")
    (cleaned or "").encode("utf-8")


def test_accents_are_removed_and_letters_stay() -> None:
    assert [strip_accents(t) for t in ("Città", "Citta\u0300", "QUANTITÀ", "plain", "ß")] == [
        "Citta", "Citta", "QUANTITA", "plain", "ß",
    ]  # fmt: skip


# -- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("007", "7"),
        ("1234.56", "1234.56"),
        ("-0.00", "0.00"),
        (".5", "0.5"),
        ("+3", "3"),
        ("1 234 567.89", "1234567.89"),
        ("1\u00a0234", "1234"),
        ("12.50 %", "12.50"),
        ("€ 12.50", "12.50"),
        ("12.50€", "12.50"),
        ("-360.65", "-360.65"),
        ("360.65-", "-360.65"),
        ("(360.65)", "-360.65"),
        ("\N{MINUS SIGN}360.65", "-360.65"),
        ("- € 5", "-5"),
        ("€ -5", "-5"),
        ("5 € -", "-5"),
        ("1E+3", "1000"),
        ("1.5e-3", "0.0015"),
        ("9" * MAX_DIGITS, "9" * MAX_DIGITS),
        ("0." + "1" * MAX_DECIMALS, "0." + "1" * MAX_DECIMALS),
    ],
)
def test_iso_numbers(text: str, value: str) -> None:
    assert str(number(text)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("5", "5"),
        ("12", "12"),
        ("1234", "1234"),
        ("12,5", "12.5"),
        ("1.234,56", "1234.56"),
        ("1.234.567", "1234567"),
        ("1 234,5", "1234.5"),
        (",5", "0.5"),
        ("-360,65", "-360.65"),
        ("360,65-", "-360.65"),
        ("(360,65)", "-360.65"),
        ("\N{MINUS SIGN}1.000", "-1000"),
        ("12,50 %", "12.50"),
        ("€ 1.234,56", "1234.56"),
    ],
)
def test_italian_numbers(text: str, value: str) -> None:
    assert str(number(text, "it")) == value


_ISO = "is not a number with a decimal point"
_IT = "is not a number with a decimal comma"
_SIGNS = "is not a number: its signs contradict each other"
_DIGITS = "has more than 30 digits or 12 decimals"


@pytest.mark.parametrize(
    ("text", "locale", "why"),
    [
        ("1,234", "iso", _ISO),
        ("1.234,56", "iso", _ISO),
        ("5.", "iso", _ISO),
        ("12 34", "iso", _ISO),
        ("e5", "iso", "is not a number"),
        ("1234.56", "it", _IT),
        ("0.123", "it", _IT),
        ("1.23.456", "it", _IT),
        ("1E+3", "it", _IT),
        ("5,", "it", _IT),
        ("x5", "iso", "is not a number"),
        ("A5", "it", "is not a number"),
        ("=5", "iso", "is not a number"),
        ("5x", "iso", "is not a number"),
        ("1_000", "iso", "is not a number"),
        ("٣", "iso", "is not a number"),
        ("１", "it", "is not a number"),
        ("NaN", "iso", "is not a number"),
        ("-Infinity", "iso", "is not a number"),
        ("--5", "iso", _SIGNS),
        ("-5-", "iso", _SIGNS),
        ("(-5)", "iso", _SIGNS),
        ("(5", "it", _SIGNS),
        ("5)", "iso", _SIGNS),
        ("1" * (MAX_DIGITS + 1), "iso", _DIGITS),
        ("0." + "0" * MAX_DECIMALS + "1", "iso", _DIGITS),
        ("1E400", "iso", _DIGITS),
        ("1E999", "iso", _DIGITS),
    ],
)
def test_unclear_numbers_are_refused(text: str, locale: Locale, why: str) -> None:
    assert refusal(Kind.NUMBER, text, locale) == f"{text!r} {why}"


@pytest.mark.parametrize(
    ("text", "locale", "other"),
    [
        ("1.234,56", "iso", True), ("8,50", "iso", True), ("€ 8,5-", "iso", True), ("1.234.567", "iso", True), ("1234,567", "iso", True),
        ("1,234", "iso", False), ("1.234", "iso", False), ("1,2,3", "iso", False), ("8,5 m", "iso", False), ("", "iso", False),
        ("1,234.56", "it", True), ("8.50", "it", True), ("1,234,567", "it", True), ("1234.567", "it", True),
        ("1.234", "it", False), ("1,234", "it", False), ("8.5.", "it", False),
    ],
)  # fmt: skip
def test_a_number_that_only_the_other_notation_has(text: str, locale: Locale, other: bool) -> None:
    """Three digits after one sign may be thousands or decimals: they prove nothing."""
    assert has_other_notation(text, locale) is other


def test_refusal_shows_forty_characters_and_no_control_character() -> None:
    assert refusal(Kind.NUMBER, "7" * 5000) == f"'{'7' * 40}'… is not a number"
    assert refusal(Kind.NUMBER, "a\u202eb") == r"'a\u202eb' is not a number"


_DECIMALS = st.decimals(min_value=-(10**18), max_value=10**18, places=4, allow_nan=False, allow_infinity=False)


@given(_DECIMALS)
def test_every_decimal_is_read_back_under_iso(value: Decimal) -> None:
    assert number(f"{value:f}") == value


@given(_DECIMALS)
def test_every_decimal_is_read_back_under_it_with_and_without_dots(value: Decimal) -> None:
    swapped = f"{value:,.4f}".translate(str.maketrans(",.", ".,"))
    assert number(swapped, "it") == value
    assert number(f"{value:f}".replace(".", ","), "it") == value


@given(_DECIMALS, st.sampled_from(["{}", "+{}", "€ {}", "{} €", "{} %"]), st.sampled_from(["-{}", "{}-", "({})"]))
def test_currency_signs_do_not_change_the_amount_and_a_minus_only_changes_the_sign(
    value: Decimal, dress: str, minus: str
) -> None:
    text = f"{abs(value):f}"
    assert number(dress.format(text)) == abs(value)
    assert number(minus.format(text)) == -abs(value)


@given(st.text(alphabet="0123456789., -−+()€%eE_x", max_size=12), st.sampled_from(LOCALES))
def test_number_has_exactly_the_digits_that_were_written(text: str, locale: Locale) -> None:
    """In an accepted number no digit is lost, added or turned into a sign."""
    try:
        value = number(text, locale)
    except BadValueError:
        return
    if value is None or "e" in text.lower():
        return
    assert isinstance(value, Decimal)
    written = "".join(c for c in text if c in "0123456789").lstrip("0")
    assert f"{abs(value):f}".replace(".", "").lstrip("0") == written
    assert (value < 0) <= any(c in text for c in "-−(")


@given(st.text(max_size=20), st.sampled_from(list(Kind)), st.sampled_from(LOCALES))
def test_any_text_gives_a_value_or_a_bad_value_error(text: str, kind: Kind, locale: Locale) -> None:
    try:
        value = parse(kind, text, locale, ROME)
    except BadValueError as exc:
        assert str(exc).isprintable()
        return
    if isinstance(value, Decimal):
        assert value.is_finite()
    assert not isinstance(value, float)


# -- integers


@pytest.mark.parametrize(
    ("text", "locale", "value"),
    [
        ("5", "iso", 5),
        ("5.0", "iso", 5),
        ("5.0000", "iso", 5),
        ("-7", "iso", -7),
        ("1E3", "iso", 1000),
        ("1.895", "it", 1895),
        ("5,00", "it", 5),
        ("9223372036854775807", "iso", 2**63 - 1),
        ("-9223372036854775808", "iso", -(2**63)),
    ],
)
def test_integers(text: str, locale: Locale, value: int) -> None:
    found = integer(text, locale)
    assert (found, type(found)) == (value, int)


@pytest.mark.parametrize(
    ("text", "locale", "why"),
    [
        ("1.5", "iso", "is not a whole number"),
        ("1,5", "it", "is not a whole number"),
        ("1.000", "iso", "may have a thousands dot, which is not clear where the dot is the decimal sign"),
        ("9223372036854775808", "iso", "is too large for a 64-bit integer"),
        ("-9223372036854775809", "it", "is too large for a 64-bit integer"),
        ("1,0", "iso", _ISO),
    ],
)
def test_unclear_integers_are_refused(text: str, locale: Locale, why: str) -> None:
    assert refusal(Kind.INTEGER, text, locale) == f"{text!r} {why}"


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(LOCALES))
def test_every_64_bit_integer_is_read_back(value: int, locale: Locale) -> None:
    assert integer(str(value), locale) == value


# -- identifiers, booleans, text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70.962", "70962"),
        ("1.234.567", "1234567"),
        ("001.234", "001.234"),
        ("0070962", "0070962"),
        ("70.96", "70.96"),
        ("1.2345", "1.2345"),
        ("A.123", "A.123"),
        ("IT 01234567890", "IT 01234567890"),
        ("1E5", "1E5"),
        ("٣", "٣"),
        ("x" * MAX_IDENTIFIER_CHARS, "x" * MAX_IDENTIFIER_CHARS),
    ],
)
@pytest.mark.parametrize("locale", LOCALES)
def test_identifier_is_kept_except_for_thousands_dots(text: str, value: str, locale: Locale) -> None:
    assert parse(Kind.IDENTIFIER, text, locale, ROME) == value


def test_identifier_that_is_too_long_for_an_index_is_refused() -> None:
    assert refusal(Kind.IDENTIFIER, "x" * 257) == f"'{'x' * 40}'… is longer than 256 characters"


@given(st.integers(0, 10**30))
def test_numeric_identifier_is_the_same_with_and_without_dots(value: int) -> None:
    dotted = f"{value:,}".replace(",", ".")
    assert parse(Kind.IDENTIFIER, dotted, "it", ROME) == parse(Kind.IDENTIFIER, str(value), "iso", ROME) == str(value)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("Sì", "si", "SI\u0300", "Yes", "TRUE", "Checked", "1", "Vero", "S", "X"), True),
        (("No", "false", "Unchecked", "0", "", " ", "FALSO", "n"), False),
    ],
)
def test_booleans(words: tuple[str, ...], value: bool) -> None:
    assert [parse(Kind.BOOLEAN, word, "iso", ROME) for word in words] == [value] * len(words)


@pytest.mark.parametrize("text", ["maybe", "2", "y", "t", "-1", "true false", "١"])
def test_unclear_booleans_are_refused(text: str) -> None:
    assert refusal(Kind.BOOLEAN, text) == f"{text!r} is not yes or no"


@pytest.mark.parametrize(
    "text", ["1.234,56", "1 234,56", "1\u00a0234,56", "1\u2009234,56", "1\u202f234,56", "\u00a01234,56"]
)
def test_every_blank_may_separate_thousands(text: str) -> None:
    assert number(text, "it") == Decimal("1234.56")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.BOOLEAN])
@pytest.mark.parametrize("text", ["", "   ", "\n", "\0"])
def test_empty_cell_is_null(kind: Kind, text: str) -> None:
    assert parse(kind, text, "iso", ROME) is None


def test_text_is_kept_unchanged() -> None:
    assert parse(Kind.TEXT, " =1+1  <b>à\u202e ", "it", ROME) == "=1+1 <b>à\u202e"
