"""The tables on terminals of 40 to 200 columns: no line is broken by the terminal, no word is cut, and what is left out is named."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.cells import cell_len

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, _clean_environment

AGENT = "giulia.romano-di-sant-angelo"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TABLES = [
    "status", "history", "held list", "agent list", f"agent show {AGENT}", "interval list", "guard list",
    "plan --workers 2 --for 4h", "plan --workers 2 --for 7d",
]  # fmt: skip


@pytest.fixture
def env(database_url: str, redis_url: str, connection: Database) -> dict[str, str]:
    """One agent with a long id, whose orders are held and whose ddt rest."""
    agents.add(connection, AGENT, name="Giulia Romano di Sant'Angelo in Vado", whitelisted=True)
    connection.execute(
        "insert into system.sync_runs (sync_type, agent_id, trigger, state, reason, started_at, finished_at, steps)"
        " select 'orders', %s, 'scheduled', s, 'applied-with-warnings', system.clock(), system.clock(), '{\"total\": 1500}'"
        " from unnest(array['succeeded', 'failed', 'held']) s",
        [AGENT],
    )
    connection.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, rows_valid, data_version)"
        " values (3, 'orders', %s, 'row-drop', 'the export has 14 rows, 46 are known: 69 %% fewer', true, 14, 0)",
        [AGENT],
    )
    connection.execute(
        "update system.sync_state set consecutive_failures = 4, backoff_until = system.clock() + interval '40 min'"
        " where sync_type = 'ddt'"
    )
    own = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "TERM": "xterm"}
    return _clean_environment() | own


def shown(words: str, env: dict[str, str], columns: int) -> list[str]:
    """The lines that the command writes to a terminal of so many columns, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "archisync", *words.split()], env=env, cwd=REPOSITORY, stdin=slave, stdout=slave, stderr=slave
    ) as process:  # fmt: skip
        os.close(slave)
        written = b""
        try:
            while part := os.read(master, 65536):
                written += part
        except OSError:  # Linux tells so that the other side is closed
            pass
    os.close(master)
    assert process.returncode == 0
    return [line.rstrip() for line in ESCAPES.sub("", written.decode()).splitlines()]


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
def test_a_table_has_room_or_is_told_as_records(words: str, columns: int, env: dict[str, str]) -> None:
    lines = shown(words, env, columns)
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


def test_the_least_telling_columns_give_way_and_are_named(env: dict[str, str]) -> None:
    narrow, wide = shown("status", env, 80), shown("status", env, 200)
    assert table_of(narrow)[0].split() == [
        "type",
        "health",
        "agents",
        "stale",
        "failing",
        "held",
        "last",
        "success",
        "next",
        "due",
    ]
    assert "no room for minutes, queued, running, resting (a wider terminal or --json shows them)" in narrow
    assert table_of(wide)[0].split()[2:6] == ["minutes", "agents", "queued", "running"]
    assert not [line for line in wide if line.startswith("no room")]


def test_what_is_left_out_is_not_named_to_the_quiet(env: dict[str, str]) -> None:
    assert not [line for line in shown("status --quiet", env, 80) if line.startswith("no room")]


def test_a_pipe_gets_every_column_however_narrow_the_terminal(env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "history"], env=env | {"COLUMNS": "40"}, cwd=REPOSITORY,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split()[-3:] == ["RESTORED", "DELETED", "QUARANTINED"]


def test_a_narrow_record_has_each_field(env: dict[str, str]) -> None:
    lines = shown("held list", env, 40)
    assert lines[:4] == ["run       3", "type      orders", f"agent     {AGENT}", "rule      row-drop"]
    assert lines[-1] == "why       the export has 14 rows, 46 are known: 69 % fewer"


def test_a_week_is_planned_by_days_with_a_block_for_each_hour(env: dict[str, str]) -> None:
    table = table_of(shown("plan --workers 2 --for 7d", env, 100))
    assert table[0].split()[:2] == ["day", "(UTC)"]
    assert len(table) == 2 + 8 or len(table) == 2 + 7  # from midnight to midnight it is seven
    assert len(re.findall("[▁▂▃▄▅▆▇█]", table[3])) == 24


def test_pairs_that_need_an_eye_are_named(env: dict[str, str], connection: Database) -> None:
    connection.execute(
        "update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock() where sync_type <> 'invoices'"
    )
    connection.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        " values (system.clock(), 5, 'host-1', 0, 0, 0, 0, '{}')"
    )
    lines = shown("status", env, 200)
    resting = next(line for line in lines if line.startswith("resting: "))
    assert re.fullmatch(
        rf"resting: ddt of {AGENT}: 4 failures, next in (40|39) min, last ok (now|\d+ s ago) \(archisync why ddt {AGENT}\)",
        resting,
    )
    assert f"stale: invoices of {AGENT}: last ok never (archisync why invoices {AGENT})" in lines
    for number in range(9):
        agents.add(connection, f"agent-{number}", name=None, whitelisted=True)
    lines = shown("status", env, 200)
    assert sum(line.startswith(("stale: ", "resting: ")) for line in lines) == 5
    assert "… and more: archisync status --json, archisync history --state failed" in lines


def test_pairs_are_not_named_for_what_stands_above_them(env: dict[str, str], connection: Database) -> None:
    """Stale because nothing ticks, or paused: one line tells it, not one for each pair."""
    lines = shown("status", env, 200)
    assert "warning: no tick has ever run: is cron calling archisync tick?" in lines
    assert not [line for line in lines if line.startswith("stale: ")]
    assert [line for line in lines if line.startswith("resting: ")]
    connection.execute("insert into system.pauses (agent_id) values (%s)", [AGENT])
    assert not [line for line in shown("status", env, 200) if line.startswith("resting: ")]
