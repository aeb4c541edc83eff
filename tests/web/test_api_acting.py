"""Each action of the command line has its way in the API and leaves the same record; settings are not changed over somebody else's head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
import typer

from archisync.cli.root import SECTIONS, root_command
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import audit, queued_runs
from archisync.store.audit import Record
from archisync.store.database import Database, connected
from archisync.web.api.table import ROUTES
from tests.conftest import Cli, migrated_copy
from tests.support.panel import Panel, panel
from tests.support.panelsite import ANNA, PAOLO, RUN, furnish
from tests.support.rows import count

API = "/api/v1"


class Act(NamedTuple):
    """What somebody types, and what he posts instead. `body`: of a POST, or of a PATCH where `path` is that of a setting."""

    words: str
    path: str
    body: Mapping[str, Any]


RETURNS = """
name = "returns"
scope = "agent"
interval = 30
key = ["return_number"]

[fields]
return_number = { kind = "identifier" }
"""
WHY = {"reason": "mistake"}
ACTS: list[Act] = [
    Act(f"run orders --agent {PAOLO} --reason mistake", "/runs", {"type": "orders", "agents": [PAOLO], **WHY}),
    Act(f"run invoices --agent {PAOLO} --reason mistake", "/runs", {"type": "invoices", "agents": [PAOLO], **WHY}),
    Act(f"retry orders --agent {ANNA} --reason mistake", "/runs/retry", {"type": "orders", "agent": ANNA, **WHY}),
    Act(f"rest end --agent {ANNA} --reason mistake", "/rests/end", {"agent": ANNA, **WHY}),
    Act(f"cancel --agent {PAOLO} --reason mistake", "/runs/cancel", {"agent": PAOLO, **WHY}),
    Act("cancel --all", "/runs/cancel", {"all": True}),
    Act("pause --all --reason mistake", "/pauses", {"all": True, **WHY}),
    Act("resume --all", "/pauses/end", {"all": True}),
    Act("pause --type orders --until 2100-01-01", "/pauses", {"type": "orders", "until": "2100-01-01"}),
    Act("resume --type orders", "/pauses/end", {"type": "orders"}),
    Act(f"agent pause {ANNA} --reason mistake", "/pauses", {"agent": ANNA, **WHY}),
    Act(f"agent resume {ANNA}", "/pauses/end", {"agent": ANNA}),
    Act(f"held accept {RUN} --why mistake", f"/held/{RUN}/accept", {"why": "mistake"}),
    Act(f"held reject {RUN} --why mistake", f"/held/{RUN}/reject", {"why": "mistake"}),
    Act(f"clear customers --agent {ANNA} --yes --reason mistake", "/clear", {"type": "customers", "agent": ANNA, **WHY}),
    Act("clear products --yes", "/clear", {"type": "products"}),
    Act("interval set orders 15 --reason mistake", "/intervals/orders", {"interval_minutes": 15, **WHY}),
    Act("interval reset orders", "/intervals/orders", {"interval_minutes": None}),
    Act("disable orders --reason mistake", "/intervals/orders", {"enabled": False, **WHY}),
    Act("enable orders", "/intervals/orders", {"enabled": True}),
    Act("guard set prices rewrite 80 --reason mistake", "/guard/prices", {"rewrite": 80, **WHY}),
    Act("guard set prices rescaled 30 unit_price", "/guard/prices", {"columns": {"rescaled unit_price": 30}}),
    Act("guard set prices emptied 70", "/guard/prices", {"columns": {"emptied": 70}}),
    Act("guard reset prices unit_price", "/guard/prices", {"columns": {"rescaled unit_price": None}}),
    Act("guard reset prices", "/guard/prices", {"drop": None, "delete": None, "rewrite": None, "columns": None}),
    Act("type apply {toml} --reason mistake", "/declarations", {"toml": RETURNS, **WHY}),
    Act("type remove returns --drop-table --yes", "/declarations/returns/remove", {"drop_table": True}),
    Act(f"agent add luca.ferrari {ANNA} --allow", "/agents", {"agents": ["luca.ferrari", ANNA], "allow": True}),
    Act("agent add mia --name Mia", "/agents", {"agents": ["mia"], "name": "Mia"}),
    Act("agent allow mia --reason mistake", "/agents/allow", {"agents": ["mia"], **WHY}),
    Act("agent deny mia --reason mistake", "/agents/deny", {"agents": ["mia"], **WHY}),
    Act(
        f"agent remove mia {ANNA} --with-data --yes --reason mistake", "/agents/remove",
        {"agents": ["mia", ANNA], "with_data": True, **WHY},
    ),
]  # fmt: skip


LOOKING = ("list", "show", "check", "diff", "draft", "test")


def acting_commands() -> set[str]:
    """Every command below Act and Set in --help, but for those that only look."""
    root: Any = typer.main.get_command(root_command())
    names = [name for title in ("Act", "Set") for name in SECTIONS[title]]
    found = [[name, *inner] for name in names for inner in _below(root.commands[name])]
    return {" ".join(words) for words in found if words[-1] not in LOOKING}


def _below(command: Any) -> list[list[str]]:
    return [[name] for name in command.commands] if hasattr(command, "commands") else [[]]


def named(words: str) -> str:
    parts = words.split()
    return next(c for c in acting_commands() if parts[: len(c.split())] == c.split())


@pytest.fixture
def twin_url(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[str]:
    with migrated_copy(admin, session_postgres, template, next(database_names)) as url:
        yield url


def send(client: httpx.Client, act: Act) -> dict[str, Any]:
    method = "PATCH" if act.path.startswith(("/intervals/", "/guard/")) else "POST"
    answer = client.request(method, API + act.path, json=dict(act.body))
    assert answer.is_success, (act, answer.text)
    return dict(answer.json())


def record(found: list[Record]) -> list[tuple[Any, ...]]:
    """What was recorded, whoever did it: a resume names who had paused."""
    return [
        (r.action, r.sync_type, r.agent_id, r.run_id, {k: v for k, v in (r.before or {}).items() if k != "by"}, r.after, r.why)
        for r in found
    ]  # fmt: skip


def test_each_action_of_the_command_line_has_its_way_in_the_api_and_the_same_record(
    connection: Database, cli: Cli, twin_url: str, redis_url: str, tmp_path: Any
) -> None:
    assert {named(act.words) for act in ACTS} == acting_commands()
    assert {command for route in ROUTES if route.method != "GET" for command in route.command} == acting_commands()
    furnish(connection)
    toml = tmp_path / "returns.toml"
    toml.write_text(RETURNS)
    with (
        connected(twin_url, purpose="test") as twin,
        panel(twin_url, redis_url, tmp_path / "web.log") as found,
        found.client() as client,
    ):
        furnish(twin)
        for act in ACTS:
            before = audit.newest(connection, limit=1)[0].id
            done = cli(*act.words.format(toml=toml).split())
            assert done.returncode == 0, done.stderr
            send(client, act)
            typed, posted = (audit.newest(db, limit=before + 100)[:-before][::-1] for db in (connection, twin))
            assert typed, act
            assert record(typed) == record(posted), act
            assert {(r.who, r.via) for r in posted} == {("web, admin token", "api")}
            assert {r.via for r in typed} == {"cli"}


def test_posting_the_same_trigger_twice_joins(running: Panel, site: Database) -> None:
    with running.client() as client:
        body = {"type": "orders", "agents": ["anna"], "reason": "a customer is waiting"}
        first = client.post(f"{API}/runs", json=body)
        again = client.post(f"{API}/runs", json=body)
        everybody = client.post(f"{API}/runs", json={"type": "all"})
    assert (first.status_code, again.status_code) == (202, 202)
    [one], [same] = first.json()["runs"], again.json()["runs"]
    assert (one["joined"], same["joined"], one["run_id"]) == (False, True, same["run_id"])
    assert len(everybody.json()["runs"]) == 4 * 2 + 2
    assert first.json()["notes"] == ["queued, and handed to the workers"]
    row = site.execute("select requested_by, request_reason from system.runs where id = %s", [one["run_id"]]).fetchone()
    assert row == {"requested_by": "web, admin token", "request_reason": "a customer is waiting"}


def test_a_run_overrides_what_stops_it_and_says_so(running: Panel, site: Database) -> None:
    with running.client() as client:
        client.post(f"{API}/pauses", json={"agent": "anna"})
        client.patch(f"{API}/intervals/orders", json={"enabled": False})
        notes = client.post(f"{API}/runs", json={"type": "orders", "agents": ["anna"]}).json()["notes"]
        ended = client.post(f"{API}/pauses/end", json={"type": "orders"}).json()
    assert notes[:2] == [
        "the type orders is disabled; this run is done anyway", "the agent anna is paused; this run is done anyway",
    ]  # fmt: skip
    assert (ended["ended"], [p["agent_id"] for p in ended["pauses"]]) == (False, ["anna"])


def test_a_setting_that_somebody_has_changed_meanwhile_is_not_changed(running: Panel, site: Database) -> None:
    with running.client() as client:
        for path, first, second in (
            ("/intervals/orders", {"interval_minutes": 15}, {"interval_minutes": 20}),
            ("/guard/orders", {"drop": 60}, {"drop": 70}),
        ):
            mine = client.get(API + path)
            tag = mine.headers["etag"]
            assert client.get(API + path, headers={"If-None-Match": tag}).status_code == 304
            done = client.patch(API + path, json=first, headers={"If-Match": tag})
            assert (done.status_code, done.json()) == (200, client.get(API + path).json())
            assert done.headers["etag"] == client.get(API + path).headers["etag"]
            refused = client.patch(API + path, json=second, headers={"If-Match": tag})
            problem = refused.json()
            assert (refused.status_code, problem["reason"], problem["exit_code"]) == (412, "changed-meanwhile", None)
            assert client.get(API + path).json() == done.json()
            assert client.patch(
                API + path, json=second, headers={"If-Match": f'"x", W/{done.headers["etag"]}'}
            ).is_success
            assert client.patch(API + path, json=first, headers={"If-Match": "*"}).is_success
    assert count(site, "select count(*) from system.audit") == 6


def test_of_two_who_read_the_same_setting_one_wins(running: Panel, site: Database) -> None:
    """The second one waits until the first has committed, and then finds another version."""
    with running.client() as client:
        tag = client.get(f"{API}/intervals/orders").headers["etag"]
        with site.transaction():
            site.execute("select from system.sync_settings where sync_type = 'orders' for update")
            site.execute("update system.sync_settings set interval_minutes = 25 where sync_type = 'orders'")
            import threading

            answers: list[httpx.Response] = []

            def change() -> None:
                headers = {"If-Match": tag}
                answers.append(client.patch(f"{API}/intervals/orders", json={"interval_minutes": 15}, headers=headers))

            thread = threading.Thread(target=change)
            thread.start()
            while not count(site, "select count(*) from pg_locks where not granted"):
                continue
        thread.join()
    assert answers[0].status_code == 412
    assert count(site, "select interval_minutes from system.sync_settings where sync_type = 'orders'") == 25


def test_an_action_on_many_agents_is_done_for_all_or_for_none(running: Panel, site: Database) -> None:
    with running.client() as client:
        refused = client.post(f"{API}/agents/deny", json={"agents": ["anna", "nobody"]})
        assert (refused.status_code, refused.json()["detail"]) == (404, "there is no agent 'nobody'")
    assert count(site, "select count(*) from agents.users where whitelisted") == 2


def test_more_agents_than_one_request_can_force_are_refused(running: Panel, site: Database) -> None:
    site.execute("insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, 2000) n")
    with running.client() as client:
        many = client.post(f"{API}/runs", json={"type": "orders"})
        shared = client.post(f"{API}/runs", json={"type": "products"})
    assert (many.status_code, many.json()["detail"]) == (400, "there are more than 2000 agents")
    assert shared.status_code == 202
    assert queued_runs.positions(site) == {"products": 1}
