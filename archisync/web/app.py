"""The application: every path, who may use it, and what answers where nothing is found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from archisync.base.errors import ArchisyncError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.web import contract
from archisync.web.api import problems
from archisync.web.api.routes import PREFIX
from archisync.web.api.table import endpoints
from archisync.web.attempts import Attempts
from archisync.web.calls import Call, Endpoint, Failure, Refusal, Services, endpoint
from archisync.web.connections import Connections
from archisync.web.gate import PROBES, Gate
from archisync.web.pages import look
from archisync.web.pages import routes as pages
from archisync.web.people import People, Role
from archisync.web.together import Together
from archisync.web.workforce import Workforce

CONTRACT: tuple[tuple[str, str, Endpoint, Role], ...] = (
    ("GET", "/api/sync/intervals", contract.intervals, Role.READER),
    ("POST", "/api/sync/intervals/{type}", contract.set_interval, Role.OPERATOR),
    ("GET", "/api/sync/monitoring/status", contract.status, Role.READER),
    ("GET", "/api/sync/monitoring/circuit-breaker", contract.circuit_breaker, Role.READER),
    ("POST", "/api/sync/trigger/{type}", contract.trigger, Role.OPERATOR),
    ("POST", "/api/sync/trigger-all", contract.trigger_all, Role.OPERATOR),
    ("GET", "/api/sync/auto-sync/status", contract.auto_sync_status, Role.READER),
    ("POST", "/api/sync/auto-sync/start", contract.auto_sync_start, Role.OPERATOR),
    ("POST", "/api/sync/auto-sync/stop", contract.auto_sync_stop, Role.OPERATOR),
    ("DELETE", "/api/sync/{type}/clear-db", contract.clear_db, Role.ADMIN),
)
PERSONAL = (f"{PREFIX}/me", f"{PREFIX}/openapi.json")
"""Of what programs may read, the documents that depend on who asks, or by which address. All others are the same for everybody."""


def application(config: Config, *, log: EventLog | None = None) -> ASGIApp:
    """The whole panel. Raises ConfigurationError for a wrong setting."""
    events = log or EventLog()
    services = Services(
        config=config,
        connections=Connections(config),
        people=People(config),
        attempts=Attempts(),
        workforce=Workforce(config),
        together=Together(),
        log=events,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        services.connections.close()

    faces = ((CONTRACT, contract.failed), (endpoints(), problems.failed))
    scraped = endpoint(services, _metrics, role=Role.READER, failed=contract.failed)

    def answered(method: str, path: str, act: Endpoint, role: Role, failed: Failure) -> Route:
        shared = method == "GET" and path not in PERSONAL
        return Route(path, endpoint(services, act, role=role, failed=failed, shared=shared), methods=[method])

    routes = [answered(*row, failed) for face, failed in faces for row in face]
    app = Starlette(
        routes=[*routes, *_probes(services), Route("/metrics", scraped), *pages.routes(services)],
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_found},
    )
    app.router.redirect_slashes = False
    return Gate(app, config, log=events, refused=_failed)


def _metrics(call: Call) -> Response:
    """The metrics of `archisync metrics`, for Prometheus."""
    from archisync.observe import metrics

    return Response(metrics.text(call.config), headers={"content-type": metrics.MEDIA_TYPE})


def _probes(services: Services) -> list[Route]:
    """Whether the process lives, and whether it can answer; both say nothing else, for they are open to everybody."""

    def alive(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def ready(_: Request) -> Response:
        try:
            with services.connections.database():
                return PlainTextResponse("ok\n")
        except ArchisyncError:
            return PlainTextResponse("PostgreSQL is out of reach\n", 503)

    return [Route(path + end, answer) for path, answer in zip(PROBES, (alive, ready), strict=True) for end in ("", "/")]


def _failed(request: Request, exc: ArchisyncError, status: int) -> Response:
    """What went wrong, as the face of the panel says it that was asked."""
    path = request.url.path
    if path.startswith(f"{PREFIX}/"):
        return problems.failed(request, exc, status)
    below_api = path == "/api" or path.startswith("/api/")
    return (contract.failed if below_api else look.failed)(request, exc, status)


async def _not_found(request: Request, exc: Exception) -> Response:
    """404 and 405. JSON below /api, whoever asks: an HTML page there once broke a panel. Elsewhere a page."""
    assert isinstance(exc, HTTPException)
    what = "there is nothing here" if exc.status_code == 404 else f"{request.method} is not possible here"
    refusal = Refusal(exc.status_code, what)
    response = _failed(request, refusal, exc.status_code)
    response.headers.update(exc.headers or {})
    return response
