"""One request as an endpoint sees it: who asks, what was sent, and a database. And what every endpoint does before and after.

An endpoint is a plain function from `Call` to a response. It runs in a thread, since psycopg waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from archisync.base.errors import (
    ArchisyncError,
    BusyError,
    ConfigurationError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from archisync.base.log import EventLog
from archisync.base.text import redact
from archisync.rules.config import Config
from archisync.store.database import Database
from archisync.web.attempts import Attempts
from archisync.web.connections import Connections
from archisync.web.gate import SEEN, Seen, check_origin, header
from archisync.web.people import People, Person, Role
from archisync.web.together import Together
from archisync.web.workforce import Workforce

MOST_BYTES = 64 * 1024
"""Of a body: the largest form has a reason of some hundred characters."""
MOST_FIELDS = 200
BODY_S = 10.0
"""For a body to arrive: a client that sends a byte a minute holds nothing but its own socket, and not for long."""
COOKIE = "archisync_session"


_STATUSES: tuple[tuple[type[ArchisyncError], int], ...] = (
    (UsageError, 400), (NotFoundError, 404), (BusyError, 409), (UnreachableError, 503), (ConfigurationError, 503),
)  # fmt: skip


class Refusal(UsageError):
    """The request is refused; `status` says why in HTTP."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, kw_only=True)
class Services:
    """What all requests share."""

    config: Config
    connections: Connections
    people: People
    attempts: Attempts
    workforce: Workforce
    together: Together[Response]
    log: EventLog


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, whose body has been read."""

    services: Services
    request: Request
    seen: Seen
    person: Person
    body: bytes

    @property
    def config(self) -> Config:
        return self.services.config

    @property
    def query(self) -> QueryParams:
        return self.request.query_params

    @contextmanager
    def database(self, *, answer_timeout_s: float | None = None) -> Iterator[Database]:
        """A connection for this request. `answer_timeout_s`: of one statement, where it may take longer than a page."""
        with self.services.connections.database() as db:
            usual = db.answer_timeout_s
            db.answer_timeout_s = answer_timeout_s or usual
            try:
                yield db
            finally:
                db.answer_timeout_s = usual

    def part(self, name: str) -> str:
        """A part of the path. Raises UsageError for a text that PostgreSQL can't take."""
        return storable(name, str(self.request.path_params[name]))

    def json(self) -> dict[str, Any]:
        """The object in the body; {} for no body. Raises Refusal."""
        if not self.body:
            return {}
        kind = (self.request.headers.get("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, f"the body is {ascii(kind or 'of no type')[:60]}, not application/json")
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON") from None
        if not isinstance(found, dict):
            raise Refusal(400, "the body is no JSON object")
        return found

    def form(self) -> dict[str, str]:
        """The fields of a form; of a name that comes twice, the last."""
        try:
            pairs = parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            raise Refusal(400, f"the form has more than {MOST_FIELDS} fields", hint="reload the page") from None
        return {name: storable(name, value) for name, value in pairs}


def storable(name: str, text: str) -> str:
    """The text, if PostgreSQL can take it. Raises UsageError."""
    if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise UsageError(
            f"{ascii(name)[1:41].rstrip(chr(39))} has a character that can't be stored", hint="leave it out"
        )
    return text


T = TypeVar("T")
Endpoint = Callable[[Call], Response]
Asgi = Callable[[Request], Awaitable[Response]]
Failure = Callable[[Request, ArchisyncError, int], Response]
"""How a face of the panel (contract, API, pages) says that something failed."""


def endpoint(services: Services, act: Endpoint, *, role: Role, failed: Failure, shared: bool = False) -> Asgi:
    """The function for Starlette's route: checks who asks, reads the body, acts, and puts every error into words.

    `shared`: the answer is the same for everybody who may ask, so those who ask at the same time share it."""

    async def answer(request: Request) -> Response:
        try:
            person = identify(services, request)
            require(person, role)
            if not check_origin(request.scope, by_browser=person.by_browser):
                raise Refusal(403, "this request does not come from a page of the panel", hint="reload the page")
            body = await read_body(request)
            call = Call(services=services, request=request, seen=request.scope[SEEN], person=person, body=body)
            find = partial(run_in_threadpool, attempt, request, lambda: act(call))
            question = (request.scope["path"], request.scope["query_string"])
            response = await (services.together.answer(question, find) if shared else find())
            return unchanged(request, response) or response
        except ClientDisconnect:
            return Response(status_code=400)
        except ArchisyncError as exc:
            return refuse(request, exc)
        except Exception as exc:  # noqa: BLE001 - as in the thread
            return bug(request, exc)

    def attempt(request: Request, act: Callable[[], Response]) -> Response:
        """In the thread: an error that leaves it is held by the future that brings it, and holds that one until garbage is collected."""
        try:
            return act()
        except ArchisyncError as exc:
            return refuse(request, exc)
        except Exception as exc:  # noqa: BLE001 - the last place where an error can be put into words
            return bug(request, exc)

    def refuse(request: Request, exc: ArchisyncError) -> Response:
        response = failed(request, exc, status_of(exc))
        response.headers.update(getattr(exc, "headers", {}))
        return response

    def bug(request: Request, exc: Exception) -> Response:
        hint = "a bug: this line and archisync --version help whoever mends it"
        services.log.event("web-failed", path=request.url.path, message=f"{type(exc).__name__}: {exc}", hint=hint)
        error = ArchisyncError(f"a bug in archisync: {type(exc).__name__}: {redact(str(exc))[:500]}")
        return failed(request, error, 500)

    return answer


def identify(services: Services, request: Request) -> Person:
    """Raises Refusal: 401 for nobody, 429 for an address that has tried too many wrong tokens."""
    scope, people = request.scope, services.people
    seen: Seen = scope[SEEN]
    kind, _, token = (header(scope, "authorization") or "").partition(" ")
    if (
        kind.lower() == "bearer" and people.has_tokens
    ):  # another kind is no token: proxies send names and passwords, too
        return try_token(services, seen, lambda: people.by_token(token.strip(), address=seen.address))
    if (cookie := _session(request)) and (person := people.by_session(cookie, address=seen.address)):
        return person
    if seen.by_proxy and (person := people.by_proxy(header(scope, people_header(services)), address=seen.address)):
        return person
    if person := people.anonymous(address=seen.address):
        return person
    raise unauthorized("sign in first")


def _session(request: Request) -> str | None:
    """The cookie of the sign-in page; None when there are two of them: one was planted, by a neighbouring site perhaps."""
    names = [part.partition("=")[0].strip() for part in (header(request.scope, "cookie") or "").split(";")]
    return request.cookies.get(COOKIE) if names.count(COOKIE) == 1 else None


def people_header(services: Services) -> str:
    return services.config.web_user_header or "-"


def try_token(services: Services, seen: Seen, look: Callable[[], T | None]) -> T:
    """What `look` finds with a token; counts the tries that find nothing. Raises Refusal."""
    if wait_s := services.attempts.wait_s(seen.address):
        raise Refusal(429, f"too many wrong tokens; try again in {wait_s} s", headers={"retry-after": str(wait_s)})
    found = look()
    if found is None:
        services.attempts.failed(seen.address)
        hint = "the right ones are in ARCHISYNC_WEB_TOKEN, …_OPERATOR_TOKEN and …_READ_TOKEN"
        services.log.event("web-refused", address=seen.address, message="a wrong token", hint=hint)
        raise unauthorized("there is no such token")
    return found


def unauthorized(message: str) -> Refusal:
    hint = "send it as Authorization: Bearer …, the value of ARCHISYNC_WEB_TOKEN"
    return Refusal(401, message, hint=hint, headers={"www-authenticate": "Bearer"})


def require(person: Person, role: Role) -> None:
    """Raises Refusal when the person may not do what takes this role."""
    if person.role >= role:
        return
    why = "; no token is configured, so the panel only shows" if not person.signed_in and person.name == "web" else ""
    raise Refusal(403, f"this takes the role {role.word}, and you are {person.role.word}{why}")


async def read_body(request: Request) -> bytes:
    """Raises Refusal for a body that is too large, or that does not arrive in time."""
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for block in request.stream():
                found += block
                if len(found) > MOST_BYTES:
                    raise Refusal(
                        413, f"the body is larger than {MOST_BYTES // 1024} kB", headers={"connection": "close"}
                    )
    except TimeoutError:
        raise Refusal(408, "the body did not arrive in time", headers={"connection": "close"}) from None
    return bytes(found)


def status_of(exc: ArchisyncError) -> int:
    """The status of HTTP for each class of error."""
    if isinstance(exc, Refusal):
        return exc.status
    return next((status for kind, status in _STATUSES if isinstance(exc, kind)), 500)


def etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def tagged(body: bytes, media_type: str, *, same: bytes | None = None) -> Response:
    """The body with an ETag. `same`: the part of the body that makes it another one."""
    headers = {"etag": etag(body if same is None else same), "cache-control": "no-cache, private"}
    return Response(body, media_type=media_type, headers={**headers, "vary": "Cookie, Authorization"})


def unchanged(request: Request, response: Response) -> Response | None:
    """304 instead of what the client has already."""
    tag = response.headers.get("etag")
    wanted = [part.strip().removeprefix("W/") for part in (request.headers.get("if-none-match") or "").split(",")]
    if request.method not in ("GET", "HEAD") or tag not in wanted:
        return None
    headers = {name: response.headers[name] for name in ("etag", "cache-control", "vary")}
    return Response(status_code=304, headers=headers)
