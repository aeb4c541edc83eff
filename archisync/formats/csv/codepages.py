"""Code pages in which a byte is another letter than in cp1252: what tells them from western text.

Each byte has a meaning in all of them, so only what western words don't have can tell: `ł` of cp1250 is `³` in cp1252, which is never
between two letters. The shares were chosen on 60 lists of words, names and sentences in western languages, so that none of them is taken
for another one; a few dozen lines in another language are noticed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

from archisync.base.errors import ExportError

_ASCII = bytes(range(0x80))
_LETTERS = bytes(range(0xC0, 0x100))
_LETTERS_IN_A_ROW = re.compile(rb"[\xc0-\xff]{3,}")
_FEW = 4  # no word of another alphabet has so few different letters only
_RARE = 20  # one of so many bytes is an accented letter: more than in any western language


_Places: TypeAlias = dict[int, re.Pattern[bytes]]


def _places(signs: bytes, behind: bytes, before: bytes = b"") -> _Places:
    """For each of the bytes, where it stands between these. A pattern that begins with its byte is found as fast as the byte."""
    return {
        sign: re.compile(re.escape(bytes([sign])) + (rb"(?<=[%b]%b)" % (before, re.escape(bytes([sign]))) if before else b"") + behind)
        for sign in signs
    }  # fmt: skip


_DOS = _places(b"\x82\x8a\x95", b"", before=b"a-z")
"""`é`, `è` and `ò` of cp850 are `‚`, `Š` and `•`, which don't stand behind a small letter."""
_MAC = _places(b"\x87\x88\x89\x8a\x8b\x8c\x8e\x98\x9f", b"(?![A-Z])", before=b"A-Za-z")
"""`á`, `à`, `é`, `ò` and `ü` of Mac OS Roman are `‡`, `ˆ`, `Ž`, `˜` and `Ÿ`, which stand in words of capital letters at most."""
_SYMBOL_IN_WORD = _places(b"\xa3\xa5\xaa\xaf\xb3\xb9\xba\xbc\xbe\xbf", rb"(?=[a-z\xe0-\xff])", before=b"A-Za-z")
"""`ł`, `ą`, `ż` (Polish), `ľ` (Slovak) and `ş` (Romanian) of cp1250 are `³`, `¹`, `¿`, `¾` and `º`."""
_FINAL_IN_WORD = _places(b"\xec\xf9", rb"(?=[a-z])")
"""`ě` and `ů` (Czech) are `ì` and `ù`, which stand at the end of a word in Italian and French."""
_E_IN_WORD = _places(b"\xe8", rb"(?=[a-z])")
_O_IN_WORD = _places(b"\xf5", rb"(?!e)")
"""`ő` (Hungarian) is `õ`, which stands before an `e` in Portuguese."""


class _Letters:
    """What a file has above ASCII. `blocks` reads the file anew."""

    def __init__(self, blocks: Callable[[], Iterable[bytes]]) -> None:
        self._blocks = blocks
        self._counts: Counter[int] = Counter()
        self.in_rows = 0
        """Letters with at least two others beside them."""
        for block in blocks():
            high = block.translate(None, _ASCII)
            # A Counter of the bytes takes three times as long.
            counts = Counter({sign: high.count(sign) for sign in set(high)})
            self._counts += counts
            if sum(counts[sign] for sign in _LETTERS) * _RARE > len(block):
                self.in_rows += sum(map(len, _LETTERS_IN_A_ROW.findall(block)))
        self.all = self._counts.total()
        self.letters = sum(self._counts[sign] for sign in _LETTERS)
        self.distinct = sum(1 for sign in _LETTERS if self._counts[sign])

    def of(self, letters: str) -> int:
        """How many of these letters of cp1252 there are."""
        return sum(self._counts[sign] for sign in letters.encode("cp1252"))

    def at(self, places: _Places, least: float) -> bool:
        """Whether letters stand in at least so many of these places; the file is read anew if it has enough of the letters."""
        letters = {sign: pattern for sign, pattern in places.items() if self._counts[sign]}
        if sum(self._counts[sign] for sign in letters) < least:
            return False
        return sum(len(pattern.findall(block)) for block in self._blocks() for pattern in letters.values()) >= least


def _is_dos(seen: _Letters) -> bool:
    return seen.at(_DOS, seen.letters + 1)


def _is_mac(seen: _Letters) -> bool:
    return seen.at(_MAC, seen.letters + 1)


def _is_other_alphabet(seen: _Letters) -> bool:
    """Whether it is Cyrillic or Greek: no western word has three accented letters in a row, and these have little else."""
    return 2 * seen.in_rows > seen.letters and seen.distinct >= _FEW


def _is_polish_or_romanian(seen: _Letters) -> bool:
    return seen.at(_SYMBOL_IN_WORD, max(2, seen.all / 50))


def _is_czech(seen: _Letters) -> bool:
    return seen.of("šžŠŽý") >= max(3, seen.all / 8) and seen.at(_FINAL_IN_WORD, max(3, seen.all / 30))


def _is_slovene_or_croatian(seen: _Letters) -> bool:
    """`č` is `è`, and other letters are rare."""
    hooked, least = seen.of("šžŠŽ"), max(3, seen.all / 5)
    if hooked < least or (hooked + seen.of("èÈæÆðÐ")) * 10 < seen.all * 9:
        return False
    return seen.at(_E_IN_WORD, least)


def _is_hungarian(seen: _Letters) -> bool:
    if not seen.of("û") or seen.of("ãä") * 100 > seen.all or min(map(seen.of, ("é", "á", "öü"))) * 20 < seen.all:
        return False
    return seen.at(_O_IN_WORD, max(4, seen.all / 30))


def _is_turkish_or_baltic(seen: _Letters) -> bool:
    """`ş` and `ğ`, or `ž` and `š`, are `þ` and `ð`, which stand among `í`, `ó` and `ú` in Icelandic."""
    return seen.of("ðþÐÞ") >= max(8, seen.all / 10) and seen.of("íóú") * 50 <= seen.all


_CENTRAL_EUROPE = ("letters of Central Europe (Czech, Polish …) rather than those", "cp1250 or iso-8859-2")
_OTHERS: dict[Callable[[_Letters], bool], tuple[str, str]] = {
    _is_dos: ("the letters of DOS rather than those", "cp850"),
    _is_mac: ("the letters of an old Mac rather than those", "mac-roman"),
    _is_other_alphabet: ("letters of another alphabet than that", "cp1251 or cp1253"),
    _is_polish_or_romanian: _CENTRAL_EUROPE,
    _is_czech: _CENTRAL_EUROPE,
    _is_slovene_or_croatian: _CENTRAL_EUROPE,
    _is_hungarian: _CENTRAL_EUROPE,
    _is_turkish_or_baltic: ("letters of Turkish or a Baltic language rather than those", "cp1254 or cp1257"),
}  # fmt: skip


def refuse_other_code_page(blocks: Callable[[], Iterable[bytes]]) -> None:
    """Raise ExportError when the text, which is no UTF-8, is in another code page than cp1252. `blocks` reads the file anew."""
    seen = _Letters(blocks)
    for is_other, (what, pages) in _OTHERS.items():
        if is_other(seen):
            raise ExportError(
                f"the export is not UTF-8, and has {what} of cp1252",
                hint=f"export it as UTF-8, or set ARCHISYNC_CSV_ENCODING to {pages}, or to cp1252 if it is that",
            )
