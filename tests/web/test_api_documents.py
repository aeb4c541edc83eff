"""`/api/v1` answers what documents.md describes, and what `--json` prints; every example of its OpenAPI document is tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openapi_spec_validator
import pytest

from archisync.observe.fields import documents
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store.database import Database
from archisync.web.api.parameters import Parameter
from archisync.web.api.routes import ApiRoute
from archisync.web.api.table import ROUTES
from tests.conftest import Cli
from tests.support.documents import compare_keys, every_field
from tests.support.panel import Panel
from tests.support.panelsite import ANNA, PAOLO, RUN, furnish

API = "/api/v1"


@pytest.fixture
def furnished(connection: Database) -> Database:
    furnish(connection)
    return connection


@pytest.fixture
def client(furnished: Database, running: Panel) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def example(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    found = {p.name: p.example for p in parameters if p.example is not None}
    return {name: "true" if value is True else value for name, value in found.items()}


def filled(route: ApiRoute) -> str:
    return API + route.path.format(**example(route.parts))


def request(client: httpx.Client, route: ApiRoute, **query: Any) -> dict[str, Any]:
    body = None if route.body is None else dict(route.body_example)
    answer = client.request(route.method, filled(route), params=query, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (route.status, "application/json"), answer.text
    document: dict[str, Any] = answer.json()
    assert document.pop("schema") == 1
    assert ("next" in document) == route.paged
    return document


def test_each_request_answers_what_is_documented_and_each_example_works(client: httpx.Client) -> None:
    seen: set[str] = set()
    for route in sorted(ROUTES, key=lambda route: route.path != "/rests/end"):  # a retry ends rests too
        bare = {} if not any(p.required for p in route.query) else example(route.query)
        for query in [bare] if bare == example(route.query) else [bare, example(route.query)]:
            document = request(client, route, **query)
            assert isinstance(document.pop("next", None), str | None)
            compare_keys(document, documents().of(route.document), route.document, seen)
    running = client.post(f"{API}/runs/cancel", json={"agent": PAOLO}).json()
    compare_keys({"runs": running["runs"]}, documents().of("POST runs/cancel"), "POST runs/cancel", seen)
    searched = client.get(f"{API}/runs?agent_part=a").json()
    compare_keys(
        {"only_beginning": searched["only_beginning"], "looked_to": "2026-11-23T10:00:00Z", "runs": []},
        documents().of("GET runs"),
        "GET runs",
        seen,
    )
    used = {route.document for route in ROUTES} & set(documents().requests)
    assert used == set(documents().requests)
    never = [path for name in used for path in every_field(documents().requests[name], name) if path not in seen]
    assert sorted(path for path in never if not path.startswith(FILLED_BY_COMMANDS)) == []


FILLED_BY_COMMANDS = (
    "GET types.types[].", "GET runs.runs[].", "GET ticks.ticks[].", "POST runs.runs[].", "POST held/{run}/accept.held.",
    "POST held/{run}/reject.held.", "POST agents/allow.agents[].", "POST pauses/end.pauses[].", "POST pauses.pause.",
    "GET pauses.pauses[].", "POST rests/end.ended[].backoff_until",
)  # fmt: skip
"""Objects that commands print too: `test_json_documented.py` sees each of their fields."""

SAME: list[tuple[str, str]] = [
    ("status", "/status"),
    ("agent list", "/agents"),
    (f"agent show {ANNA}", f"/agents/{ANNA}"),
    ("rest list", "/rests"),
    ("history --limit 500", "/runs?limit=500"),
    (f"history --agent {ANNA} --state failed", f"/runs?agent={ANNA}&state=failed"),
    ("history orders --since 1h", "/runs?type=orders&since=1h"),
    (f"show {RUN}", f"/runs/{RUN}"),
    ("held list", "/held"),
    ("held list --all", "/held?all=true"),
    (f"held show {RUN}", f"/held/{RUN}"),
    ("interval list", "/intervals"),
    ("guard list", "/guard"),
    ("worker list", "/workers"),
    ("type list", "/declarations"),
    ("type show orders", "/declarations/orders"),
    (f"why orders {ANNA}", f"/why?type=orders&agent={ANNA}"),
    ("why products", "/why?type=products"),
    ("plan --for 6h --workers 2", "/plan?for=6h&workers=2"),
    ("doctor --only database --only schema", "/doctor?only=database&only=schema"),
    ("audit list", "/audit"),
]
CLOCKS = {"now", "age_s", "next_due_at", "next_at", "hours", "message"}
"""They depend on the second in which they are asked."""


def without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_clocks(inner) for name, inner in value.items() if name not in CLOCKS}
    return [without_clocks(inner) for inner in value] if isinstance(value, list) else value


def test_the_command_line_and_the_api_give_the_same_document(client: httpx.Client, cli: Cli) -> None:
    for words, path in SAME:
        printed = json.loads(cli(*words.split(), "--json").stdout)
        answered = client.get(API + path).json()
        assert answered.pop("next", None) is None
        assert without_clocks(answered) == without_clocks(printed), path
        assert set(answered) == set(printed)
    shown = {command for route in ROUTES if route.method == "GET" for command in route.command}
    assert shown <= {" ".join(words.split()[:2]) for words, _ in SAME} | {words.split()[0] for words, _ in SAME} | {
        "tick"
    }


def test_the_openapi_document_is_valid_and_names_every_route(client: httpx.Client) -> None:
    document = client.get(f"{API}/openapi.json").json()
    openapi_spec_validator.validate(document)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert document["servers"] == [{"url": API}]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)
    described_type = document["paths"]["/intervals/{type}"]["patch"]["parameters"][0]
    assert described_type["schema"]["enum"] == list(SYNC_TYPES)
