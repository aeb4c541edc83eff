"""`held`: what a person sees of a held export, and decides."""

import json

import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.cli.rows import add_held
from tests.conftest import Cli


def test_held_list_shows_open_exports_and_with_all_decided_ones(cli: Cli, noon: Database) -> None:
    assert cli("held", "list").stderr == "nothing is held\n"
    run_id = add_held(noon)
    assert [h["run_id"] for h in json.loads(cli("held", "list", "--json").stdout)["held"]] == [run_id]
    cli("held", "reject", str(run_id), "--why", "a filter")
    assert json.loads(cli("held", "list", "--json").stdout)["held"] == []
    assert [h["decision"] for h in json.loads(cli("held", "list", "--all", "--json").stdout)["held"]] == ["rejected"]


def test_held_show_names_rows_that_would_vanish_and_the_commands_to_type(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon)
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


def test_what_nobody_knows_of_an_unreadable_export_is_said_so(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon)
    noon.execute("update system.held_exports set rows_valid = null, planned = '{}', sample = '[]', changes = '[]'")
    shown = cli("held", "show", str(run_id)).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "rows in the export unknown" in lines
    assert "None" not in shown
    assert "would vanish" not in shown or "unknown" in next(line for line in lines if "would vanish" in line)


def test_accepting_queues_a_forced_run_once(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon)
    done = cli("held", "accept", str(run_id), "--why", "branch closed")
    forced = noon.execute("select id, sync_type, agent_id, trigger, request_reason from system.queued_runs").fetchall()
    assert [tuple(row.values())[1:] for row in forced] == [("orders", "anna", "forced", "branch closed")]
    assert (done.returncode, done.stdout) == (
        0,
        f"the export of run {run_id} is accepted for 24 hours\n"
        f"run {forced[0]['id']} will apply it; the next tick delivers it to a worker\n",
    )
    again = cli("held", "accept", str(run_id), "--why", "branch closed")
    assert (again.returncode, again.stdout) == (ExitCode.USAGE, "")
    assert again.stderr.startswith(f"error: the export of run {run_id} is accepted already by ")
    assert noon.execute("select count(*) as n from system.queued_runs").fetchone() == {"n": 1}


def test_accepting_with_no_run_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon)
    done = cli("held", "accept", str(run_id), "--why", "branch closed", "--no-run")
    assert done.stdout == f"the export of run {run_id} is accepted for 24 hours\n"
    assert noon.execute("select count(*) as n from system.queued_runs").fetchone() == {"n": 0}
    assert noon.execute("select decision, decided_why from system.held_exports").fetchall() == [
        {"decision": "accepted", "decided_why": "branch closed"}
    ]


def test_an_unreadable_export_is_not_accepted_and_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon, acceptable=False)
    assert "held accept" not in cli("held", "show", str(run_id)).stdout
    done = cli("held", "accept", str(run_id), "--why", "please")
    assert (done.returncode, done.stderr) == (
        ExitCode.USAGE,
        f"error: the export of run {run_id} can't be accepted: 60 % fewer\n"
        "hint: correct it in the ERP; the next good export clears the hold by itself\n",
    )
    assert noon.execute("select count(*) as n from system.queued_runs").fetchone() == {"n": 0}


def test_rejecting_is_recorded_and_queues_nothing(cli: Cli, noon: Database) -> None:
    run_id = add_held(noon)
    done = cli("held", "reject", str(run_id), "--why", "a filter")
    assert done.stdout == f"the export of run {run_id} is rejected\n"
    assert noon.execute("select count(*) as n from system.queued_runs").fetchone() == {"n": 0}
    shown = cli("held", "show", str(run_id)).stdout
    assert ": a filter\n" in shown
    assert "to apply it" not in shown


@pytest.mark.parametrize("verb", [["show"], ["accept", "--why", "x"], ["reject", "--why", "x"]])
@pytest.mark.parametrize("run_id", ["42", "99999999999999999999"])
def test_a_run_without_a_held_export_is_not_found(cli: Cli, verb: list[str], run_id: str) -> None:
    done = cli("held", *verb, run_id)
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.NOT_FOUND,
        "",
        f"error: run {run_id} has no held export\nhint: archisync held list\n",
    )


def test_accepting_without_why_is_wrong_usage(cli: Cli) -> None:
    done = cli("held", "accept", "42")
    assert done.returncode == ExitCode.USAGE
    assert "Missing option '--why'" in done.stderr


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_a_blank_why_is_refused(cli: Cli, verb: str) -> None:
    done = cli("held", verb, "1", "--why", " ")
    assert (done.returncode, done.stderr.splitlines()[0]) == (ExitCode.USAGE, "error: the reason is empty")
