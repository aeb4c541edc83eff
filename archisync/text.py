"""Text that may come from anywhere, made fit to be shown on a terminal or in a log."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that move the cursor, reorder text or can't be encoded."""


def printable(text: str, *, limit: int = 2000) -> str:
    """The text in one line without control, formatting or unencodable characters (each becomes �), at most `limit` long."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if unicodedata.category(c) in _HIDDEN else c for c in text.replace("\n", " ").replace("\t", " "))
