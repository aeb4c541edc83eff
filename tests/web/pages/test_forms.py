"""Every form: what it does, who may, and that it is recorded with the name of whoever did it, from the panel."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES
from archisync.store import history, interventions, pairs, settings
from archisync.store.database import Database
from archisync.store.runs import State
from archisync.web.pages.routes import FORMS
from archisync.web.people import Role
from tests.support import site
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, Panel, signed_in
from tests.support.rows import count

PAIR = {"type": "orders", "agent": "mario.bassi"}


def act(client: httpx.Client, form: str, /, **fields: Any) -> str:
    """Post the form; the sentence that the next page says."""
    answer = client.post(f"/act/{form}", data={"back": "/settings", "why": "a test", **fields})
    assert (answer.status_code, answer.headers.get("location")) == (303, "/settings"), answer.text[-1500:]
    found = re.search(r'<div id="note"[^>]*>(.*?)</div>', client.get("/settings").text)
    assert found
    return sentence(found[1])


def sentence(html: str) -> str:
    """What a reader sees of it, with usual blanks."""
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def refused(client: httpx.Client, form: str, status: int, /, **fields: Any) -> str:
    answer = client.post(f"/act/{form}", data={"back": "/", **fields})
    assert answer.status_code == status, answer.text[-1500:]
    found = re.search(r'role="alert">(.*?)</p>', answer.text)
    assert found
    return sentence(found[1])


def ask(client: httpx.Client, address: str) -> tuple[str, dict[str, str]]:
    """The question, and the hidden fields of its form."""
    page = client.get(f"/ask/{address}").text
    title = re.search(r"<h1>(.*?)</h1>", page)
    assert title, page[-1500:]
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    return unescape(title[1]), {name: unescape(value) for name, value in hidden if name != "back"}


def state(db: Database, sync_type: str = "orders", agent_id: str = "mario.bassi") -> Any:
    return pairs.state(db, SYNC_TYPES[sync_type], agent_id)


@pytest.mark.parametrize("role", list(Role))
def test_each_form_takes_its_role(role: Role, shown: Panel) -> None:
    token = {Role.READER: READ_TOKEN, Role.OPERATOR: OPERATOR_TOKEN, Role.ADMIN: None}[role]
    with signed_in(shown, token) if token else signed_in(shown) as client:
        for name, _, least in FORMS:
            assert (client.post(f"/act/{name}", data={}).status_code == 403) == (role < least), name
            assert client.get(f"/act/{name}").status_code == 405


ELSEWHERE: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "{url}", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "{url}", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://rebound.example", "Host": "rebound.example", "Sec-Fetch-Site": "same-origin"},
)


def test_no_page_of_another_site_can_send_a_form_or_see_a_page(shown: Panel, troubled: Database) -> None:
    done = len(site.audited(troubled))
    with signed_in(shown) as client:
        session = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
        rebound = client.get("/", headers={"Host": "rebound.example:80"})
        assert (rebound.status_code, "mario" in rebound.text) == (421, False)
    with shown.client(None, **session) as client:
        for number, (name, _, _) in enumerate(FORMS):
            headers = ELSEWHERE[number % len(ELSEWHERE)]
            given = {header: value.format(url=shown.url) for header, value in headers.items()}
            answer = client.post(f"/act/{name}", data={**PAIR, "why": "x"}, headers=given)
            assert answer.status_code == (421 if "Host" in headers else 403), (name, headers)
        bare = client.post("/act/sync", data=PAIR)
        assert bare.status_code == 403  # a browser always says where a form comes from
    assert len(site.audited(troubled)) == done


def test_a_pair_is_synced_its_rest_ended_and_its_run_cancelled(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        assert act(client, "end-rest", **PAIR) == "orders of mario.bassi: its rest is over"
        assert act(client, "end-rest", **PAIR) == "orders of mario.bassi: it did not rest"
        said = act(client, "sync", **PAIR)
        run_id = state(troubled).run_id
        assert said == f"orders of mario.bassi, run {run_id}: queued, and handed to the workers"
        assert act(client, "sync", **PAIR).startswith(f"orders of mario.bassi, joins the unfinished run {run_id}")
        run = history.get(troubled, run_id)
        assert (run.requested_by, run.request_reason) == ("anna", "a test")
        question, fields = ask(client, f"cancel?ids={run_id}")
        assert question == f"Cancel run {run_id}, orders of mario.bassi?"
        assert act(client, "cancel", **fields) == "1 run cancelled"
        assert act(client, "cancel", **fields) == "these runs were over already"
        assert history.get(troubled, run_id).state is State.CANCELLED
        assert client.get(f"/ask/cancel?ids={run_id}").status_code == 404
    assert {(who, via) for who, via, _ in site.audited(troubled)[:4]} == {("anna", "panel")}
    assert [action for *_, action in site.audited(troubled)[:4]] == ["cancel", "run", "run", "rest end"]


def test_what_is_done_to_many_is_exactly_what_the_question_said(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        question, fields = ask(client, "sync?type=orders")
        assert question == "Sync orders of 6 agents now?"
        troubled.execute("update agents.users set whitelisted = false where id = 'sara.conti'")
        assert refused(client, "sync", 412, **fields) == "Meanwhile they are 5, not 6; nothing was done"
        assert state(troubled).run_id is None
        question, fields = ask(client, "sync?type=orders")
        assert question == "Sync orders of 5 agents now?"
        assert act(client, "sync", **fields).startswith("5 runs: queued")
        question, fields = ask(client, "sync")
        assert question == f"Sync everything now: {4 * 5 + 2} runs of 6 types?"

        question, fields = ask(client, "retry")
        assert question == "Try 1 failing pair again now?"
        troubled.execute("update system.sync_state set consecutive_failures = 1 where sync_type = 'ddt' and active")
        assert refused(client, "retry", 412, **fields) == "Meanwhile they are 6, not 1; nothing was done"
        question, fields = ask(client, "retry?type=ddt")
        assert question == "Try 5 failing pairs again now?"
        assert "5 runs" in act(client, "retry", **fields)
        assert interventions.failing(troubled, sync_type="ddt", resting=True) == []


def test_the_runs_that_a_filter_shows_are_synced_again_or_cancelled(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        page = client.get("/runs?state=failed").text
        [link] = re.findall(r'href="/ask/(again[^"]*)">Sync 1 pair shown here…', page)
        question, fields = ask(client, unescape(link))
        assert question == "Sync orders of mario.bassi now?"
        assert act(client, "again", **fields).startswith("orders of mario.bassi, run ")
        page = client.get("/runs?state=queued").text
        [link] = re.findall(r'href="/ask/(cancel[^"]*)">Cancel 2 runs shown here…', page)
        question, fields = ask(client, unescape(link))
        assert question == "Cancel 2 runs?"
        assert act(client, "cancel", **fields) == "2 runs cancelled"
        assert (
            count(troubled, "select count(*) from system.queued_runs") == 1
        )  # the one that is being done was not shown


def test_pauses_begin_and_end(shown: Panel, troubled: Database) -> None:
    with signed_in(shown) as client:
        question, fields = ask(client, "pause?type=orders&agent=mario.bassi")
        assert question == "Pause orders of mario.bassi?"
        assert act(client, "pause", **fields, **{"for": "60"}).startswith("orders of mario.bassi: paused until ")
        assert ask(client, "pause")[0] == "Pause everything?"
        assert act(client, "pause") == "everything: paused until somebody resumes"
        assert {(p.sync_type, p.agent_id, p.reason, p.paused_by) for p in settings.pauses(troubled) if p.sync_type != "prices"} == {
            ("orders", "mario.bassi", "a test", "anna"), (None, None, "a test", "anna"),
        }  # fmt: skip
        assert act(client, "resume") == "everything: resumed"
        assert act(client, "resume") == "everything: was not paused"
        assert act(client, "resume", **PAIR) == "orders of mario.bassi: resumed"
        for odd in ("0", "-1", "x", "9" * 12):
            assert refused(client, "pause", 400, **{"for": odd}).startswith("A pause lasts up to")


def test_an_export_is_decided_with_a_reason(shown: Panel, troubled: Database) -> None:
    first, second = (count(troubled, f"select {f}(run_id) from system.held_exports") for f in ("min", "max"))
    with signed_in(shown) as client:
        assert "54 of 120 known rows would vanish" in client.get(f"/held/{first}").text
        page = client.get(f"/held/{second}").text
        assert "<del>1240.50</del>" in page
        assert "<ins>124050.00</ins>" in page
        assert "<ins>empty</ins>" in page
        assert refused(client, "accept", 400, run=second, why=" ") == "The reason is empty"
        assert act(client, "reject", run=first, why="a broken filter").startswith(
            f"the export of run {first} is rejected"
        )
        said = act(client, "accept", run=second, why="the list of December")
        run_id = state(troubled, "invoices", "luca.ferrari").run_id
        assert (
            said
            == f"the export of run {second} is accepted for 24 hours; run {run_id} applies it: queued, and handed to the workers"
        )
        assert refused(client, "accept", 400, run=second, why="again").startswith(
            f"The export of run {second} is accepted already by anna"
        )
        assert "Accepted by <b>anna</b>" in client.get(f"/held/{second}").text
        assert "Nothing waits for a decision." in client.get("/held").text
        assert "the list of December" in client.get("/held?decided=all").text
        assert refused(client, "reject", 404, run=1, why="x").startswith("Run 1 has no held export")
    assert site.waiting(troubled) == 0
    assert [action for *_, action in site.audited(troubled)[:2]] == ["held accept", "held reject"]


def test_a_held_export_shows_which_column_looks_wrong_how_much_of_it_and_old_and_new_values(
    shown: Panel, troubled: Database
) -> None:
    first, second = (count(troubled, f"select {f}(run_id) from system.held_exports") for f in ("min", "max"))
    with signed_in(shown) as client:
        page = client.get(f"/held/{second}").text
        found = page.partition("What looks wrong</h2>")[2].partition("<h2>")[0]
        rows = [re.sub(r"<[^>]*>", " ", row).split() for row in found.split("<tr>")[2:]]
        assert [" ".join(row) for row in rows] == [
            "net_amount becomes 100 times as large in 118 of 120 rows that have a value: 98 % (at most 10 % are applied unasked)"
            " 1240.50 → 124050.00 2240.50 → 224050.00 3240.50 → 324050.00",
            "due_date loses its value in 118 of 120 rows that have a value: 98 % (at most 10 % are applied unasked) 2026-12-31 → empty",
        ]
        assert "What looks wrong" not in client.get(f"/held/{first}").text


def test_what_all_agents_share_is_called_by_its_type_alone(shown: Panel, troubled: Database) -> None:
    run_id = site.hold(
        troubled, "products", SHARED_AGENT, message="no rows", rule="zero-rows", sample=[], changes=[], planned={}
    )
    with signed_in(shown) as client:
        act(client, "reject", run=run_id)
        troubled.execute(
            "update system.held_exports set decision = null, decided_by = null where run_id = %s", [run_id]
        )
        for address in ("/", "/held", f"/held/{run_id}", "/types/products", "/audit"):
            text = re.sub(r"<[^>]*>", "", client.get(address).text)
            assert "products" in text
            assert SHARED_AGENT not in text, address


def test_settings_are_changed_only_as_they_were_seen(shown: Panel, troubled: Database) -> None:
    guard = {"type": "orders", "drop": "40", "delete": "30", "rewrite": "20", "was": "drop 50,delete 50,rewrite 50"}
    with signed_in(shown) as client:
        assert act(client, "guard", **guard) == "orders: held above 40 % fewer, 30 % gone, 20 % rewritten rows"
        assert refused(client, "guard", 412, **guard).startswith("Somebody has changed the guard of orders meanwhile")
        assert "percentage" in refused(
            client, "guard", 400, **guard | {"drop": "101", "was": "drop 40,delete 30,rewrite 20"}
        )
        assert (
            act(client, "enabled", type="ddt", enabled="false") == "ddt: not scheduled any more, from the next tick on"
        )
        assert {s.sync_type for s in settings.all_settings(troubled) if not s.enabled} == {"ddt"}
        assert act(client, "enabled", type="ddt", enabled="true") == "ddt: scheduled again, from the next tick on"
        assert refused(client, "enabled", 400, type="ddt", enabled="maybe") == "Enabled is neither true nor false"
        assert refused(client, "interval", 400, type="orders") == "The form has no field minutes"
        many = {f"field{n}": "x" for n in range(300)}
        assert refused(client, "interval", 400, type="orders", **many) == "The form has more than 200 fields"
    limits = settings.all_limits(troubled)["orders"]
    assert (limits.drop, limits.delete, limits.rewrite) == (40, 30, 20)


def test_a_threshold_of_a_column_is_set_seen_and_put_back(shown: Panel, troubled: Database) -> None:
    def limits() -> dict[str, int]:
        return settings.all_limits(troubled)["orders"].of_columns

    of_column = {"type": "orders", "rule": "rescaled", "column": "gross_amount", "percent": "30"}
    with signed_in(shown) as client:
        page = client.get("/settings").text
        assert "Usual thresholds of values<span" in page
        [was] = re.findall(r'id="values-orders".*?name="was" value="([^"]*)"', page, re.S)
        assert act(client, "guard-column", **of_column, was=was) == "orders, gross_amount: rescaled holds above 30 %"
        assert limits() == {"rescaled gross_amount": 30}
        assert refused(client, "guard-column", 412, **of_column, was=was).startswith("Somebody has changed the guard")
        page = client.get("/settings").text
        assert "1 threshold of values" in page
        [back] = re.findall(r'data-key="rescaled gross_amount">.*?<form[^>]*>(.*?)</form>', page, re.S)
        fields = {name: unescape(value) for name, value in re.findall(r'name="([^"]*)" value="([^"]*)"', back)}
        assert "Rescaled, gross_amount: 30 %." in read_as_reader(shown)
        for wrong in ({"rule": "drop"}, {"rule": "odd"}, {"column": "colour"}, {"percent": "101"}):
            refused(client, "guard-column", 400, **of_column | {"was": fields["was"]} | wrong)
        assert act(client, "guard-column", **fields) == "orders, gross_amount: rescaled is as for other types"
    assert limits() == {}
    assert [action for *_, action in site.audited(troubled)[:2]] == ["guard set"] * 2


def read_as_reader(shown: Panel) -> str:
    with signed_in(shown, READ_TOKEN) as client:
        return client.get("/settings").text


def test_agents_come_leave_and_are_removed(shown: Panel, troubled: Database) -> None:
    troubled.execute(
        "insert into agents.orders (agent_id, order_id, created_at) values ('mario.bassi', '1', now()), ('anna.bianchi', '1', now())"
    )
    with signed_in(shown) as client:
        assert (
            act(client, "add", agent="new.agent", name="New Agent", allow="true")
            == "new.agent: added, on the whitelist"
        )
        assert act(client, "add", agent="new.agent") == "new.agent: already registered, left as it is"
        assert refused(client, "add", 400, agent="../x").endswith("is not an agent id")
        assert refused(client, "add", 400, agent="service-account").startswith("Service-account is taken")
        question, fields = ask(client, "deny?agent=new.agent")
        assert question == "Take new.agent off the whitelist?"
        assert act(client, "deny", **fields) == "new.agent: off the whitelist"
        assert act(client, "allow", agent="new.agent") == "new.agent: on the whitelist"
        question, fields = ask(client, "clear?type=orders&agent=mario.bassi")
        assert question == "Delete 1 copied row of orders of mario.bassi?"
        assert (
            act(client, "clear", **fields)
            == "deleted 1 row of orders of mario.bassi; the next sync loads the export again"
        )
        question, fields = ask(client, "clear?type=orders")
        assert question == "Delete 1 copied row of orders of all agents?"
        assert refused(client, "clear", 400, type="orders") == "Whose orders?"
        assert (
            act(client, "clear", **fields)
            == "deleted 1 row of orders of all agents; the next sync loads the export again"
        )
        question, fields = ask(client, "remove?agent=mario.bassi")
        assert question == "Remove mario.bassi from the registry?"
        assert act(client, "remove", **fields) == "mario.bassi: removed"
        assert refused(client, "remove", 404, **fields).startswith("There is no agent 'mario.bassi'")
    assert {via for _, via, _ in site.audited(troubled)[:6]} == {"panel"}
