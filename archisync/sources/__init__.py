"""Where exports come from: the registry of sources, chosen by the scheme of the template in `ARCHISYNC_SOURCE`.

A template is a path, `file://…`, `http(s)://…`, `odata+https://…`, `sftp://…`, `s3://…`, `sql+postgresql://…`, `exec:` and a program, or
has a scheme that a plug-in brings (`archisync.sources.plugin`). To add a source, write a module with a `CheckedSource`
(`archisync.sources.interface`), and add its schemes to `_BUILT_IN`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.sources import plugin
from archisync.sources.interface import (
    CheckedSource,
    Export,
    Fetched,
    MovingSource,
    Original,
    ProbedSource,
    Request,
    Source,
    Unchanged,
)
from archisync.sources.plugin import Plugin
from archisync.sources.template import check_placeholders, scheme_of

__all__ = [
    "Export",
    "Fetched",
    "Plugin",
    "Request",
    "Source",
    "Unchanged",
    "check_all",
    "check_template",
    "fetch",
    "is_address",
    "origin_if_unchanged",
    "plugins",
    "probe",
    "put_away",
    "source_for",
]


def _path_source() -> CheckedSource:
    from archisync.sources.path import PathSource

    return PathSource()


def _http_source() -> CheckedSource:
    with _needs_httpx():
        from archisync.sources.http import HttpSource
    return HttpSource()


@contextmanager
def _needs_httpx() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name not in ("httpx", "httpcore"):
            raise
        raise ConfigurationError(
            "an http(s):// source needs httpx, which is not installed", hint="pip install 'archisync[http]'"
        ) from None


def _odata_source() -> CheckedSource:
    with _needs_httpx():
        from archisync.sources.odata import ODataSource
    return ODataSource()


def _exec_source() -> CheckedSource:
    from archisync.sources.exec import ExecSource

    return ExecSource()


def _sftp_source() -> CheckedSource:
    from archisync.sources.sftp import SftpSource

    return SftpSource()


def _object_source() -> CheckedSource:
    try:
        from archisync.sources.objects import ObjectSource
    except ModuleNotFoundError as exc:
        if exc.name != "obstore":
            raise
        raise ConfigurationError(
            "an s3://, gs:// or az:// source needs obstore, which is not installed",
            hint="pip install 'archisync[objects]'",
        ) from None
    return ObjectSource()


def _query_source() -> CheckedSource:
    from archisync.sources.query import QuerySource

    return QuerySource()


class _BuiltIn(NamedTuple):
    """`make` imports the source's module, so that only sources in use are imported. `is_address`: the template alone names the export.
    `lists`: the source can list a folder, so a name may have a date in it."""

    make: Callable[[], CheckedSource]
    is_address: bool
    lists: bool = False


_BUILT_IN: dict[str | None, _BuiltIn] = {
    None: _BuiltIn(_path_source, is_address=True, lists=True),
    "file": _BuiltIn(_path_source, is_address=True, lists=True),
    "http": _BuiltIn(_http_source, is_address=True),
    "https": _BuiltIn(_http_source, is_address=True),
    **dict.fromkeys(("odata+https", "odata+http"), _BuiltIn(_odata_source, is_address=True)),
    "sftp": _BuiltIn(_sftp_source, is_address=True, lists=True),
    **dict.fromkeys(("s3", "gs", "az"), _BuiltIn(_object_source, is_address=True, lists=True)),
    "sql+postgresql": _BuiltIn(_query_source, is_address=False),
    "exec": _BuiltIn(_exec_source, is_address=False),
}
"""By scheme; None is a plain path."""


def source_for(template: str) -> Source:
    """The source that reads such a template.

    Raises ConfigurationError for an unknown scheme, without showing the template, because an address may hold a password. Raises
    PluginError when the scheme belongs to a plug-in that can't be loaded.
    """
    scheme = scheme_of(template)
    if scheme in _BUILT_IN:
        return _BUILT_IN[scheme].make()
    return plugin.plugin_source(_installed(scheme))


def _installed(scheme: str | None) -> str:
    """The scheme, if an installed plug-in brings it; the plug-in is not imported. Raises ConfigurationError."""
    if scheme is not None and plugin.is_installed(scheme):
        return scheme
    raise ConfigurationError(
        f"no source reads the scheme {scheme}:",
        hint="give a path, file://, http://, https://, sftp://, s3:// or exec:, or install the plug-in that brings the scheme; "
        "a relative path with a colon starts with ./",
    )


def plugins() -> list[Plugin]:
    """Every installed plug-in, each imported to see whether it works. One that is broken raises nothing."""
    return plugin.plugins(built_in=_BUILT_IN)


def is_address(template: str) -> bool:
    """Whether the template alone names what is read, as a file or URL does; programs and plug-ins also get agent and type."""
    found = _BUILT_IN.get(scheme_of(template))
    return found is not None and found.is_address


def check_template(template: str, config: Config | None = None, sync_type: str = "orders") -> None:
    """Raise ConfigurationError unless the template and the settings of its source make sense.

    A plug-in only has to be installed: it is not imported, so that a broken one does not stop a worker.
    """
    scheme = _checked_scheme(template)
    if scheme in _BUILT_IN:
        _BUILT_IN[scheme].make().check(template, config or Config(environment={}), sync_type)
    else:
        _installed(scheme)


def _checked_scheme(template: str) -> str | None:
    """The template's scheme. Raises ConfigurationError for placeholders that its source doesn't know."""
    scheme = scheme_of(template)
    check_placeholders(template, dates=scheme in _BUILT_IN and _BUILT_IN[scheme].lists)
    return scheme


def check_all(config: Config) -> None:
    """Check the template of every type, before a worker starts. Raises ConfigurationError."""
    for sync_type in SYNC_TYPES.values():
        template = config.source(sync_type)
        try:
            check_template(template, config, sync_type.name)
        except ConfigurationError as exc:
            raise type(exc)(f"{sync_type.name}: {exc.message}", hint=exc.hint) from exc


def fetch(request: Request) -> Fetched:
    """Fetch the export that the request describes. Raises what `Source.fetch` raises."""
    _checked_scheme(request.template)
    return source_for(request.template).fetch(request)


def put_away(request: Request, originals: Sequence[Original]) -> None:
    """Move the files that an export was read from, after the export was applied. Raises SyncError when that can't be done."""
    source = source_for(request.template)
    assert isinstance(source, MovingSource)  # no other returns an original
    source.put_away(request, originals)


def probe(request: Request) -> bool:
    """Ask a source of another machine whether it has the export; False for a source that can't be asked (a file, a program, a plug-in).

    Raises what `Source.fetch` raises.
    """
    scheme = _checked_scheme(request.template)
    source: object = _BUILT_IN[scheme].make() if scheme in _BUILT_IN else None
    if not isinstance(source, ProbedSource):
        return False
    source.probe(request)
    return True


def origin_if_unchanged(request: Request) -> str | None:
    """The origin of the export, if its source is on this machine and has the export that `request.validators` came with.

    None when the source would have to be asked, or has another export. Raises what `Source.fetch` raises.
    """
    if scheme_of(request.template) not in (None, "file"):
        return None
    from archisync.sources.path import PathSource

    return PathSource().origin_if_unchanged(request)
