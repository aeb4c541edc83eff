"""Every route of the API, and the document that describes them."""

from __future__ import annotations

import json
from functools import partial

from starlette.responses import Response

from archisync.web.api import acting, reading
from archisync.web.api.openapi import described
from archisync.web.api.routes import JSON, PREFIX
from archisync.web.calls import Call, Endpoint, tagged
from archisync.web.people import Role

ROUTES = (*reading.ROUTES, *acting.ROUTES)


def endpoints() -> list[tuple[str, str, Endpoint, Role]]:
    """Method, path, endpoint and the least role of each."""
    found = [(route.method, route.full_path, route.endpoint(), route.role) for route in ROUTES]
    return [*found, ("GET", f"{PREFIX}/openapi.json", partial(_openapi), Role.READER)]


def _openapi(call: Call) -> Response:
    document = described(ROUTES, server=call.seen.prefix + PREFIX)
    return tagged(json.dumps(document).encode(), JSON)
