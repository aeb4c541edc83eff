"""What the codes of a PDF's fonts stand for, and how wide they are (ISO 32000-1, 9.6 to 9.10): fonts that say so themselves.

A code that the font doesn't explain, or a character that PDFium changes on the way, raises `Unsure`.
"""

import codecs
import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from archisync.formats.pdf.file import HEX, File, Name, Stream, Unsure, unescaped

STANDARD = frozenset(
    f"{family}{style}"
    for family, styles in (
        ("Helvetica", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Courier", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Times-", ("Roman", "Bold", "Italic", "BoldItalic")),
    )
    for style in styles
)
"""Fonts that every reader has, so a file need not say how wide their characters are."""
# No soft hyphen, no ligature, no private use, no writing from right to left: PDFium and other readers treat these in
# ways of their own.
_PLAIN = (
    (0x20, 0x7F), (0xA0, 0xAD), (0xAE, 0x250), (0x386, 0x3CF), (0x400, 0x460), (0x1E00, 0x1F00), (0x2012, 0x2027),
    (0x2030, 0x203F), (0x20A0, 0x20C0), (0x2100, 0x2140), (0x2150, 0x2190),
)  # fmt: skip
_MOST_CODES = 65536
_WIDEST = 2500  # thousandths of the font size
_LARGEST_MAP = 1 << 20
_SIMPLE = ("Type1", "TrueType", "MMType1")
_CODE = HEX + rb"\s*+"
_MAPS = re.compile(
    rb"(?P<what>codespacerange|bfchar|bfrange)\b(?P<entries>(?:\s++|<[0-9A-Fa-f\s]*+>|\[[^\[\]]*+\])*+)end(?P=what)\b"
)
_PAIR = re.compile(rb"\s*+(" + _CODE + rb")(" + _CODE + rb")")
_RANGE = re.compile(rb"\s*+(" + _CODE + rb")(" + _CODE + rb")(\[[^\[\]]*+\]|" + HEX + rb")\s*+")
_HEX = re.compile(HEX)

Decoded = tuple[str, float]  # the text, and its width in units of the font size


class Font:
    """`decode` gives a string's text, and its width in units of the font size; raises ValueError, LookupError or struct.error
    for a code that it doesn't know. `single`: a code is one byte, else two."""

    def __init__(self, decode: Callable[[bytes], Decoded], *, single: bool) -> None:
        self.decode = decode
        self.single = single


def load(file: File, about: dict[str, Any], standard_widths: Callable[[str], list[float]]) -> Font:
    """The font of that dictionary. `standard_widths` are of the 256 codes of cp1252, in units of the font size, nan for none.

    Raises Unsure, and what Python raises for a malformed dictionary.
    """
    kind = about["Subtype"]
    texts = _unicode_map(file, about)
    if kind == "Type0":
        return _composite(file, about, texts)
    if kind not in _SIMPLE:
        raise Unsure("kind of font")
    if texts is None:
        if about.get("Encoding") != "WinAnsiEncoding":
            raise Unsure("encoding")
        texts = _windows()
    return _simple(texts, _widths(file, about, standard_widths))


def _simple(texts: dict[int, str], widths: list[float]) -> Font:
    known = {code: text for code, text in texts.items() if widths[code] == widths[code]}
    table: Any = known
    if all(len(text) == 1 for text in known.values()):
        table = "".join(known.get(code, "\ufffe") for code in range(256))  # several times as fast
    width, text_of = widths.__getitem__, codecs.charmap_decode

    def decode(raw: bytes) -> Decoded:
        return text_of(raw, "strict", table)[0], sum(map(width, raw))

    return Font(decode, single=True)


def _composite(file: File, about: dict[str, Any], texts: dict[int, str] | None) -> Font:
    if texts is None or file.get(about["Encoding"]) != "Identity-H":
        raise Unsure("encoding")
    descendant = file.get(file.get(about["DescendantFonts"])[0])
    usual = _em(file.get(descendant.get("DW", 1000)))
    widths = dict.fromkeys(texts, usual)
    widths.update(islice(_listed_widths(file.get(descendant.get("W", []))), _MOST_CODES))
    width, text_of = widths.__getitem__, texts.__getitem__

    def decode(raw: bytes) -> Decoded:
        codes = struct.unpack(f">{len(raw) // 2}H", raw)
        return "".join(map(text_of, codes)), sum(map(width, codes))

    return Font(decode, single=False)


def _widths(file: File, about: dict[str, Any], standard_widths: Callable[[str], list[float]]) -> list[float]:
    """Of 256 codes, in units of the font size; nan for those that the font doesn't have."""
    if "Widths" not in about:
        name = about["BaseFont"]
        if name not in STANDARD or "FontDescriptor" in about:
            raise Unsure("widths")
        return standard_widths(name)
    widths = [float("nan")] * 256
    first, listed = file.get(about["FirstChar"]), file.get(about["Widths"])
    if not 0 <= first <= 256 - len(listed):
        raise Unsure("widths")
    for code, width in enumerate(listed, first):
        widths[code] = _em(file.get(width))
    return widths


def _em(width: float) -> float:
    """A width in units of the font size."""
    if not 0 <= width <= _WIDEST:
        raise Unsure("width")
    return width / 1000


def _listed_widths(listed: list[Any]) -> Iterator[tuple[int, float]]:
    """Those of a composite font (9.7.4.3)."""
    at = 0
    while at < len(listed):
        first, second = listed[at], listed[at + 1]
        if isinstance(second, list):
            yield from ((code, _em(width)) for code, width in enumerate(second, first))
            at += 2
        else:
            if not first <= second < _MOST_CODES:
                raise Unsure("widths")
            yield from ((code, _em(listed[at + 2])) for code in range(first, second + 1))
            at += 3


def _windows() -> dict[int, str]:
    return _plain((code, bytes((code,)).decode("cp1252", "ignore")) for code in range(256))


def _plain(texts: Iterator[tuple[int, str]]) -> dict[int, str]:
    """Only those that no reader changes."""
    return {code: text for code, text in texts if text and all(map(_is_plain, text))}


def _is_plain(character: str) -> bool:
    return any(start <= ord(character) < end for start, end in _PLAIN)


def _unicode_map(file: File, about: dict[str, Any]) -> dict[int, str] | None:
    """The font's own map from codes to text (9.10.3); None without one."""
    stream = file.get(about.get("ToUnicode"))
    if stream is None or isinstance(stream, Name):
        return None
    assert isinstance(stream, Stream)
    data = file.content(stream)
    if len(data) > _LARGEST_MAP or b"usecmap" in data:
        raise Unsure("character map")
    size = 2 if about["Subtype"] == "Type0" else 1
    texts: dict[int, str] = {}
    codes = 0
    for section in _MAPS.finditer(data):
        entries = section["entries"]
        if section["what"] == b"codespacerange":
            if any(len(unescaped(code)) != size for code in _HEX.findall(entries)):
                raise Unsure("codes of another size")
        else:
            pattern, each = (_PAIR, _one) if section["what"] == b"bfchar" else (_RANGE, _range)
            if pattern.sub(b"", entries).strip():
                raise Unsure("character map")
            for groups in pattern.findall(entries):
                found = dict(each(*groups))
                codes += len(found)
                if codes > 2 * _MOST_CODES:
                    raise Unsure("character map")
                texts.update(found)
    return _plain(iter(texts.items()))


def _one(code: bytes, text: bytes) -> Iterator[tuple[int, str]]:
    yield _code(code), _text(text)


def _range(first: bytes, last: bytes, texts: bytes) -> Iterator[tuple[int, str]]:
    start, end = _code(first), _code(last)
    if not start <= end < _MOST_CODES:
        raise Unsure("character map")
    if texts.startswith(b"["):
        yield from zip(range(start, end + 1), map(_text, _HEX.findall(texts)), strict=True)
        return
    text = _text(texts)
    for code in range(start, end + 1):
        yield code, text[:-1] + chr(ord(text[-1]) + code - start)


def _code(digits: bytes) -> int:
    return int.from_bytes(unescaped(digits.strip()), "big")


def _text(digits: bytes) -> str:
    return unescaped(digits.strip()).decode("utf-16-be") or "\ufffe"
