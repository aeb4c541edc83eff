"""The template of a source: its scheme, and the placeholders `{agent}` and `{type}`; `{date:%Y%m%d}` where a folder is listed."""

import re
from collections.abc import Callable

from archisync.base.errors import ConfigurationError
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import sync_type
from archisync.sources.interface import Request

# A scheme ends at a colon before any slash, so `exports/a:b.csv` is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TOKEN = re.compile(r"\{[^{}]*\}|[{}]")
_PLACEHOLDER = re.compile(r"\{(agent|type)\}")
_SHOWABLE = re.compile(r"\{[A-Za-z_]{0,20}(![a-z])?\}")
"""A typing mistake that may be shown; other braces may be a part of a key, or JSON with a password in it."""
_HINT = "the placeholders are {agent} and {type}, for example /srv/exports/{agent}/{type}.csv"


def scheme_of(template: str) -> str | None:
    """The scheme in lower case; None for a plain path."""
    found = _SCHEME.match(template)
    return found[1].lower() if found else None


def check_placeholders(template: str, *, dates: bool) -> None:
    """Raise ConfigurationError for an empty template, or for braces other than `{agent}`, `{type}` and, with `dates`, `{date:…}`."""
    if not template.strip():
        raise ConfigurationError("the source is empty", hint=_HINT)
    if "\0" in template:
        raise ConfigurationError("the source has a NUL character", hint=_HINT)
    for token in _TOKEN.findall(template):
        if _PLACEHOLDER.fullmatch(token) or (dates and token.startswith("{date:")):
            continue
        raise ConfigurationError(f"the source has {_unknown(token)}", hint=_HINT)


def _unknown(token: str) -> str:
    if len(token) == 1:
        return f"a lone {token!r}"
    return f"the unknown placeholder {token!a}" if _SHOWABLE.fullmatch(token) else "braces around no placeholder"


def has_placeholder(text: str) -> bool:
    return _PLACEHOLDER.search(text) is not None


def fill(text: str, request: Request, encode: Callable[[str], str] = str) -> str:
    """The text with its placeholders filled in. Raises UsageError for an agent id or type that is not allowed."""
    known = {"agent": check_agent_id(request.agent_id), "type": sync_type(request.sync_type).name}
    return _PLACEHOLDER.sub(lambda found: encode(known[found[1]]), text)
