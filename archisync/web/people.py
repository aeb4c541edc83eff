"""Who asks, and what he may do: tokens, sessions of the sign-in page, and users whom a proxy names."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from time import time

from archisync.rules.config import Config
from archisync.store.audit import Actor, Via

SESSION_S = 12 * 3600
"""How long a sign-in lasts: a working day."""
NAME_LENGTH = 60


class Role(IntEnum):
    """What a person may do; each role may do what the ones before it may."""

    READER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return {Role.READER: "read-only", Role.OPERATOR: "operator", Role.ADMIN: "admin"}[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """`name`: what is recorded with what he does. `by_browser`: the browser sends the credential by itself, so another site could make it
    do so. `address`: where he is."""

    name: str
    role: Role
    by_browser: bool
    address: str
    signed_in: bool = False

    @property
    def actor(self) -> Actor:
        """Who is recorded with what he does."""
        return Actor(name=self.name, via=Via.API)


class People:
    """Finds out who asks. Without any credential in the settings everybody may look, and nobody may do anything."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time) -> None:
        given = (
            (config.web_token, Role.ADMIN),
            (config.web_operator_token, Role.OPERATOR),
            (config.web_read_token, Role.READER),
        )
        self._tokens = [(token.encode(), role) for token, role in given if token]
        self._header = config.web_user_header
        self._admins, self._operators = config.web_admins, config.web_operators
        self._clock = clock
        # From the tokens, so that a session survives a restart and ends when a token changes.
        self._key = hashlib.sha256(b"archisync session\0" + b"\0".join(token for token, _ in self._tokens)).digest()

    @property
    def has_tokens(self) -> bool:
        return bool(self._tokens)

    @property
    def is_open(self) -> bool:
        """Whether no credential is configured."""
        return not self._tokens and not self._header

    def by_token(self, token: str, *, address: str) -> Person | None:
        """The person with this bearer token; None when there is no such token."""
        role = self._role_of(token)
        return (
            None
            if role is None
            else Person(name=f"web, {role.word} token", role=role, by_browser=False, address=address)
        )

    def by_session(self, cookie: str, *, address: str) -> Person | None:
        """The person who signed in; None when the session is not ours, or over."""
        body, _, signature = cookie.partition(".")
        if not self._tokens or not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return None
        role, until, _, name = urlsafe_b64decode(body).decode().split("\n", 3)
        if float(until) < self._clock():
            return None
        return Person(name=name, role=Role(int(role)), by_browser=True, address=address, signed_in=True)

    def by_proxy(self, header: str | None, *, address: str) -> Person | None:
        """The user whom a proxy named. The caller has checked that the request came from one."""
        if not self._header or not header:
            return None
        everybody = "*" in self._operators
        role = Role.OPERATOR if everybody or header in self._operators else Role.READER
        if header in self._admins or "*" in self._admins:
            role = Role.ADMIN
        return Person(name=_clean_name(header), role=role, by_browser=True, address=address)

    def anonymous(self, *, address: str) -> Person | None:
        """A reader where no credential is configured."""
        return Person(name="web", role=Role.READER, by_browser=True, address=address) if self.is_open else None

    def sign_in(self, token: str, name: str) -> str | None:
        """The cookie of a new session; None when there is no such token."""
        role = self._role_of(token)
        if role is None:
            return None
        until = self._clock() + SESSION_S
        text = f"{int(role)}\n{until:.0f}\n{secrets.token_hex(16)}\n{_clean_name(name) or f'web, {role.word} token'}"
        body = urlsafe_b64encode(text.encode()).decode()
        return f"{body}.{self._sign(body)}"

    def _role_of(self, token: str) -> Role | None:
        given = token.encode(errors="replace")
        found = [role for known, role in self._tokens if hmac.compare_digest(known, given)]
        return max(found, default=None)

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(errors="replace"), hashlib.sha256).hexdigest()


def _clean_name(name: str) -> str:
    from archisync.base.text import printable

    return " ".join(printable(name, limit=NAME_LENGTH).split())
