"""`doctor` as a whole: its lines, its exit codes, and what it shows when a check could not be made."""

import re
from pathlib import Path

import pytest
import redis

from archisync.base.errors import ExitCode
from archisync.observe.doctor import CHECKS
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.doctor import examine, only, working
from tests.support.rows import record_tick
from tests.support.users import logged_in_as

TESTS = "\n\n\n".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_in_*.py")) + (
    Path(__file__).with_name("test_here.py").read_text("utf-8")
)


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_a_test_in_which_it_finds_something(check: str) -> None:
    tests = re.findall(rf"^def test_{check.replace('-', '_')}_(?:fails|warns)_.*?(?=\n\n\n|\Z)", TESTS, re.M | re.S)
    assert any(f'"{check}"' in test for test in tests)


def test_a_healthy_installation_has_no_failure(
    cli: Cli, connection: Database, exports: Path, database_url: str, redis_url: str
) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    record_tick(connection)
    connection.execute("update system.sync_state set last_success_at = system.clock()")
    for path in ("anna/orders", "anna/customers", "anna/ddt", "anna/invoices"):
        (exports / path).parent.mkdir(exist_ok=True)
        (exports / f"{path}.csv").write_text("")
    (exports / "service-account").mkdir()
    for name in ("products.csv.gz", "prices.csv"):  # a packed file is a file too
        (exports / "service-account" / name).write_text("")
    with working(redis_url, database_url, "--single"):
        done = cli("doctor")
        code, found = examine(cli)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok       schema       the schema is current\n" in done.stdout
    assert "failed" not in done.stdout
    assert (code, {check for check in found if found[check][0].level != "ok"}) == (0, {"persistence"})
    assert found["rights"] == [("ok", "the role postgres has the rights of a tick and a worker", "")]
    assert found["agents"] == [("ok", "1 on the whitelist", "")]
    assert found["exports"] == [("ok", "no file is missing", "")]
    assert found["workers"] == [("ok", "1 alive on the queue archisync", "")]


def test_a_failure_is_shown_with_its_hint(cli: Cli) -> None:
    done = cli("doctor", "--only", "workers")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "failed   workers      no worker is alive on the queue archisync\n"
        "                      hint: archisync worker --processes 2\n",
        "",
    )


def test_a_warning_is_a_failure_with_strict_only(cli: Cli) -> None:
    assert only(cli, "agents") == (0, ("warning", "no agent is on the whitelist", "archisync agent add ID --allow"))
    assert cli("doctor", "--only", "agents", "--strict").returncode == 1


def test_an_unknown_check_is_wrong_usage(cli: Cli) -> None:
    done = cli("doctor", "--only", "magic")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: there is no check 'magic'\nhint: allowed: {', '.join(CHECKS)}\n",
    )


def test_a_missing_variable_is_a_finding_and_the_other_checks_go_on(cli: Cli) -> None:
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": "", "ARCHISYNC_REDIS_URL": "", "ARCHISYNC_SOURCE": ""})
    assert code == ExitCode.CONFIGURATION
    assert [found[check][0].message for check in ("sources", "database", "redis")] == [
        "ARCHISYNC_SOURCE is not set",
        "ARCHISYNC_DATABASE_URL is not set",
        "ARCHISYNC_REDIS_URL is not set",
    ]


@pytest.mark.parametrize(
    ("check", "missing", "shown"),
    [
        ("worker-here", "ARCHISYNC_REDIS_URL", "failed   redis        ARCHISYNC_REDIS_URL is not set\n"),
        ("ticks", "ARCHISYNC_DATABASE_URL", "failed   database     ARCHISYNC_DATABASE_URL is not set\n"),
    ],
)
def test_a_missing_url_is_shown_by_a_check_that_needs_the_server(
    cli: Cli, check: str, missing: str, shown: str
) -> None:
    done = cli("doctor", "--only", check, env={missing: ""})
    assert (done.returncode, done.stdout.startswith(shown)) == (ExitCode.CONFIGURATION, True)


def test_a_missing_schema_or_right_is_shown_by_a_check_that_needs_it(
    cli: Cli, connection: Database, database_url: str, empty_database_url: str
) -> None:
    def shown(url: str, beginning: str) -> bool:
        done = cli("doctor", "--only", "ticks", env={"ARCHISYNC_DATABASE_URL": url})
        assert done.returncode == ExitCode.CONFIGURATION
        return done.stdout.startswith(beginning)

    assert shown(empty_database_url, "failed   schema       the schema lacks 0001")
    with logged_in_as(connection, database_url, "poorer") as url:
        assert shown(url, "failed   rights       the role poorer lacks: usage on schema agents")
        connection.execute("grant usage on schema system to poorer")
        connection.execute("grant select on system.schema_migrations to poorer")
        assert shown(url, "failed   rights       the database role may not do that")


def test_a_wrong_password_is_shown_by_a_probe(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("requirepass", "right")
    url = own_valkey.url.replace("unix://", "unix://:wrong@")
    done = cli("doctor", "--only", "worker-here", env={"ARCHISYNC_REDIS_URL": url})
    assert done.returncode == ExitCode.CONFIGURATION
    assert done.stdout.startswith("failed   redis        Redis refused the credentials")
