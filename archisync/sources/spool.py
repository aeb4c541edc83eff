"""Copying an export into the spool directory: unpacked, hashed and limited in size. Every source copies with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path, PurePosixPath

from archisync.sources import archive
from archisync.sources.interface import Request
from archisync.sources.spoolfolder import no_room
from archisync.sources.template import fill
from archisync.sources.unpack import BLOCK_BYTES, Readable, WholeReads, too_large, unpacked


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """`packed`: the content was compressed. `suffix`: the end of its name in an archive; None for what is none."""

    path: Path
    size_bytes: int
    sha256: str
    packed: bool
    suffix: str | None = None


def spool(content: Readable, request: Request, *, origin: str, damaged_hint: str = "export it again") -> Spooled:
    """Copy the content, unpacked and hashed, into a new file of mode 0600. Leaves no file when it raises.

    Of a zip archive it is the one export in it. Raises ExportError above the request's `max_bytes`, TruncatedError for packed data that is
    cut or damaged, TransientSourceError for a full or missing spool directory, and what `content.read` raises.
    """
    whole = WholeReads(content)
    plain = unpacked(whole, origin=origin, damaged_hint=damaged_hint)
    inner = whole if plain is whole else WholeReads(plain)
    is_zip = inner.peek(len(archive.MAGIC)) == archive.MAGIC
    spooled = _copied(inner, request, origin, packed=inner is not whole)
    if not is_zip or archive.is_workbook(spooled.path):
        return spooled
    try:
        pattern = fill(archive.split_member(request.template)[1], request)
        opened = archive.open_member(spooled.path, pattern, origin=origin, damaged_hint=damaged_hint)
        with opened as (member, suffix):
            content = unpacked(WholeReads(member), origin=origin, damaged_hint=damaged_hint)
            return replace(_copied(content, request, origin, packed=True), suffix=suffix)
    finally:
        spooled.path.unlink(missing_ok=True)


def suffix_of(name: str, spooled: Spooled) -> str:
    """`.csv` of `orders.CSV.gz`; of a zip archive that of the file in it."""
    if spooled.suffix is not None:
        return spooled.suffix
    return PurePosixPath(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def _copied(content: Readable, request: Request, origin: str, *, packed: bool) -> Spooled:
    with _spool_errors(request.spool_dir):
        fd, name = tempfile.mkstemp(prefix=f"{request.sync_type}-", dir=request.spool_dir)
    target = Path(name)
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with os.fdopen(fd, "wb", buffering=0) as out:
            while block := content.read(BLOCK_BYTES):
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
        raise no_room(f"write to the spool directory {spool_dir}", spool_dir.parent, exc) from exc
