"""Whether two exports have the same lines, in whatever order: one pass over the bytes, nothing parsed, no memory.

An ERP that exports the same rows in another order gives another file and the same data. The sum of a digest of each line does not
depend on the order; with the header and the number of lines it says as surely as a checksum that the rows are the same. It is
only asked of files without quotes: a quoted cell may hold a line end, and then lines in another order are other rows. Nor of a
PDF, whose lines are a program.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from archisync.formats.pdf import MAGIC, MAGIC_WITHIN

_BLOCK_BYTES = 1 << 20
_MASK = (1 << 128) - 1
_QUOTE = b'"'


def line_sum(path: Path) -> str | None:
    """A digest of the header line and of the other lines as a multiset; None when order matters or can't be told."""
    total = lines = 0
    rest = b""
    header: bytes | None = None
    digest, from_bytes = hashlib.blake2b, int.from_bytes
    with path.open("rb") as file:
        if MAGIC in file.read(MAGIC_WITHIN):
            return None
        file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            if _QUOTE in block or b"\0" in block:  # a NUL: UTF-16, or no text at all
                return None
            found = (rest + block).split(b"\n")
            rest = found.pop()
            if len(rest) > _BLOCK_BYTES:
                return None
            if header is None and found:
                header = found.pop(0)
            lines += len(found)
            total += sum([from_bytes(digest(line, digest_size=16).digest()) for line in found])
    if header is None or rest:
        return None
    return f"{digest(header, digest_size=16).hexdigest()}-{lines}-{total & _MASK:032x}"
