"""The OpenAPI 3.1 document of the API, made of its routes and of documents.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from archisync import __version__
from archisync.base.jsontext import SCHEMA
from archisync.observe.fields import Field, Fields, documents
from archisync.web.api import problems
from archisync.web.api.parameters import Parameter
from archisync.web.api.routes import JSON, ApiRoute
from archisync.web.people import Role

_ALWAYS = (400, 401, 403, 404, 408, 409, 413, 421, 429, 500, 503)
_WITH_BODY = (415,)
_PLAIN: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "value": {"type": ["string", "null"]},
    "scalar": {"type": ["string", "number", "boolean", "null"]},
}
_ETAG = {"description": "Send it in If-None-Match to get 304 while nothing has changed.", "schema": {"type": "string"}}
_INTRODUCTION = """\
What the command line shows and does. A document has the fields that `--json` prints, and the same `schema` number. An error is a problem
(RFC 9457) with the reason as a word, a hint and the exit code of the command. A list that may be long comes in pages: send `next` as
`after`.
"""


def described(routes: Sequence[ApiRoute], *, server: str) -> dict[str, Any]:
    """The document. `server`: where the API begins, as the client sees it."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "archisync", "version": __version__, "description": _INTRODUCTION, "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {**dict(_objects()), **dict(_answers(routes)), "Problem": problems.SCHEMA},
            "responses": {f"Problem{status}": _problem(status) for status in (*_ALWAYS, 405, 412, *_WITH_BODY)},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "ARCHISYNC_WEB_TOKEN, or one with fewer rights"},
                "session": {"type": "apiKey", "in": "cookie", "name": "archisync_session", "description": "of the sign-in page"},
            },
        },
    }  # fmt: skip


def _operation(route: ApiRoute) -> dict[str, Any]:
    commands = ", ".join(f"`archisync {words}`" for words in route.command)
    text = (route.answer.__doc__ or "").strip()
    role = "" if route.role is Role.READER else f" Takes the role {route.role.word}."
    found: dict[str, Any] = {
        "operationId": route.answer.__name__,
        "summary": route.summary,
        "description": re.sub(r"\s*\n\s*", " ", text) + (f" As {commands}." if commands else "") + role,
        "tags": [route.path.split("/")[1]],
        "parameters": [*_parameters(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        found["requestBody"] = {
            "required": any(p.required for p in route.body),
            "content": {JSON: {"schema": _body(route.body), "example": route.body_example}},
        }
    return found


def _parameters(route: ApiRoute) -> Iterator[dict[str, Any]]:
    for place, declared in (("path", route.parts), ("query", route.query)):
        for p in declared:
            example = {} if p.example is None else {"example": p.example}
            yield {
                "name": p.name,
                "in": place,
                "description": p.meaning,
                "required": place == "path" or p.required,
                "schema": p.schema(),
                **example,
            }
    if route.matches:
        meaning = "The ETag of what you have read. When somebody has changed it since, nothing is done, and the answer is 412."
        yield {"name": "If-Match", "in": "header", "description": meaning, "schema": {"type": "string"}}


def _body(declared: Sequence[Parameter]) -> dict[str, Any]:
    properties = {p.name: {**p.schema(), "description": p.meaning} for p in declared}
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [p.name for p in declared if p.required]
    return found | ({"required": required} if required else {})


def _responses(route: ApiRoute) -> dict[str, Any]:
    with_tag = route.method == "GET" or route.matches
    answer: dict[str, Any] = {
        "description": "done" if route.body is not None else "the document",
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{_name(route)}"}}},
    }
    if with_tag:
        answer["headers"] = {"ETag": _ETAG}
    found = {str(route.status): answer}
    if route.method == "GET":
        found["304"] = {"description": "the same as before (If-None-Match)", "headers": {"ETag": _ETAG}}
    statuses = [*_ALWAYS, *(_WITH_BODY if route.body is not None else ()), *([412] if route.matches else [])]
    return found | {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(statuses)}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": problems.title(status), "content": {problems.MEDIA_TYPE: {"schema": schema}}}


def _objects() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, fields in documents().objects.items():
        yield _camel(kind), _object(fields)


def _answers(routes: Sequence[ApiRoute]) -> Iterator[tuple[str, dict[str, Any]]]:
    for route in routes:
        schema = _object(documents().of(route.document))
        properties = {"schema": {"const": SCHEMA}, **schema["properties"]}
        required = ["schema", *schema.get("required", ())]
        if route.paged:
            properties["next"] = {
                "type": ["string", "null"],
                "description": "`after` of the next page; null: there is none",
            }
            required.append("next")
        yield _name(route), {**schema, "properties": properties, "required": required}


def _name(route: ApiRoute) -> str:
    """The name of the schema of its answer. `archisync held list` with pages: HeldListPage."""
    words = route.document.removeprefix("archisync ")
    return _camel(re.sub(r"^(GET|POST) (.*)", r"\2 answer" if words.startswith("POST") else r"\2 document", words)) + (
        "Page" if route.paged else ""
    )


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in re.findall(r"[A-Za-z]+", words))


def _object(fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": {name: _field(field) for name, field in fields.items()}}
    required = [name for name, field in fields.items() if not field.sometimes]
    return found | ({"required": required} if required else {})


def _field(field: Field) -> dict[str, Any]:
    schema = _kind(field.kind, field.fields)
    if field.nullable:
        schema = (
            {"anyOf": [schema, {"type": "null"}]} if "$ref" in schema else {**schema, "type": [schema["type"], "null"]}
        )
    return {**schema, "description": field.meaning}


def _kind(kind: str, fields: Fields) -> dict[str, Any]:
    if kind in documents().objects:
        return {"$ref": f"#/components/schemas/{_camel(kind)}"}
    if kind == "object":
        return _object(fields)
    if kind.startswith("list of "):
        return {"type": "array", "items": _kind(kind.removeprefix("list of "), fields)}
    if kind.startswith("map of "):
        return {"type": "object", "additionalProperties": _kind(kind.removeprefix("map of "), fields)}
    return dict(_PLAIN[kind])
