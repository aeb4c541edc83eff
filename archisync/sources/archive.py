"""Zip archives: the one export in them, or the one whose name matches the `#pattern` at the end of a template.

    /srv/exports/{agent}/all.zip#{type}_*.csv

Names in an archive are compared and shown, and never used as paths. A workbook is a zip archive too, and stays one.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from archisync.base.errors import ExportError, NoExportError, TruncatedError
from archisync.base.text import printable
from archisync.sources.unpack import Readable, require_no_bomb

MAGIC = b"PK\x03\x04"
MAX_NAMES = 10_000
_MEMBER = re.compile(r"(?i)(\.zip)#([^#/?]+)(?=\?|\Z)")
_NOISE = re.compile(r"(?:^|/)(?:__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)|/$")
_SHOWN = 5


def split_member(template: str) -> tuple[str, str]:
    """The template without `#pattern`, and the pattern; empty when there is none."""
    found = _MEMBER.search(template)
    return (template[: found.end(1)] + template[found.end() :], found[2]) if found else (template, "")


def is_workbook(path: Path) -> bool:
    """Whether the zip archive has the parts of a workbook (XLSX, XLSB, ODS)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return any(name.startswith("xl/") for name in names) or {"content.xml", "mimetype"} <= set(names)


@contextmanager
def open_member(path: Path, pattern: str, *, origin: str, damaged_hint: str) -> Iterator[tuple[Readable, str]]:
    """The content of the archive's export, and the end of its name in lower case.

    Raises NoExportError and ExportError when not exactly one member matches, or the archive can't be read.
    """
    with _damaged(origin, damaged_hint), zipfile.ZipFile(path) as archive:
        member = _one([info for info in archive.infolist() if not _NOISE.search(info.filename)], pattern, origin)
        if member.flag_bits & 0x1:
            raise ExportError(
                f"{origin}: {printable(member.filename, limit=100)} is protected by a password",
                hint="let the ERP write the archive without one",
            )
        with archive.open(member) as file:
            name = member.filename.lower().removesuffix(".gz").removesuffix(".zst")
            yield _Member(file, origin, damaged_hint, member.compress_size), PurePosixPath(name).suffix


def _one(members: Sequence[zipfile.ZipInfo], pattern: str, origin: str) -> zipfile.ZipInfo:
    if len(members) > MAX_NAMES:
        raise ExportError(
            f"{origin} has more than {MAX_NAMES} files in it", hint="put each export into its own archive"
        )
    wanted = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    found = [m for m in members if not pattern or wanted.fullmatch(m.filename) or wanted.fullmatch(_last(m.filename))]
    names = ", ".join(printable(member.filename, limit=100) for member in (found or members)[:_SHOWN])
    if len(found) == 1:
        return found[0]
    if found:
        raise ExportError(
            f"{origin} has {len(found)} files in it: {names}",
            hint="say which one: archive.zip#orders_*.csv at the end of ARCHISYNC_SOURCE",
        )
    if members:
        raise NoExportError(f"{origin} has no file {pattern} in it, but {names}", hint="correct what follows #")
    raise NoExportError(f"{origin} is an empty archive", hint="look whether the ERP's export job ran to its end")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


class _Member:
    def __init__(self, file: Readable, origin: str, damaged_hint: str, packed_bytes: int) -> None:
        self._file = file
        self._origin = origin
        self._hint = damaged_hint
        self._packed_bytes = packed_bytes
        self._size_bytes = 0

    def read(self, size: int, /) -> bytes:
        with _damaged(self._origin, self._hint):
            block = self._file.read(size)
        self._size_bytes += len(block)
        require_no_bomb(self._packed_bytes, self._size_bytes, self._origin)
        return block


@contextmanager
def _damaged(origin: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, EOFError, zlib.error, OverflowError) as exc:
        raise TruncatedError(f"{origin}: the zip archive is truncated or damaged ({exc})", hint=hint) from exc
    except (NotImplementedError, RuntimeError) as exc:
        raise ExportError(
            f"{origin}: the zip archive is packed in a way that can't be read ({printable(str(exc), limit=100)})",
            hint="pack it with deflate, as zip does, or let a program unpack it: exec:bsdtar -xOf …",
        ) from exc
