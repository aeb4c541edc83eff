"""OAuth 2.0 client credentials: a token for each request, asked for when there is none and when the server refuses the one there is.

A token is kept in this process until it is about to expire, so a thousand agents cost one token. The secret goes to the address in the
settings only, and no redirect is followed there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import httpcore
import httpx

from archisync.base.errors import AuthenticationError, SourceError, SyncError, TransientSourceError
from archisync.base.text import printable
from archisync.sources.httpsettings import ClientLogin

_EARLY_S = 60
"""A token that expires so soon is not used: the request takes its time too."""
_USUAL_LIFE_S = 300
_LONGEST_ANSWER_BYTES = 256 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
_HINT = "check ARCHISYNC_HTTP_CLIENT_ID, ARCHISYNC_HTTP_CLIENT_SECRET and ARCHISYNC_HTTP_SCOPE"
_TRANSIENT = frozenset({408, 425, 429})


class _Token(NamedTuple):
    """`until`: in monotonic seconds."""

    text: str
    until: float


_KEPT: dict[ClientLogin, _Token] = {}
"""The tokens of this process. A worker has few logins, one for each server."""


class ClientTokens:
    """The tokens of one fetch. `client` opens a connection to the server of tokens."""

    def __init__(self, login: ClientLogin, client: Callable[[], httpx.Client]) -> None:
        self._login = login
        self._client = client
        self._is_unproven = False

    def header(self) -> dict[str, str]:
        """Raises AuthenticationError and TransientSourceError when there is no token to be had."""
        token = _KEPT.get(self._login)
        if token is None or token.until <= monotonic():
            token = _KEPT[self._login] = self._fetched()
            self._is_unproven = True
        return {"Authorization": f"Bearer {token.text}"}

    def accepted(self) -> None:
        """The server has taken the token."""
        self._is_unproven = False

    def renew(self) -> bool:
        """Forget a token that was refused, for it has expired; False for one that was just made and never taken: another would not help."""
        _KEPT.pop(self._login, None)
        return not self._is_unproven

    def _fetched(self) -> _Token:
        basic = (quote_plus(self._login.client_id), quote_plus(self._login.secret))  # RFC 6749, 2.3.1
        status, answer = self._ask({}, httpx.BasicAuth(*basic))
        if status in (400, 401) and answer.get("error") == "invalid_client":  # some read them in the body only
            own = {"client_id": self._login.client_id, "client_secret": self._login.secret}
            status, answer = self._ask(own, None)
        token, life_s = answer.get("access_token"), answer.get("expires_in", _USUAL_LIFE_S)
        if status != 200 or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise self._refusal(status, answer)
        life_s = float(life_s) if re.fullmatch(r"[0-9]{1,9}", str(life_s)) else _USUAL_LIFE_S
        return _Token(token, monotonic() + max(life_s - _EARLY_S, 0))

    def _ask(self, more: dict[str, str], auth: httpx.BasicAuth | None) -> tuple[int, dict[str, Any]]:
        form = {"grant_type": "client_credentials"} | more
        if self._login.scope:
            form["scope"] = self._login.scope
        client = self._client()
        try:
            with client.stream(
                "POST", self._login.url, data=form, auth=auth, headers={"Accept": "application/json"}
            ) as answer:
                body = b""
                for block in answer.iter_bytes():
                    body += block
                    if len(body) > _LONGEST_ANSWER_BYTES:
                        break
                return answer.status_code, _object(body) | {"retry_after": answer.headers.get("retry-after", "")}
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpx.HTTPError) as exc:
            raise TransientSourceError(f"{self._shown} gives no token: it can't be reached", hint=_HINT) from exc

    @property
    def _shown(self) -> str:
        url = httpx.URL(self._login.url)
        return printable(str(url.copy_with(query=None, fragment=None)), limit=300)

    def _refusal(self, status: int, answer: dict[str, Any]) -> SyncError:
        said = printable(str(answer.get("error", "")), limit=60)
        message = f"{self._shown} gives no token: it answers {status} {said}".rstrip()
        if status in _TRANSIENT or status >= 500:
            wait = answer["retry_after"]
            return TransientSourceError(
                message, hint=_HINT, retry_after_s=float(wait) if re.fullmatch(r"[0-9]{1,4}", wait) else None
            )
        if 300 <= status < 400 or status == 404:
            return SourceError(message, hint="check ARCHISYNC_HTTP_TOKEN_URL: it is not redirected")
        return AuthenticationError(message, hint=_HINT)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
