"""One GET and the redirects that it leads to.

* Credentials go to the template's own host and to no other: a redirect to another host is followed without them, one from https to http
  is not followed at all.
* Only addresses that are public, or that the operator allows, are connected to (see `archisync.sources.addresses`). Proxies from the
  environment are not used: a proxy resolves the name itself, and only the proxy's address could be checked.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import ssl
from collections.abc import Iterator, Mapping
from time import monotonic

import httpcore
import httpx

from archisync import __version__
from archisync.base.errors import AuthenticationError, SourceError, TransientSourceError, TruncatedError
from archisync.base.text import printable
from archisync.sources.addresses import GuardedBackend
from archisync.sources.clienttokens import ClientTokens
from archisync.sources.httpsettings import HttpSettings, tls_context
from archisync.sources.httpvalidators import conditions

MAX_REDIRECTS = 5
STEP_TIMEOUT_S = 30.0
"""For a connection, and for each silence of the server; ARCHISYNC_FETCH_TIMEOUT_S limits the whole download."""
CREDENTIALS_HINT = "check ARCHISYNC_HTTP_TOKEN, or whichever ARCHISYNC_HTTP_… the server wants"
AGAIN_HINT = "fetch it again: archisync run TYPE --agent AGENT"
UNAUTHORIZED = 401
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOGIN_PATH = re.compile(r"(?:^|[/._-])(?:log-?in|log-?on|sign-?in|sso|saml2?|adfs|oauth2?)(?:$|[/._-])", re.I)
_CERTIFICATE_REFUSED = re.compile(r"ALERT_(?:CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)")
_HEADERS = {"User-Agent": f"archisync/{__version__}", "Accept": "*/*", "Accept-Encoding": "gzip, identity;q=0.5"}

# At INFO and DEBUG, both log addresses with their queries, which may hold keys.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Getter:
    """A GET and its redirects, within `timeout_s`. Connections are closed with `stack`. `headers` have no secret: any host gets them."""

    def __init__(
        self,
        settings: HttpSettings,
        timeout_s: float,
        validators: Mapping[str, str],
        stack: contextlib.ExitStack,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._deadline = monotonic() + timeout_s
        self._validators = validators
        self._stack = stack
        self._headers = dict(headers or {})
        self._clients: dict[tuple[bool, bool], httpx.Client] = {}
        self._tokens = ClientTokens(settings.client, self._token_client) if settings.client else None

    def get(self, url: httpx.URL) -> tuple[httpx.Response, httpx.URL]:
        """The first answer that is no redirect, with its body unread, and the address that gave it."""
        trusted = True
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, trusted)
            if trusted and self._tokens is not None:
                if response.status_code != UNAUTHORIZED:
                    self._tokens.accepted()
                elif self._tokens.renew():
                    response.close()
                    response = self._send(url, trusted)
            if response.status_code not in _REDIRECTS:
                return response, url
            response.close()
            target = _redirect_target(url, response)
            trusted = trusted and _same_host(url, target)
            url = target
        raise SourceError(f"{shown(url)} is redirected more than {MAX_REDIRECTS} times", hint=curl(shown(url), "-IL"))

    def _send(self, url: httpx.URL, trusted: bool) -> httpx.Response:
        client = self._client(trusted, secure=url.scheme == "https")
        headers = self._headers | conditions(self._validators, url)
        if trusted:
            headers |= self._settings.headers
            headers |= self._tokens.header() if self._tokens is not None else {}
        with connection_errors(shown(url), in_body=False):
            response = client.send(client.build_request("GET", url, headers=headers), stream=True)
        self._stack.callback(response.close)
        return response

    def _client(self, trusted: bool, *, secure: bool) -> httpx.Client:
        """One with the client certificate for the template's host, another one without it for others. Each keeps its own cookies."""
        key = (trusted, secure)
        if key not in self._clients:
            context = tls_context(self._settings, with_certificate=trusted) if secure else None
            self._clients[key] = self._guarded(context, by_redirect=not trusted)
        return self._clients[key]

    def _token_client(self) -> httpx.Client:
        """The settings name the address where tokens are, so no redirect has led there. It is shown no certificate."""
        return self._guarded(tls_context(self._settings, with_certificate=False), by_redirect=False)

    def _guarded(self, context: ssl.SSLContext | None, *, by_redirect: bool) -> httpx.Client:
        transport = _Transport(context, GuardedBackend(self._settings.allowed, self._deadline, by_redirect=by_redirect))
        client = httpx.Client(transport=transport, trust_env=False, timeout=STEP_TIMEOUT_S, headers=_HEADERS)
        return self._stack.enter_context(client)


def is_same_host(url: httpx.URL, target: httpx.URL) -> bool:
    """Whether both are the same scheme, host and port."""
    return (url.scheme, url.host, _port(url)) == (target.scheme, target.host, _port(target))


def shown(url: httpx.URL) -> str:
    """The address without what may be secret: user, query, fragment."""
    return printable(str(url.copy_with(username=None, password=None, query=None, fragment=None)), limit=300)


def curl(origin: str, option: str = "-I") -> str:
    """The hint to look at the answer's headers. A redirect may lead to an address with characters that mean something to a shell."""
    return f"curl {option} {shlex.quote(origin)}"


def _redirect_target(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Where a redirect leads. Raises SourceError where it must not be followed."""
    target = url.join(response.headers.get("location", ""))  # httpx has checked that it is an address
    if "location" not in response.headers or target.scheme not in ("http", "https") or not target.host:
        raise SourceError(f"{shown(url)} is redirected to nowhere that http can reach", hint=curl(shown(url)))
    if target.userinfo:
        raise SourceError(f"{shown(url)} is redirected to an address with credentials in it", hint=curl(shown(url)))
    if url.scheme == "https" and target.scheme == "http":
        raise SourceError(
            f"{shown(url)} is redirected from https to http, which is not followed", hint=curl(shown(url))
        )
    if _LOGIN_PATH.search(target.path):
        raise AuthenticationError(f"{shown(url)} is redirected to a login page, {shown(target)}", hint=CREDENTIALS_HINT)
    return target


def _same_host(url: httpx.URL, target: httpx.URL) -> bool:
    """Whether credentials may go along: to the same host and port, or from http to https of the same host."""
    if url.host != target.host:
        return False
    ports = (_port(url), _port(target))
    return ports[0] == ports[1] or (ports == (80, 443) and target.scheme == "https")


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


class _Transport(httpx.BaseTransport):
    """httpx on httpcore with our own backend: httpx's own transport does not accept one."""

    def __init__(self, context: ssl.SSLContext | None, backend: httpcore.NetworkBackend) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = self._pool.handle_request(sent)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Stream(answer))

    def close(self) -> None:
        self._pool.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextlib.contextmanager
def connection_errors(origin: str, *, in_body: bool) -> Iterator[None]:
    """Turn httpx's errors into errors of archisync. `in_body`: the answer's head has come, and its body is being read."""
    try:
        yield
    except httpcore.TimeoutException as exc:
        raise TransientSourceError(f"{origin} took too long to answer", hint=curl(origin)) from exc
    except httpcore.RemoteProtocolError as exc:
        if in_body:
            raise TruncatedError(f"{origin}: the body ended before it was complete", hint=AGAIN_HINT) from exc
        raise TransientSourceError(f"{origin} hung up without an answer", hint=curl(origin)) from exc
    except httpcore.NetworkError as exc:
        raise _network_error(origin, exc) from exc
    except httpx.RemoteProtocolError as exc:  # httpx itself raises it for a Location only
        raise SourceError(f"{origin} is redirected to something that is no address", hint=curl(origin)) from exc
    except httpcore.ProtocolError as exc:  # its text may show a header
        raise SourceError(f"{origin} can't be asked: a header is not allowed", hint=CREDENTIALS_HINT) from exc


def _network_error(origin: str, exc: Exception) -> SourceError | TransientSourceError:
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SourceError(
            f"{origin} has a certificate that is not trusted: {cause.verify_message}",
            hint="if it is your ERP's own authority: export ARCHISYNC_HTTP_CA=/path/to/ca.pem",
        )
    if isinstance(cause, ssl.SSLError) and _CERTIFICATE_REFUSED.search(cause.reason or ""):
        return AuthenticationError(
            f"{origin} refuses our client certificate, or the lack of one",
            hint="check ARCHISYNC_HTTP_CERT and ARCHISYNC_HTTP_KEY",
        )
    said = cause.strerror if cause is not None and cause.strerror else str(exc)
    return TransientSourceError(f"{origin} can't be reached: {printable(said, limit=200)}", hint=curl(origin))
