"""What the environment says about HTTP sources: credentials, trust, addresses."""

import base64
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.sources.addresses import Allowed

_PREFIX = "ARCHISYNC_HTTP_"
_CREDENTIALS = ("TOKEN", "USER", "PASSWORD", "HEADERS", "CERT", "KEY")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
# What we, or the protocol, decide for each request.
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "range", "te", "upgrade"}
    | {"if-none-match", "if-modified-since"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """`headers` are sent with each request to the template's own host, and to no other."""

    headers: Mapping[str, str] = field(repr=False)
    cert: str
    key: str
    ca: str
    allowed: Allowed


def http_settings(config: Config, sync_type: str) -> HttpSettings:
    """The settings of a type. Raises ConfigurationError, which never shows a credential."""
    names = _names(config, sync_type)
    values = {part: config.text(name) for part, name in names.items()}
    if values["KEY"] and not values["CERT"]:
        raise ConfigurationError(f"{names['KEY']} is set, but {names['CERT']} is not", hint=f"set {names['CERT']}")
    return HttpSettings(
        headers=_headers(names, values),
        cert=values["CERT"],
        key=values["KEY"],
        ca=config.text(f"{_PREFIX}CA"),
        allowed=Allowed.parse(config.text(f"{_PREFIX}ALLOW_PRIVATE")),
    )


def _names(config: Config, sync_type: str) -> dict[str, str]:
    """The variable of each part: the type's own as soon as it has one of them, so that no server gets another's secret."""
    own = {part: f"{_PREFIX}{part}_{sync_type.upper()}" for part in _CREDENTIALS}
    if any(config.text(name) for name in own.values()):
        return own
    return {part: f"{_PREFIX}{part}" for part in _CREDENTIALS}


def _headers(names: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    extra, authorization = _extra_headers(names["HEADERS"], values["HEADERS"]), _authorization(names, values)
    if authorization and any(name.lower() == "authorization" for name in extra):
        raise ConfigurationError(
            f"{names['HEADERS']} sets Authorization beside a token or user", hint="keep one of the two"
        )
    return extra | authorization


def _authorization(names: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    token, user, password = values["TOKEN"], values["USER"], values["PASSWORD"]
    if token and (user or password):
        raise ConfigurationError(f"both {names['TOKEN']} and {names['USER']} are set", hint="unset one of them")
    if password and not user:
        raise ConfigurationError(f"{names['PASSWORD']} is set, but {names['USER']} is not", hint=f"set {names['USER']}")
    if token:
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ConfigurationError(
                f"{names['TOKEN']} has characters that a token can't have", hint="ASCII without blanks or line ends"
            )
        return {"Authorization": f"Bearer {token}"}
    if user:
        if ":" in user:
            raise ConfigurationError(f"{names['USER']} has a colon", hint="the password goes into its own variable")
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}


def _extra_headers(name: str, text: str) -> dict[str, str]:
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
    """Verifies the server against the named authorities, or the system's and certifi's (a slim container has none of its
    own); shows the client certificate. Raises ConfigurationError."""
    context = _trust(settings.ca)
    if settings.cert and with_certificate:
        try:
            # An encrypted key would be asked for on a terminal; the empty password makes that an error.
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
