"""The file source: copies an export into the spool directory, so that nobody can change it while it is parsed.

The path's last component must be a regular file and no symbolic link: a link, FIFO or device in a shared folder could
make a worker read anything, or hang. Gzip is recognised by its first bytes, not by its name.
"""

import contextlib
import errno
import gzip
import hashlib
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from archisync.agentid import check_agent_id
from archisync.errors import (
    ConfigurationError,
    ExportError,
    SourceError,
    SyncError,
    TransientSourceError,
    TruncatedError,
)
from archisync.sources.interface import Export, Request
from archisync.synctypes import sync_type

_BLOCK_BYTES = 256 * 1024
MAX_UNPACK_RATIO = 200
"""Exports shrink to a fifth or a thirtieth; what unpacks to more than 200 times its size is a bomb, long before `max_bytes`."""
_RATIO_FROM_BYTES = 64 * 1024 * 1024  # below it any ratio is harmless: a few rows, many times
_GZIP_MAGIC = b"\x1f\x8b"
_PLACEHOLDER = re.compile(r"\{(agent|type)\}")
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHECK_HINT = "check the path in ARCHISYNC_SOURCE, and that the ERP has written the export"


class PathSource:
    """Reads exports from files; a relative path counts from the working directory."""

    def fetch(self, request: Request) -> Export:
        """Copy one file. `PATH.gz` is read when `PATH` is absent. Raises as described at `Source.fetch`."""
        path = export_path(request)
        file, path = _open(path)
        with file:
            spooled = _spool_unchanged(file, path, request)
        return Export(
            path=spooled.path,
            origin=str(path),
            suffix=_suffix(path),
            size_bytes=spooled.size_bytes,
            sha256=spooled.sha256,
        )


def export_path(request: Request) -> Path:
    """The template with its placeholders filled in. Raises UsageError for an agent id or type that isn't allowed."""
    template = _local_path(request.template)
    known = {"agent": check_agent_id(request.agent_id), "type": sync_type(request.sync_type).name}
    return Path(_PLACEHOLDER.sub(lambda found: known[found[1]], template))


def _local_path(template: str) -> str:
    """A `file:` address as a path template; any other template as it is."""
    if template[:5].lower() != "file:":
        return template
    rest = template[5:]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host not in ("", "localhost"):
            raise ConfigurationError(
                "the source is a file:// address of another host",
                hint="write file:///srv/exports/{agent}/{type}.csv, with three slashes",
            )
    if "%00" in rest:
        raise ConfigurationError("the source has a NUL character", hint="take %00 out of the address")
    return unquote(rest)


def _suffix(path: Path) -> str:
    """`.csv` of `orders.CSV.gz`."""
    lower = path.name.lower()
    return Path(lower.removesuffix(".gz")).suffix


def _open(path: Path) -> tuple[BinaryIO, Path]:
    """The open file and the path that it really has (maybe with `.gz`)."""
    packed = path.with_name(path.name + ".gz") if path.name else path
    try:
        return _open_regular(path), path
    except FileNotFoundError as exc:
        if path.suffix.lower() == ".gz":
            raise SourceError(f"no export at {path}", hint=_CHECK_HINT) from exc
    except OSError as exc:
        raise _refusal(exc, path) from exc
    try:
        return _open_regular(packed), packed
    except FileNotFoundError as exc:
        raise SourceError(f"no export at {path}, nor at {packed.name} beside it", hint=_CHECK_HINT) from exc
    except OSError as exc:
        raise _refusal(exc, packed) from exc


def _open_regular(path: Path) -> BinaryIO:
    fd = os.open(path, _OPEN_FLAGS)
    try:
        _require_regular(os.fstat(fd), path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _refusal(exc: OSError, path: Path) -> SyncError:
    """What an OSError means: most numbers are faults of a disk or network that may pass, a few are final."""
    match exc.errno:
        case errno.ENOTDIR:
            return SourceError(f"no export at {path}: a part of the path is not a directory", hint=_CHECK_HINT)
        case errno.EACCES | errno.EPERM:
            return SourceError(f"no permission to read {path}", hint=f"ls -ld {path.parent} {path}")
        case errno.ELOOP:
            return SourceError(f"{path} is a symbolic link, which is not followed", hint="name the file itself")
        case errno.ENXIO | errno.ENODEV:
            return _irregular(path, "a socket or device")
        case errno.ENAMETOOLONG:
            return SourceError(f"the path is too long: {str(path)[:80]}…", hint=_CHECK_HINT)
    return TransientSourceError(f"cannot read {path}: {exc.strerror or exc}", hint=f"ls -l {path}")


def _irregular(path: Path, what: str) -> SourceError:
    return SourceError(f"{path} is {what}, not a regular file", hint=_CHECK_HINT)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise _irregular(path, "a directory")
    raise _irregular(path, "a FIFO" if stat.S_ISFIFO(status.st_mode) else "a device")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spooled:
    path: Path
    size_bytes: int
    sha256: str


def _spool_unchanged(file: BinaryIO, path: Path, request: Request) -> _Spooled:
    """Copy, and refuse a file that somebody wrote to meanwhile: what a torn copy looks like is no evidence."""
    before = os.fstat(file.fileno())
    packed = _is_gzip(file, path)
    content: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
    try:
        spooled = _spool(content, path, request, packed_bytes=before.st_size if packed else None)
    except ExportError as exc:
        if _changed(before, file):
            raise _changed_error(path) from exc
        raise
    if _changed(before, file) or (not packed and spooled.size_bytes < before.st_size):
        spooled.path.unlink(missing_ok=True)
        raise _changed_error(path)
    return spooled


def _is_gzip(file: BinaryIO, path: Path) -> bool:
    try:
        start = file.read(len(_GZIP_MAGIC))
        file.seek(0)
    except OSError as exc:
        raise _refusal(exc, path) from exc
    return start == _GZIP_MAGIC


def _changed(before: os.stat_result, file: BinaryIO) -> bool:
    try:
        after = os.fstat(file.fileno())
    except OSError:  # ESTALE: replaced on the file server
        return True
    return (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def _changed_error(path: Path) -> TransientSourceError:
    return TransientSourceError(
        f"{path} changed while it was read",
        hint="let the ERP write to another name in the same directory and rename it when it is complete",
    )


def _spool(content: BinaryIO | gzip.GzipFile, path: Path, request: Request, *, packed_bytes: int | None) -> _Spooled:
    """Copy the content into a new file of mode 0600, hashing it. Leaves no file behind when it raises."""
    max_bytes = request.max_bytes
    if packed_bytes is not None:
        max_bytes = min(max_bytes, max(packed_bytes * MAX_UNPACK_RATIO, _RATIO_FROM_BYTES))
    with _spool_errors(request.spool_dir):
        fd, name = tempfile.mkstemp(prefix=f"{request.sync_type}-", dir=request.spool_dir)
    target = Path(name)
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with os.fdopen(fd, "wb", buffering=0) as out:
            while block := _read_block(content, path):
                size_bytes += len(block)
                if size_bytes > max_bytes:
                    raise _too_large(path, max_bytes, bomb=max_bytes < request.max_bytes)
                digest.update(block)
                with _spool_errors(request.spool_dir):
                    _write_all(out, block)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return _Spooled(path=target, size_bytes=size_bytes, sha256=digest.hexdigest())


def _read_block(content: BinaryIO | gzip.GzipFile, path: Path) -> bytes:
    """The next decompressed bytes, at most a block, so that a gzip bomb never unfolds in memory."""
    try:
        return content.read(_BLOCK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise TruncatedError(
            f"{path}: the gzip data is truncated or damaged ({exc})", hint=f"gzip --test {path}; export it again"
        ) from exc
    except OSError as exc:
        raise _refusal(exc, path) from exc


def _too_large(path: Path, max_bytes: int, *, bomb: bool) -> ExportError:
    if bomb:
        return ExportError(
            f"{path} unpacks to more than {max_bytes} bytes, {MAX_UNPACK_RATIO} times its size",
            hint="look into it; an export that is really so repetitive can be given unpacked",
        )
    return ExportError(
        f"{path} has more than {max_bytes} bytes (decompressed)",
        hint="raise the limit if the export is really that large",
    )


def _write_all(out: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[out.write(rest) :]


@contextlib.contextmanager
def _spool_errors(spool_dir: Path) -> Iterator[None]:
    """A full or missing spool directory is nobody's export's fault."""
    try:
        yield
    except OSError as exc:
        raise TransientSourceError(
            f"cannot write to the spool directory {spool_dir}: {exc.strerror or exc}", hint=f"df -h {spool_dir}"
        ) from exc
