"""Copying an export into the spool directory: unpacked, hashed and limited in size. Every source copies with it.

Gzip is recognised by its first bytes, not by a name or a header, which may be wrong.
"""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, cast

from archisync.base.errors import ExportError, TransientSourceError, TruncatedError
from archisync.sources.interface import Request

BLOCK_BYTES = 256 * 1024
MAX_UNPACK_RATIO = 200
"""Exports shrink to a fifth or a thirtieth. One that unpacks to 200 times its size is a bomb, and is stopped long before `max_bytes`."""
_RATIO_FROM_BYTES = 64 * 1024 * 1024  # below it any ratio is harmless: the same few rows, many times
_GZIP_MAGIC = b"\x1f\x8b"


class Readable(Protocol):
    """What an export is read from. Errors of the source must leave `read` as errors of archisync."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """`packed`: the content was gzip."""

    path: Path
    size_bytes: int
    sha256: str
    packed: bool


def spool(content: Readable, request: Request, *, origin: str, damaged_hint: str = "export it again") -> Spooled:
    """Copy the content, unpacked and hashed, into a new file of mode 0600. Leaves no file when it raises.

    Raises ExportError above the request's `max_bytes`, TruncatedError for cut or damaged gzip, TransientSourceError for a full or missing
    spool directory, and what `content.read` raises.
    """
    whole = WholeReads(content)
    packed = whole.peek(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    unpacked = Unzipped(whole, origin=origin, damaged_hint=damaged_hint) if packed else whole
    with _spool_errors(request.spool_dir):
        fd, name = tempfile.mkstemp(prefix=f"{request.sync_type}-", dir=request.spool_dir)
    target = Path(name)
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with os.fdopen(fd, "wb", buffering=0) as out:
            while block := unpacked.read(BLOCK_BYTES):
                size_bytes += len(block)
                if size_bytes > request.max_bytes:
                    raise too_large(origin, request.max_bytes)
                digest.update(block)
                with _spool_errors(request.spool_dir):
                    _write_all(out, block)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Spooled(path=target, size_bytes=size_bytes, sha256=digest.hexdigest(), packed=packed)


def too_large(origin: str, max_bytes: int) -> ExportError:
    return ExportError(
        f"{origin} has more than {max_bytes} bytes (decompressed)",
        hint="raise the limit ARCHISYNC_MAX_EXPORT_BYTES if the export is really that large",
    )


def _bomb(origin: str, size_bytes: int) -> ExportError:
    return ExportError(
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
        parts, self._ahead = [self._ahead[:size]], self._ahead[size:]
        missing = size - len(parts[0])
        while missing > 0 and (block := self._content.read(missing)):
            parts.append(block)
            self.first = self.first or block[: len(_GZIP_MAGIC)]
            missing -= len(block)
            self.read_bytes += len(block)
        return b"".join(parts)

    def peek(self, size: int) -> bytes:
        """The first bytes, which the next `read` returns again. Call it before any `read`."""
        self._ahead = self.read(size)
        return self._ahead


class Unzipped:
    """Unpacks gzip as far as asked, so that a bomb never fills memory, and puts little on the disk."""

    def __init__(self, content: Readable, *, origin: str, damaged_hint: str) -> None:
        self._packed = WholeReads(content)
        self._file = gzip.GzipFile(fileobj=cast(FileIO, self._packed), mode="rb")  # it only calls `read`
        self._size_bytes = 0
        self._origin = origin
        self._hint = damaged_hint

    def read(self, size: int, /) -> bytes:
        """Raises TruncatedError for gzip that is cut or damaged, ExportError for a bomb."""
        block = self._unpacked(size)
        self._size_bytes += len(block)
        if self._size_bytes > max(self._packed.read_bytes * MAX_UNPACK_RATIO, _RATIO_FROM_BYTES):
            raise _bomb(self._origin, self._size_bytes)
        return block

    def _unpacked(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            if "Not a gzipped file" in str(exc) and self._packed.first.startswith(_GZIP_MAGIC):
                raise ExportError(
                    f"{self._origin} has other bytes after the end of its gzip data",
                    hint="the transfer or a script added them: transfer it in binary mode; " + self._hint,
                ) from exc
            raise TruncatedError(
                f"{self._origin}: the gzip data is truncated or damaged ({exc})", hint=self._hint
            ) from exc


def _write_all(out: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[out.write(rest) :]


@contextlib.contextmanager
def _spool_errors(spool_dir: Path) -> Iterator[None]:
    """A full or missing spool directory is no fault of the export: the run is tried again."""
    try:
        yield
    except OSError as exc:
        raise TransientSourceError(
            f"cannot write to the spool directory {spool_dir}: {exc.strerror or exc}", hint=f"df -h {spool_dir}"
        ) from exc
