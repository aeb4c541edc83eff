"""Bad values, each in a row of its own."""

from tests.faults.badinput.cases import (
    CASE_LINE,
    LABELS,
    BadExport,
    Outcome,
    good_row,
    with_row,
)


def _value(
    name: str, field: str, text: str, words: str, *, sync_type: str = "customers", locale: str = "iso"
) -> BadExport:
    """A row whose cells are good but for one."""
    cells = dict(zip(LABELS[sync_type], good_row(sync_type, "bad").rstrip("\n").split(","), strict=True))
    row = ",".join(f'"{cell}"' for cell in (cells | {field: text}).values()) + "\n"
    content = with_row(row, sync_type)
    if locale == "it":  # the good rows in that locale
        content = content.replace(",12.50,", ',"12,50",')
    return BadExport(
        id=name, form="value", given=content.encode(), outcome=Outcome.QUARANTINED, words=f"{text!r} {words}",
        line=CASE_LINE, field=field, sync_type=sync_type, locale=locale,
    )  # fmt: skip


def _number(name: str, text: str, words: str = "is not a number", locale: str = "iso") -> BadExport:
    return _value(name, "sales_amount", text, words, locale=locale)


def _integer(name: str, text: str, words: str = "is not a number", locale: str = "iso") -> BadExport:
    return _value(name, "orders_count", text, words, locale=locale)


def _date(name: str, text: str, words: str = "is not a date (YYYY-MM-DD or DD/MM/YYYY)") -> BadExport:
    return _value(name, "last_order_date", text, words)


def _time(name: str, text: str, words: str = "is not a time (YYYY-MM-DD or DD/MM/YYYY)") -> BadExport:
    return _value(name, "created_at", text, words, sync_type="orders")


_ISO = "is not a number with a decimal point"
_IT = "is not a number with a decimal comma"
_SIGNS = "is not a number: its signs contradict each other"
_DIGITS = "has more than 30 digits or 12 decimals"
_IMPOSSIBLE = "is an impossible date or time"

VALUES = (
    _number("arabic-digits", "١٢٣"),
    _number("full-width-digits", "１２"),
    _number("underscore", "1_000"),
    _number("nan", "NaN"),
    _number("infinity", "Infinity"),
    _number("inf", "-inf"),
    _number("hexadecimal", "0x1F"),
    _number("fraction-sign", "½"),
    _number("words", "dodici"),
    _number("formula", "=1+1"),
    _number("excel-error", "#N/A"),
    _number("decimal-comma-under-iso", "12,50", _ISO),
    _number("thousands-comma-under-iso", "1,234.56", _ISO),
    _number("two-points", "1.2.3", _ISO),
    _number("point-at-the-end", "5.", _ISO),
    _number("decimal-point-under-it", "1234.56", _IT, "it"),
    _number("exponent-under-it", "1E+3", _IT, "it"),
    _number("misplaced-thousands-under-it", "12.34,5", _IT, "it"),
    _number("two-signs", "-5-", _SIGNS),
    _number("open-bracket", "(5", _SIGNS),
    _number("sign-alone", "-"),
    _number("currency-alone", "€"),
    _number("dollar", "$5"),
    _number("10-to-the-400", "1E400", _DIGITS),
    _number("10-to-the-minus-400", "1E-400", _DIGITS),
    _number("exponent-of-four-digits", "1E1000"),
    _number("31-digits", "1" * 31, _DIGITS),
    _number("13-decimals", "0." + "1" * 13, _DIGITS),
    _integer("int64-overflow", "9223372036854775808", "is too large for a 64-bit integer"),
    _integer("int64-underflow", "-9223372036854775809", "is too large for a 64-bit integer"),
    _integer("fraction", "1.5", "is not a whole number"),
    _integer(
        "thousands-point-under-iso",
        "1.895",
        "may have a thousands dot, which is not clear where the dot is the decimal sign",
    ),
    _integer("fraction-under-it", "1,5", "is not a whole number", "it"),
    _integer("yes-as-an-integer", "yes"),
    _date("31-february", "31/02/2026", _IMPOSSIBLE),
    _date("29-february", "2026-02-29", _IMPOSSIBLE),
    _date("month-first", "01/31/2026", _IMPOSSIBLE),
    _date("month-zero", "2026-00-10", _IMPOSSIBLE),
    _date("year-zero", "0000-01-01", "is before the year 1900"),
    _date("year-1899", "31/12/1899", "is before the year 1900"),
    _date("year-10000", "10000-01-01"),
    _date("two-digit-year", "31/01/26"),
    _date("one-digit-day", "1/2/2026"),
    _date("excel-serial", "46053"),
    _date("dots", "31.1.2026"),
    _date("month-name", "31 genaro 2026"),
    _date("arabic-date", "٢٠٢٦-٠١-٣١"),
    _date("infinity-date", "infinity"),
    _time("hour-24", "2026-01-31 24:00:00", _IMPOSSIBLE),
    _time("second-60", "2026-12-31 23:59:60", _IMPOSSIBLE),
    _time("offset-beyond", "2026-01-31T10:00:00+25:00"),
    _time("beyond-year-9999", "9999-12-31T23:59:59-10:00", "is out of range"),
    _time("twelve-hours", "01/31/2026 10:00 PM"),
    _time("now", "now"),
    _value("boolean-word", "closed", "maybe", "is not yes or no", sync_type="invoices"),
    _value("boolean-number", "closed", "2", "is not yes or no", sync_type="invoices"),
)
