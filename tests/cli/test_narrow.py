"""Tables on terminals of 40 to 200 columns: no line is too long, no word is cut, and columns that are left out are named."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import COMMAND_TIMEOUT_S, Cli, clean_environment
from tests.support.rows import add_run
from tests.support.terminal import run_on_terminal
from tests.support.warm import WarmCommand

AGENT = "giulia.romano-di-sant-angelo"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TABLES = [
    "status", "history", "held list", "agent list", f"agent show {AGENT}", "interval list", "guard list",
    "plan --workers 2 --for 4h", "plan --workers 2 --for 7d",
]  # fmt: skip


@pytest.fixture
def site(connection: Database) -> Database:
    """One agent with a long id, whose orders are held and whose ddt rest."""
    agents.add(connection, AGENT, name="Giulia Romano di Sant'Angelo in Vado", whitelisted=True)
    for state in ("succeeded", "failed", "held"):
        add_run(connection, state, agent_id=AGENT, reason="applied-with-warnings", steps='{"total": 1500}')
    connection.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, rows_valid, data_version)"
        " values (3, 'orders', %s, 'row-drop', 'the export has 14 rows, 46 are known: 69 %% fewer', true, 14, 0)",
        [AGENT],
    )
    connection.execute(
        "update system.sync_state set consecutive_failures = 4, backoff_until = system.clock() + interval '40 min'"
        " where sync_type = 'ddt'"
    )
    return connection


Shown = Callable[[str, int], list[str]]


@pytest.fixture
def shown(site: Database, database_url: str, redis_url: str, warm_command: WarmCommand) -> Shown:
    """The lines that a command writes to a terminal of so many columns, without colours."""
    own = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "TERM": "xterm"}

    def run(words: str, columns: int) -> list[str]:
        env = clean_environment() | own
        code, written = run_on_terminal(
            warm_command, words.split(), env=env, columns=columns, timeout_s=COMMAND_TIMEOUT_S
        )
        assert code == 0, written
        return [line.rstrip() for line in ESCAPES.sub("", written).splitlines()]

    return run


def table_of(lines: list[str]) -> list[str]:
    """The header, the rule and the rows."""
    rule = next((i for i, line in enumerate(lines) if line.startswith("───")), None)
    if rule is None:
        return []
    end = next(
        (i for i, line in enumerate(lines) if i > rule and re.match(r"no room|last tick|warning|\d+ worker", line)),
        len(lines),
    )
    return lines[rule - 1 : end]  # fmt: skip


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
@pytest.mark.parametrize("words", TABLES)
def test_a_table_fits_or_is_shown_as_records(words: str, columns: int, shown: Shown) -> None:
    lines = shown(words, columns)
    table = table_of(lines)
    if not table:
        assert columns == 40
        assert any(re.match(r"(agent|run|type|day \(UTC\)) +\S", line) for line in lines)
        return
    assert all(cell_len(line) <= columns for line in table)
    for word in ("customers", "orders", AGENT):  # none is cut or broken
        if any(word[:4] in line for line in table):
            assert any(word in line for line in table), (word, table)
    assert not [line for line in table if "…" in line]


def test_the_least_important_columns_are_left_out_and_named(shown: Shown) -> None:
    narrow, wide = shown("status", 80), shown("status", 200)
    assert " ".join(table_of(narrow)[0].split()) == "type health agents stale failing held last success next due"
    assert "no room for minutes, queued, running, resting (a wider terminal or --json shows them)" in narrow
    assert table_of(wide)[0].split()[2:6] == ["minutes", "agents", "queued", "running"]
    assert not [line for line in wide if line.startswith("no room")]


def test_quiet_does_not_name_columns_that_are_left_out(shown: Shown) -> None:
    assert not [line for line in shown("status --quiet", 80) if line.startswith("no room")]


def test_a_pipe_gets_every_column_however_narrow_the_terminal(cli: Cli, site: Database) -> None:
    done = cli("history", env={"COLUMNS": "40"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split()[-3:] == ["DELETED", "QUARANTINED", "MESSAGE"]
    assert not site.closed


def test_a_narrow_record_has_each_field(shown: Shown) -> None:
    lines = shown("held list", 40)
    assert lines[:4] == ["run       3", "type      orders", f"agent     {AGENT}", "rule      row-drop"]
    assert lines[-1] == "why       the export has 14 rows, 46 are known: 69 % fewer"


def test_a_week_is_shown_by_days_with_a_block_for_each_hour(shown: Shown) -> None:
    table = table_of(shown("plan --workers 2 --for 7d", 100))
    assert table[0].split()[:2] == ["day", "(UTC)"]
    assert len(table) == 2 + 8 or len(table) == 2 + 7  # from midnight to midnight it is seven
    assert len(re.findall("[▁▂▃▄▅▆▇█]", table[3])) == 24


def test_unhealthy_pairs_are_named(shown: Shown, site: Database) -> None:
    site.execute(
        "update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock() where sync_type <> 'invoices'"
    )
    site.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        " values (system.clock(), 5, 'host-1', 0, 0, 0, 0, '{}')"
    )
    lines = shown("status", 200)
    resting = next(line for line in lines if line.startswith("resting: "))
    assert re.fullmatch(
        rf"resting: ddt of {AGENT}: 4 failures, next in (40|39) min, last ok (now|\d+ s ago) "
        rf"\(archisync why ddt {AGENT}; to end the rest: archisync retry ddt --agent {AGENT}\)",
        resting,
    )
    assert f"stale: invoices of {AGENT}: last ok never (archisync why invoices {AGENT})" in lines
    for number in range(9):
        agents.add(site, f"agent-{number}", name=None, whitelisted=True)
    lines = shown("status", 200)
    assert sum(line.startswith(("stale: ", "resting: ")) for line in lines) == 5
    assert "… and more: archisync rest list, archisync history --state failed" in lines


def test_a_pair_is_not_named_when_another_line_says_why_it_is_stale(shown: Shown, site: Database) -> None:
    """Stale because there are no ticks, or paused: one line says so, not one for each pair."""
    lines = shown("status", 200)
    assert "warning: no tick has ever run: is cron calling archisync tick?" in lines
    assert not [line for line in lines if line.startswith("stale: ")]
    assert [line for line in lines if line.startswith("resting: ")]
    site.execute("insert into system.pauses (agent_id) values (%s)", [AGENT])
    assert not [line for line in shown("status", 200) if line.startswith("resting: ")]


def test_an_id_of_128_characters_costs_no_other_row_its_table(site: Database, shown: Shown, cli: Cli) -> None:
    long = "a" * 100 + "b" * 28
    agents.add(site, long, name=None, whitelisted=True)
    add_run(site, "succeeded", agent_id=long)
    for words in ("history", "agent list"):
        lines = shown(words, 80)
        assert max(cell_len(line) for line in lines if not line.startswith("no room for ")) <= 80
        short = "a" * 16 + "…" + "b" * 15
        assert [line for line in lines if short in line]
        assert [line for line in lines if AGENT in line]
        assert [line for line in shown(words, 300) if long in line]  # where there is room, all of it
        assert long in cli(*words.split()).stdout
