"""What the API shows: pages, filters, ETags, and errors as problems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from archisync.rules.reasons import SHARES
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents
from archisync.store.database import Database
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, Panel, panel
from tests.support.rows import add_run, record_tick

API = "/api/v1"


@pytest.fixture
def client(running: Panel) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def pages(client: httpx.Client, path: str, name: str, *, limit: int) -> Iterator[list[Any]]:
    """Every page of a list, by following `next`."""
    after: str | None = None
    while True:
        query = {"limit": str(limit)} | ({"after": after} if after is not None else {})
        answer = client.get(httpx.URL(API + path).copy_merge_params(query))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page[name]) <= limit
        yield page[name]
        if (after := page["next"]) is None:
            return


def rows(client: httpx.Client, path: str, name: str, *, limit: int) -> list[Any]:
    return [row for page in pages(client, path, name, limit=limit) for row in page]


def test_pages_have_everything_once_and_in_order(client: httpx.Client, site: Database) -> None:
    for number in range(5):
        agents.add(site, f"b{number}", name=None, whitelisted=number % 2 == 0)
        record_tick(site)
    site.execute("insert into system.pauses (agent_id) select id from agents.users")
    site.execute("update system.sync_state set consecutive_failures = 1 + length(agent_id),"
                 " backoff_until = date_trunc('second', now()) + interval '1 day' where sync_type in ('orders', 'ddt')")  # fmt: skip
    for _ in range(7):
        add_run(site, "failed")
    active = ["anna", "b0", "b2", "b4", "luca"]
    assert [a["agent_id"] for a in rows(client, "/agents", "agents", limit=2)] == [
        "anna",
        "b0",
        "b1",
        "b2",
        "b3",
        "b4",
        "luca",
    ]
    assert [a["agent_id"] for a in rows(client, "/agents?whitelisted=false", "agents", limit=1)] == ["b1", "b3"]
    of_pairs = [(p["agent_id"], p["sync_type"]) for p in rows(client, "/pairs", "pairs", limit=3)]
    shared = [("service-account", "prices"), ("service-account", "products")]
    assert of_pairs == [(a, t) for a in active for t in ("customers", "ddt", "invoices", "orders")] + shared
    resting = [(p["sync_type"], p["agent_id"]) for p in rows(client, "/rests", "resting", limit=2)]
    assert resting == [(t, a) for t in ("orders", "ddt") for a in active]
    failing = [
        (p["sync_type"], p["consecutive_failures"], p["agent_id"]) for p in rows(client, "/failing", "failing", limit=3)
    ]
    worst_first = [(5, "luca"), (5, "anna"), (3, "b4"), (3, "b2"), (3, "b0")]
    assert failing == [(t, *pair) for t in ("ddt", "orders") for pair in worst_first]
    for path, name, key, expected in (
        ("/ticks", "ticks", "id", 6), ("/pauses", "pauses", "id", 7), ("/runs", "runs", "run_id", 7),
    ):  # fmt: skip
        found = [row[key] for row in rows(client, path, name, limit=2)]
        assert (len(found), found) == (expected, sorted(set(found), reverse=True))


def test_whitelisted_is_a_filter(client: httpx.Client, site: Database) -> None:
    agents.add(site, "off", name=None, whitelisted=False)
    answers = {value: client.get(f"{API}/agents?whitelisted={value}").json()["agents"] for value in ("true", "false")}
    assert {value: [a["agent_id"] for a in found] for value, found in answers.items()} == {
        "true": ["anna", "luca"],
        "false": ["off"],
    }
    assert [a["agent_id"] for a in client.get(f"{API}/agents?part=NN").json()["agents"]] == ["anna"]


def test_runs_are_found_by_what_a_person_knows_of_them(client: httpx.Client, site: Database) -> None:
    old = add_run(site, "failed", reason="authentication", queued_at="2026-01-01", finished_at="2026-01-01")
    new = add_run(site, "failed", reason="source-unavailable", agent_id="luca")
    fine = add_run(site, "succeeded", sync_type="ddt")
    shared = add_run(site, "succeeded", sync_type="prices", agent_id="service-account")
    waits = add_run(site, "queued", agent_id="luca", sync_type="invoices")
    runs = add_run(site, "running", agent_id="anna", sync_type="customers")
    gone = add_run(site, "skipped", agent_id="left.us")
    for query, expected in {
        "": [gone, runs, waits, shared, fine, new, old],
        "type=orders": [gone, new, old],
        "agent=anna": [runs, fine, old],
        "agent_part=NN": [runs, fine, old],
        "agent_part=a": [runs, waits, shared, fine, new, old],
        "agent_part=left": [gone],
        "agent_part=SERVICE": [shared],
        "agent_part=%25": [],
        "state=failed": [new, old],
        "state=queued&state=running": [runs, waits],
        "reason=authentication": [old],
        "reason=authentication&state=succeeded": [],
        "since=1d": [gone, runs, waits, shared, fine, new],
        "since=2025-12-31T00:00:00Z&agent_part=an&state=failed&reason=authentication&type=orders": [old],
    }.items():
        found = client.get(f"{API}/runs?{query}").json()
        assert ([run["run_id"] for run in found["runs"]], found["next"]) == (expected, None), query


def test_a_search_for_what_is_rare_ends_and_can_be_gone_on_with(client: httpx.Client, site: Database) -> None:
    rare = add_run(site, "succeeded", reason="rare")
    site.execute(
        "insert into system.sync_runs (id, sync_type, agent_id, state, trigger)"
        " select nextval('system.queued_runs_id_seq'), 'orders', 'anna', 'succeeded', 'scheduled' from generate_series(1, 25000)"
    )
    found = list(pages(client, "/runs?reason=rare", "runs", limit=50))
    assert [[run["run_id"] for run in page] for page in found if page] == [[rare]]
    assert 5 < len(found) < 200
    first = client.get(f"{API}/runs?reason=rare").json()
    assert (first["runs"], first["next"] is None, "looked_to" in first) == ([], False, True)
    assert "looked_to" not in client.get(f"{API}/runs?type=prices&reason=rare").json()


def test_what_has_not_changed_is_not_sent_again(client: httpx.Client, site: Database) -> None:
    add_run(site, "failed")
    for path in ("/runs", "/agents", "/held", "/pairs?agent=anna", "/intervals", "/openapi.json"):
        first = client.get(API + path)
        again = client.get(API + path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"]), path
    tag = client.get(f"{API}/runs").headers["etag"]
    add_run(site, "failed")
    assert client.get(f"{API}/runs", headers={"If-None-Match": tag}).status_code == 200


def test_who_am_i(running: Panel) -> None:
    for token, role in ((READ_TOKEN, "read-only"), (OPERATOR_TOKEN, "operator")):
        with running.client(token) as client:
            assert client.get(f"{API}/me").json() == {"schema": 1, "name": f"web, {role} token", "role": role}


TYPES = "orders, customers, products, prices, ddt, invoices"
TIMES = "allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z"
FIRST_PAGE = ("after is none that this API gave", "leave it out for the first page")
TEXTS = "of 1 to 1000 characters"
USAGE, NOT_FOUND = (400, "wrong-usage", 2), (404, "not-found", 5)
Wrong = tuple[str, str, Any, tuple[int, str, int | None], tuple[str, str]]
WRONG: list[Wrong] = [
    ("GET", "/runs?limit=0", None, USAGE, ("limit is 0", "allowed: a whole number from 1 to 500")),
    ("GET", "/runs?limit=x", None, USAGE, ("limit is 'x'", "allowed: a whole number from 1 to 500")),
    ("GET", "/runs?limit=1&limit=2", None, USAGE, ("limit comes twice", "send it once")),
    ("GET", "/runs?page=2", None, USAGE,
     ("there is no parameter ?page", "allowed: type, agent, agent_part, state, reason, since, after, limit")),
    ("GET", "/runs?type=order", None, USAGE, ("there is no sync type 'order'", f"did you mean orders? allowed: {TYPES}")),
    ("GET", "/runs?since=soon", None, USAGE, ("'soon' is not a time", TIMES)),
    ("GET", "/runs?after=x", None, USAGE, FIRST_PAGE),
    ("GET", "/rests?after=orders/x/anna", None, USAGE, FIRST_PAGE),
    ("GET", "/failing?after=orders/99999999999/anna", None, USAGE, FIRST_PAGE),
    ("GET", "/pairs?after=x", None, USAGE, FIRST_PAGE),
    ("GET", "/runs?agent=a&agent_part=b", None, USAGE, ("agent and agent_part exclude each other", "send one of them")),
    ("GET", "/runs?agent=nobody", None, NOT_FOUND, ("there is no agent 'nobody'", "archisync agent list")),
    ("GET", "/runs/4711", None, NOT_FOUND, ("there is no run 4711", "archisync history")),
    ("GET", f"/runs/{2**63}", None, USAGE,
     ("run is 9223372036854775808", "allowed: a whole number from 0 to 9223372036854775807")),
    ("GET", "/runs/x", None, (404, "not-found", None), ("there is nothing here", "")),
    ("GET", "/runs/retry", None, (405, "method-not-allowed", None), ("GET is not possible here", "")),
    ("GET", "/held/4711", None, NOT_FOUND, ("run 4711 has no held export", "archisync held list")),
    ("GET", "/why?type=orders", None, USAGE, ("orders are fetched for each agent: which one?", "archisync why orders AGENT")),
    ("GET", "/why?type=orders&agent=ana", None, NOT_FOUND, ("there is no agent 'ana'", "did you mean anna? archisync agent list")),
    ("GET", "/agents/a%2Fb", None, NOT_FOUND, ("there is no agent 'a/b'", "archisync agent list")),
    ("GET", "/nothing", None, (404, "not-found", None), ("there is nothing here", "")),
    ("DELETE", "/runs", None, (405, "method-not-allowed", None), ("DELETE is not possible here", "")),
    ("POST", "/runs", {"type": "orders", "agent": "x"}, USAGE, ("there is no field agent", "allowed: type, agents, reason")),
    ("POST", "/runs", {}, USAGE, ("type is missing", "a sync type, or all")),
    ("GET", "/runs?" + "&".join(1001 * ["state=failed"]), None, USAGE, ("state has 1001 items", "allowed: at most 1000")),
    ("POST", "/runs", {"type": "orders", "agents": 1001 * ["a"]}, USAGE, ("agents has 1001 items", "allowed: at most 1000")),
    ("POST", "/runs", {"type": "orders", "agents": []}, USAGE, ("agents is []", f"allowed: a list of texts {TEXTS}")),
    ("POST", "/runs", {"type": "orders", "reason": 7}, USAGE, ("reason is 7", f"allowed: a text {TEXTS}")),
    ("POST", "/runs", {"type": "orders", "agents": ["nobody"]}, NOT_FOUND, ("there is no agent 'nobody'", "archisync agent list")),
    ("POST", "/pauses", {}, USAGE, ("which pairs?", "send type, agent, both, or all: true")),
    ("POST", "/pauses", {"all": "yes"}, USAGE, ("all is 'yes'", "allowed: true or false")),
    ("POST", "/runs/cancel", {"runs": [1], "all": True}, USAGE, ("which runs?", "send runs, or type and agent, or all: true")),
    ("POST", "/runs/cancel", {"runs": [2**63]}, USAGE,
     ("runs is 9223372036854775808", "allowed: a list of whole numbers from 0 to 9223372036854775807")),
    ("POST", "/held/4711/accept", {"why": "x"}, NOT_FOUND, ("run 4711 has no held export", "archisync held list")),
    ("POST", "/clear", {"type": "orders"}, USAGE, ("whose orders?", "send agent, or all: true for those of all agents")),
    ("PATCH", "/intervals/orders", {"interval_minutes": 4}, USAGE, ("interval_minutes is 4", "allowed: a whole number from 5 to 1440")),
    ("PATCH", "/guard/orders", {"drop": 101}, USAGE, ("drop is 101", "allowed: a whole number from 0 to 100")),
    ("PATCH", "/guard/orders", {"columns": ["rescaled"]}, USAGE,
     ("columns is ['rescaled']", "allowed: an object with values that are null or a whole number from 0 to 100")),
    ("PATCH", "/guard/orders", {"columns": {"rescaled": "30"}}, USAGE,
     ("columns is '30'", "allowed: an object with values that are null or a whole number from 0 to 100")),
    ("PATCH", "/guard/orders", {"columns": {"drop": 30}}, USAGE,
     ("drop is a share of rows, not of a column", "send drop beside columns")),
    ("PATCH", "/guard/orders", {"columns": {"odd net_amount": 30}}, USAGE,
     ("there is no threshold 'odd'", f"allowed: {', '.join(SHARES)}")),
    ("PATCH", "/guard/orders", {"columns": {"rescaled colour": 30}}, USAGE,
     ("orders has no column 'colour'", f"allowed: {', '.join(f.name for f in SYNC_TYPES['orders'].fields)}")),
    ("POST", "/declarations", {"toml": "name ="}, (400, "wrong-usage", 3),
     ("the declaration: it is not TOML: Invalid value (at end of document)",
      "https://toml.io; archisync type draft writes a file to begin with")),
    ("POST", "/declarations/orders/remove", {}, USAGE, ("orders comes with archisync", "archisync disable orders ends its schedule")),
    ("POST", "/agents", {"agents": ["a\0b"]}, USAGE, ("agents has a character that can't be stored", "leave it out")),
]  # fmt: skip


def test_what_is_wrong_is_a_problem_with_reason_hint_and_exit_code(client: httpx.Client) -> None:
    for method, path, body, kind, said in WRONG:
        answer = client.request(method, API + path, json=body)
        assert answer.headers["content-type"] == "application/problem+json", path
        problem = answer.json()
        assert (problem["status"], problem["type"]) == (answer.status_code, "about:blank")
        assert (problem["detail"], problem["hint"]) == said, path
        assert (problem["status"], problem["reason"], problem["exit_code"]) == kind, path


def test_a_problem_of_who_asks_is_one_too(running: Panel) -> None:
    with running.client(None) as stranger, running.client(READ_TOKEN) as reader:
        refused = stranger.get(f"{API}/runs")
        assert (refused.status_code, refused.json()["reason"], refused.headers["www-authenticate"]) == (
            401,
            "not-signed-in",
            "Bearer",
        )
        assert reader.post(f"{API}/runs", json={"type": "all"}).json()["reason"] == "not-allowed"
        rebound = reader.get(f"{API}/runs", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["reason"]) == (421, "unknown-host")


def test_a_server_out_of_reach_is_a_problem(redis_url: str, tmp_path: Path) -> None:
    with panel("postgresql://nobody@127.0.0.1:9/x", redis_url, tmp_path / "log") as found, found.client() as client:
        problem = client.get(f"{API}/runs").json()
        assert (problem["status"], problem["reason"], problem["exit_code"]) == (503, "out-of-reach", 4)
