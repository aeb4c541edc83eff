"""Text that may come from anywhere, made fit to be shown on a terminal or in a log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move the cursor, reorder text or can't be encoded."""
_BMP_END = 0xFFFF


def printable(text: str, *, limit: int = 2000) -> str:
    """The text in one line without control, formatting or unencodable characters (each becomes �), at most `limit` long."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if hidden else c for c, hidden in _looked_at(text.replace("\n", " ").replace("\t", " ")))


def escaped(json_text: str) -> str:
    """One line of JSON whose hidden characters are written as JSON escapes: the same document, harmless on a terminal."""
    if json_text.isascii() and json_text.isprintable():
        return json_text
    return "".join(_escape(c) if hidden else c for c, hidden in _looked_at(json_text))


def _looked_at(text: str) -> Iterator[tuple[str, bool]]:
    """Each character, and whether it is a hidden one."""
    from unicodedata import category  # what is in plain ASCII needs no such table: most of what a tick says

    return ((character, category(character) in _HIDDEN) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code <= _BMP_END:
        return f"\\u{code:04x}"
    code -= _BMP_END + 1
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


_TENTHS_BELOW_S = 10.0
_CREDENTIALS = r"(?<=://)[^/\s'\"]*(?=@)"
_KEYWORD = r"\b(\w*(?:password|passwd|pwd|token|secret|api[_-]?key|access[_-]?key))\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)"
_AUTHORIZATION = r"\b(authorization:\s*[a-z]+|bearer(?=\s+\S{8}))\s+[^\s'\"]+"


def redact(text: str) -> str:
    """The text with the password of every URL, of every `password=…` and every bearer token replaced by `***`."""

    def hide(match: re.Match[str]) -> str:
        user, colon, _password = match.group().partition(":")
        return f"{user}:***" if colon else user

    text = re.sub(_AUTHORIZATION, r"\1 ***", text, flags=re.I)
    return re.sub(_KEYWORD, r"\1=***", re.sub(_CREDENTIALS, hide, text), flags=re.I)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 row`, `3 rows`. `plural` where it is not the noun and an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds: 2026-11-23T10:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(span: timedelta) -> str:
    """A span in its largest sensible unit: 45 s, 12 min, 3 h, 2 d."""
    seconds = abs(span.total_seconds())
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400)} d"


def seconds(number: float) -> str:
    """A measured time as people say it: 28 ms, 1.5 s, 12 s, 3 min."""
    if number < 1:
        return f"{number * 1000:.0f} ms"
    return f"{number:.1f} s" if number < _TENTHS_BELOW_S else duration(timedelta(seconds=number))


def relative(moment: datetime, now: datetime) -> str:
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {duration(moment - now)}" if moment > now else f"{duration(now - moment)} ago"
