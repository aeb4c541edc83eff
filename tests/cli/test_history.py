"""`history`, `show`, `prune`: the runs and their outcomes."""

import json

import pytest
from psycopg.types.json import Jsonb

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.cli.rows import AT_NOON, NOW, add_run
from tests.conftest import Cli


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
        " SEEN INSERTED UPDATED UNCHANGED ABSENT RESTORED DELETED QUARANTINED"
    )
    assert " ".join(row.split()) == f"{run_id} orders anna succeeded applied scheduled {NOW} 1.5 9 1 2 3 4 5 6 7"


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
