"""Where exports come from, chosen by the template in `ARCHISYNC_SOURCE`. This version reads files only."""

import re

from archisync.errors import ConfigurationError
from archisync.sources.interface import Export, Request, Source
from archisync.sources.path import PathSource

__all__ = ["Export", "Request", "Source", "check_template", "fetch", "source_for"]

# A scheme ends at a colon before any slash, so `exports/a:b.csv` is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TOKEN = re.compile(r"\{[^{}]*\}|[{}]")
_PLACEHOLDERS = frozenset({"{agent}", "{type}"})
_PLACEHOLDER_HINT = "the placeholders are {agent} and {type}, for example /srv/exports/{agent}/{type}.csv"


def source_for(template: str) -> Source:
    """The source that reads such a template: a plain path or `file://`.

    Raises ConfigurationError for every other scheme, without showing the template: an address may hold a password.
    """
    scheme = _SCHEME.match(template)
    if scheme is None or scheme[1].lower() == "file":
        return PathSource()
    raise ConfigurationError(
        f"the source has the scheme {scheme[1]}:, but this version reads files only",
        hint="give a path such as /srv/exports/{agent}/{type}.csv; a relative path with a colon starts with ./",
    )


def check_template(template: str) -> None:
    """Raise ConfigurationError unless the template is non-empty and all its braces are `{agent}` or `{type}`."""
    if not template.strip():
        raise ConfigurationError("the source is empty", hint=_PLACEHOLDER_HINT)
    if "\0" in template:
        raise ConfigurationError("the source has a NUL character", hint=_PLACEHOLDER_HINT)
    for token in _TOKEN.findall(template):
        if token in _PLACEHOLDERS:
            continue
        what = f"a lone {token!r}" if len(token) == 1 else f"the unknown placeholder {token!a}"
        raise ConfigurationError(f"the source has {what}", hint=_PLACEHOLDER_HINT)


def fetch(request: Request) -> Export:
    """Fetch the export that the request describes. Raises what `Source.fetch` raises."""
    check_template(request.template)
    return source_for(request.template).fetch(request)
