"""The file source: copies an export into the spool directory, so that nobody can change it while it is parsed.

The last component of the path must be a regular file, not a symbolic link: in a shared folder a link, FIFO or device could make a worker
read any file, or hang.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

from archisync.base.errors import (
    ConfigurationError,
    ExportError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
)
from archisync.rules.config import Config
from archisync.sources.archive import split_member
from archisync.sources.interface import Export, Fetched, Original, Request, Unchanged
from archisync.sources.names import Listed, NamePattern, Options, checked_pattern, require_settled, split_options
from archisync.sources.parts import fetch_parts
from archisync.sources.spool import Spooled, spool, suffix_of
from archisync.sources.template import fill, scheme_of
from archisync.sources.unpack import BLOCK_BYTES

# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HEAD_BYTES = 64 * 1024
"""The beginning of the file, which differs at once when the ERP wrote the rows in another order."""
_CHECK_HINT = "check the path in ARCHISYNC_SOURCE, and that the ERP has written the export"


class PathSource:
    """Reads exports from files; a relative path counts from the working directory."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for a `file:` address that is not of this machine, and for a name that can't be looked for."""
        path, options = split_options(template)
        checked_pattern(_local_path(split_member(path)[0]), options)

    def origin_if_unchanged(self, request: Request) -> str | None:
        """The export's path if it is the one that the request's `validators` came with; else None. Raises as `fetch` does.

        None for a name that changes, whose folder is listed once a run, by `fetch`; and for a file that is moved when it is applied.
        """
        place = _place(request)
        if place.pattern is not None or place.done is not None:
            return None
        file, path = _open(place.path)
        with file:
            return str(path) if _is_applied(file, _name(path), request) else None

    def fetch(self, request: Request) -> Fetched:
        """Copy one file, unless it has the bytes of the applied export: of `PATH` and `PATH.gz` the one that was written last.

        Raises as described at `Source.fetch`.
        """
        place = _place(request)
        if place.options.all:
            return fetch_parts(lambda: _chosen(place), partial(_copied, place), request, shown=str(place.path))
        file, path = _opened(place)
        with file:
            name = place.name_of(path)
            if _is_applied(file, name, request):
                return Unchanged(origin=str(path), originals=_originals(place, path, os.fstat(file.fileno())))
            return _copy(file, place, path, request)

    def put_away(self, request: Request, originals: Sequence[Original]) -> None:
        """Rename the files. See `MovingSource.put_away`; a file that comes between the look and the rename is found where it then is."""
        for original in originals:
            _move(original)


def _copied(place: _Place, path: Path, request: Request) -> Export:
    file, path = _open(path)
    with file:
        return replace(
            _copy(file, place, path, request), validators={}
        )  # one that is of the content is no help: reading is as dear


def _copy(file: BinaryIO, place: _Place, path: Path, request: Request) -> Export:
    status = os.fstat(file.fileno())
    require_settled(status.st_mtime, place.options, origin=str(path))
    spooled = _spool_unchanged(file, path, request)
    return Export(
        path=spooled.path,
        origin=str(path),
        suffix=suffix_of(path.name, spooled),
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        validators={} if spooled.packed else _validators(place.name_of(path), spooled),
        originals=_originals(place, path, status),
        written_at=status.st_mtime,
    )


def _move(original: Original) -> None:
    path, target = Path(original.path), Path(original.target)
    try:
        if _stamp(os.lstat(path)) != original.stamp:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except FileNotFoundError:
        return
    except OSError as exc:
        said = "another file system" if exc.errno == errno.EXDEV else exc.strerror or exc
        raise SourceError(
            f"{path} can't be moved to {target.parent}: {said}", hint=f"ls -ld {path.parent} {target.parent}"
        ) from exc


def has_exports(template: str, type_name: str) -> bool:
    """Whether there is an export of the type for any agent. True where that can't be seen: elsewhere, and in names that change."""
    if scheme_of(template) not in (None, "file"):
        return True
    template, options = split_options(template)
    path = _local_path(split_member(template)[0])
    if options.done or checked_pattern(path, options) is not None:
        return True
    pattern = glob.escape(path.replace("{type}", type_name)).replace("{agent}", "*")
    return any(next(glob.iglob(p), None) for p in (pattern, f"{pattern}.gz"))  # noqa: PTH207 - the whole path is a pattern


def is_missing(request: Request) -> bool:
    """Whether there is no such file; nothing of it is read. Raises as `PathSource.fetch` does."""
    try:
        file, _ = _opened(_place(request))
    except NoExportError:
        return True
    file.close()
    return False


class _Place(NamedTuple):
    """`path`: of the export, with a pattern as its name if that changes. `done`: the folder that it is moved to."""

    path: Path
    pattern: NamePattern | None
    options: Options
    done: Path | None

    def name_of(self, path: Path) -> str:
        """What the export's validators know the file by: the same in the folder of `done`."""
        return _name(self.path.parent / path.name)

    def folder_of(self, listed: Listed) -> Path:
        return self.done if self.done is not None and listed.done else self.path.parent


def _place(request: Request) -> _Place:
    """Raises UsageError for an agent id or type that is not allowed."""
    template, options = split_options(request.template)
    path = Path(fill(_local_path(split_member(template)[0]), request))
    done = path.parent / fill(options.done, request) if options.done else None
    return _Place(path, checked_pattern(str(path), options), options, done)


def _opened(place: _Place) -> tuple[BinaryIO, Path]:
    """The export, open, and its real path. Raises what `NamePattern.newest` raises."""
    path, done = place.path, place.done
    if place.pattern is not None:
        return _open(_chosen(place)[0])
    try:
        return _open(path)
    except NoExportError:
        kept = [done / path.name, done / (path.name + ".gz")] if done is not None else []
        kept = [file for file in kept if file.exists()]
        if not kept:
            raise
        return _open(max(kept, key=lambda file: file.stat().st_mtime_ns))


def _chosen(place: _Place) -> list[Path]:
    """The newest file, or all of its date if they are wanted."""
    assert place.pattern is not None  # `checked_pattern`
    found = place.pattern.chosen(_listed(place), place.options, folder=str(place.path.parent))
    return [place.folder_of(listed) / listed.name for listed in found]


def _listed(place: _Place) -> Iterator[Listed]:
    yield from _names(place.path.parent, place.options, done=False)
    if place.done is not None and place.done.is_dir():
        yield from _names(place.done, place.options, done=True)


def _names(folder: Path, options: Options, *, done: bool) -> Iterator[Listed]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                written = entry.stat(follow_symlinks=False).st_mtime if options.by_time else 0.0
                yield Listed(entry.name, written, done)
    except FileNotFoundError as exc:
        raise NoExportError(f"no folder {folder}", hint=_CHECK_HINT) from exc
    except OSError as exc:
        raise _refusal(exc, folder) from exc


def _originals(place: _Place, path: Path, status: os.stat_result) -> tuple[Original, ...]:
    """What is to be moved; nothing when it was moved already."""
    if place.done is None or path.parent == place.done:
        return ()
    return (Original(path=str(path), target=str(place.done / path.name), stamp=_stamp(status)),)


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _local_path(template: str) -> str:
    """The path in a `file:` address; any other template unchanged."""
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


def _open(path: Path) -> tuple[BinaryIO, Path]:
    """The open file and its real path, which may end in `.gz`."""
    packed = f"{path}.gz"
    try:
        file = _open_regular(path)
    except FileNotFoundError as exc:
        if path.suffix.lower() == ".gz":
            raise NoExportError(f"no export at {path}", hint=_CHECK_HINT) from exc
    except OSError as exc:
        raise _refusal(exc, path) from exc
    else:
        with ExitStack() as closing:
            closing.enter_context(file)
            if path.suffix.lower() == ".gz" or not _is_newer(packed, file):
                closing.pop_all()
                return file, path
    twin = Path(packed)
    try:
        return _open_regular(twin), twin
    except FileNotFoundError as exc:
        raise NoExportError(f"no export at {path}, nor at {twin.name} beside it", hint=_CHECK_HINT) from exc
    except OSError as exc:
        raise _refusal(exc, twin) from exc


def _is_newer(path: str, file: BinaryIO) -> bool:
    """Whether there is a file at `path` that was written after the open one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime_ns > os.fstat(file.fileno()).st_mtime_ns


def _open_regular(path: Path) -> BinaryIO:
    fd = os.open(path, _OPEN_FLAGS)
    try:
        _require_regular(os.fstat(fd), path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _refusal(exc: OSError, path: Path) -> SyncError:
    """What an OSError means: a few are final, most are faults of a disk or network that may pass."""
    match exc.errno:
        case errno.ENOTDIR:
            return NoExportError(f"no export at {path}: a part of the path is not a directory", hint=_CHECK_HINT)
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


def _spool_unchanged(file: BinaryIO, path: Path, request: Request) -> Spooled:
    """Copy the file, and refuse one that changed during the copy: a torn copy proves nothing about the export."""
    before = os.fstat(file.fileno())
    try:
        spooled = spool(
            _Reader(file, path),
            request,
            origin=str(path),
            damaged_hint="export it again, and rename it when it is complete",
        )
    except ExportError as exc:
        if _changed(before, file):
            raise _changed_error(path) from exc
        raise
    if _changed(before, file) or (not spooled.packed and spooled.size_bytes < before.st_size):
        spooled.path.unlink(missing_ok=True)
        raise _changed_error(path)
    return spooled


def _is_applied(file: BinaryIO, name: str, request: Request) -> bool:
    """Whether the file has the bytes of the applied export, and nobody writes to it in the meantime.

    Reading it once is cheaper than a copy that nobody needs. A file that can't be read is an error of the copy.
    """
    known = request.validators.get("sha256")
    before = os.fstat(file.fileno())
    if known is None or request.validators.get("path") != name or before.st_size > request.max_bytes:
        return False
    if request.validators.get("bytes") != str(before.st_size):
        return False
    try:
        head = known if before.st_size <= _HEAD_BYTES else _sha256(file, _HEAD_BYTES)
        same = request.validators.get("head") == head and _sha256(file) == known
        file.seek(0)
    except OSError:
        return False
    return same and not _changed(before, file)


def _validators(name: str, spooled: Spooled) -> dict[str, str]:
    head = spooled.sha256  # of a small file
    if spooled.size_bytes > _HEAD_BYTES:
        with spooled.path.open("rb") as file:
            head = _sha256(file, _HEAD_BYTES)
    return {"path": name, "bytes": str(spooled.size_bytes), "head": head, "sha256": spooled.sha256}


def _name(path: Path) -> str:
    """The path as text that can be stored, whatever bytes it has."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _sha256(file: BinaryIO, most_bytes: int | None = None) -> str:
    """The digest of the whole file, or of its first bytes."""
    file.seek(0)
    if most_bytes is not None:
        return hashlib.sha256(file.read(most_bytes)).hexdigest()
    digest = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


class _Reader:
    """The file, with the operating system's errors turned into errors of archisync."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as exc:
            raise _refusal(exc, self._path) from exc


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
