"""Turning facts into a page: the templates, the frame around every page, its ETag, and what was done last.

Every text that a template prints is escaped, made printable and freed of passwords, whoever wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from archisync.base.errors import ArchisyncError
from archisync.base.text import counted, duration, printable, redact, seconds
from archisync.store import clock, held
from archisync.store.audit import Actor, Via
from archisync.store.database import Database
from archisync.web.calls import Call, Refusal, tagged
from archisync.web.gate import SEEN, Seen, header
from archisync.web.pages.moments import VOLATILE, Moments, harmless
from archisync.web.people import Role

FOLDER = Path(__file__).parent
NOTE_COOKIE = "archisync_note"
LONGEST_NOTE = 600
HELD_COUNTED = 99
NAV = (
    ("/", "Overview"),
    ("/agents", "Agents"),
    ("/runs", "Runs"),
    ("/held", "Held"),
    ("/plan", "Plan"),
    ("/settings", "Settings"),
    ("/audit", "Audit"),
)
"""The pages that every page leads to."""
TONES = {
    "healthy": "good", "running": "good", "succeeded": "good", "accepted": "good", "due": "good", "cleared": "quiet",
    "stale": "warn", "failing": "warn", "backing-off": "warn", "degraded": "bad", "failed": "bad", "rejected": "quiet", "held": "held",
    "open": "held",
}  # fmt: skip
"""The colour of a word; all others are quiet. The word itself always stands beside it."""


def _harmless(value: Any) -> Any:
    """What is printed for a value in a template."""
    return harmless(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _short(text: str, limit: int = 160) -> str:
    """The beginning of a long text, where the whole one is a click away."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, finalize=_harmless,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    found.filters |= {"short": _short, "counted": counted, "lasting": duration, "seconds": seconds}
    found.globals |= {
        "tone": lambda word: TONES.get(word, "quiet"),
        "Role": Role,
        "nav": NAV,
        "version": _static_version(),
    }
    return found


def _static_version() -> str:
    """Changes when a static file does, so that browsers may keep them."""
    digest = hashlib.sha256()
    for path in sorted((FOLDER / "static").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Links:
    """Addresses below the prefix under which a proxy shows the panel."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, path: str, **query: object) -> str:
        """The address; what is None or empty in the query is left out."""
        given = {name: str(value) for name, value in query.items() if value is not None and value != ""}
        return f"{self._prefix}{path}{'?' + urlencode(given, quote_via=quote) if given else ''}"


def show(call: Call, db: Database, template: str, *, title: str, **facts: Any) -> Response:
    """The page."""
    frame = {
        "person": call.person,
        "waiting": held.count_waiting(db, limit=HELD_COUNTED),
        "most_waiting": HELD_COUNTED,
        "here": call.request.url.path,
        "back": _with_query(call),
    }
    note = _note(call)
    html = _render(template, call.seen, clock.now(db), call, {**frame, "title": title, "note": note, **facts})
    same = VOLATILE.sub(r"\1", html)
    response = tagged(html.encode(errors="replace"), "text/html; charset=utf-8", same=same.encode(errors="replace"))
    if note:  # it is said once, and the browser must not keep it
        response.headers["cache-control"] = "no-store"
        del response.headers["etag"]
        response.delete_cookie(NOTE_COOKIE, path=call.seen.prefix or "/", httponly=True, samesite="strict")
    return response


def _note(call: Call) -> str:
    """What was done last. A page that is only refreshed, in another tab perhaps, must not take it away from the one that comes next."""
    if header(call.request.scope, "sec-fetch-dest") == "empty":
        return ""
    return unquote(call.request.cookies.get(NOTE_COOKIE, ""))[:LONGEST_NOTE]


def _with_query(call: Call) -> str:
    query = call.request.url.query
    return call.request.url.path + ("?" + query if query else "")


def _render(template: str, seen: Seen, now: datetime, call: Call | None, facts: Mapping[str, Any]) -> str:
    moments = Moments(zone=call.config.zone if call else UTC, now=now)
    usual = {
        "url": Links(seen.prefix), "at": moments.exact, "ago": moments.age, "words": moments.in_words, "clock": moments.clock(), "now": now,
        "hour_of": moments.hour, "zone": moments.zone_name,
        "note": "", "live": call is not None,
    }  # fmt: skip
    return _templates().get_template(template).render({**usual, **facts})


def open_page(request: Request, template: str, code: int = 200, **facts: Any) -> Response:
    """A page for whoever asks, signed in or not: it shows nothing of the data. `live`: the script asks for it again."""
    html = _render(template, request.scope[SEEN], datetime.now(UTC), None, {"person": None, **facts})
    return Response(html.encode(errors="replace"), code, media_type="text/html; charset=utf-8")


def failed(request: Request, exc: ArchisyncError, status: int) -> Response:
    """What went wrong as a page; whoever has to sign in is led there, and back."""
    seen: Seen = request.scope[SEEN]
    if status == 401 and request.method in ("GET", "HEAD"):
        wanted = request.url.path + ("?" + request.url.query if request.url.query else "")
        return RedirectResponse(Links(seen.prefix)("/sign-in", next=wanted if wanted != "/" else None), 303)
    return open_page(
        request,
        "problem.html",
        status,
        title="That did not work",
        error=exc,
        status=status,
        live=request.method == "GET" and status >= 500,
    )


def done(call: Call, sentence: str) -> Response:
    """Back to the page on which the form was, which says what was done."""
    response = RedirectResponse(call.seen.prefix + local_path(call.form().get("back")), 303)
    text = quote(printable(redact(sentence), limit=LONGEST_NOTE))
    response.set_cookie(
        NOTE_COOKIE,
        text,
        max_age=60,
        path=call.seen.prefix or "/",
        httponly=True,
        samesite="strict",
        secure=call.seen.scheme == "https",
    )
    return response


def local_path(given: str | None) -> str:
    """The path of a page of ours; "/" for anything else that somebody may have written into a form or an address."""
    return (
        given
        if given and given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable()
        else "/"
    )


def actor(call: Call) -> Actor:
    """Who is recorded with what he does on a page."""
    return Actor(name=call.person.name, via=Via.PANEL)


def field(call: Call, name: str) -> str:
    """A field of the form, without blanks around it. Raises Refusal for a form that has none."""
    value = call.form().get(name)
    if value is None:
        raise Refusal(400, f"the form has no field {name}", hint="reload the page")
    return value.strip()


def optional(call: Call, name: str) -> str | None:
    """A field of the form; None when it is left empty."""
    return (call.form().get(name) or "").strip() or None
