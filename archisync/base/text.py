"""Text that may come from anywhere, made fit to be shown on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Iterator

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
