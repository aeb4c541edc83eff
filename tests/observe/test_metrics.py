"""`metrics`: read by the official parser, written in one step, served."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from archisync.base.listening import parse_address
from archisync.rules.synctypes import SYNC_TYPES
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import count, record_tick
from tests.support.said import as_text

Samples = dict[tuple[str, tuple[str, ...]], float]


def read(text: str) -> Samples:
    """(name, label values) → value, as Prometheus reads the text."""
    return {
        (s.name.removeprefix("archisync_"), tuple(s.labels.values())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@pytest.fixture
def busy(connection: Database) -> Database:
    """Three agents, one fresh, one failing, one new; a tick 100 s ago."""
    for name in ("a", "b", "c"):
        agents.add(connection, name, name=None, whitelisted=True)
    connection.execute(
        "update system.sync_state set last_success_at = '2026-03-01T12:00:00Z', consecutive_failures = 3"
        " where sync_type = 'orders' and agent_id = 'a'"
    )
    connection.execute(
        "update system.sync_state set last_success_at = system.clock() where sync_type = 'orders' and agent_id = 'b'"
    )
    record_tick(connection, ago="100 s", duration_ms=250)
    return connection


def test_metrics_show_what_the_database_and_the_queue_hold(cli: Cli, busy: Database) -> None:
    assert cli("run", "orders", "--agent", "a").returncode == 0
    done = cli("metrics")
    assert (done.returncode, done.stderr) == (0, "")
    found = read(done.stdout)
    orders = {name: value for (name, labels), value in found.items() if labels == ("orders",)}
    assert orders == {
        "interval_seconds": 600, "enabled": 1, "paused": 0, "pairs": 3, "pairs_stale": 2, "pairs_failing": 1,
        "pairs_degraded": 1, "pairs_backing_off": 0, "exports_held": 0, "runs_queued": 1, "runs_running": 0,
        "last_success_timestamp_seconds": count(busy, "select extract(epoch from max(last_success_at)) from system.sync_state"),
    }  # fmt: skip
    assert {labels[0] for name, labels in found if name == "pairs"} == set(SYNC_TYPES)
    assert found["tick_last_duration_seconds", ()] == 0.25
    assert 100 <= found["tick_age_seconds", ()] < 200
    assert (found["queue_length", ("archisync",)], found["workers", ("archisync",)]) == (1, 0)
    assert (found["schema_current", ()], found["up", ("postgresql",)], found["up", ("redis",)]) == (1, 1, 1)


def test_the_oldest_success_is_there_when_every_pair_has_one(cli: Cli, busy: Database) -> None:
    busy.execute("update system.sync_state set last_success_at = '2026-03-02T12:00:00Z' where agent_id <> 'a'")
    assert read(cli("metrics").stdout)["oldest_success_timestamp_seconds", ("orders",)] == 1772366400


def test_a_server_out_of_reach_is_shown_and_the_other_is_still_read(
    cli: Cli, own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey, busy: Database
) -> None:
    own_valkey.kill()
    found = read(cli("metrics", env={"ARCHISYNC_REDIS_URL": own_valkey.url}).stdout)
    assert (found["up", ("redis",)], found["up", ("postgresql",)], found["pairs", ("orders",)]) == (0, 1, 3)
    own_postgres.kill()
    found = read(cli("metrics", env={"ARCHISYNC_DATABASE_URL": own_postgres.url}).stdout)
    assert (found["up", ("redis",)], found["up", ("postgresql",)]) == (1, 0)
    assert ("queue_length", ("archisync",)) in found
    assert busy.closed is False


def test_a_missing_library_is_an_error_with_the_command_to_type(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError")
    done = cli("metrics", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (
        3,
        "error: metrics need prometheus_client, which is not installed\nhint: pip install 'archisync[metrics]'\n",
    )


def test_an_old_schema_is_shown(cli: Cli, empty_database_url: str) -> None:
    found = read(cli("metrics", env={"ARCHISYNC_DATABASE_URL": empty_database_url}).stdout)
    assert (found["schema_current", ()], found["up", ("postgresql",)]) == (0, 1)


def test_a_file_is_replaced_in_one_step_and_other_users_may_read_it(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "archisync.prom"
    path.write_text("old")
    with path.open() as reader:  # a reader that has it open reads the old text
        done = cli("metrics", "--output", str(path))
        assert reader.read() == "old"
    assert (done.returncode, done.stdout) == (0, "")
    assert read(path.read_text())["schema_current", ()] == 1
    assert (path.stat().st_mode & 0o777, [p.name for p in tmp_path.glob("*prom*")]) == (0o644, ["archisync.prom"])


def test_a_missing_folder_is_an_error(cli: Cli, tmp_path: Path) -> None:
    done = cli("metrics", "--output", f"{tmp_path}/no/x.prom")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/no/x.prom can't be written: No such file or directory\nhint: ls -ld {tmp_path}/no\n",
    )


def test_a_scrape_is_answered_until_sigterm(database_url: str, redis_url: str) -> None:
    env = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}
    with subprocess.Popen(
        [sys.executable, "-m", "archisync", "metrics", "--serve", "0"],
        cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/metrics", line)
        assert url, line
        for _ in range(2):
            with urlopen(url[0]) as answer:  # noqa: S310 - our own server
                assert read(answer.read().decode())["up", ("postgresql",)] == 1
        process.terminate()
        assert process.wait() == 0
        assert process.stderr.read() == ""


def test_an_address_has_a_port_and_may_have_a_host() -> None:
    assert parse_address("9464") == ("127.0.0.1", 9464)
    assert parse_address("0.0.0.0:1") == ("0.0.0.0", 1)  # noqa: S104
    assert parse_address("[::1]:1") == ("::1", 1)
    assert parse_address("0000000009464") == ("127.0.0.1", 9464)


@pytest.mark.parametrize("words", ["", "x", "h:", "h:65536", "h:-1", "1000000000", "000000999999", "00x9"])
def test_a_wrong_address_is_wrong_usage(cli: Cli, words: str) -> None:
    done = cli("metrics", "--serve", words)
    assert (done.returncode, as_text(done.stderr)) == (
        2,
        f"error: '{words}' is not [HOST:]PORT\nhint: for example 9464, or 0.0.0.0:9464\n",
    )


def test_output_and_serve_exclude_each_other(cli: Cli) -> None:
    done = cli("metrics", "--serve", "1", "--output", "x")
    assert (done.returncode, as_text(done.stderr).splitlines()[0]) == (
        2,
        "error: --output and --serve exclude each other",
    )


def test_a_paused_agent_is_neither_stale_nor_failing(cli: Cli, busy: Database) -> None:
    busy.execute("update system.sync_state set backoff_until = system.clock() + interval '1 hour' where agent_id = 'a'")
    names = ("pairs_stale", "pairs_failing", "pairs_degraded", "pairs_backing_off")

    def figures() -> list[float]:
        found = read(cli("metrics").stdout)
        return [found[name, ("orders",)] for name in names]

    assert figures() == [2, 1, 1, 1]
    assert cli("pause", "--agent", "a").returncode == 0
    assert figures() == [1, 0, 0, 0]  # c has never succeeded
    assert cli("resume", "--agent", "a").returncode == 0
    assert cli("pause", "--agent", "a", "--type", "ddt").returncode == 0
    assert figures() == [2, 1, 1, 1]
