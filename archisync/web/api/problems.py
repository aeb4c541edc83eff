"""How the API says that something failed: problem details (RFC 9457), with what the command line would say and return."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from archisync.base.errors import ArchisyncError, ConfigurationError, ExitCode
from archisync.base.text import redact
from archisync.web.calls import Refusal

MEDIA_TYPE = "application/problem+json"
REASONS = {
    400: "wrong-usage", 401: "not-signed-in", 403: "not-allowed", 404: "not-found", 405: "method-not-allowed", 408: "too-slow",
    409: "busy", 412: "changed-meanwhile", 413: "too-large", 415: "wrong-media-type", 421: "unknown-host", 429: "too-many-attempts",
    500: "bug", 503: "out-of-reach",
}  # fmt: skip
"""The reason as a word, for programs, for each status."""
_TITLES = {413: "Content Too Large"}
"""As in RFC 9110, where this Python has an older name."""


def failed(request: Request, exc: ArchisyncError, status: int) -> Response:
    """The problem as an answer."""
    return Response(json.dumps(problem(exc, status, path=request.url.path)), status, media_type=MEDIA_TYPE)


def problem(exc: ArchisyncError, status: int, *, path: str) -> dict[str, Any]:
    """`exit_code`: that of the command that would fail likewise; null for what only happens over HTTP."""
    only_here = isinstance(exc, Refusal) and status != HTTPStatus.BAD_REQUEST
    return {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": redact(exc.message),
        "instance": path,
        "reason": "configuration" if isinstance(exc, ConfigurationError) else REASONS.get(status, "failed"),
        "hint": redact(exc.hint),
        "exit_code": None if only_here else int(ExitCode(exc.exit_code)),
    }


def title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "reason", "hint", "exit_code"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string", "description": "the status in words"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened"},
        "instance": {"type": "string", "description": "the path that was asked for"},
        "reason": {"enum": sorted({*REASONS.values(), "configuration", "failed"}), "description": "the same as a word"},
        "hint": {"type": "string", "description": "what to do; may be empty"},
        "exit_code": {"type": ["integer", "null"], "description": "of the command that would fail likewise"},
    },
}
