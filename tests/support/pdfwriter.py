"""Writes PDF files object by object: what a drawing library never draws, and what tells one reader from another."""

import zlib
from collections.abc import Sequence
from pathlib import Path

FONTS = {
    # Every reader has this one; nothing but its name is in the file.
    "F1": b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
}
SHIFT = 3
"""Codes of the fonts F2 (two bytes) and F3 (one byte) are that much above the character's."""
WIDTHS = [500 + 20 * (code % 7) for code in range(256)]


class PdfFile:
    """Objects, numbered from 1 in the order in which they are added."""

    def __init__(self) -> None:
        self.objects: list[bytes] = []

    def add(self, body: bytes) -> int:
        self.objects.append(body)
        return len(self.objects)

    def add_stream(self, data: bytes, about: bytes = b"", *, compress: bool = True) -> int:
        if compress:
            data, about = zlib.compress(data), about + b" /Filter /FlateDecode"
        return self.add(b"<< %s /Length %d >>\nstream\n%s\nendstream" % (about, len(data), data))

    def save(self, path: Path, root: int, *, packed: bool = False) -> None:
        """With a table of cross-references, or (`packed`) as newer writers do: with object streams and a table that is a
        stream with differences."""
        path.write_bytes(self._packed(root) if packed else self._plain(root))

    def _plain(self, root: int) -> bytes:
        out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
        offsets = []
        for number, body in enumerate(self.objects, 1):
            offsets.append(len(out))
            out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        table = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1)
        out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
        out += b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, root, table)
        return bytes(out)

    def _packed(self, root: int) -> bytes:
        out = bytearray(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n")
        places: dict[int, tuple[int, int, int]] = {0: (0, 0, 65535)}
        small = [n for n, body in enumerate(self.objects, 1) if b"stream" not in body]
        container = len(self.objects) + 1
        for number, body in enumerate(self.objects, 1):
            if number not in small:
                places[number] = (1, len(out), 0)
                out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        at, index, bodies = 0, [], []
        for position, number in enumerate(small):
            index.append(b"%d %d " % (number, at))
            bodies.append(self.objects[number - 1] + b"\n")
            at += len(bodies[-1])
            places[number] = (2, container, position)
        places[container] = (1, len(out), 0)
        head = b"".join(index)
        data = zlib.compress(head + b"".join(bodies))
        about = b"/Type /ObjStm /N %d /First %d /Length %d /Filter /FlateDecode" % (len(small), len(head), len(data))
        out += b"%d 0 obj\n<< %s >>\nstream\n%s\nendstream\nendobj\n" % (container, about, data)
        table = len(out)
        places[container + 1] = (1, table, 0)
        rows, above = bytearray(), bytes(7)
        for number in range(container + 2):
            kind, one, two = places[number]
            row = bytes((kind,)) + one.to_bytes(4, "big") + two.to_bytes(2, "big")
            rows += b"\x02" + bytes((a - b) & 255 for a, b in zip(row, above, strict=True))
            above = row
        data = zlib.compress(bytes(rows))
        about = b"/Type /XRef /W [1 4 2] /Size %d /Root %d 0 R /Length %d" % (container + 2, root, len(data))
        about += b" /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 7 >>"
        out += b"%d 0 obj\n<< %s >>\nstream\n%s\nendstream\nendobj\n" % (container + 1, about, data)
        out += b"startxref\n%d\n%%%%EOF\n" % table
        return bytes(out)


def write_pages(
    path: Path,
    contents: Sequence[bytes],
    *,
    page: bytes = b"/MediaBox [0 0 400 300]",
    parts: int = 1,
    compress: bool = True,
    packed: bool = False,
) -> None:
    """A page for each content, with the fonts F1 (Helvetica), F2 and F3; `page` is what its dictionary says of it, `parts` the
    number of streams that a content is cut into, at ends of lines."""
    file = PdfFile()
    fonts = {name: file.add(body) for name, body in FONTS.items()}
    fonts["F2"], fonts["F3"] = _two_byte_font(file), _one_byte_font(file)
    listed = b" ".join(b"/%s %d 0 R" % (name.encode(), number) for name, number in fonts.items())
    image = file.add_stream(
        b"\0", b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8"
    )
    state = file.add(b"<< /Type /ExtGState /ca 0.5 >>")
    resources = file.add(
        b"<< /Font << %s >> /XObject << /Im1 %d 0 R >> /ExtGState << /G1 %d 0 R >> >>" % (listed, image, state)
    )
    kids = []
    for content in contents:
        lines = content.splitlines(keepends=True)
        step = -(-len(lines) // parts) or 1
        streams = [
            file.add_stream(b"".join(lines[i : i + step]), compress=compress) for i in range(0, len(lines), step)
        ]
        listed = b" ".join(b"%d 0 R" % number for number in streams)
        kids.append(
            (b"<< /Type /Page /Parent %%d 0 R %s /Contents [%s]" % (page, listed))
            + b" /Resources %d 0 R >>" % resources
        )
    tree = len(file.objects) + len(kids) + 1
    numbers = [file.add(kid % tree) for kid in kids]
    listed = b" ".join(b"%d 0 R" % number for number in numbers)
    file.add(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(numbers), listed))
    file.save(path, file.add(b"<< /Type /Catalog /Pages %d 0 R >>" % tree), packed=packed)


def _character_map(size: int) -> bytes:
    """One entry for each character of cp1252, and two ranges."""
    digits = 2 * size
    codes = [code for code in range(0x20, 0xFD) if bytes((code,)).decode("cp1252", "ignore")]
    lines = [
        b"<%0*X> <%04X>" % (digits, code + SHIFT, ord(bytes((code,)).decode("cp1252")))
        for code in codes
        if not 0x30 <= code <= 0x5A
    ]
    blocks = [lines[i : i + 100] for i in range(0, len(lines), 100)]
    singles = b"".join(b"%d beginbfchar\n%s\nendbfchar\n" % (len(block), b"\n".join(block)) for block in blocks)
    digits_range = b"<%0*X> <%0*X> <0030>\n" % (digits, 0x30 + SHIFT, digits, 0x39 + SHIFT)
    listed = b" ".join(b"<%04X>" % code for code in range(0x3A, 0x5B))
    letters_range = b"<%0*X> <%0*X> [%s]\n" % (digits, 0x3A + SHIFT, digits, 0x5A + SHIFT, listed)
    space = b"1 begincodespacerange\n<%s> <%s>\nendcodespacerange\n" % (b"00" * size, b"FF" * size)
    ranges = b"2 beginbfrange\n%s%sendbfrange\n" % (digits_range, letters_range)
    return b"/CIDInit /ProcSet findresource begin\nbegincmap\n" + space + singles + ranges + b"endcmap\nend\n"


def _two_byte_font(file: PdfFile) -> int:
    texts = file.add_stream(_character_map(2))
    about = file.add(
        b"<< /Type /FontDescriptor /FontName /Made /Flags 4 /FontBBox [0 -200 1000 800] /Ascent 800 /Descent -200"
        b" /ItalicAngle 0 /CapHeight 700 /StemV 80 >>"
    )
    widths = b" ".join(b"%d" % width for width in WIDTHS[: 256 - SHIFT])
    inner = file.add(
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Made /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity)"
        b" /Supplement 0 >> /FontDescriptor %d 0 R /DW 600 /W [%d [%s]] /CIDToGIDMap /Identity >>"
        % (about, SHIFT, widths)
    )
    return file.add(
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Made /Encoding /Identity-H /DescendantFonts [%d 0 R] /ToUnicode %d 0 R >>"
        % (inner, texts)
    )


def _one_byte_font(file: PdfFile) -> int:
    texts = file.add_stream(_character_map(1))
    about = file.add(
        b"<< /Type /FontDescriptor /FontName /Made2 /Flags 32 /FontBBox [0 -200 1000 800] /Ascent 800 /Descent -200"
        b" /ItalicAngle 0 /CapHeight 700 /StemV 80 >>"
    )
    widths = b" ".join(b"%d" % width for width in WIDTHS[: 256 - SHIFT])
    return file.add(
        b"<< /Type /Font /Subtype /TrueType /BaseFont /Made2 /FirstChar %d /LastChar 255 /Widths [%s] /FontDescriptor %d 0 R"
        b" /ToUnicode %d 0 R >>" % (SHIFT, widths, about, texts)
    )
