"""One route of the API: what the routing, the check of a request and the OpenAPI document need to know of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from archisync.base import jsontext
from archisync.web.api.parameters import Given, Parameter, read_body, read_query
from archisync.web.calls import Call, Endpoint, Refusal, etag, tagged
from archisync.web.people import Role

JSON = "application/json"
PREFIX = "/api/v1"
Document = dict[str, Any]
Answer = Callable[[Call, Given], Document]


class _Number(Convertor[str]):
    """Digits, but not so many that Python refuses to read them, as Starlette's own `int` takes."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("number", _Number())


@dataclass(frozen=True, kw_only=True)
class ApiRoute:
    """`path`: below PREFIX. `answer`: gives the document for what was sent. `document`: the name under which documents.md describes it.
    `command`: the commands that show or do the same. `parts` (of the path), `query`, `body`: what may be sent; without `body`, none is
    read. `paged`: the document has `next`. `matches`: If-Match is heeded. `body_example`: sent by a test, with the examples of the
    parameters."""

    method: str
    path: str
    answer: Answer
    role: Role
    document: str
    command: tuple[str, ...] = ()
    parts: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    body: tuple[Parameter, ...] | None = None
    body_example: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    paged: bool = False
    matches: bool = False

    @property
    def summary(self) -> str:
        """The first line of what its function says of itself."""
        return (self.answer.__doc__ or "").strip().splitlines()[0]

    @property
    def full_path(self) -> str:
        """As Starlette wants it. An agent's id may have any characters, so it takes the rest of the path; a run has a number."""
        return PREFIX + re.sub(r"\{agent\}$", "{agent:path}", self.path.replace("{run}", "{run:number}"))

    def endpoint(self) -> Endpoint:
        return partial(_endpoint, self)


def _endpoint(route: ApiRoute, call: Call) -> Response:
    given = {part.name: part.read([call.part(part.name)]) for part in route.parts}
    given |= read_query(route.query, call.query)
    if route.body is not None:
        given |= read_body(route.body, call.json())
    body = written(route.answer(call, given))
    return tagged(body, JSON) if route.method == "GET" else _done(route, body)


def _done(route: ApiRoute, body: bytes) -> Response:
    headers = {"etag": etag(body)} if route.matches else {}
    return Response(body, route.status, media_type=JSON, headers=headers)


def written(document: Document) -> bytes:
    """The document as it is sent."""
    return jsontext.document(document, indent=None).encode()


def check_match(call: Call, document: Document) -> None:
    """Raise Refusal when the request is meant for another version of the document (If-Match). Call it in the transaction that changes it,
    with the row locked."""
    wanted = call.request.headers.get("if-match")
    if wanted is None or wanted.strip() == "*":
        return
    tags = [tag.strip().removeprefix("W/") for tag in wanted.split(",")]  # a proxy that compresses makes them weak
    if etag(written(document)) not in tags:
        raise Refusal(412, "somebody has changed it meanwhile; nothing was done", hint="read it again, and decide anew")


def paged(name: str, rows: Sequence[Any], limit: int, cursor: Callable[[Any], str]) -> Document:
    """A page of rows, of which one more than `limit` was asked for. `cursor`: what `after` has to be for the rows behind this one."""
    shown = rows[:limit]
    return {name: shown, "next": cursor(shown[-1]) if len(rows) > limit else None}
