"""The encoding and the line end of a text file: detected, or checked when they are configured."""

import codecs
from io import TextIOWrapper
from typing import NamedTuple

from archisync.base.errors import ExportError, TruncatedError
from archisync.base.text import counted
from archisync.formats.csv.codepages import refuse_other_code_page
from archisync.formats.csv.content import Content
from archisync.formats.csv.lines import MAX_LINE_CHARS
from archisync.formats.rows import CUT_OFF_HINT, unmarked_utf16

_TAIL_BYTES = 1024
_UTF16_BOMS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
_UTF16_BY_BOM = {bom: encoding for encoding, bom in _UTF16_BOMS.items()}
_UTF32_BY_BOM = {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"}
_DOS_END = "\x1a"  # Ctrl-Z


def configured_codec(content: Content, encoding: str) -> str:
    """The codec for a configured encoding: the one that leaves out the file's byte order mark, if it has one.

    Raises ExportError for UTF-16 when nothing says in which order the bytes are.
    """
    head = content.head[:2]
    if encoding == "utf-16" and head not in _UTF16_BY_BOM:
        if b"\0" not in head:
            raise _invalid(encoding)
        found = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
        raise unmarked_utf16(found)
    if encoding in _UTF16_BOMS and head in _UTF16_BY_BOM:
        if _UTF16_BY_BOM[head] != encoding:
            raise _invalid(encoding)
        return "utf-16"
    return "utf-8-sig" if encoding == "utf-8" else encoding


def detected_codec(content: Content) -> str:
    """The codec that the byte order mark names, else UTF-8 when all of the file is UTF-8, else cp1252.

    Raises ExportError when the file is not text in that encoding, is UTF-8 with damaged bytes, or has letters that make no sense in cp1252.
    """
    head = content.head[:3]
    if content.head[:4] in _UTF32_BY_BOM:
        return checked_codec(content, "utf-32")
    if head[:2] in _UTF16_BY_BOM:
        return checked_codec(content, "utf-16")
    if head == codecs.BOM_UTF8:
        return checked_codec(content, "utf-8-sig")
    if _is_text(content, "utf-8"):
        return "utf-8"
    _refuse_damaged_utf8(content)
    codec = checked_codec(content, "cp1252")
    refuse_other_code_page(content.blocks)
    return codec


def checked_codec(content: Content, codec: str) -> str:
    """The codec. Raises ExportError when it can't decode the whole file."""
    if _is_text(content, codec):
        return codec
    raise _invalid(codec.removesuffix("-sig"))


class Ending(NamedTuple):
    """`line_end` is the character that ends a line. `closed`: the file ends with it, or with Ctrl-Z. `unusual` names what is recorded."""

    line_end: str
    closed: bool
    unusual: str


def find_ending(content: Content, codec: str | None) -> Ending:
    """How the lines and the file end. `codec`: if it is known."""
    encoding = _width_of_characters(content, codec)
    with TextIOWrapper(content.open(), encoding, errors="replace", newline="") as file:
        first = file.readline(MAX_LINE_CHARS)
        doubled = first.endswith("\r") and file.readline(MAX_LINE_CHARS) == "\r\n"
    line_end = "\r" if first.endswith("\r") and not doubled else "\n"
    tail = _tail(content, encoding)
    behind = tail[len(tail.rstrip(_DOS_END + "\r\n")) :]
    found = {"CR CR LF": doubled, "CR": line_end == "\r", "Ctrl-Z": _DOS_END in behind}
    return Ending(
        line_end,
        closed=behind.endswith((line_end, _DOS_END)),
        unusual=", ".join(name for name, is_so in found.items() if is_so),
    )


def _width_of_characters(content: Content, codec: str | None) -> str:
    """An encoding that finds the line ends: Latin-1 finds those of every encoding except UTF-16 and UTF-32."""
    if (found := _UTF32_BY_BOM.get(content.head[:4])) is not None:
        return found
    return _UTF16_BY_BOM.get(content.head[:2]) or (codec if codec in _UTF16_BOMS else "latin-1")


def _tail(content: Content, encoding: str) -> str:
    """The last characters. Raises TruncatedError for a file that is cut inside a character."""
    if content.size_bytes % len("\n".encode(encoding)):
        raise TruncatedError("truncated: the last character is cut off", hint=CUT_OFF_HINT)
    with content.open() as file:
        file.seek(max(content.size_bytes - _TAIL_BYTES, 0))
        return file.read().decode(encoding, errors="replace")


def _is_text(content: Content, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for block in content.blocks():
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _invalid(encoding: str) -> ExportError:
    return ExportError(
        f"the export is not valid {encoding} text", hint="export it as UTF-8, or set ARCHISYNC_CSV_ENCODING"
    )


def _refuse_damaged_utf8(content: Content) -> None:
    """Raise ExportError when the file is UTF-8 with some damaged bytes: as cp1252, all its accented letters would be wrong.

    In cp1252 text, accented letters that form a valid UTF-8 sequence are rare. In UTF-8 text they are the rule.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    valid = invalid = 0
    for block in content.blocks():
        text = decoder.decode(block)
        decodable = text.encode("utf-8", "ignore").decode("utf-8")
        invalid += len(text) - len(decodable)
        valid += len(decodable) - len(decodable.encode("ascii", "ignore"))
    if valid >= max(invalid, 1):
        raise ExportError(
            f"the export is UTF-8 text with {counted(invalid, 'damaged byte')}",
            hint="export it again, all of it as UTF-8",
        )
