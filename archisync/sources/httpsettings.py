"""The settings of HTTP sources: credentials, trusted authorities, allowed addresses."""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.rules.settings import Given
from archisync.sources.addresses import Allowed

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
# The protocol, or archisync, sets these for each request.
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "range", "te", "upgrade"}
    | {"if-none-match", "if-modified-since"}
)


class ClientLogin(NamedTuple):
    """OAuth 2.0 client credentials (RFC 6749, 4.4): whoever has these gets a token at `url`."""

    url: str
    client_id: str
    secret: str
    scope: str

    def __repr__(self) -> str:
        return "ClientLogin(…)"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """`headers` go to the template's own host with each request, and to no other host. `client` gets the token in one more header."""

    headers: Mapping[str, str] = field(repr=False)
    client: ClientLogin | None
    cert: str
    key: str
    ca: str
    allowed: Allowed


def http_settings(config: Config, sync_type: str) -> HttpSettings:
    """The settings of a type. Raises ConfigurationError, which never shows a credential."""
    given = config.http_credentials(sync_type)
    cert, key = given["CERT"], given["KEY"]
    if key.text and not cert.text:
        raise ConfigurationError(f"{key.name} is set, but {cert.name} is not", hint=f"set {cert.name}")
    return HttpSettings(
        headers=_headers(given),
        client=_client_login(given),
        cert=cert.text,
        key=key.text,
        ca=config.http_ca,
        allowed=Allowed.parse(config.http_allow_private),
    )


def _headers(given: Mapping[str, Given]) -> dict[str, str]:
    extra, authorization = _extra_headers(given["HEADERS"]), _authorization(given)
    if authorization and any(name.lower() == "authorization" for name in extra):
        raise ConfigurationError(
            f"{given['HEADERS'].name} sets Authorization beside a token or user", hint="keep one of the two"
        )
    return extra | authorization


def _authorization(given: Mapping[str, Given]) -> dict[str, str]:
    token, user, password = given["TOKEN"], given["USER"], given["PASSWORD"]
    if token.text and (user.text or password.text):
        raise ConfigurationError(f"both {token.name} and {user.name} are set", hint="unset one of them")
    if password.text and not user.text:
        raise ConfigurationError(f"{password.name} is set, but {user.name} is not", hint=f"set {user.name}")
    if token.text:
        if not re.fullmatch(r"[\x21-\x7e]+", token.text):
            raise ConfigurationError(
                f"{token.name} has characters that a token can't have", hint="ASCII without blanks or line ends"
            )
        return {"Authorization": f"Bearer {token.text}"}
    if user.text:
        if ":" in user.text:
            raise ConfigurationError(f"{user.name} has a colon", hint="the password goes into its own variable")
        encoded = base64.b64encode(f"{user.text}:{password.text}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def _client_login(given: Mapping[str, Given]) -> ClientLogin | None:
    url, client_id, secret, scope = (given[part] for part in ("URL", "ID", "SECRET", "SCOPE"))
    missing = [part.name for part in (url, client_id, secret) if not part.text]
    if len(missing) == 3 and not scope.text:
        return None
    if missing:
        raise ConfigurationError(f"{missing[0]} is not set, and others of its kind are", hint=f"set {missing[0]}")
    if given["TOKEN"].text or given["USER"].text:
        raise ConfigurationError(f"{url.name} is set beside a token or user", hint="keep one of the two ways to log in")
    authority = re.split(r"[/?#]", url.text.partition("://")[2], maxsplit=1)[0]
    if not url.text.startswith(("https://", "http://")) or not authority or "@" in authority:
        raise ConfigurationError(
            f"{url.name} is no address", hint="for example https://login.example/tenant/oauth2/v2.0/token"
        )
    return ClientLogin(url.text, client_id.text, secret.text, scope.text)


def _extra_headers(given: Given) -> dict[str, str]:
    name, text = given
    if not text:
        return {}
    hint = f"""export {name}='{{"X-Api-Key": "…"}}'"""
    try:
        headers = json.loads(text)
    except ValueError:
        raise ConfigurationError(f"{name} is not JSON", hint=hint) from None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ConfigurationError(f"{name} is not a JSON object of texts", hint=hint)
    for header, value in headers.items():
        if not _HEADER_NAME.fullmatch(header) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"{name} has a name or value that no header can have", hint=hint)
        if header.lower() in _OWN_HEADERS:
            raise ConfigurationError(f"{name} sets {header}, which archisync sets itself", hint=hint)
    return headers


def tls_context(settings: HttpSettings, *, with_certificate: bool) -> ssl.SSLContext:
    """A context that verifies the server and shows the client certificate. Raises ConfigurationError.

    Without named authorities, it trusts the system's and certifi's, because a slim container has none.
    """
    context = _trust(settings.ca)
    if settings.cert and with_certificate:
        try:
            # For an encrypted key OpenSSL would prompt on the terminal; the empty password makes it an error.
            context.load_cert_chain(settings.cert, settings.key or None, password="")
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(
                f"the client certificate can't be used: {exc.strerror or exc}",
                hint="ARCHISYNC_HTTP_CERT and ARCHISYNC_HTTP_KEY name PEM files that belong together; "
                "the key is not encrypted",
            ) from exc
    return context


def _trust(ca: str) -> ssl.SSLContext:
    if not ca:
        import certifi

        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(
            f"the authorities' file can't be used: {exc.strerror or exc}", hint="ARCHISYNC_HTTP_CA names a PEM file"
        ) from exc
