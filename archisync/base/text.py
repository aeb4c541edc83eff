"""Text for terminals and logs: printable, without passwords, and the notation of counts, times and durations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move the cursor, reorder text or can't be encoded."""
_BMP_END = 0xFFFF


def printable(text: str, *, limit: int = 2000) -> str:
    """The text as one line of at most `limit` characters; each control, formatting or unencodable character becomes �."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if hidden else c for c, hidden in _classified(text.replace("\n", " ").replace("\t", " ")))


def with_hint(message: str, hint: str | None) -> str:
    """A message and its hint where there is one line for both."""
    return f"{message} (hint: {hint})" if hint else message


def escaped(json_text: str) -> str:
    """The same JSON document with hidden characters as JSON escapes, so that it is harmless on a terminal."""
    if json_text.isascii() and json_text.isprintable():
        return json_text
    return "".join(_escape(c) if hidden else c for c, hidden in _classified(json_text))


def _classified(text: str) -> Iterator[tuple[str, bool]]:
    """Each character, and whether it is hidden."""
    from unicodedata import category  # imported here: plain ASCII, most of what a tick shows, does not need the table

    return ((character, category(character) in _HIDDEN) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code <= _BMP_END:
        return f"\\u{code:04x}"
    code -= _BMP_END + 1
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


_TENTHS_BELOW_S = 10.0
_MAY_HAVE_SECRET = re.compile(r"://|=|authorization|bearer", re.I).search
_CREDENTIALS = r"(?<=://)[^/\s'\"]*(?=@)"
_KEYWORD = r"\b(\w*(?:password|passwd|pwd|token|secret|api[_-]?key|access[_-]?key))\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)"
_AUTHORIZATION = r"\b(authorization:\s*[a-z]+|bearer(?=\s+\S{8}))\s+[^\s'\"]+"


def redact(text: str) -> str:
    """The text with the password of every URL, of every `password=…` and every bearer token replaced by `***`."""

    def hide(match: re.Match[str]) -> str:
        user, colon, _password = match.group().partition(":")
        return f"{user}:***" if colon else user

    if not _MAY_HAVE_SECRET(text):  # a worker logs several values for each run
        return text
    text = re.sub(_AUTHORIZATION, r"\1 ***", text, flags=re.I)
    return re.sub(_KEYWORD, r"\1=***", re.sub(_CREDENTIALS, hide, text), flags=re.I)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 row`, `3 rows`. `plural`: where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds: 2026-11-23T10:00:00Z."""
    return moment.astimezone(UTC).isoformat()[:19] + "Z"  # a third of the time of strftime


def duration(span: timedelta) -> str:
    """A span in its largest sensible unit: 45 s, 12 min, 3 h, 2 d."""
    seconds = abs(span.total_seconds())
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400)} d"


def seconds(number: float) -> str:
    """A measured time: 28 ms, 1.5 s, 12 s, 3 min."""
    if number < 1:
        return f"{number * 1000:.0f} ms"
    return f"{number:.1f} s" if number < _TENTHS_BELOW_S else duration(timedelta(seconds=number))


def relative(moment: datetime, now: datetime) -> str:
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {duration(moment - now)}" if moment > now else f"{duration(now - moment)} ago"
