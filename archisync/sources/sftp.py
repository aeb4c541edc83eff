"""The SFTP source: `sftp://user@host/path`, over OpenSSH's `ssh`. No library is needed, and the user's ssh configuration holds.

    sftp://erp@files.example/out/{agent}/{type}.csv
    sftp://files.example:2222/out/{agent}/{type}_{date:%Y%m%d}.csv?settle=30s
    sftp://files.example/~/out/{type}.csv          from the folder that the login begins in

A file that changes while it is read is tried again. One that has the name, size and time of the applied export is not read again, unless
it was so young then that a second change in the same second could hide.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, time
from typing import IO, NamedTuple

from archisync.base.errors import ConfigurationError, NoExportError, SourceError, SyncError, TransientSourceError
from archisync.base.text import printable
from archisync.rules.config import Config
from archisync.rules.synctypes import sync_type
from archisync.sources.archive import split_member
from archisync.sources.interface import Export, Fetched, Original, Request, Unchanged
from archisync.sources.names import Listed, Options, checked_pattern, require_settled, split_options
from archisync.sources.parts import fetch_parts, validators_of
from archisync.sources.sftpclient import (
    NO_SUCH_FILE,
    PERMISSION_DENIED,
    Attributes,
    OpenFile,
    SftpClient,
    SftpLostError,
    SftpStatusError,
    SftpTimeoutError,
)
from archisync.sources.spool import Spooled, spool, suffix_of
from archisync.sources.ssh import Access, Place, failure, ssh
from archisync.sources.template import fill, has_placeholder
from archisync.sources.unpack import too_large

_ADDRESS = re.compile(
    r"(?i)sftp://(?:([^@/:]*)(:[^@/]*)?@)?(\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+)(?::([0-9]{1,5}))?(/.*)", re.DOTALL
)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\\+-]*")
_HINT = "for example sftp://erp@files.example/out/{agent}/{type}.csv"
_STRONG_AFTER_S = 60
"""A time of modification has whole seconds, so a file that is younger may change once more without showing it."""


class SftpSource:
    """Reads exports from a server that OpenSSH can log in to."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address that can't work."""
        _parse(template)

    def fetch(self, request: Request) -> Fetched:
        """Log in, find the file and copy it. Raises as described at `Source.fetch`."""
        folder = _folder(request)
        with _connected(folder.place, request) as client:
            return _fetch(client, folder, request)

    def probe(self, request: Request) -> None:
        """Log in and look for the file."""
        folder = _folder(request)
        with _connected(folder.place, request) as client:
            for path in _found(client, folder):
                with _answers(folder.place, path):
                    client.attributes(_bytes(path))

    def put_away(self, request: Request, originals: Sequence[Original]) -> None:
        """Log in again and rename the files. See `MovingSource.put_away`."""
        place = _parse(request.template).place
        with _connected(place, request) as client:
            for original in originals:
                _move(client, place, original)


def _move(client: SftpClient, place: Place, original: Original) -> None:
    path, target = original.path, original.target
    folder = posixpath.dirname(target)
    try:
        if _stamp(client.attributes(_bytes(path))) != original.stamp:
            return
        if not client.exists(_bytes(folder)):
            client.make_folder(_bytes(folder))
        client.rename(_bytes(path), _bytes(target))
    except SftpStatusError as exc:
        if exc.code == NO_SUCH_FILE and not client.exists(_bytes(path)):
            return
        said = "no permission" if exc.code == PERMISSION_DENIED else printable(exc.said, limit=200)
        raise SourceError(
            f"{_shown(place, path)} can't be moved to {printable(folder, limit=200)}: {said}",
            hint="ask whoever runs the server for the right to rename there",
        ) from exc


@contextmanager
def _connected(place: Place, request: Request) -> Iterator[SftpClient]:
    deadline = monotonic() + request.config.fetch_timeout_s
    access = _access(request)
    with ssh(place, access, request.spool_dir) as (process, said), _errors(place, access, process, said, request):
        yield SftpClient(process, deadline)


class _Folder(NamedTuple):
    """Where the export is. `path`: with a pattern as its name if that changes. `done`: where it is moved to; empty: nowhere."""

    place: Place
    path: str
    folder: str
    done: str
    options: Options

    def name_of(self, path: str) -> str:
        """What the export's validators know the file by: the same in the folder of `done`."""
        return posixpath.join(self.folder, posixpath.basename(path)) if self._is_done(path) else path

    def originals(self, path: str, found: Attributes) -> tuple[Original, ...]:
        """What is to be moved; nothing when it was moved already."""
        if not self.done or self._is_done(path):
            return ()
        target = posixpath.join(self.done, posixpath.basename(path))
        return (Original(path=path, target=target, stamp=_stamp(found)),)

    def _is_done(self, path: str) -> bool:
        return bool(self.done) and posixpath.dirname(path) == self.done


def _folder(request: Request) -> _Folder:
    place, template, options = _parse(request.template)
    path = fill(template, request)
    options = options._replace(done=fill(options.done, request))
    folder = posixpath.dirname(path) or ("/" if path.startswith("/") else ".")
    return _Folder(place, path, folder, posixpath.join(folder, options.done) if options.done else "", options)


def _fetch(client: SftpClient, folder: _Folder, request: Request) -> Fetched:
    if not folder.options.all:
        return _fetch_one(client, folder, _found(client, folder)[0], request)
    shown = _shown(folder.place, folder.path)
    if request.validators.get("files"):
        paths = _found(client, folder)
        with _answers(folder.place, folder.path):
            found = [(path, client.attributes(_bytes(path))) for path in paths]
        if validators_of([_validators(folder.name_of(p), a) for p, a in found]).items() <= request.validators.items():
            return Unchanged(origin=shown, originals=tuple(o for p, a in found for o in folder.originals(p, a)))

    def fetch_one(path: str, part: Request) -> Export:
        fetched = _fetch_one(client, folder, path, part)
        assert isinstance(fetched, Export)  # nothing is known of a part
        return fetched

    return fetch_parts(lambda: _found(client, folder), fetch_one, request, shown=shown)


def _fetch_one(client: SftpClient, folder: _Folder, path: str, request: Request) -> Fetched:
    origin = _shown(folder.place, path)
    with _answers(folder.place, path):
        before = client.attributes(_bytes(path))
        if not before.is_regular:
            raise SourceError(f"{origin} is a folder or device, not a regular file", hint="name the file")
        originals, known = folder.originals(path, before), _validators(folder.name_of(path), before)
        if known and {name: request.validators.get(name) for name in known} == known:
            return Unchanged(origin=origin, originals=originals)
        require_settled(float(before.modified or 0), folder.options, origin=origin)
        spooled = _spool_unchanged(client.open(_bytes(path)), origin, request)
    is_strong = time() - (before.modified or time()) >= _STRONG_AFTER_S
    return Export(
        path=spooled.path,
        origin=origin,
        suffix=suffix_of(path, spooled),
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        validators=known if is_strong else {},
        originals=originals,
        written_at=float(before.modified) if before.modified else None,
    )


def _found(client: SftpClient, folder: _Folder) -> list[str]:
    """The paths of the export: the newest one if its name changes, all of its date if wanted, the moved one if there is no other."""
    pattern = checked_pattern(folder.path, folder.options)
    if pattern is None:
        moved = posixpath.join(folder.done, posixpath.basename(folder.path)) if folder.done else ""
        is_moved = moved and not client.exists(_bytes(folder.path)) and client.exists(_bytes(moved))
        return [moved if is_moved else folder.path]
    shown, options = _shown(folder.place, folder.folder), folder.options._replace(done=folder.done)
    with _answers(folder.place, folder.folder):
        names = _listed(client, folder.folder, folder.done)
        found = pattern.chosen(names, options, folder=shown)
    return [posixpath.join(folder.done if one.done else folder.folder, one.name) for one in found]


def _spool_unchanged(file: OpenFile, origin: str, request: Request) -> Spooled:
    """Copy the file, and refuse one that changed during the copy."""
    before = file.attributes()
    if before.size is not None and before.size > request.max_bytes:
        raise too_large(origin, request.max_bytes)
    try:
        spooled = spool(file, request, origin=origin)
    except SyncError as exc:
        if isinstance(exc, TransientSourceError) or file.attributes() == before:
            raise
        raise _changed(origin) from exc
    if file.attributes() != before or (before.size is not None and file.read_bytes != before.size):
        spooled.path.unlink(missing_ok=True)
        raise _changed(origin)
    return spooled


def _listed(client: SftpClient, folder: str, done: str) -> Iterator[Listed]:
    yield from _names(client, folder, done=False)
    if done and client.is_folder(_bytes(done)):
        yield from _names(client, done, done=True)


def _names(client: SftpClient, folder: str, *, done: bool) -> Iterator[Listed]:
    for name, found in client.names(_bytes(folder)):
        text = name.decode("utf-8", "surrogateescape")
        if text not in (".", "..") and found.is_regular:
            yield Listed(text, float(found.modified or 0), done)


def _stamp(found: Attributes) -> str:
    return f"{found.size}-{found.modified}"


def _validators(path: str, found: Attributes) -> dict[str, str]:
    """Empty when the server does not say size and time."""
    if found.size is None or found.modified is None:
        return {}
    name = hashlib.sha256(_bytes(path)).hexdigest()[:32]
    return {"sftp": name, "bytes": str(found.size), "modified": str(found.modified)}


def _shown(place: Place, path: str) -> str:
    """A path that begins in the folder of the login is written with `/~/`, as in the template."""
    return place.shown + printable(path if path.startswith("/") else f"/~/{path}", limit=300)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _changed(origin: str) -> TransientSourceError:
    return TransientSourceError(
        f"{origin} changed while it was read",
        hint="let the ERP write to another name in the same folder and rename it when it is complete, or add ?settle=30s",
    )


@contextmanager
def _answers(place: Place, path: str) -> Iterator[None]:
    """Turn what the server answers about the path into errors of archisync."""
    shown = _shown(place, path)
    try:
        yield
    except SftpStatusError as exc:
        if exc.code == NO_SUCH_FILE:
            raise NoExportError(
                f"no export at {shown}",
                hint="check the path in ARCHISYNC_SOURCE, and that the ERP has written the export",
            ) from exc
        if exc.code == PERMISSION_DENIED:
            raise SourceError(f"no permission to read {shown}", hint="ask whoever runs the server") from exc
        raise TransientSourceError(
            f"{shown} can't be read: {printable(exc.said, limit=200)} (status {exc.code})",
            hint="look at the server's log",
        ) from exc


@contextmanager
def _errors(
    place: Place, access: Access, process: subprocess.Popen[bytes], said: IO[bytes], request: Request
) -> Iterator[None]:
    try:
        yield
    except SftpLostError as exc:
        if process.poll() is None and str(exc) != "the connection has ended":
            raise SourceError(f"{place.shown}: {exc}", hint="log in by hand: its shell may print a greeting") from exc
        raise failure(process, said, place, access) from exc
    except SftpTimeoutError as exc:
        seconds = request.config.fetch_timeout_s
        raise TransientSourceError(
            f"{place.shown} did not send the export within {seconds} s", hint="raise ARCHISYNC_FETCH_TIMEOUT_S"
        ) from exc


class _Parsed(NamedTuple):
    place: Place
    path: str
    options: Options


def _parse(template: str) -> _Parsed:
    """The parts of the address. Raises ConfigurationError, which shows no password."""
    found = _ADDRESS.fullmatch(split_member(template)[0])
    if found is None:
        raise ConfigurationError("the source is no sftp:// address with a host and a path", hint=_HINT)
    user, password, host, port, rest = found.groups()
    if password:
        raise ConfigurationError(
            "the source's address has a password in it", hint="put it into ARCHISYNC_SFTP_PASSWORD, or use a key"
        )
    host = host.strip("[]")
    if has_placeholder(host + (user or "")) or not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
        raise ConfigurationError("the source's address has a host or user that can't be one", hint=_HINT)
    path, options = split_options(rest.removeprefix("/~/") if rest.startswith("/~/") else rest)
    checked_pattern(path, options)
    return _Parsed(Place(host, user or "", int(port or 0)), path, options)


def _access(request: Request) -> Access:
    config, type_ = request.config, sync_type(request.sync_type)
    environment: Mapping[str, str] = config.environment
    return Access(config.sftp_password(type_), config.sftp_config, environment)
