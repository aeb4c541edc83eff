"""`/api/sync/…`: the contract of the panels that exist already, with a client that behaves as such a panel does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, settings
from archisync.store.database import Database
from tests.support.panel import READ_TOKEN, Panel, panel
from tests.support.rows import add_run, count

ENTRY = {"timestamp", "duration", "success", "error", "warnings"}
CARD = {"isRunning", "lastRunTime", "nextRunTime", "queuePosition", "health", "history"}
HEALTH = {"healthy", "degraded", "stale", "idle", "paused", "held"}


class OldPanel:
    """Sync control and sync monitoring, as the pages of such a panel call them. Each answer must be JSON with `success`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, method: str, path: str, *, expected: int = 200, **options: Any) -> dict[str, Any]:
        answer = self._client.request(method, f"/api/{path}", **options)
        assert answer.headers["content-type"] == "application/json"
        found: dict[str, Any] = answer.json()
        assert (answer.status_code, found["success"]) == (expected, expected == 200), found
        return found

    def poll(self) -> dict[str, Any]:
        """What it does every five seconds."""
        self.call("GET", "sync/auto-sync/status")
        self.call("GET", "sync/monitoring/circuit-breaker")
        return self.call("GET", "sync/monitoring/status", params={"limit": 20})

    def refused(self, method: str, path: str, *, expected: int = 400, **options: Any) -> str:
        return str(self.call(method, path, expected=expected, **options)["error"])


def test_a_panel_polls_saves_an_interval_triggers_and_clears(running: Panel, site: Database) -> None:
    with running.client() as client:
        old = OldPanel(client)
        before = old.call("GET", "sync/intervals")["intervals"]
        assert before == {name: t.default_interval_minutes for name, t in SYNC_TYPES.items()}
        saved = old.call("POST", "sync/intervals/orders", json={"intervalMinutes": 25})
        assert saved == {
            "success": True, "message": "orders: every 25 min, from the next tick on", "type": "orders", "intervalMinutes": 25,
        }  # fmt: skip
        assert old.call("GET", "sync/intervals")["intervals"] == before | {"orders": 25}

        first = old.call("POST", "sync/trigger/orders", json={"agentId": "anna"})
        again = old.call("POST", "sync/trigger/orders", json={"agentId": "anna"})
        assert first["jobsEnqueued"] == 1
        assert again["jobIds"] == first["jobIds"]
        everything = old.call("POST", "sync/trigger-all")
        assert everything["jobsEnqueued"] == 4 * 2 + 2
        assert first["jobIds"][0] in everything["jobIds"]
        assert old.poll()["types"]["orders"]["queuePosition"] == 1

        site.execute(
            "insert into agents.orders (agent_id, order_id, created_at) values ('anna', '1', now()), ('luca', '1', now())"
        )
        cleared = old.call("DELETE", "sync/orders/clear-db", params={"agentId": "anna"})
        assert cleared["message"] == "deleted 1 row of orders of anna; the next sync loads the export again"
        assert count(site, "select count(*) from agents.orders where agent_id = 'luca'") == 1
        assert (
            old.refused("DELETE", "sync/orders/clear-db")
            == "whose orders?: ?agentId=ID, or ?all=true for those of all agents"
        )
        old.call("DELETE", "sync/orders/clear-db", params={"all": "true"})
        assert count(site, "select count(*) from agents.orders") == 0

        old.call("POST", "sync/auto-sync/stop")
        old.call("POST", "sync/auto-sync/stop")
        assert old.call("GET", "sync/auto-sync/status")["isRunning"] is False
        assert {card["health"] for card in old.poll()["types"].values()} == {"paused"}
        assert [pause.sync_type for pause in settings.pauses(site)] == [None]
        assert old.call("POST", "sync/auto-sync/start") == {"success": True, "isRunning": True}


def test_the_status_shows_history_with_errors_and_a_skipped_run_is_no_success(running: Panel, site: Database) -> None:
    times = {"started_at": "2026-01-01T10:00:00Z", "finished_at": "2026-01-01T10:00:02Z"}
    add_run(site, "succeeded", **times)
    add_run(
        site, "failed", **(times | {"finished_at": "2026-01-01T10:00:07Z"}), message="the ERP refused password=secret"
    )
    add_run(site, "skipped", finished_at="2026-01-01T11:00:00Z", message="the type orders is disabled")
    add_run(site, "running", agent_id="luca", started_at="2026-01-01T12:00:00Z")
    site.execute("update system.sync_state set last_success_at = system.clock() where sync_type = 'orders'")
    with running.client(READ_TOKEN) as client:
        found = OldPanel(client).poll()
        assert any(
            _is_unchanged(client) for _ in range(5)
        )  # the next run of a due pair is due now, whatever the second
    assert set(found["types"]) == set(SYNC_TYPES)
    assert all(set(card) == CARD and card["health"] in HEALTH for card in found["types"].values())
    assert found["types"]["customers"]["health"] == "idle"
    orders = found["types"]["orders"]
    assert (orders["isRunning"], orders["health"]) == (True, "healthy")
    assert orders["lastRunTime"] == "2026-01-01T10:00:07Z"
    assert all(set(entry) == ENTRY for entry in orders["history"])
    assert [(e["success"], e["error"], e["duration"]) for e in orders["history"]] == [
        (False, "the type orders is disabled", None),
        (False, "the ERP refused password=***", 7000),
        (True, None, 2000),
    ]
    assert found["currentSync"]["agentId"] == "luca"


def test_the_circuit_breaker_is_paged_and_worst_first(running: Panel, site: Database) -> None:
    agents.add(site, "mia", name=None, whitelisted=True)
    site.execute(
        "update system.sync_state set consecutive_failures = length(agent_id) where sync_type in ('orders', 'ddt')"
    )
    site.execute("update system.sync_state set consecutive_failures = 9, backoff_until = system.clock() + interval '1 hour'"
                 " where sync_type = 'orders' and agent_id = 'luca'")  # fmt: skip
    seen, after = [], None
    with running.client() as client:
        old = OldPanel(client)
        while True:
            params = {"limit": "2"} | ({"after": after} if after else {})
            page = old.call("GET", "sync/monitoring/circuit-breaker", params=params)
            seen += [(e["syncType"], e["userId"], e["isPaused"]) for e in page["entries"]]
            if (after := page["next"]) is None:
                break
        assert old.refused("GET", "sync/monitoring/circuit-breaker?after=x").startswith(
            "after is none that this API gave"
        )
    assert seen == [
        ("ddt", "luca", False), ("ddt", "anna", False), ("ddt", "mia", False),
        ("orders", "luca", True), ("orders", "anna", False), ("orders", "mia", False),
    ]  # fmt: skip


RANGE = "allowed: a whole number of minutes from 5 to 1440"
TYPES = "allowed: " + ", ".join(SYNC_TYPES)
WRONG: list[tuple[str, str, Any, int, str]] = [
    ("POST", "sync/intervals/orders", {"intervalMinutes": 4}, 400, f"the interval 4 is out of range: {RANGE}"),
    ("POST", "sync/intervals/orders", {"intervalMinutes": 1441}, 400, f"the interval 1441 is out of range: {RANGE}"),
    (
        "POST",
        "sync/intervals/orders",
        {"intervalMinutes": 7.5},
        400,
        f"the interval '7.5' is not a whole number: {RANGE}",
    ),
    (
        "POST",
        "sync/intervals/orders",
        {"intervalMinutes": True},
        400,
        f"the interval 'True' is not a whole number: {RANGE}",
    ),
    ("POST", "sync/intervals/orders", {}, 400, f"the interval 'None' is not a whole number: {RANGE}"),
    ("POST", "sync/intervals/orders", [], 400, "the body is no JSON object"),
    (
        "POST",
        "sync/intervals/order",
        {"intervalMinutes": 10},
        400,
        f"there is no sync type 'order': did you mean orders? {TYPES}",
    ),
    ("POST", "sync/trigger/nothing", {}, 400, f"there is no sync type 'nothing': {TYPES}"),
    ("POST", "sync/trigger/orders", {"agentId": "nobody"}, 404, "there is no agent 'nobody'"),
    ("POST", "sync/trigger/orders", {"agentId": 7}, 400, "agentId is no text: the id of an agent, or leave it out"),
    (
        "POST",
        "sync/trigger/orders",
        {"agentId": "a\0b"},
        400,
        "agentId has a character that can't be stored: leave it out",
    ),
    ("GET", "sync/monitoring/status?limit=9", None, 400, "limit is '9': allowed: a whole number from 10 to 100"),
    ("GET", "sync/nothing", None, 404, "there is nothing here"),
    ("GET", "nothing", None, 404, "there is nothing here"),
    ("PUT", "sync/intervals", {}, 405, "PUT is not possible here"),
]


def test_what_is_wrong_is_said_in_json_and_nothing_is_changed(running: Panel, site: Database) -> None:
    with running.client() as client:
        old = OldPanel(client)
        for method, path, body, status, error in WRONG:
            assert old.refused(method, path, expected=status, json=body) == error, (method, path)
        no_json = client.post("/api/sync/trigger/orders", content=b"{", headers={"content-type": "application/json"})
        assert (no_json.status_code, no_json.json()) == (400, {"success": False, "error": "the body is not JSON"})
        text = client.post("/api/sync/trigger/orders", content=b"{}", headers={"content-type": "text/plain"})
        assert (text.status_code, text.json()["error"]) == (415, "the body is 'text/plain', not application/json")
    assert count(site, "select count(*) from system.queued_runs") == 0
    assert [s.interval_minutes for s in settings.all_settings(site)] == [
        t.default_interval_minutes for t in SYNC_TYPES.values()
    ]


def test_a_connection_that_broke_is_replaced(running: Panel, site: Database) -> None:
    with running.client() as client:
        old = OldPanel(client)
        old.poll()
        site.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'archisync web'")
        old.poll()
        assert old.call("POST", "sync/auto-sync/start")["isRunning"] is True


def test_a_server_out_of_reach_is_said_in_json(redis_url: str, tmp_path: Path) -> None:
    with panel("postgresql://nobody@127.0.0.1:9/x", redis_url, tmp_path / "log") as found, found.client() as client:
        error = OldPanel(client).refused("GET", "sync/intervals", expected=503)
        assert error.startswith("PostgreSQL is out of reach: ")
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503


def _is_unchanged(client: httpx.Client) -> bool:
    tag = client.get("/api/sync/monitoring/status?limit=20").headers["etag"]
    return client.get("/api/sync/monitoring/status?limit=20", headers={"If-None-Match": tag}).status_code == 304
