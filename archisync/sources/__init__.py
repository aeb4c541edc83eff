"""Where exports come from, chosen by the template in `ARCHISYNC_SOURCE`.

A path or `file://`, `http(s)://`, `exec:` and a program, or a scheme that a plug-in brings (see `archisync.sources.plugin`).
"""

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.sources.interface import CheckedSource, Export, Fetched, Request, Source, Unchanged
from archisync.sources.plugin import Plugin, is_installed, plugin_source, plugins
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
    "plugins",
    "source_for",
]


def source_for(template: str) -> Source:
    """The source that reads such a template.

    Raises ConfigurationError for a scheme that nobody reads, without showing the template: an address may hold a password.
    Raises PluginError when the scheme is a plug-in's and the plug-in can't be loaded.
    """
    scheme = scheme_of(template)
    return _built_in(scheme) or plugin_source(_installed(scheme))


def _installed(scheme: str | None) -> str:
    """The scheme, if a plug-in that is installed brings it (it is not imported here)."""
    if scheme is not None and is_installed(scheme):
        return scheme
    raise ConfigurationError(
        f"no source reads the scheme {scheme}:",
        hint="give a path, file://, http://, https:// or exec:, or install the plug-in that brings the scheme; "
        "a relative path with a colon starts with ./",
    )


def _built_in(scheme: str | None) -> CheckedSource | None:
    """The source of a scheme of our own. Each is imported only when it is used."""
    if scheme in (None, "file"):
        from archisync.sources.path import PathSource

        return PathSource()
    if scheme in ("http", "https"):
        return _http_source()
    if scheme == "exec":
        from archisync.sources.exec import ExecSource

        return ExecSource()
    return None


def _http_source() -> CheckedSource:
    try:
        from archisync.sources.http import HttpSource
    except ModuleNotFoundError as exc:
        if exc.name not in ("httpx", "httpcore"):
            raise
        raise ConfigurationError(
            "an http(s):// source needs httpx, which is not installed", hint="pip install 'archisync[http]'"
        ) from None
    return HttpSource()


def is_address(template: str) -> bool:
    """Whether the template alone says what is read: a file or an address. Programs and plug-ins are told agent and type."""
    return scheme_of(template) in (None, "file", "http", "https")


def check_template(template: str, config: Config | None = None, sync_type: str = "orders") -> None:
    """Raise ConfigurationError unless the template, and what its source is told by the settings, make sense.

    Of a plug-in only its existence is checked: it is not imported, so that a broken one stops no worker.
    """
    check_placeholders(template)
    scheme = scheme_of(template)
    built_in = _built_in(scheme)
    if built_in is None:
        _installed(scheme)
    else:
        built_in.check(template, config or Config(environment={}), sync_type)


def check_all(config: Config) -> None:
    """Check the template of every type: a worker with a wrong one must not start. Raises ConfigurationError."""
    for kind in SYNC_TYPES.values():
        template = config.source(kind)
        try:
            check_template(template, config, kind.name)
        except ConfigurationError as exc:
            raise type(exc)(f"{kind.name}: {exc.message}", hint=exc.hint) from exc


def fetch(request: Request) -> Fetched:
    """Fetch the export that the request describes. Raises what `Source.fetch` raises."""
    check_placeholders(request.template)
    return source_for(request.template).fetch(request)
