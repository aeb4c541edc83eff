"""The form in which the labels of columns are compared."""

import re
import unicodedata

_APOSTROPHE_ACCENT = re.compile(r"(?<=[AEIOU])['`](?=[ :]|$)")


def strip_accents(text: str) -> str:
    """The text without accents: `Città` → `Citta`."""
    if text.isascii():
        return text
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare)


def fold_label(label: str) -> str:
    """The form in which labels are compared: upper case, no accents, no trailing colon, single blanks, no byte order mark. `_` stays.

    `CITTA'` is CITTÀ on a keyboard without capital accents.
    """
    folded = " ".join(
        strip_accents(label.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lstrip("\ufeff").upper()).split()
    )
    return _APOSTROPHE_ACCENT.sub("", folded).rstrip(": ")
