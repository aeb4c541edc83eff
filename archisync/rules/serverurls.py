"""The URLs of PostgreSQL and Redis, as settings: no message shows one, for it may hold a password."""

from __future__ import annotations

import re

from archisync.base.errors import ConfigurationError

REDIS_SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "unix://")


def database_url(name: str, url: str) -> str:
    """The URL, unless libpq would take a part of its password for the host. Raises ConfigurationError."""
    scheme, separator, rest = url.partition("://")
    place, _, database = rest.partition("?")[0].partition("/")
    if separator and (place.count("@") > 1 or "@" in database):  # libpq would take a part of the password for the host
        raise ConfigurationError(
            f"{name} has an @ too many between {scheme}:// and the database",
            hint="in a password, write %40 for @, %2F for / and %3A for :",
        )
    return url


def redis_url(name: str, url: str) -> str:
    """The URL, unless it is no URL of Redis or redis-py would misread it. Raises ConfigurationError."""
    if not url.startswith(REDIS_SCHEMES):  # it may be a password, so it is not shown
        raise ConfigurationError(
            f"{name} can't be read as a Redis URL",
            hint=f"it begins with {', '.join(REDIS_SCHEMES[:-1])} or {REDIS_SCHEMES[-1]}",
        )
    # A / in a password ends the host: redis-py would take the password for the host, and show it when it can't connect.
    if "@" in url and re.match(r"redis[^/]*://[^/?#@]*(/[^?]*@|#.*@|\?[^=]*@)", url):
        raise ConfigurationError(
            f"{name} has a /, ? or # before its @",
            hint="in a password, write %2F for /, %3F for ?, %23 for # and %40 for @",
        )
    return url
