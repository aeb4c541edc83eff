"""Unpacking gzip and zstd as far as asked, so that a bomb never fills memory, and puts little on the disk.

Both are recognised by their first bytes, not by a name or a header, which may be wrong.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from io import FileIO
from typing import Any, Protocol, cast

from archisync.base.errors import ConfigurationError, ExportError, TruncatedError

BLOCK_BYTES = 256 * 1024
MAX_UNPACK_RATIO = 200
"""Exports shrink to a fifth or a thirtieth. One that unpacks to 200 times its size is a bomb, and is stopped long before `max_bytes`."""
_RATIO_FROM_BYTES = 64 * 1024 * 1024  # below it any ratio is harmless: the same few rows, many times
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAGIC_BYTES = len(_ZSTD_MAGIC)


class Readable(Protocol):
    """What an export is read from. Errors of the source must leave `read` as errors of archisync."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def too_large(origin: str, max_bytes: int) -> ExportError:
    return ExportError(
        f"{origin} has more than {max_bytes} bytes (decompressed)",
        hint="raise the limit ARCHISYNC_MAX_EXPORT_BYTES if the export is really that large",
    )


def require_no_bomb(packed_bytes: int, size_bytes: int, origin: str) -> None:
    """Raise ExportError when so many bytes unpack to so many more that nobody can have meant it."""
    if size_bytes <= max(packed_bytes * MAX_UNPACK_RATIO, _RATIO_FROM_BYTES):
        return
    raise ExportError(
        f"{origin} unpacks to more than {size_bytes} bytes, {MAX_UNPACK_RATIO} times its size",
        hint="look into it; an export that is really so repetitive can be written unpacked",
    )


class WholeReads:
    """Reads exactly as many bytes as asked, except at the end. `read_bytes`: how many the source has returned so far; `first`: its
    first block.

    A pipe or socket returns what it has, and gzip's reader would take half a header for a damaged one.
    """

    def __init__(self, content: Readable) -> None:
        self.read_bytes = 0
        self.first = b""
        self._content = content
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        part, self._ahead = self._ahead[:size], self._ahead[size:]
        if not part:
            part = self._next(size)
        parts, missing = [part], size - len(part)
        if not missing:
            return part
        while part and missing > 0 and (block := self._next(missing)):
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def _next(self, size: int) -> bytes:
        block = self._content.read(size)
        self.read_bytes += len(block)
        self.first = self.first or block[: len(_GZIP_MAGIC)]
        return block

    def peek(self, size: int) -> bytes:
        """The first bytes, which the next `read` returns again. Call it before any `read`."""
        self._ahead = self.read(size)
        return self._ahead


class Unzipped:
    """Unpacks gzip."""

    def __init__(self, content: Readable, *, origin: str, damaged_hint: str) -> None:
        self._packed = WholeReads(content)
        self._file = self._open()
        self._size_bytes = 0
        self._origin = origin
        self._hint = damaged_hint

    def read(self, size: int, /) -> bytes:
        """Raises TruncatedError for data that is cut or damaged, ExportError for a bomb."""
        block = self._unpacked(size)
        self._size_bytes += len(block)
        require_no_bomb(self._packed.read_bytes, self._size_bytes, self._origin)
        return block

    def _open(self) -> Any:
        return gzip.GzipFile(fileobj=cast(FileIO, self._packed), mode="rb")  # it only calls `read`

    def _unpacked(self, size: int) -> bytes:
        try:
            return cast(bytes, self._file.read(size))
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            if "Not a gzipped file" in str(exc) and self._packed.first.startswith(_GZIP_MAGIC):
                raise self._has_more("gzip") from exc
            raise TruncatedError(
                f"{self._origin}: the gzip data is truncated or damaged ({exc})", hint=self._hint
            ) from exc

    def _has_more(self, packing: str) -> ExportError:
        return ExportError(
            f"{self._origin} has other bytes after the end of its {packing} data",
            hint="the transfer or a script added them: transfer it in binary mode; " + self._hint,
        )


class _Unzstd(Unzipped):
    """Unpacks zstd, with the standard library from Python 3.14 on, and with its backport before."""

    def _open(self) -> Any:
        try:
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd
        except ModuleNotFoundError:
            raise ConfigurationError(
                "the export is compressed with zstd, and the library that reads it is not installed",
                hint="pip install 'archisync[zstd]'",
            ) from None
        self._error = zstd.ZstdError
        return zstd.ZstdFile(cast(FileIO, self._packed), "rb")

    def _unpacked(self, size: int) -> bytes:
        try:
            return cast(bytes, self._file.read(size))
        except (EOFError, self._error) as exc:
            if "Unknown frame descriptor" in str(exc):  # not of the first frame: its magic number was seen
                raise self._has_more("zstd") from exc
            raise TruncatedError(
                f"{self._origin}: the zstd data is truncated or damaged ({exc})", hint=self._hint
            ) from exc


def unpacked(content: WholeReads, *, origin: str, damaged_hint: str) -> Readable:
    """The content without its compression; the content itself if it has none. Raises ConfigurationError without the library."""
    head = content.peek(MAGIC_BYTES)
    if head.startswith(_GZIP_MAGIC):
        return Unzipped(content, origin=origin, damaged_hint=damaged_hint)
    if head == _ZSTD_MAGIC:
        return _Unzstd(content, origin=origin, damaged_hint=damaged_hint)
    return content
