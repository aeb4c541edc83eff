"""Signing in with a token, which sets a cookie that no other site can make the browser send, and signing out."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from archisync.base.errors import ArchisyncError
from archisync.web.calls import COOKIE, Asgi, Refusal, Services, read_body, status_of, try_token
from archisync.web.gate import SEEN, Seen, check_origin
from archisync.web.pages.look import failed, local_path, open_page
from archisync.web.people import SESSION_S


def page(services: Services) -> Asgi:
    """GET: the form."""

    async def answer(request: Request) -> Response:
        return _form(services, request, wanted=local_path(request.query_params.get("next")))

    return answer


def enter(services: Services) -> Asgi:
    """POST of the form: the cookie of a new session, and on to the page that was wanted."""

    async def answer(request: Request) -> Response:
        try:
            given = await _fields(request)
        except (ArchisyncError, ClientDisconnect) as exc:
            error = exc if isinstance(exc, ArchisyncError) else Refusal(400, "the form did not arrive")
            return failed(request, error, status_of(error))
        wanted = local_path(given.get("next"))
        token, name = given.get("token", "").strip(), given.get("name", "")
        try:
            session = try_token(services, request.scope[SEEN], lambda: services.people.sign_in(token, name))
        except Refusal as exc:
            response = _form(services, request, status=exc.status, wanted=wanted, name=name, error=exc.message)
            response.headers.update(exc.headers)
            return response
        response = RedirectResponse(request.scope[SEEN].prefix + wanted, 303)
        response.set_cookie(COOKIE, session, max_age=SESSION_S, **_strict(request.scope[SEEN]))
        return response

    return answer


def leave(_: Services) -> Asgi:
    """POST: the cookie goes."""

    async def answer(request: Request) -> Response:
        if not check_origin(request.scope, by_browser=True):
            error = Refusal(403, "this request does not come from a page of the panel", hint="reload the page")
            return failed(request, error, error.status)
        seen: Seen = request.scope[SEEN]
        response = RedirectResponse(f"{seen.prefix}/sign-in", 303)
        response.delete_cookie(COOKIE, **_strict(seen))
        return response

    return answer


async def _fields(request: Request) -> dict[str, str]:
    if not check_origin(request.scope, by_browser=True):
        raise Refusal(403, "this request does not come from a page of the panel", hint="reload the page")
    body = await read_body(request)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=10))
    except ValueError:
        raise Refusal(400, "the form can't be read") from None


def _strict(seen: Seen) -> dict[str, Any]:
    return {"path": seen.prefix or "/", "httponly": True, "samesite": "strict", "secure": seen.scheme == "https"}


def _form(
    services: Services, request: Request, *, wanted: str, status: int = 200, name: str = "", error: str = ""
) -> Response:
    return open_page(
        request,
        "sign_in.html",
        status,
        title="Sign in",
        wanted=wanted,
        name=name,
        error=error,
        has_tokens=services.people.has_tokens,
    )
