"""What an operator does about runs, rests and agents: one by one and in bulk, with --dry-run, and always in the audit."""

from __future__ import annotations

import os
import pty
import pwd
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from archisync.base.errors import ExitCode
from archisync.store import agents, queued_runs
from archisync.store.database import Database
from tests.conftest import COMMAND_TIMEOUT_S, Cli, clean_environment
from tests.support.rows import add_run, count
from tests.support.warm import WarmCommand

ME = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
AUDIT = "select count(*) from system.audit"


@pytest.fixture
def site(connection: Database) -> Database:
    """Two agents; anna's orders and ddt failed, and the orders rest."""
    for agent_id in ("anna", "luca"):
        agents.add(connection, agent_id, name=None, whitelisted=True)
    connection.execute(
        "update system.sync_state set consecutive_failures = 2,"
        " backoff_until = case sync_type when 'orders' then '2999-01-01'::timestamptz end"
        " where agent_id = 'anna' and sync_type in ('orders', 'ddt')"
    )
    connection.execute("insert into agents.orders (agent_id, order_id, created_at) values ('anna', 'O1', now())")
    return connection


def typed(cli: Cli, line: str) -> tuple[int, str, str]:
    done = cli(*line.split())
    return done.returncode, done.stdout, done.stderr


def test_cancel_names_each_run_and_does_nothing_dry(cli: Cli, site: Database) -> None:
    waiting = add_run(site, "queued", sync_type="orders")
    doing = add_run(site, "running", sync_type="ddt")
    over = add_run(site, "succeeded", sync_type="customers")
    lines = (
        f"run {waiting}: orders of anna {{0}}cancelled\n"
        f"run {doing}: ddt of anna {{0}}cancelled; elsewhere:7 is doing it, and {{1}} nothing\n"
    )
    assert typed(cli, "cancel --agent anna --dry-run") == (
        0,
        lines.format("would be ", "would write"),
        "2 runs; nothing was done (dry run)\n",
    )
    assert count(site, AUDIT) == 0
    assert typed(cli, f"cancel {waiting} {doing} {over} --reason mistake") == (0, lines.format("", "writes"), "")
    assert typed(cli, f"cancel {over}") == (
        ExitCode.NOT_FOUND,
        "",
        f"error: run {over} is over: it is succeeded\nhint: archisync show {over}\n",
    )
    assert cli("show", str(doing)).stdout.splitlines()[4] == f"message   cancelled by {ME}: mistake"
    assert typed(cli, "cancel --all") == (0, "", "nothing waits, and nothing is being done\n")
    assert typed(cli, "cancel --agent nobody")[0] == ExitCode.NOT_FOUND
    for line in ("cancel", "cancel 1 --all", "cancel 1 --agent anna", "cancel --all --type orders"):
        assert typed(cli, line) == (
            ExitCode.USAGE,
            "",
            "error: which runs?\nhint: archisync cancel RUN   (or --type TYPE, --agent ID, or --all)\n",
        )
    shown = [line.split() for line in cli("audit", "list", "--run", str(doing)).stdout.splitlines()]
    assert shown[0] == ["WHEN", "WHO", "FROM", "WHAT", "ON", "CHANGE", "WHY"]
    assert shown[1][1:] == [
        ME, "cli", "cancel", "ddt", "of", "anna", "(run", f"{doing})", "state", "running", "→", "cancelled", "mistake",
    ]  # fmt: skip


def test_retry_forces_what_failed_and_ends_its_rest(cli: Cli, site: Database) -> None:
    assert typed(cli, "retry --failed --dry-run") == (
        0,
        "orders of anna: would be tried again after 2 failures (until 2999-01-01T00:00:00Z)\n"
        "ddt of anna: would be tried again after 2 failures\n",
        "2 pairs; nothing was done (dry run)\n",
    )
    assert count(site, "select count(*) from system.queued_runs") == 0
    code, said, _ = typed(cli, "retry orders --reason ERP-is-back")
    (run_id,) = (row["id"] for row in site.execute("select id from system.queued_runs"))
    assert (code, said) == (0, f"orders of anna: queued as run {run_id}\n")
    assert count(site, "select count(*) from system.sync_state where backoff_until is not null") == 0
    assert count(site, f"{AUDIT} where action = 'retry' and why = 'ERP-is-back' and who = %s", ME) == 1
    assert typed(cli, "retry --agent luca") == (0, "", "nothing to retry: no last run of these failed\n")
    assert typed(cli, "retry") == (
        ExitCode.USAGE,
        "",
        "error: which pairs?\nhint: archisync retry TYPE, --agent ID, both, or --failed for everything\n",
    )


def test_a_rest_is_ended_and_the_failures_still_count(cli: Cli, site: Database) -> None:
    assert "orders  anna   2         2999-01-01T00:00:00Z" in typed(cli, "rest list")[1]
    line = "orders of anna: {} after 2 failures (until 2999-01-01T00:00:00Z)\n"
    assert typed(cli, "rest end --all --dry-run")[1] == line.format("would no longer rest")
    assert typed(cli, "rest end orders --agent anna") == (0, line.format("no longer rests"), "")
    assert typed(cli, "rest end --all") == (0, "", "none of these rests\n")
    assert typed(cli, "rest list") == (0, "", "nothing rests\n")
    assert (
        count(
            site, "select consecutive_failures from system.sync_state where sync_type = 'orders' and agent_id = 'anna'"
        )
        == 2
    )
    assert count(site, f"{AUDIT} where action = 'rest end'") == 1


def test_removing_an_agent_needs_a_flag_off_a_terminal(cli: Cli, site: Database) -> None:
    queued_runs.force(site, "orders", "anna", by="test", why=None)
    assert typed(cli, "agent remove anna --with-data") == (
        ExitCode.USAGE,
        "",
        "error: anna with 1 row would be removed; nothing was done\nhint: add --yes to remove\n",
    )
    assert typed(cli, "agent remove anna --with-data --dry-run") == (
        0,
        "anna: would be removed, 1 row deleted\n",
        "nothing was done (dry run)\n",
    )
    assert count(site, "select count(*) from agents.users") == 2
    assert typed(cli, "agent remove anna luca --with-data --yes") == (
        0,
        "anna: removed, 1 row deleted\nluca: removed, 0 rows deleted\n",
        "",
    )
    for left in (
        "agents.users",
        "agents.orders",
        "system.queued_runs",
        "system.sync_state where active and agent_id in ('anna', 'luca')",
    ):
        assert count(site, f"select count(*) from {left}") == 0
    assert typed(cli, "agent remove anna --yes")[0] == ExitCode.NOT_FOUND


@pytest.fixture
def answered(warm_command: WarmCommand, database_url: str, redis_url: str) -> Callable[[str, str], tuple[int, str]]:
    """Types a command on a terminal, and the answer to its question."""
    env = clean_environment() | {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}

    def run(line: str, answer: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        os.write(master, answer.encode())
        with ThreadPoolExecutor(1) as pool:
            code = pool.submit(
                warm_command.run_on, (slave, slave, slave), line.split(), env=env, timeout_s=COMMAND_TIMEOUT_S
            )
            code.add_done_callback(lambda _: os.close(slave))
            written = b""
            try:
                while part := os.read(master, 65536):
                    written += part
            except OSError:
                pass
            os.close(master)
            return code.result(), written.decode()

    return run


@pytest.mark.parametrize(
    ("line", "question", "effect"),
    [
        ("pause", "pause every type of every agent? [y/N] ", "select count(*) from system.pauses"),
        ("agent remove anna --with-data", "remove anna with 1 row? [y/N] ", "select 2 - count(*) from agents.users"),
        (
            "clear orders --agent anna",
            "delete 1 row of orders of anna? [y/N] ",
            "select 1 - count(*) from agents.orders",
        ),
    ],
)
def test_what_does_much_asks_on_a_terminal(
    site: Database, answered: Callable[[str, str], tuple[int, str]], line: str, question: str, effect: str
) -> None:
    for answer in ("\n", "n\n", "\x04"):
        code, written = answered(line, answer)
        assert (code, question in written, "nothing was done" in written) == (ExitCode.USAGE, True, True)
    assert count(site, effect) == 0
    assert answered(line, "y\n")[0] == 0
    assert count(site, effect) == 1


def test_pause_all_needs_no_answer_and_a_bare_pause_refuses_off_a_terminal(cli: Cli, site: Database) -> None:
    assert typed(cli, "pause") == (
        ExitCode.USAGE,
        "",
        "error: that would pause every type of every agent; nothing was done\n"
        "hint: archisync pause --all   (or --type TYPE, --agent ID)\n",
    )
    assert typed(cli, "pause --all") == (0, "everything: paused until somebody resumes\n", "")
    assert typed(cli, "resume --all") == (0, "everything: resumed\n", "")
    for word in ("pause", "resume"):
        assert typed(cli, f"{word} --all --type orders") == (
            ExitCode.USAGE,
            "",
            f"error: --all goes without --type and --agent\nhint: archisync {word} --all\n",
        )
    assert count(site, AUDIT) == 2
