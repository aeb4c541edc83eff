"""`history`, `show`, `prune`: the runs and their outcomes."""

import json
import signal
import subprocess
import sys

import pytest
from psycopg.types.json import Jsonb

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.cli.rows import AT_NOON, NOW, add_run
from tests.conftest import Cli, clean_environment


def test_history_is_newest_first_and_filtered(cli: Cli, noon: Database) -> None:
    noon.execute("insert into agents.users (id, whitelisted) values ('marco', true)")
    old = add_run(noon, "failed", queued_at="2026-02-27T12:00:00Z")
    other = add_run(noon, agent_id="marco", queued_at="2026-03-01T10:00:00Z")
    new = add_run(noon, sync_type="ddt", queued_at="2026-03-01T11:30:00Z")

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
    run_id = add_run(
        noon, reason="applied", queued_at=NOW, rows_seen=9, rows_inserted=1, rows_updated=2, rows_unchanged=3,
        rows_absent=4, rows_restored=5, rows_deleted=6, rows_quarantined=7, steps=Jsonb({"total": 1500}),
    )  # fmt: skip
    heads, row = cli("history").stdout.splitlines()
    assert " ".join(heads.split()) == (
        "RUN TYPE AGENT STATE REASON TRIGGER QUEUED SECONDS"
        " SEEN INSERTED UPDATED UNCHANGED ABSENT RESTORED DELETED QUARANTINED MESSAGE"
    )
    assert " ".join(row.split()) == f"{run_id} orders anna succeeded applied scheduled {NOW} 1.5 9 1 2 3 4 5 6 7 -"


@pytest.mark.parametrize(
    ("total_ms", "shown"), [(0, "0.0"), (28, "0.028"), (999, "0.999"), (1000, "1.0"), (61_234, "61.2")]
)
def test_history_shows_the_milliseconds_of_a_quick_run(cli: Cli, noon: Database, total_ms: int, shown: str) -> None:
    add_run(noon, reason="applied", queued_at=NOW, steps=Jsonb({"total": total_ms}))
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


def test_show_has_everything_about_a_run_and_its_quarantined_rows(cli: Cli, noon: Database) -> None:
    run_id = add_run(
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


def test_prune_deletes_only_finished_runs_that_are_old(cli: Cli, noon: Database) -> None:
    add_run(noon, finished_at="2025-01-01T00:00:00Z")
    kept = [
        add_run(noon, finished_at="2026-02-01T00:00:00Z"),
        add_run(noon, "queued", queued_at="2025-01-01T00:00:00Z"),
    ]
    assert cli("prune", "--older-than", "90d", env=AT_NOON).stdout == "deleted 1 run\n"
    assert [r["id"] for r in noon.execute("select id from system.runs order by id").fetchall()] == kept


def test_prune_refuses_less_than_a_day(cli: Cli) -> None:
    done = cli("prune", "--older-than", "2h")
    assert (done.returncode, done.stderr) == (
        ExitCode.USAGE,
        "error: '2h' is less than a day\nhint: archisync prune --older-than 90d\n",
    )


def test_a_run_that_did_not_succeed_says_why_and_one_that_did_does_not_say_its_counts_again(
    cli: Cli, noon: Database
) -> None:
    add_run(noon, reason="applied", message="9 rows seen: 9 unchanged", queued_at=NOW)
    add_run(noon, "failed", reason="source-missing", message="there is no export", queued_at=NOW)
    newest, oldest = cli("history", "--columns", "state,message").stdout.splitlines()[1:]
    assert newest.split(maxsplit=1) == ["failed", "there is no export"]
    assert oldest.split() == ["succeeded", "-"]


def test_columns_are_shown_in_the_order_in_which_they_are_named(cli: Cli, noon: Database) -> None:
    run_id = add_run(noon, queued_at=NOW)
    assert cli("history", "--columns", "Agent, run").stdout == f"AGENT  RUN\nanna   {run_id}\n"
    assert (
        cli("agent", "list", "--columns", "all_fresh_since,agent").stdout
        == "ALL FRESH SINCE  AGENT\nnever            anna\n"
    )
    assert cli("status", "--columns", "type").stdout.splitlines()[:2] == ["TYPE", "customers"]
    done = cli("history", "--columns", "run,colour")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr.startswith("error: there is no column 'colour'\nhint: allowed: run, type, agent, state, reason")


def following(url: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archisync", "history", "--follow", *args]
    env = clean_environment() | {"ARCHISYNC_DATABASE_URL": url}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_follow_shows_the_last_runs_and_then_each_that_ends_until_ctrl_c(
    connection: Database, database_url: str
) -> None:
    now = "2026-03-01T12:00:00Z"
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    for minute in (1, 2, 3):
        add_run(connection, message="fine", reason="applied", finished_at=f"2026-03-01T11:0{minute}:00Z")
    process = following(database_url, "--limit", "2")
    assert process.stdout is not None
    with process:
        seen = [process.stdout.readline() for _ in range(2)]
        assert [line.split()[0] for line in seen] == ["2026-03-01T11:02:00Z", "2026-03-01T11:03:00Z"]
        row = connection.execute("select date_trunc('second', system.clock()) as now").fetchone()
        assert row is not None
        late = add_run(connection, "failed", message="no export", hint="write one", finished_at=row["now"])
        line = process.stdout.readline()
        assert line.split()[1:] == f"run {late}: orders of anna failed (no export (hint: write one))".split()
        assert line.split()[0] > now
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == ExitCode.INTERRUPTED
        assert process.stdout.read() == ""


def test_follow_prints_one_json_document_a_line_and_ends_when_nobody_reads_on(
    connection: Database, database_url: str
) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    add_run(connection, finished_at=NOW)
    process = following(database_url, "--json", "--agent", "anna")
    assert process.stdout is not None
    with process:
        assert json.loads(process.stdout.readline())["run"]["agent_id"] == "anna"
        process.stdout.close()
        connection.execute(
            "insert into system.sync_runs (id, sync_type, agent_id, state, trigger, queued_at, finished_at)"
            " select nextval('system.queued_runs_id_seq'), 'orders', 'anna', 'succeeded', 'scheduled', now(), now()"
        )
        assert process.wait(60) == 0


@pytest.mark.parametrize("wrong", [["--since", "1h"], ["--columns", "run"], ["--state", "queued"]])
def test_follow_refuses_what_it_does_not_do(cli: Cli, wrong: list[str]) -> None:
    done = cli("history", "--follow", *wrong)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr.startswith("error: --follow ")
