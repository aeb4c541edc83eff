"""Ways to ruin a good export, each of one kind of column or of several columns: all the rows as they would come."""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from html.entities import codepoint2name
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus
from zoneinfo import ZoneInfo

from archisync.rules.synctypes import SYNC_TYPES, Field, Kind, Role, SyncType
from tests.support.tables import Row

TEXTS = (Kind.TEXT, Kind.IDENTIFIER)
NUMBERS = (Kind.NUMBER, Kind.INTEGER)
DAYS = (Kind.DATE, Kind.TIMESTAMP)
_ACCENT = re.compile(r"[^\x00-\x7f]")


class Mutation(NamedTuple):
    """`rule` is what it ought to be held for; the guard may hold it for another reason. `ruin` takes the rows that are concerned, and the
    columns, and changes the rows in place."""

    name: str
    rule: str
    kinds: Sequence[Kind]
    ruin: Callable[[list[Row], Sequence[str]], None]
    columns: int = 1
    roles: Sequence[Role | None] = (None, Role.COUNTER, Role.PLANNED, Role.TERM)
    fits: Callable[[list[Row], str], bool] = lambda rows, name: True


def _each(change: Callable[[Any], Any]) -> Callable[[list[Row], Sequence[str]], None]:
    def ruin(rows: list[Row], names: Sequence[str]) -> None:
        for row in rows:
            for name in names:
                if row[name] is not None:
                    row[name] = change(row[name])

    return ruin


def _rotate_columns(rows: list[Row], names: Sequence[str]) -> None:
    for row in rows:
        values = [row[name] for name in names]
        row.update(zip(names, [values[-1], *values[:-1]], strict=True))


def _reorder(order: Callable[[list[Any]], list[Any]]) -> Callable[[list[Row], Sequence[str]], None]:
    def ruin(rows: list[Row], names: Sequence[str]) -> None:
        for name in names:
            for row, value in zip(rows, order([row[name] for row in rows]), strict=True):
                row[name] = value

    return ruin


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values, key=lambda value: (value is None, value if value is not None else ""))


def _shuffled(values: list[Any]) -> list[Any]:
    return random.Random(7).sample(values, len(values))


def _recode(written: str, read: str) -> Callable[[str], str]:
    return lambda text: " ".join(text.encode(written, "replace").decode(read, "replace").split())


def _exchange(day: Any) -> Any:
    return day.replace(day=day.month, month=day.day) if day.day <= 12 else day


def _year(years: int) -> Callable[[Any], Any]:
    return lambda day: day.replace(year=day.year + years, day=28 if (day.month, day.day) == (2, 29) else day.day)


def _step(**step: int) -> Callable[[Any], Any]:
    return lambda day: day + timedelta(**step)


def _ids(rows: list[Row], names: Sequence[str]) -> None:
    for row in rows:
        key = next(v for k, v in row.items() if k.endswith(("_id", "_number")) and v)
        row.update(dict.fromkeys(names, key))


def _copy(join: Callable[[str, str], tuple[str, str | None]]) -> Callable[[list[Row], Sequence[str]], None]:
    """What becomes of two texts of a row."""

    def ruin(rows: list[Row], names: Sequence[str]) -> None:
        for row in rows:
            one, other = (row[name] for name in names)
            if one and other:
                row.update(zip(names, join(str(one), str(other)), strict=True))

    return ruin


def _glue(one: str, other: str) -> tuple[str, str | None]:
    return f"{one} {other}", None


def _add(one: str, other: str) -> tuple[str, str | None]:
    return f"{other}{one}", other


def _over(_: str, other: str) -> tuple[str, str | None]:
    return other, other


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0)


def _split(one: str, _: str) -> tuple[str, str | None]:
    first, _, rest = one.partition(" ")
    return first, rest or None


def _draw_down(step: Callable[[Any, int], Any]) -> Callable[[list[Row], Sequence[str]], None]:
    def ruin(rows: list[Row], names: Sequence[str]) -> None:
        for name in names:
            first = next((row[name] for row in rows if row[name] is not None), None)
            for number, row in enumerate(rows):
                row[name] = step(first, number)

    return ruin


def _count_up(text: str, number: int) -> str:
    bare = text.rstrip("0123456789")
    return f"{bare}{int(text[len(bare) :] or 1) + number}"


def _made_up(rows: list[Row], names: Sequence[str]) -> None:
    rng = random.Random(3)
    for row in rows:
        for name in names:
            row[name] = " ".join(
                rng.choice(["Gamma", "Delta", "Zeta", "Theta", "Kappa"]) + str(rng.randint(1, 999)) for _ in "ab"
            )


def _on_another_clock(moment: datetime) -> datetime:
    """A time of Rome that was read as UTC."""
    return moment.astimezone(ZoneInfo("Europe/Rome")).replace(tzinfo=UTC)


def _in_thousandths(day: Any) -> Any:
    first = datetime(1970, 1, 1, tzinfo=UTC) if isinstance(day, datetime) else date(1970, 1, 1)
    return first + (day - first) / 1000


def _without_point(number: Decimal) -> Decimal:
    return Decimal(f"{number.normalize():f}".replace(".", ""))


def _blanks(rows: list[Row], name: str) -> bool:
    return _varied(rows, name) and sum(" " in str(row[name] or "") for row in rows) * 10 >= 9 * len(rows)


def _long(rows: list[Row], name: str) -> bool:
    return _varied(rows, name) and sum(len(str(row[name] or "")) > 6 for row in rows) * 10 >= 9 * len(rows)


def _large(rows: list[Row], name: str) -> bool:
    return _several(rows, name) and sum(abs(row[name] or 0) >= 100 for row in rows) * 10 >= 9 * len(rows)  # type: ignore[arg-type, operator]


def _ampersands(rows: list[Row], name: str) -> bool:
    return sum("&" in str(row[name] or "") and str(row[name]).isascii() for row in rows) * 20 >= len(rows)


def _accented(rows: list[Row], name: str) -> bool:
    return sum(not str(row[name] or "").isascii() for row in rows) * 5 >= len(rows)


def _varied(rows: list[Row], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return len(values) * 10 >= len(rows) * 7 and len(set(values)) * 2 > len(values)


def _several(rows: list[Row], name: str) -> bool:
    return len({row[name] for row in rows if row[name] is not None}) >= min(8, max(3, len(rows) // 2 + 1))


def _fractions(rows: list[Row], name: str) -> bool:
    return _several(rows, name) and all(row[name] is None or row[name] % 1 for row in rows[:2])  # type: ignore[operator]


def _zeros(rows: list[Row], name: str) -> bool:
    return sum(str(row[name] or "").startswith("0") and str(row[name]).isdigit() for row in rows) * 4 >= len(rows)


def _digits(rows: list[Row], name: str) -> bool:
    return _varied(rows, name) and all(str(row[name] or "0").isdigit() for row in rows)


def _begin_apart(rows: list[Row], name: str) -> bool:
    return _digits(rows, name) and len({str(row[name])[:3] for row in rows}) * 2 > len(rows)


def _some_empty(rows: list[Row], name: str) -> bool:
    return sum(row[name] is None for row in rows) >= 6


def _as_power(text: str) -> str:
    return f"{float(text):.2E}" if text.isdigit() else text


def _spell_empty(rows: list[Row], names: Sequence[str]) -> None:
    for row in rows:
        row.update({name: "NULL" for name in names if row[name] is None})


def _some_true(rows: list[Row], name: str) -> bool:
    return sum(row[name] is True for row in rows) * 2 >= len(rows)


def _texts(name: str, rule: str, change: Callable[[str], str], **more: Any) -> Mutation:
    return Mutation(name, rule, TEXTS, _each(change), roles=(None,), **more)


def _garbled(name: str, change: Callable[[str], str]) -> Mutation:
    return Mutation(name, "garbled", (Kind.TEXT,), _each(change), roles=(None,), fits=_accented)


MUTATIONS = [
    Mutation("a text emptied", "emptied", (Kind.TEXT,), _each(lambda _: None), roles=(None, Role.ENUM)),
    Mutation("an identifier emptied", "emptied", (Kind.IDENTIFIER,), _each(lambda _: None)),
    Mutation("a number emptied", "emptied", NUMBERS, _each(lambda _: None)),
    Mutation("a date emptied", "emptied", DAYS, _each(lambda _: None)),
    Mutation("five columns emptied", "emptied", (*TEXTS, *NUMBERS), _each(lambda _: None), columns=5),
    Mutation("a yes emptied", "emptied", (Kind.BOOLEAN,), _each(lambda _: False), fits=_some_true),
    _texts("the same text", "constant", lambda _: "Mario Rossi S.r.l.", fits=_several),
    _texts("a placeholder", "constant", lambda _: "N/A", fits=_several),
    Mutation("the same number", "constant", NUMBERS, _each(lambda _: Decimal(9)), roles=(None, Role.COUNTER), fits=_several),
    Mutation("all zero", "constant", NUMBERS, _each(lambda _: Decimal(0)), roles=(None,), fits=_several),
    Mutation("the same old date", "constant", DAYS, _each(lambda d: d.replace(year=1970, month=1, day=1)), fits=_several),
    Mutation("× 100", "rescaled", NUMBERS, _each(lambda n: n * 100), fits=_several),
    Mutation("× 10", "rescaled", NUMBERS, _each(lambda n: n * 10), fits=_several),
    Mutation("× 1000", "rescaled", NUMBERS, _each(lambda n: n * 1000), fits=_several),
    Mutation("÷ 100", "rescaled", (Kind.NUMBER,), _each(lambda n: n / 100), fits=_several),
    Mutation("÷ 1000", "rescaled", (Kind.NUMBER,), _each(lambda n: n / 1000), fits=_several),
    Mutation("÷ 100, rounded", "rescaled", (Kind.NUMBER,), _each(lambda n: round(n / 100, 2)), fits=_several),
    Mutation("two amounts × 100", "rescaled", (Kind.NUMBER,), _each(lambda n: n * 100), columns=2, fits=_several),
    Mutation("signs flipped", "rescaled", NUMBERS, _each(lambda n: -n), fits=_several),
    Mutation("day and month exchanged", "dates-swapped", DAYS, _each(_exchange), fits=_several),
    Mutation("day and month exchanged in two columns", "dates-swapped", DAYS, _each(_exchange), columns=2, fits=_several),
    Mutation("a year later", "dates-moved", DAYS, _each(_year(1)), roles=(None, Role.PLANNED), fits=_several),
    Mutation("a year earlier", "dates-moved", DAYS, _each(_year(-1)), fits=_several),
    Mutation("a century earlier", "dates-moved", DAYS, _each(_year(-100)), fits=_several),
    Mutation("counted from 1904", "dates-moved", DAYS, _each(_step(days=-1462)), fits=_several),
    Mutation("365 days later", "dates-moved", DAYS, _each(_step(days=365)), roles=(None, Role.PLANNED), fits=_several),
    Mutation("an hour later", "dates-moved", (Kind.TIMESTAMP,), _each(_step(hours=1)), roles=(None,), fits=_several),
    Mutation("a day earlier", "dates-moved", DAYS, _each(_step(days=-1)), roles=(None,), fits=_several),
    Mutation("two texts exchanged", "columns-swapped", (Kind.TEXT,), _rotate_columns, columns=2, roles=(None,)),
    Mutation("two identifiers exchanged", "columns-swapped", (Kind.IDENTIFIER,), _rotate_columns, columns=2),
    Mutation("two numbers exchanged", "columns-swapped", (Kind.NUMBER,), _rotate_columns, columns=2, roles=(None,)),
    Mutation("two dates exchanged", "columns-swapped", (Kind.DATE,), _rotate_columns, columns=2),
    Mutation("three texts rotated", "columns-swapped", (Kind.TEXT,), _rotate_columns, columns=3, roles=(None,)),
    Mutation("five texts rotated", "columns-swapped", (Kind.TEXT,), _rotate_columns, columns=5, roles=(None,)),
    Mutation("names become numbers", "columns-swapped", (Kind.TEXT,), _ids, roles=(None,)),
    Mutation("a text one row on", "rows-shuffled", TEXTS, _reorder(lambda v: [v[-1], *v[:-1]]), roles=(None,), fits=_varied),
    Mutation("a number one row on", "rows-shuffled", NUMBERS, _reorder(lambda v: [v[-1], *v[:-1]]), roles=(None,), fits=_varied),
    Mutation("six columns one row on", "rows-shuffled", TEXTS, _reorder(lambda v: [v[-1], *v[:-1]]), columns=6, roles=(None,)),
    Mutation("a text sorted", "rows-shuffled", TEXTS, _reorder(_sorted), roles=(None,), fits=_varied),
    Mutation("a number sorted", "rows-shuffled", NUMBERS, _reorder(_sorted), roles=(None,), fits=_varied),
    Mutation("a text shuffled", "rows-shuffled", TEXTS, _reorder(_shuffled), roles=(None,), fits=_varied),
    Mutation("a text upside down", "rows-shuffled", TEXTS, _reorder(lambda v: v[::-1]), roles=(None,), fits=_varied),
    _garbled("encoded twice", _recode("utf-8", "cp1252")),
    _garbled("encoded three times", lambda t: _recode("utf-8", "cp1252")(_recode("utf-8", "cp1252")(t))),
    _garbled("latin-1 as UTF-8", _recode("latin-1", "utf-8")),
    _garbled("read as cp850", _recode("cp1252", "cp850")),
    _garbled("written in cp850", _recode("cp850", "cp1252")),
    _garbled("read as Mac Roman", _recode("utf-8", "mac_roman")),
    _garbled("question marks", lambda t: _ACCENT.sub("?", t)),
    _garbled("replacement characters", lambda t: _ACCENT.sub("\ufffd", t)),
    _garbled("accents gone", lambda t: _ACCENT.sub("", t)),
    _garbled("HTML's entities", lambda t: "".join(f"&{codepoint2name[ord(c)]};" if not c.isascii() else c for c in t)),
    _texts("cut to five characters", "cut-values", lambda t: t[:5].strip(), fits=_varied),
    _texts("cut to eight characters", "cut-values", lambda t: t[:8].strip(), fits=_varied),
    Mutation("decimals gone", "cut-values", (Kind.NUMBER,), _each(lambda n: Decimal(int(n))), roles=(None,), fits=_fractions),
    _texts("in quotes", "garbled", lambda t: f'"{t}"', fits=_varied),
    _texts("in a table's cell", "garbled", lambda t: f"<td>{t}</td>", fits=_varied),
    _texts("masked", "garbled", lambda t: t[:1] + "*" * max(3, len(t) - 1), fits=_varied),
    Mutation("a power of ten", "cut-values", (Kind.IDENTIFIER,), _each(_as_power), roles=(None,), fits=_digits),
    Mutation("beginnings gone", "cut-values", (Kind.IDENTIFIER,), _each(lambda t: t[3:]), roles=(None,), fits=_begin_apart),
    Mutation("empty cells spelled NULL", "garbled", (Kind.TEXT,), _spell_empty, roles=(None,), fits=_some_empty),
    Mutation("two texts in one", "columns-swapped", (Kind.TEXT,), _copy(_glue), columns=2, roles=(None,), fits=_long),
    Mutation("a text added to another", "columns-swapped", (Kind.TEXT,), _copy(_add), columns=2, roles=(None,), fits=_long),
    Mutation("a text copied over another", "columns-swapped", (Kind.TEXT,), _copy(_over), columns=2, roles=(None,), fits=_long),
    Mutation("a text split", "columns-swapped", (Kind.TEXT,), _copy(_split), columns=2, roles=(None,), fits=_blanks),
    Mutation("the first one drawn down", "constant", (*TEXTS, *NUMBERS), _draw_down(lambda first, _: first), roles=(None,), fits=_several),
    Mutation("a text that counts up", "constant", TEXTS, _draw_down(_count_up), roles=(None,), fits=_varied),
    Mutation("a number that counts up", "constant", NUMBERS, _draw_down(lambda first, n: first + n), roles=(None,), fits=_varied),
    Mutation("a date that counts up", "constant", DAYS, _draw_down(lambda first, n: first + timedelta(days=n)), fits=_varied),
    _texts("backwards", "garbled", lambda t: t[::-1], fits=_varied),
    _texts("as in an address", "garbled", quote, fits=_blanks),
    _texts("as in a form's address", "garbled", quote_plus, fits=_blanks),
    _texts("with the mark of a text", "garbled", lambda t: f"'{t}", fits=_varied),
    _texts("with a control character spelled out", "garbled", lambda t: f"{t}_x000D_", fits=_varied),
    _texts("masked with letters", "garbled", lambda t: t[:1] + "X" * max(4, len(t)), fits=_varied),
    _texts("what people type to try", "garbled", lambda t: ["test", "Prova 2", "aaa", "asdf"][len(t) % 4], fits=_varied),
    Mutation("a status to try", "garbled", TEXTS, _each(lambda _: "TEST"), roles=(Role.ENUM,)),
    Mutation("& spelled out", "garbled", TEXTS, _each(html.escape), roles=(None,), fits=_ampersands),
    _garbled("as in a mail", lambda t: "".join(c if c.isascii() else "".join(f"={b:02X}" for b in c.encode()) for c in t)),
    _garbled("as in program text", lambda t: t.encode("ascii", "backslashreplace").decode()),
    _texts("cut to two characters", "cut-values", lambda t: t[:2].strip(), fits=_long),
    _texts("the last character gone", "cut-values", lambda t: t[:-1].strip(), fits=_long),
    Mutation("the decimal sign gone", "rescaled", (Kind.NUMBER,), _each(_without_point), fits=_fractions),
    Mutation("a dozen", "rescaled", NUMBERS, _each(lambda n: n * 12), roles=(None,), fits=_several),
    Mutation("the 12th part", "rescaled", (Kind.NUMBER,), _each(lambda n: round(n / 12, 2)), roles=(None,), fits=_large),
    Mutation("in lire", "rescaled", (Kind.NUMBER,), _each(lambda n: round(n * Decimal("1936.27"), 2)), roles=(None,), fits=_several),
    Mutation("without VAT", "rescaled", (Kind.NUMBER,), _each(lambda n: round(n / Decimal("1.22"), 2)), roles=(None,), fits=_several),
    Mutation("with VAT", "rescaled", (Kind.NUMBER,), _each(lambda n: round(n * Decimal("1.22"), 2)), roles=(None,), fits=_several),
    Mutation("rounded", "cut-values", (Kind.NUMBER,), _each(lambda n: Decimal(round(n))), roles=(None,), fits=_fractions),
    Mutation("the first digits gone", "cut-values", NUMBERS, _each(lambda n: n % 100), roles=(None,), fits=_large),
    Mutation("the last digit gone", "rescaled", NUMBERS, _each(lambda n: n // 10), roles=(None,), fits=_large),
    Mutation("in thousandths", "dates-moved", DAYS, _each(_in_thousandths), fits=_several),
    Mutation("the end of time", "dates-moved", DAYS, _each(lambda d: d.replace(year=9999, month=12, day=31)), roles=(None,), fits=_several),
    Mutation("on another clock", "dates-moved", (Kind.TIMESTAMP,), _each(_on_another_clock), roles=(None,), fits=_several),
    Mutation("half an hour more", "dates-moved", (Kind.TIMESTAMP,), _each(_step(hours=5, minutes=30)), roles=(None,), fits=_several),
    Mutation("the time of day gone", "cut-values", (Kind.TIMESTAMP,), _each(_midnight), roles=(None,), fits=_several),
    Mutation("the first of the month", "cut-values", DAYS, _each(lambda d: d.replace(day=1)), roles=(None,), fits=_several),
    Mutation("dates one row on", "dates-moved", DAYS, _reorder(lambda v: [v[-1], *v[:-1]]), roles=(None,), fits=_varied),
    Mutation("made up", "replaced", (Kind.TEXT,), _made_up, roles=(None,), fits=_long),
    _texts("a sum of letters", "replaced", lambda t: md5(t.encode(), usedforsecurity=False).hexdigest(), fits=_long),
    Mutation("the opposite", "replaced", (Kind.BOOLEAN,), _each(lambda b: not b)),
    _texts("leading zeros gone", "cut-values", lambda t: t.lstrip("0") if t.isdigit() else t, fits=_zeros),
]  # fmt: skip


class Case(NamedTuple):
    mutation: Mutation
    columns: tuple[str, ...]
    rows: list[Row]


def cases(type_name: str, old: Sequence[Row], share: int, seed: int = 0) -> Iterator[Case]:
    """The table with each mutation that its columns allow, in `share` percent of its rows, over the usual changes of a day."""
    type_ = SYNC_TYPES[type_name]
    for mutation in MUTATIONS:
        rng = random.Random(f"{type_name} {mutation.name} {len(old)} {share} {seed}")
        columns = _columns(type_, mutation, list(old), rng)
        if columns is None:
            continue
        rows = [dict(row) for row in old]
        usual_changes(type_, rows, rng)
        concerned = sorted(rng.sample(range(len(rows)), -(-len(rows) * share // 100)))
        mutation.ruin([rows[i] for i in concerned], columns)
        yield Case(mutation, columns, rows)


def _columns(type_: SyncType, mutation: Mutation, rows: list[Row], rng: random.Random) -> tuple[str, ...] | None:
    fitting = [
        field.name
        for field in type_.fields
        if field.name not in type_.key
        and field.kind in mutation.kinds
        and field.role in mutation.roles
        and sum(row[field.name] is not None for row in rows) * 2 >= len(rows)
        and mutation.fits(rows, field.name)
        and not (mutation.rule == "emptied" and field.required)
    ]
    return tuple(rng.sample(fitting, mutation.columns)) if len(fitting) >= mutation.columns else None


def usual_changes(type_: SyncType, rows: list[Row], rng: random.Random) -> None:
    """A day's: 3 % of the rows have another value in a column or two."""
    fields = [field for field in type_.fields if field.name not in type_.key]
    for row in rng.sample(rows, len(rows) * 3 // 100):
        for field in rng.sample(fields, 2):
            row[field.name] = _usual(field, row[field.name], rng)


def _usual(field: Field, value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | Decimal):
        return value + rng.randint(1, 9)
    if isinstance(value, datetime | date):
        return value + timedelta(days=rng.randint(1, 9))
    return f"{value} bis" if value and field.role is not Role.ENUM else value
