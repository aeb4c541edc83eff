"""`status`, `history`, `show`, `prune`, `why`, `held`: what a person sees, and decides."""

import json
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.conftest import Cli

NOW = "2026-03-01T12:00:00Z"
AT_NOON = {"PGOPTIONS": f"-c archisync.now={NOW}"}
NO_TICK = "note: no tick has ever run: is cron calling archisync tick?\n"


@pytest.fixture
def noon(connection: Database) -> Database:
    """A session whose clock stands at noon, in a database with one agent, anna."""
    connection.execute(f"set archisync.now = '{NOW}'")
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    return connection


def _run(db: Database, state: str = "succeeded", **columns: Any) -> int:
    """A run of the history; what is not given is as a finished scheduled run of anna's orders has it."""
    values: dict[str, Any] = {
        "sync_type": "orders",
        "agent_id": "anna",
        "state": state,
        "trigger": "scheduled",
        "finished_at": None if state in ("queued", "running") else NOW,
        **columns,
    }
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    row = db.execute(
        f"insert into system.sync_runs ({names}) values ({marks}) returning id".encode(), list(values.values())
    ).fetchone()
    assert row is not None
    return int(row["id"])


def _tick(db: Database, at: str = NOW) -> None:
    db.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        " values (%s, 5, 'host-1', 0, 0, 0, 0, '{}')",
        [at],
    )


def _state(db: Database, **columns: Any) -> None:
    changes = ", ".join(f"{name} = %s" for name in columns)
    db.execute(
        f"update system.sync_state set {changes} where sync_type = 'orders' and agent_id = 'anna'".encode(),
        list(columns.values()),
    )


def _held(db: Database, *, acceptable: bool = True) -> int:
    run_id = _run(db, "held", reason="too-few-rows")
    db.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, sha256, rows_valid,"
        " known_rows, data_version, sample) values (%s, 'orders', 'anna', 'too-few-rows', '60 %% fewer', %s, 'ab12', 4,"
        " 10, 0, %s)",
        [run_id, acceptable, Jsonb([["o-1"], ["o-2"]])],
    )
    return run_id


# --- why ----------------------------------------------------------------------------------------------------------


def _why(cli: Cli, *args: str) -> tuple[int, str]:
    done = cli("why", *args, env=AT_NOON)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_why_says_that_it_is_due_now(cli: Cli, noon: Database) -> None:
    _tick(noon)
    assert _why(cli, "orders", "anna") == (0, "orders of anna: it is due: it has never been scheduled\n")
    assert _why(cli, "products") == (0, "products of service-account: it is due: it has never been scheduled\n")


def test_why_says_when_the_next_run_is(cli: Cli, noon: Database) -> None:
    _tick(noon)
    _state(noon, last_slot_at="2026-03-01T11:56:00Z")
    assert _why(cli, "orders", "anna") == (
        0,
        "orders of anna: its interval of 10 min has not passed; due at 2026-03-01T12:06:00Z\n"
        "next at 2026-03-01T12:06:00Z\n",
    )


def test_why_says_since_when_a_run_is_queued_or_running_and_where(cli: Cli, noon: Database) -> None:
    _tick(noon)
    _state(noon, last_slot_at="2026-03-01T11:59:00Z")
    run_id = _run(noon, "queued", queued_at="2026-03-01T11:59:00Z")
    assert _why(cli, "orders", "anna")[1].splitlines()[0] == (
        f"orders of anna: run {run_id} is queued since 2026-03-01T11:59:00Z"
    )
    noon.execute(
        "update system.sync_runs set state = 'running', worker = 'host-1', started_at = '2026-03-01T11:59:30Z'"
    )
    assert _why(cli, "orders", "anna")[1].splitlines()[0] == (
        f"orders of anna: run {run_id} is running on host-1 since 2026-03-01T11:59:30Z"
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["disable", "orders"], "the type orders is disabled"),
        (["pause", "--agent", "anna"], "the agent anna is paused until somebody resumes"),
    ],
)
def test_why_says_that_a_queued_run_will_be_skipped_unless_it_was_forced(
    cli: Cli, noon: Database, args: list[str], words: str
) -> None:
    _tick(noon)
    _state(noon, last_slot_at=NOW)
    run_id = _run(noon, "queued", queued_at=NOW)
    cli(*args)
    waits = f"orders of anna: run {run_id} is queued since {NOW}"
    assert _why(cli, "orders", "anna") == (0, f"{waits}, but a worker will skip it: {words}\n")
    assert json.loads(_why(cli, "orders", "anna", "--json")[1])["next_at"] is None
    noon.execute("update system.sync_runs set trigger = 'forced'")
    assert _why(cli, "orders", "anna") == (0, f"{waits}\n")


def test_why_says_that_the_type_is_disabled(cli: Cli, noon: Database) -> None:
    _tick(noon)
    cli("disable", "orders")
    assert _why(cli, "orders", "anna") == (0, "orders of anna: the type orders is disabled\n")


def test_why_says_that_the_agent_is_not_on_the_whitelist(cli: Cli, noon: Database) -> None:
    _tick(noon)
    cli("agent", "deny", "anna")
    assert _why(cli, "orders", "anna") == (0, "orders of anna: the agent anna is not on the whitelist\n")


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ([], "everything"),
        (["--type", "orders"], "the type orders"),
        (["--agent", "anna"], "the agent anna"),
        (["--type", "orders", "--agent", "anna"], "orders of anna"),
    ],
)
def test_why_says_what_is_paused_and_until_when(cli: Cli, noon: Database, scope: list[str], words: str) -> None:
    _tick(noon)
    cli("pause", *scope, "--until", "1h", "--reason", "ERP maintenance", env=AT_NOON)
    assert _why(cli, "orders", "anna") == (
        0,
        f"orders of anna: {words} is paused until 2026-03-01T13:00:00Z (ERP maintenance)\n"
        "next at 2026-03-01T13:00:00Z\n",
    )


def test_why_says_that_it_backs_off(cli: Cli, noon: Database) -> None:
    _tick(noon)
    _state(noon, consecutive_failures=3, backoff_until="2026-03-01T12:40:00Z")
    assert _why(cli, "orders", "anna") == (
        0,
        "orders of anna: it failed 3 times in a row and rests until 2026-03-01T12:40:00Z\n"
        "next at 2026-03-01T12:40:00Z\n",
    )


def test_why_adds_that_its_last_runs_failed(cli: Cli, noon: Database) -> None:
    _tick(noon)
    _state(noon, consecutive_failures=1)
    assert _why(cli, "orders", "anna")[1].splitlines()[1:] == [
        "note: its last run failed: archisync history orders --agent anna"
    ]


def test_why_adds_that_an_export_is_held(cli: Cli, noon: Database) -> None:
    _tick(noon)
    run_id = _held(noon)
    assert _why(cli, "orders", "anna")[1].splitlines()[1:] == [
        f"note: an export of it is held since run {run_id}: archisync held show {run_id}"
    ]


def test_why_adds_that_nobody_calls_tick(cli: Cli, noon: Database) -> None:
    assert _why(cli, "orders", "anna")[1].endswith(NO_TICK)
    _tick(noon, "2026-03-01T11:57:00Z")
    assert "tick" not in _why(cli, "orders", "anna")[1]
    _tick(noon, "2026-03-01T11:53:00Z")
    assert _why(cli, "orders", "anna")[1].endswith("note: no tick for 7 minutes: is cron calling archisync tick?\n")


def test_why_of_an_unknown_agent_answers_and_exits_with_not_found(cli: Cli, noon: Database) -> None:
    _tick(noon)
    assert _why(cli, "orders", "nobody") == (ExitCode.NOT_FOUND, "orders of nobody: there is no agent nobody\n")


@pytest.mark.parametrize("args", [["orders"], ["orders", ""]])
def test_why_of_an_agent_type_needs_an_agent(cli: Cli, args: list[str]) -> None:
    done = cli("why", *args)
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.USAGE,
        "",
        "error: orders are fetched for each agent: which one?\nhint: archisync why orders AGENT\n",
    )


def test_why_answers_in_json(cli: Cli, noon: Database) -> None:
    _state(noon, last_slot_at="2026-03-01T11:56:00Z")
    run_id = _held(noon)
    assert json.loads(_why(cli, "orders", "anna", "--json")[1]) == {
        "schema": 1,
        "sync_type": "orders",
        "agent_id": "anna",
        "reason": "not-yet",
        "message": "its interval of 10 min has not passed; due at 2026-03-01T12:06:00Z",
        "next_at": "2026-03-01T12:06:00Z",
        "now": NOW,
        "held_run": run_id,
        "notes": [
            f"an export of it is held since run {run_id}: archisync held show {run_id}",
            "no tick has ever run: is cron calling archisync tick?",
        ],
    }


# --- status -------------------------------------------------------------------------------------------------------


def test_status_shows_a_row_a_type_and_what_stands_in_the_way(cli: Cli, noon: Database) -> None:
    held = _held(noon)
    running = _run(noon, "running", sync_type="customers", worker="host-1", started_at=NOW)
    cli("pause", "--type", "ddt", "--reason", "ERP maintenance", env=AT_NOON)
    cli("disable", "prices")
    done = cli("status", env=AT_NOON | {"ARCHISYNC_REDIS_URL": ""})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0]: line.split()[1] for line in lines[1:7]} == {
        "orders": "held",
        "customers": "stale",
        "products": "stale",
        "prices": "disabled",
        "ddt": "paused",
        "invoices": "stale",
    }
    assert lines[7:] == [
        "warning: no tick has ever run: is cron calling archisync tick?",
        f"running: customers of anna on host-1 (run {running})",
        f"held: orders of anna: 60 % fewer (archisync held show {held})",
        "paused: the type ddt: ERP maintenance",
    ]


def test_status_is_healthy_only_when_nothing_is_wrong(cli: Cli, noon: Database) -> None:
    _tick(noon, "2026-03-01T11:59:30Z")
    noon.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")
    lines = cli("status", env=AT_NOON).stdout.splitlines()
    assert {line.split()[1] for line in lines[1:7]} == {"healthy"}
    assert lines[7:] == ["last tick: 30 s ago on host-1"]
    assert next(line for line in lines if line.startswith("orders")).endswith(f"{NOW}  2026-03-01T12:10:00Z")


def test_a_pair_that_was_never_scheduled_is_due_now(cli: Cli, noon: Database) -> None:
    noon.execute("update system.sync_state set last_slot_at = system.clock()")
    noon.execute("insert into agents.users (id, whitelisted) values ('new', true)")
    due = {line.split()[0]: line.split()[-1] for line in cli("status", env=AT_NOON).stdout.splitlines()[1:7]}
    assert (due["orders"], due["products"]) == (NOW, "2026-03-01T12:30:00Z")


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"consecutive_failures": 1}, "failing"),
        ({"consecutive_failures": 3}, "degraded"),
        ({"last_success_at": "2026-03-01T11:40:00Z"}, "stale"),
        ({"last_success_at": "2026-03-01T11:40:01Z"}, "healthy"),
    ],
)
def test_the_word_for_a_type_is_the_worst_that_holds(
    cli: Cli, noon: Database, columns: dict[str, Any], word: str
) -> None:
    noon.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")
    _state(noon, **columns)
    types = json.loads(cli("status", "--json", env=AT_NOON).stdout)["types"]
    assert {t["sync_type"]: t["word"] for t in types}["orders"] == word


def test_status_warns_when_the_last_tick_is_older_than_three_minutes(cli: Cli, noon: Database) -> None:
    _tick(noon, "2026-03-01T11:50:00Z")
    assert cli("status", env=AT_NOON).stdout.splitlines()[7:] == [
        "warning: no tick for 10 minutes: is cron calling archisync tick?"
    ]


def test_status_in_json_has_everything(cli: Cli, noon: Database) -> None:
    _tick(noon)
    held = _held(noon)
    cli("pause", env=AT_NOON)
    document = json.loads(cli("status", "--json", env=AT_NOON).stdout)
    assert list(document) == ["schema", "now", "types", "last_tick", "tick_note", "running", "held", "ailing", "pauses"]
    assert (document["now"], document["tick_note"]) == (NOW, None)
    assert document["last_tick"]["host"] == "host-1"
    assert [h["run_id"] for h in document["held"]] == [held]
    assert [(p["sync_type"], p["agent_id"]) for p in document["pauses"]] == [(None, None)]
    assert len(document["types"]) == 6


# --- history, show, prune -----------------------------------------------------------------------------------------


def test_history_is_newest_first_and_filtered(cli: Cli, noon: Database) -> None:
    noon.execute("insert into agents.users (id, whitelisted) values ('marco', true)")
    old = _run(noon, "failed", queued_at="2026-02-27T12:00:00Z")
    other = _run(noon, agent_id="marco", queued_at="2026-03-01T10:00:00Z")
    new = _run(noon, sync_type="ddt", queued_at="2026-03-01T11:30:00Z")

    def found(*args: str) -> list[int]:
        return [r["run_id"] for r in json.loads(cli("history", "--json", *args, env=AT_NOON).stdout)["runs"]]

    assert found() == [new, other, old]
    assert found("orders") == [other, old]
    assert found("--agent", "marco") == [other]
    assert found("--state", "failed") == [old]
    assert found("--since", "1h") == [new]
    assert found("--since", "2026-03-01T10:00:00") == [new, other]
    assert found("--limit", "1") == [new]
    assert cli("history", "prices").stderr == "no runs\n"


def test_history_in_a_pipe_is_a_plain_table(cli: Cli, noon: Database) -> None:
    run_id = _run(
        noon, reason="applied", queued_at=NOW, rows_seen=9, rows_inserted=1, rows_updated=2, rows_unchanged=3,
        rows_absent=4, rows_restored=5, rows_deleted=6, rows_quarantined=7, steps=Jsonb({"total": 1500}),
    )  # fmt: skip
    heads, row = cli("history").stdout.splitlines()
    assert " ".join(heads.split()) == (
        "RUN TYPE AGENT STATE REASON TRIGGER QUEUED SECONDS"
        " SEEN INSERTED UPDATED UNCHANGED ABSENT RESTORED DELETED QUARANTINED"
    )
    assert " ".join(row.split()) == f"{run_id} orders anna succeeded applied scheduled {NOW} 1.5 9 1 2 3 4 5 6 7"


@pytest.mark.parametrize(
    ("total_ms", "shown"), [(0, "0.0"), (28, "0.028"), (999, "0.999"), (1000, "1.0"), (61_234, "61.2")]
)
def test_history_shows_milliseconds_of_a_quick_run(cli: Cli, noon: Database, total_ms: int, shown: str) -> None:
    _run(noon, reason="applied", queued_at=NOW, steps=Jsonb({"total": total_ms}))
    assert cli("history").stdout.splitlines()[1].split()[7] == shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--state", "done"],
            "error: there is no state 'done'\n"
            "hint: allowed: queued, running, succeeded, held, failed, skipped, cancelled\n",
        ),
        (
            ["--since", "yesterday"],
            "error: 'yesterday' is not a time\n"
            "hint: allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z\n",
        ),
        (
            ["order"],
            "error: there is no sync type 'order'\n"
            "hint: did you mean orders? allowed: orders, customers, products, prices, ddt, invoices\n",
        ),
    ],
)
def test_a_wrong_filter_names_what_is_allowed(cli: Cli, args: list[str], said: str) -> None:
    done = cli("history", *args)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.USAGE, "", said)


def test_show_tells_everything_of_a_run_with_the_quarantined_rows(cli: Cli, noon: Database) -> None:
    run_id = _run(
        noon,
        reason="applied-with-warnings",
        message="9 rows seen",
        requested_by="paolo",
        rows_seen=9,
        rows_quarantined=1,
        export=Jsonb(
            {"origin": "orders.csv", "bytes": 120, "sha256": "ab12", "detected": {"format": "csv", "encoding": "utf-8"}}
        ),
        steps=Jsonb({"fetch": 20, "total": 1500}),
        warnings=Jsonb(
            [
                {
                    "code": "quarantined",
                    "message": "1 row quarantined",
                    "count": 1,
                    "rows": [{"line": 4, "field": "total_amount", "reason": "not a number"}],
                }
            ]
        ),
    )
    lines = [" ".join(line.split()) for line in cli("show", str(run_id)).stdout.splitlines()]
    for line in (
        f"run {run_id}",
        "export detected format csv, encoding utf-8",
        "sync orders of anna",
        "state succeeded",
        "requested by paolo",
        "rows seen 9",
        "export origin orders.csv",
        "export sha256 ab12",
        "fetch ms 20",
    ):
        assert line in lines
    assert lines[-2:] == ["warning: 1 row quarantined", "line 4: total_amount: not a number"]
    run = json.loads(cli("show", str(run_id), "--json").stdout)["run"]
    assert (run["run_id"], run["warnings"][0]["rows"][0]["line"]) == (run_id, 4)


@pytest.mark.parametrize("run_id", ["42", "99999999999999999999"])
def test_a_run_that_does_not_exist_is_not_found(cli: Cli, run_id: str) -> None:
    done = cli("show", run_id)
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.NOT_FOUND,
        "",
        f"error: there is no run {run_id}\nhint: archisync history\n",
    )


def test_prune_deletes_finished_runs_that_are_older(cli: Cli, noon: Database) -> None:
    _run(noon, finished_at="2025-01-01T00:00:00Z")
    kept = [_run(noon, finished_at="2026-02-01T00:00:00Z"), _run(noon, "queued", queued_at="2025-01-01T00:00:00Z")]
    assert cli("prune", "--older-than", "90d", env=AT_NOON).stdout == "deleted 1 run\n"
    assert [r["id"] for r in noon.execute("select id from system.sync_runs order by id").fetchall()] == kept


def test_prune_refuses_less_than_a_day(cli: Cli) -> None:
    done = cli("prune", "--older-than", "2h")
    assert (done.returncode, done.stderr) == (
        ExitCode.USAGE,
        "error: '2h' is less than a day\nhint: archisync prune --older-than 90d\n",
    )


# --- held ---------------------------------------------------------------------------------------------------------


def test_held_list_shows_what_is_open_and_with_all_what_was_decided(cli: Cli, noon: Database) -> None:
    assert cli("held", "list").stderr == "nothing is held\n"
    run_id = _held(noon)
    assert [h["run_id"] for h in json.loads(cli("held", "list", "--json").stdout)["held"]] == [run_id]
    cli("held", "reject", str(run_id), "--why", "a filter")
    assert json.loads(cli("held", "list", "--json").stdout)["held"] == []
    assert [h["decision"] for h in json.loads(cli("held", "list", "--all", "--json").stdout)["held"]] == ["rejected"]


def test_held_show_tells_what_would_vanish_and_the_commands_to_type(cli: Cli, noon: Database) -> None:
    run_id = _held(noon)
    lines = [" ".join(line.split()) for line in cli("held", "show", str(run_id)).stdout.splitlines()]
    for line in ("rule too-few-rows", "why 60 % fewer", "rows in the export 4", "rows known 10", "sha256 ab12"):
        assert line in lines
    assert lines[-7:] == [
        "decision open",
        "keys of known rows that would vanish (some):",
        "o-1",
        "o-2",
        f'to apply it all the same: archisync held accept {run_id} --why "…"',
        f'to refuse it: archisync held reject {run_id} --why "…"',
        "a later good export clears it by itself",
    ]


def test_accepting_queues_a_forced_run_once(cli: Cli, noon: Database) -> None:
    run_id = _held(noon)
    done = cli("held", "accept", str(run_id), "--why", "branch closed")
    forced = noon.execute(
        "select id, sync_type, agent_id, trigger, request_reason from system.sync_runs where state = 'queued'"
    ).fetchall()
    assert [tuple(row.values())[1:] for row in forced] == [("orders", "anna", "forced", "branch closed")]
    assert (done.returncode, done.stdout) == (
        0,
        f"the export of run {run_id} is accepted for 24 hours\n"
        f"run {forced[0]['id']} will apply it; the next tick delivers it to a worker\n",
    )
    again = cli("held", "accept", str(run_id), "--why", "branch closed")
    assert (again.returncode, again.stdout) == (ExitCode.USAGE, "")
    assert again.stderr.startswith(f"error: the export of run {run_id} is accepted already by ")
    assert noon.execute("select count(*) as n from system.sync_runs where state = 'queued'").fetchone() == {"n": 1}


def test_accepting_with_no_run_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = _held(noon)
    done = cli("held", "accept", str(run_id), "--why", "branch closed", "--no-run")
    assert done.stdout == f"the export of run {run_id} is accepted for 24 hours\n"
    assert noon.execute("select count(*) as n from system.sync_runs where state = 'queued'").fetchone() == {"n": 0}
    assert noon.execute("select decision, decided_why from system.held_exports").fetchall() == [
        {"decision": "accepted", "decided_why": "branch closed"}
    ]


def test_an_unreadable_export_is_not_accepted_and_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = _held(noon, acceptable=False)
    assert "held accept" not in cli("held", "show", str(run_id)).stdout
    done = cli("held", "accept", str(run_id), "--why", "please")
    assert (done.returncode, done.stderr) == (
        ExitCode.USAGE,
        f"error: the export of run {run_id} can't be accepted: 60 % fewer\n"
        "hint: correct it in the ERP; the next good export clears the hold by itself\n",
    )
    assert noon.execute("select count(*) as n from system.sync_runs where state = 'queued'").fetchone() == {"n": 0}


def test_rejecting_is_recorded_and_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = _held(noon)
    done = cli("held", "reject", str(run_id), "--why", "a filter")
    assert done.stdout == f"the export of run {run_id} is rejected\n"
    assert noon.execute("select count(*) as n from system.sync_runs where state = 'queued'").fetchone() == {"n": 0}
    shown = cli("held", "show", str(run_id)).stdout
    assert ": a filter\n" in shown
    assert "to apply it" not in shown


@pytest.mark.parametrize("verb", [["show"], ["accept", "--why", "x"], ["reject", "--why", "x"]])
@pytest.mark.parametrize("run_id", ["42", "99999999999999999999"])
def test_what_was_not_held_is_not_found(cli: Cli, verb: list[str], run_id: str) -> None:
    done = cli("held", *verb, run_id)
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.NOT_FOUND,
        "",
        f"error: run {run_id} has no held export\nhint: archisync held list\n",
    )


def test_accepting_needs_a_reason(cli: Cli) -> None:
    done = cli("held", "accept", "42")
    assert done.returncode == ExitCode.USAGE
    assert "Missing option '--why'" in done.stderr
