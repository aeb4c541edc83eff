"""Every page and every form: its path, and who may use it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from archisync.web.calls import Endpoint, Services, endpoint
from archisync.web.pages import (
    asking,
    auditing,
    holds,
    overview,
    pair,
    planning,
    registry,
    run_forms,
    runs,
    settings_forms,
    settings_page,
    signin,
    types,
)
from archisync.web.pages.look import FOLDER, failed
from archisync.web.people import Role

PAGES: tuple[tuple[str, Endpoint], ...] = (
    ("/", overview.page),
    ("/types/{type}", types.page),
    ("/failing", types.failing),
    ("/pair", pair.page),
    ("/agents", registry.page),
    ("/agent", registry.one_page),
    ("/runs", runs.page),
    ("/runs/{run}", runs.run_page),
    ("/held", holds.page),
    ("/held/{run}", holds.one_page),
    ("/plan", planning.page),
    ("/settings", settings_page.page),
    ("/audit", auditing.page),
    ("/ask/{what}", asking.page),
)
FORMS: tuple[tuple[str, Endpoint, Role], ...] = (
    ("interval", settings_forms.set_interval, Role.OPERATOR),
    ("enabled", settings_forms.set_enabled, Role.ADMIN),
    ("guard", settings_forms.set_limits, Role.ADMIN),
    ("guard-column", settings_forms.set_column_limit, Role.ADMIN),
    ("sync", run_forms.sync, Role.OPERATOR),
    ("again", run_forms.again, Role.OPERATOR),
    ("cancel", run_forms.cancel, Role.OPERATOR),
    ("retry", run_forms.retry, Role.OPERATOR),
    ("end-rest", run_forms.end_rest, Role.OPERATOR),
    ("pause", run_forms.pause, Role.OPERATOR),
    ("resume", run_forms.resume, Role.OPERATOR),
    ("accept", holds.accept, Role.OPERATOR),
    ("reject", holds.reject, Role.OPERATOR),
    ("clear", run_forms.clear, Role.ADMIN),
    ("allow", run_forms.allow, Role.ADMIN),
    ("deny", run_forms.deny, Role.ADMIN),
    ("add", run_forms.add, Role.ADMIN),
    ("remove", run_forms.remove, Role.ADMIN),
)


class Static(StaticFiles):
    """Style and script. Their addresses change with them, so that browsers may keep them."""

    def file_response(self, *given: Any, **options: Any) -> Response:
        response = super().file_response(*given, **options)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def routes(services: Services) -> list[BaseRoute]:
    """For Starlette."""
    pages = [
        Route(path, endpoint(services, act, role=Role.READER, failed=failed), methods=["GET"]) for path, act in PAGES
    ]
    forms = [
        Route(f"/act/{name}", endpoint(services, act, role=role, failed=failed), methods=["POST"])
        for name, act, role in FORMS
    ]
    own = [
        Route("/sign-in", signin.page(services), methods=["GET"]),
        Route("/sign-in", signin.enter(services), methods=["POST"]),
        Route("/sign-out", signin.leave(services), methods=["POST"]),
        Mount("/static", Static(directory=FOLDER / "static")),
    ]
    return [*pages, *forms, *own]
