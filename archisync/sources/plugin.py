"""Plug-ins: sources of other packages, found by an entry point in the group `archisync.sources`.

    [project.entry-points."archisync.sources"]
    sftp = "acme_sftp:SftpSource"          # scheme = "module:factory"

The factory is called without arguments and returns a `Source` (see `archisync.sources.interface`).
`archisync.sources.conformance` has the tests that it must pass. A plug-in is imported only when a template has its scheme, and it can't
replace a built-in scheme. Any mistake of a plug-in becomes a PluginError of the run that uses it.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archisync.base.errors import (
    ConfigurationError,
    ExportError,
    PluginError,
    SourceError,
    TransientSourceError,
    UsageError,
)
from archisync.base.text import printable, redact
from archisync.sources.interface import MAX_VALIDATOR_CHARS, Export, Fetched, Request, Source, Unchanged

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "archisync.sources"
_HINT = "archisync doctor lists the plug-ins; mend it, update it or uninstall it"
_EXPECTED = (UsageError, ConfigurationError, SourceError, TransientSourceError, ExportError)
_BLOCK_BYTES = 1 << 20
_MAX_SHOWN_CHARS = 300
_MAX_RECORD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """One installed plug-in, for `doctor`. `state` is `ok` or `broken`; `error` says why."""

    scheme: str
    package: str
    target: str
    state: str
    error: str


def plugins(*, built_in: Container[str | None]) -> list[Plugin]:
    """Every installed plug-in, each imported to see whether it works. One that is broken raises nothing."""
    found = []
    for entry in _entry_points():
        scheme = entry.name.lower()
        error = f"the scheme {scheme}: is built in and can't be replaced" if scheme in built_in else _error_of(scheme)
        found.append(
            Plugin(
                scheme=scheme,
                package=_package(entry),
                target=entry.value,
                state="broken" if error else "ok",
                error=error,
            )
        )
    return sorted(found, key=lambda p: (p.scheme, p.package))


def _error_of(scheme: str) -> str:
    try:
        plugin_source(scheme)
    except PluginError as exc:
        return exc.message
    return ""


def is_installed(scheme: str) -> bool:
    """Whether a package brings the scheme. The plug-in is not imported."""
    return bool(_entries_of(scheme))


def plugin_source(scheme: str) -> Source:
    """The source of a plug-in that `is_installed`. Raises PluginError."""
    entries = _entries_of(scheme)
    if len({entry.value for entry in entries}) > 1:
        names = ", ".join(sorted(_package(entry) for entry in entries))
        raise PluginError(f"several packages bring the scheme {scheme}: ({names})", hint="uninstall all but one")
    return _Guarded(scheme, _load(scheme, entries[0]))


def _entries_of(scheme: str) -> list[EntryPoint]:
    return [entry for entry in _entry_points() if entry.name.lower() == scheme]


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # takes milliseconds, and only plug-ins need it

    return list(entry_points(group=GROUP))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"


def _load(scheme: str, entry: EntryPoint) -> Any:
    try:
        source = entry.load()()
    except (Exception, SystemExit) as exc:
        raise PluginError(f"the source plug-in {scheme}: can't be loaded: {_described(exc)}", hint=_HINT) from exc
    if not callable(getattr(source, "fetch", None)):
        raise PluginError(
            f"the source plug-in {scheme}: makes no source: its {_class_name(source)} has no fetch()", hint=_HINT
        )
    return source


def _described(exc: BaseException) -> str:
    said = printable(redact(str(exc)), limit=_MAX_SHOWN_CHARS)
    name = type(exc).__name__
    return f"{name}: {said}" if said else name


def _class_name(thing: object) -> str:
    return type(thing).__name__


class _Guarded:
    """A plug-in's source whose results are checked against the contract."""

    def __init__(self, scheme: str, source: Any) -> None:
        self._name = f"the source plug-in {scheme}:"
        self._source = source

    def fetch(self, request: Request) -> Fetched:
        found = self._call(request)
        if isinstance(found, Unchanged):
            if not request.validators:
                raise self._broken("says that the export is unchanged, but was not asked that")
            self._check_texts(found.origin)
            return found
        if not isinstance(found, Export):
            raise self._broken(f"returned {_class_name(found)}, not an Export")
        self._check_export(found, request)
        return found

    def _call(self, request: Request) -> Any:
        try:
            return self._source.fetch(request)
        except _EXPECTED as exc:
            if {type(exc.message), type(getattr(exc, "reason", ""))} != {str}:
                raise self._broken("raised an error without a text") from exc
            raise
        except (Exception, SystemExit) as exc:
            raise self._broken(f"raised {_described(exc)}") from exc

    def _broken(self, what: str) -> PluginError:
        return PluginError(f"{self._name} {what}", hint=_HINT)

    def _check_export(self, export: Export, request: Request) -> None:
        """Check what decides about holding and accepting the export."""
        try:
            size_bytes, sha256 = _measured(export.path, request.spool_dir)
        except (OSError, TypeError, ValueError) as exc:
            raise self._broken(f"returned an export that can't be read: {_described(exc)}") from exc
        if (size_bytes, sha256) != (export.size_bytes, export.sha256):
            raise self._broken("returned an export whose size or sha256 is not that of its file")
        if size_bytes > request.max_bytes:
            raise self._broken("returned an export that is larger than it may be")
        if not (export.written_at is None or isinstance(export.written_at, int | float)):
            raise self._broken("returned a time that is no number")
        self._check_texts([export.origin, export.suffix], export.validators, export.details)
        if not all(isinstance(part, str) for pair in export.validators.items() for part in pair):
            raise self._broken("returned validators that are not text")
        if sum(len(name) + len(value) for name, value in export.validators.items()) > MAX_VALIDATOR_CHARS:
            raise self._broken(f"returned validators of more than {MAX_VALIDATOR_CHARS} characters")

    def _check_texts(self, *texts: object) -> None:
        """Check that texts for the run's record are JSON that PostgreSQL accepts."""
        try:
            record = json.dumps(texts, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:  # UnicodeEncodeError is a ValueError
            raise self._broken(f"returned details that can't be recorded: {_described(exc)}") from exc
        if b"\\u0000" in record or len(record) > _MAX_RECORD_BYTES:
            raise self._broken("returned details that can't be recorded: a NUL character, or too much")


def _measured(path: Path, spool_dir: Path) -> tuple[int, str]:
    """Size and sha256 of a regular file in the spool directory. Raises ValueError for any other file."""
    if path.resolve().parent != spool_dir.resolve() or not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError("it is no regular file in the spool directory")
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return size_bytes, digest.hexdigest()
