"""How the settings of the panel are read: tokens, names, addresses, and the path of a proxy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from archisync.base.errors import ConfigurationError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


def web_token(name: str, text: str) -> str:
    if text and not re.fullmatch(r"[!-~]{16,512}", text):  # it is a secret, so it is not shown
        raise ConfigurationError(
            f"{name} is too short or has blanks in it",
            hint=f"at least 16 printable characters: put the output of `openssl rand -hex 32` into {name}",
        )
    return text


def networks(name: str, text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    from ipaddress import ip_network

    try:
        return tuple(ip_network(word) for word in names(name, text))
    except ValueError as exc:
        raise ConfigurationError(f"{name}: {exc}", hint="for example 10.0.0.7, or 10.0.0.0/24") from None


def names(_name: str, text: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[\s,]+", text) if word)


def header(name: str, text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", text):
        raise ConfigurationError(f"{name} is no name of a header", hint="for example X-Forwarded-User")
    return text.lower()


def path_prefix(name: str, text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)*/?", text) or "/.." in text or "/./" in text:
        raise ConfigurationError(f"{name} is {text!r}", hint="a path such as /archisync")
    return text.rstrip("/")
