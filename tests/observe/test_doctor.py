"""`doctor`: every check is made to fail, on real servers, and says what to do about it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis

from archisync.base.errors import ExitCode
from archisync.observe.doctor import (
    CHECKS,
    judge_disk,
    judge_eviction,
    judge_postgresql,
    judge_redis_version,
    judge_skew,
    misspelt,
)
from archisync.rules.config import variable_names
from archisync.standalone.servers import EmbeddedPostgres, EmbeddedValkey, temporary_folder
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def examine(
    cli: Cli, *args: str, env: dict[str, str] | None = None
) -> tuple[int, dict[str, list[tuple[str, str, str]]]]:
    """(exit code, findings by check: level, message, hint)."""
    done = cli("doctor", "--json", *args, env=env)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["healthy"] is (done.returncode == 0)
    found: dict[str, list[tuple[str, str, str]]] = {}
    for f in document["findings"]:
        found.setdefault(f["check"], []).append((f["level"], f["message"], f["hint"]))
    return done.returncode, found


def only(cli: Cli, check: str, env: dict[str, str] | None = None) -> tuple[int, tuple[str, str, str]]:
    """The one finding of one check."""
    code, found = examine(cli, "--only", check, env=env)
    assert list(found) == [check]
    assert len(found[check]) == 1
    return code, found[check][0]


def tick(db: Database, *, ago: str = "10 s", error: str | None = None) -> None:
    db.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error)"
        " values (system.clock() - %s::interval, 5, 'host-1', 0, 0, 0, 0, '{}', %s)",
        [ago, error],
    )


MADE_TO_FAIL = {
    "settings": "test_a_setting_that_can_t_be_read_fails",
    "sources": "test_a_template_that_can_t_work_fails_for_its_type_alone",
    "hook": "test_a_hook_that_can_t_be_called_fails_doctor_and_no_tick",
    "plug-ins": "test_a_broken_plug_in_fails",
    "disk": "test_the_folder_of_the_embedded_servers_must_exist_and_have_room",
    "database": "test_a_postgresql_that_does_not_answer_fails_with_4_and_the_rest_is_still_looked_at",
    "pooler": "test_a_pooler_is_noticed",
    "schema": "test_a_schema_that_is_not_current_fails_and_nothing_that_needs_it_is_asked",
    "rights": "test_a_role_without_rights_fails_and_is_told_which",
    "clock": "test_a_clock_that_stands_still_fails",
    "ticks": "test_no_tick_a_silent_one_and_one_that_could_not_deliver_fail",
    "runs": "test_an_expired_lease_and_a_run_that_waits_too_long_fail",
    "agents": "test_ids_that_are_not_allowed_and_exports_that_are_missing_fail",
    "exports": "test_ids_that_are_not_allowed_and_exports_that_are_missing_fail",
    "notices": "test_a_refused_notice_is_sent_again_later_and_doctor_shows_it",
    "redis": "test_a_redis_that_does_not_answer_fails_with_4",
    "eviction": "test_a_policy_that_evicts_jobs_fails",
    "persistence": "test_a_redis_that_forgets_is_a_warning_and_one_that_keeps_is_not",
    "workers": "test_each_failure_is_told_with_its_hint",
    "worker-here": "test_a_probe_finds_the_worker_of_this_host_only_while_it_lives",
}
"""Of each check, a test in which it fails (pooler and persistence: warns). A new check needs one."""


def test_every_check_has_a_test_that_makes_it_fail() -> None:
    assert set(MADE_TO_FAIL) == set(CHECKS)
    here = Path(__file__)
    text = "\n\n\n" + here.read_text("utf-8") + (here.parents[1] / "schedule" / "test_hook.py").read_text("utf-8")
    for check, name in MADE_TO_FAIL.items():
        body = re.search(rf"\n(?:def) {name}\(.*?(?=\n\n\n)", text, re.S)
        assert body, name
        assert f'"{check}"' in body[0], f"{name} does not ask for {check}"


@contextmanager
def working(redis_url: str, database_url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker, from its registration until it has ended."""
    env = os.environ | {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": "/nowhere/{agent}/{type}.csv",
    }
    with (
        subprocess.Popen(
            [sys.executable, "-m", "archisync", "worker", *options], cwd=REPOSITORY, env=env, stderr=subprocess.DEVNULL
        ) as process,
        redis.Redis.from_url(redis_url) as client,
    ):
        while not client.scard("rq:workers:archisync"):
            assert process.poll() is None
        try:
            yield process
        finally:
            process.terminate()


def test_a_healthy_installation_has_no_failure(
    cli: Cli, connection: Database, exports: Path, database_url: str, redis_url: str
) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    tick(connection)
    for path in ("anna/orders", "anna/customers", "anna/ddt", "anna/invoices"):
        (exports / path).parent.mkdir(exist_ok=True)
        (exports / f"{path}.csv").write_text("")
    (exports / "service-account").mkdir()
    for name in ("products.csv.gz", "prices.csv"):  # also packed
        (exports / "service-account" / name).write_text("")
    with working(redis_url, database_url):
        done = cli("doctor")
        code, found = examine(cli)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok       schema       the schema is current\n" in done.stdout
    assert "failed" not in done.stdout
    assert (code, {check for check in found if found[check][0][0] != "ok"}) == (0, {"persistence"})
    assert found["rights"] == [("ok", "the role postgres has the rights of a tick and a worker", "")]
    assert found["agents"] == [("ok", "1 on the whitelist", "")]
    assert found["workers"] == [("ok", "1 alive on the queue archisync", "")]


def test_each_failure_is_told_with_its_hint(cli: Cli) -> None:
    done = cli("doctor", "--only", "workers")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "failed   workers      no worker is alive on the queue archisync\n"
        "                      hint: archisync worker --processes 2\n",
        "",
    )


def test_a_warning_is_a_failure_with_strict_only(cli: Cli) -> None:
    assert cli("doctor", "--only", "agents").returncode == 0
    assert cli("doctor", "--only", "agents", "--strict").returncode == 1
    assert only(cli, "agents") == (
        0,
        ("warning", "no agent is on the whitelist", "archisync agent add ID --allow"),
    )


def test_an_unknown_check_is_wrong_usage(cli: Cli) -> None:
    done = cli("doctor", "--only", "magic")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: there is no check 'magic'\nhint: allowed: {', '.join(CHECKS)}\n",
    )


def test_a_setting_that_can_t_be_read_fails(cli: Cli) -> None:
    assert only(cli, "settings", {"ARCHISYNC_LEASE_S": "soon"}) == (
        3,
        ("failed", "ARCHISYNC_LEASE_S is 'soon'", "a whole number from 10 to 3600"),
    )


def test_a_missing_variable_is_a_finding_and_not_the_end(cli: Cli) -> None:
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": "", "ARCHISYNC_REDIS_URL": "", "ARCHISYNC_SOURCE": ""})
    assert code == ExitCode.CONFIGURATION
    assert [found[check][0][1] for check in ("sources", "database", "redis")] == [
        "ARCHISYNC_SOURCE is not set",
        "ARCHISYNC_DATABASE_URL is not set",
        "ARCHISYNC_REDIS_URL is not set",
    ]


def test_a_template_that_can_t_work_fails_for_its_type_alone(cli: Cli) -> None:
    code, finding = only(cli, "sources", {"ARCHISYNC_SOURCE_DDT": "/exports/{agnet}.csv"})
    assert (code, finding[:2]) == (3, ("failed", "ddt: the source has the unknown placeholder '{agnet}'"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ARCHISYNC_RUN_TIMEOUT", "ARCHISYNC_RUN_TIMEOUT_S"),
        ("ARCHISYNC_LOCALE_ORDER", "ARCHISYNC_LOCALE_ORDERS"),
        ("ARCHISYNC_CSV_ENCODING_DDTS", "ARCHISYNC_CSV_ENCODING_DDT"),
        ("ARCHISYNC_HTTP_TOKENS_ORDERS", "ARCHISYNC_HTTP_TOKEN_ORDERS"),
        ("ARCHISYNC_LEASE", "ARCHISYNC_LEASE_S"),
        ("ARCHISYNC_HTTP_CA_ORDERS", "ARCHISYNC_HTTP_CERT_ORDERS"),
    ],
)
def test_a_misspelt_variable_is_a_warning_that_names_the_right_one(cli: Cli, name: str, meant: str) -> None:
    assert only(cli, "settings", {name: "secret"}) == (
        0,
        ("warning", f"nothing reads the variable {name}", f"did you mean {meant}?"),
    )


def test_variables_of_ours_and_of_others_are_not_misspelt() -> None:
    others = [
        "ARCHISYNC_DEBUG",
        "ARCHISYNC_METRICS_PORT",
        "ARCHISYNC_REDIS_SERVICE_HOST",
        "ARCHISYNC_REDIS_PORT_6379_TCP",
    ]
    assert list(misspelt([*variable_names(), *others, "ARCHISYNC_SFTP_KEY", "ARCHISYNC_AGENT", "PATH"])) == []
    assert {"ARCHISYNC_CSV_QUOTING_DDT", "ARCHISYNC_HTTP_KEY_PRICES", "ARCHISYNC_HOOK"} <= set(variable_names())
    assert not any("<" in name for name in variable_names())
    assert "ARCHISYNC_HTTP_CA_DDT" not in variable_names()


EACH = "put {type} into it, or give each type a template: ARCHISYNC_SOURCE_ORDERS=…"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (
            {"ARCHISYNC_SOURCE": "/srv/{type}.csv"},
            [
                (
                    "warning",
                    "the source of orders, customers, ddt, invoices has no {agent}: all agents would get the same rows",
                    "put {agent} into it, for example /srv/exports/{agent}/{type}.csv",
                )
            ],
        ),
        (
            {"ARCHISYNC_SOURCE": "https://erp.example/{agent}.csv", "ARCHISYNC_SOURCE_DDT": "/srv/{agent}/ddt.csv"},
            [
                (
                    "warning",
                    f"the source of {names} has no {{type}}: these types would read the same export",
                    EACH,
                )
                for names in ("orders, customers, invoices", "products, prices")
            ],
        ),
        (
            {"ARCHISYNC_SOURCE_PRODUCTS": "file:///srv/articles.csv", "ARCHISYNC_SOURCE_PRICES": "/srv/prices.csv"},
            [("ok", "the source of each type can be used", "")],
        ),
        ({"ARCHISYNC_SOURCE": "exec:/bin/cat"}, [("ok", "the source of each type can be used", "")]),
    ],
    ids=["no-agent", "no-type", "shared", "program"],
)
def test_a_template_that_gives_several_pairs_the_same_export_is_a_warning(
    cli: Cli, env: dict[str, str], told: list[tuple[str, str, str]]
) -> None:
    code, found = examine(cli, "--only", "sources", env=env)
    assert (code, found["sources"]) == (0, told)


def test_a_broken_plug_in_fails(cli: Cli, tmp_path: Path) -> None:
    package = tmp_path / "acme-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[archisync.sources]\nacme = acme_missing:Source\n")
    code, found = examine(cli, "--only", "plug-ins", env={"PYTHONPATH": str(tmp_path)})
    assert code == ExitCode.CONFIGURATION
    assert [f for f in found["plug-ins"] if f[0] == "failed"] == [
        (
            "failed",
            "the source plug-in acme: can't be loaded: ModuleNotFoundError: No module named 'acme_missing'",
            "mend, update or uninstall acme 1 (acme_missing:Source)",
        )
    ]


def test_the_folder_of_the_embedded_servers_must_exist_and_have_room(cli: Cli, tmp_path: Path) -> None:
    code, found = examine(cli, "--only", "disk", "--folder", str(tmp_path / "gone"))
    hint = "name the folder that `archisync up --folder` was given"
    assert (code, found["disk"]) == (1, [("failed", f"{tmp_path}/gone: No such file or directory", hint)])
    assert judge_disk(tmp_path, 100 * 1024**2).message == f"100 MiB are free in {tmp_path}"
    assert [judge_disk(tmp_path, n * 1024**2).level for n in (199, 200, 1023, 1024)] == [
        "failed", "warning", "warning", "ok",
    ]  # fmt: skip


def test_a_postgresql_that_does_not_answer_fails_with_4_and_the_rest_is_still_looked_at(
    cli: Cli, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.kill()
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": own_postgres.url})
    assert code == ExitCode.UNREACHABLE
    assert found["database"][0][1].startswith("PostgreSQL is out of reach: ")
    assert "schema" not in found
    assert found["eviction"][0][0] == "ok"


def test_an_old_postgresql_or_a_standby_fails() -> None:
    old, standby = judge_postgresql(140_012, standby=False), judge_postgresql(180_001, standby=True)
    assert (old.level, old.message, old.hint) == (
        "failed", "PostgreSQL 14.12 answers: too old", "PostgreSQL 15 or newer is needed",
    )  # fmt: skip
    assert (standby.level, standby.message) == ("failed", "PostgreSQL 18.1 answers, but as a read-only standby")


def test_a_schema_that_is_not_current_fails_and_nothing_that_needs_it_is_asked(
    cli: Cli, empty_database_url: str
) -> None:
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    level, message, hint = found["schema"][0]
    assert (code, level, hint) == (ExitCode.CONFIGURATION, "failed", "archisync db migrate")
    assert message == "the schema lacks 0001 schema"
    assert "ticks" not in found


@contextmanager
def logged_in_as(db: Database, database_url: str, name: str) -> Iterator[str]:
    """The URL for a new account without any right; it is dropped at the end."""
    db.execute(f"drop role if exists {name}".encode())
    db.execute(f"create role {name} login".encode())
    try:
        yield urlsplit(database_url)._replace(netloc=name + "@").geturl()
    finally:
        db.execute(f"drop owned by {name}".encode())
        db.execute(f"drop role {name}".encode())


def test_a_role_without_rights_fails_and_is_told_which(cli: Cli, connection: Database, database_url: str) -> None:
    hint = "archisync db grants   (SQL to run as the owner of the schema)"
    with logged_in_as(connection, database_url, "poor") as url:
        code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": url})
        assert code == ExitCode.CONFIGURATION
        assert ("failed", "the role poor lacks: usage on schema agents, usage on schema shared, usage on schema system", hint) in found["rights"]  # fmt: skip # noqa: E501
        connection.execute("grant usage on schema system, agents, shared to poor")
        connection.execute("grant select on all tables in schema system, agents to poor")
        code, found = examine(cli, "--only", "rights", env={"ARCHISYNC_DATABASE_URL": url})
    assert code == ExitCode.CONFIGURATION
    assert found["rights"][0][1].startswith("the role poor lacks: update on system.sync_state, ")


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")
def test_a_pooler_is_noticed(cli: Cli, database_url: str) -> None:
    with pgbouncer(database_url) as url:
        code, finding = only(cli, "pooler", {"ARCHISYNC_DATABASE_URL": url})
    assert (code, finding) == (
        0,
        (
            "warning",
            "a pooler (PgBouncer?) stands between this process and PostgreSQL",
            "ticks may go through it; workers need an ARCHISYNC_DATABASE_URL of PostgreSQL itself",
        ),
    )


@contextmanager
def pgbouncer(database_url: str) -> Iterator[str]:
    """The URL of the same database behind a PgBouncer of our own."""
    assert PGBOUNCER is not None
    where = urlsplit(database_url)
    server, name = parse_qs(where.query), where.path.strip("/")
    owner = Path(server["host"][0]).stat().st_uid
    with temporary_folder() as folder:
        folder.chmod(0o777)  # it drops root, and makes its socket here
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = host={server['host'][0]} port={server['port'][0]} dbname={name} user=postgres\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = any\n"
            "pool_mode = transaction\n"
        )
        as_owner: dict[str, Any] = {"user": owner, "group": owner, "extra_groups": []} if os.geteuid() == 0 else {}
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        with subprocess.Popen([PGBOUNCER, folder / "pgbouncer.ini"], **quiet, **as_owner) as process:
            url = f"postgresql://postgres@/{name}?host={folder}&port=6432"
            while not _answers(url):
                assert process.poll() is None
            try:
                yield url
            finally:
                process.kill()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_clock_that_stands_still_fails(cli: Cli) -> None:
    code, (level, message, hint) = only(cli, "clock", {"PGOPTIONS": "-c archisync.now=2026-03-01T12:00:00Z"})
    assert (code, level) == (1, "failed")
    assert message.startswith("this host's clock is ")
    assert message.endswith(" s ahead of PostgreSQL's")
    assert hint == "PostgreSQL's clock decides what is due: check NTP on both, and that no role has archisync.now set"


def test_the_time_that_clocks_may_differ_has_bounds() -> None:
    levels = [judge_skew(timedelta(seconds=s)).level for s in (5, -5, 6, -60, 61, -61)]
    assert levels == ["ok", "ok", "warning", "warning", "failed", "failed"]
    assert judge_skew(timedelta(seconds=-61)).message == "this host's clock is 61 s behind PostgreSQL's"


def test_no_tick_a_silent_one_and_one_that_could_not_deliver_fail(cli: Cli, connection: Database) -> None:
    hint = "crontab: * * * * * archisync tick   (examples/ has systemd and Kubernetes too)"
    never = "no tick has ever run: is cron calling archisync tick?"
    assert only(cli, "ticks") == (1, ("failed", never, hint))
    tick(connection, ago="10 min")
    assert only(cli, "ticks") == (
        1,
        ("failed", "no tick for 10 minutes: is cron calling archisync tick?", hint),
    )
    tick(connection, error="Redis is out of reach: timeout")
    told = "the last tick could not deliver: Redis is out of reach: timeout"
    assert only(cli, "ticks") == (1, ("failed", told, "archisync tick"))


def test_an_expired_lease_and_a_run_that_waits_too_long_fail(cli: Cli, connection: Database) -> None:
    connection.execute(
        "insert into system.sync_runs (sync_type, agent_id, trigger, state, worker, lease_until, queued_at, started_at)"
        " values ('orders', 'anna', 'scheduled', 'running', 'host-1:7', system.clock() - interval '181 s',"
        " system.clock(), system.clock()),"
        " ('orders', 'luca', 'scheduled', 'running', 'host-1:8', system.clock() - interval '170 s', system.clock(),"
        " system.clock()),"
        " ('ddt', 'bea', 'scheduled', 'queued', null, null, system.clock() - interval '901 s', null),"
        " ('ddt', 'ugo', 'scheduled', 'queued', null, null, system.clock() - interval '890 s', null),"
        " ('ddt', 'anna', 'scheduled', 'queued', null, null, system.clock() - interval '901 s', null)"
    )
    code, found = examine(cli, "--only", "runs")
    assert (code, found["runs"]) == (
        1,
        [
            ("failed", "the lease of run 1 on host-1:7 expired, and no tick took it back", "archisync tick"),
            (
                "failed",
                "run 3 (ddt of bea) waited more than 15 min",
                "archisync worker --processes 4   (are enough workers alive? archisync status)",
            ),
        ],
    )


def test_ids_that_are_not_allowed_and_exports_that_are_missing_fail(
    cli: Cli, connection: Database, exports: Path
) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('../etc', true), ('anna', true)")
    (exports / "anna").mkdir()
    (exports / "anna" / "orders.csv").write_text("")
    code, found = examine(cli, "--only", "agents", "--only", "exports")
    assert code == ExitCode.CONFIGURATION
    assert found["agents"] == [("failed", "not an agent id: '../etc'", "correct agents.users: their syncs fail")]
    assert found["exports"] == [
        (
            "failed",
            "no export for customers of anna, ddt of anna, invoices of anna and 2 more",
            "check ARCHISYNC_SOURCE and the ERP; run doctor where the workers run, as their account",
        )
    ]


def test_a_redis_that_does_not_answer_fails_with_4(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    own_valkey.kill()
    code, found = examine(cli, "--only", "workers", env={"ARCHISYNC_REDIS_URL": own_valkey.url})
    assert (code, list(found)) == (ExitCode.UNREACHABLE, ["redis"])
    assert found["redis"][0][1].startswith("Redis is out of reach: ")


def test_a_policy_that_evicts_jobs_fails(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    env = {"ARCHISYNC_REDIS_URL": own_valkey.url}
    told = "Redis may drop queued jobs: maxmemory-policy is allkeys-lru"
    hint = "CONFIG SET maxmemory-policy noeviction   (and in redis.conf, or in the provider's console)"
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert only(cli, "eviction", env) == (0, ("warning", told, hint))  # no memory limit: it never comes to it
        client.config_set("maxmemory", "100mb")
        assert only(cli, "eviction", env) == (3, ("failed", told, hint))
    assert judge_eviction("volatile-lru", 100).level == "warning"


def test_a_redis_that_forgets_is_a_warning_and_one_that_keeps_is_not(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    env = {"ARCHISYNC_REDIS_URL": own_valkey.url}
    hint = "nothing is lost (the next ticks deliver again); to keep the queue: CONFIG SET appendonly yes"
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("save", "")
        told = "Redis forgets the queue when it restarts"
        assert only(cli, "persistence", env) == (0, ("warning", told, hint))
        client.config_set("save", "60 1")
        assert only(cli, "persistence", env) == (0, ("ok", "Redis keeps its data (snapshots)", ""))


def test_an_old_redis_fails() -> None:
    assert [judge_redis_version(v).level for v in ("6.0.16", "6.2.0", "9.1.0")] == ["failed", "ok", "ok"]
    assert judge_redis_version("6.0.16").hint == "Redis 6.2 or newer is needed"


def test_a_probe_finds_the_worker_of_this_host_only_while_it_lives(cli: Cli, database_url: str, redis_url: str) -> None:
    host = os.uname().nodename
    with working(redis_url, database_url):
        assert only(cli, "worker-here") == (0, ("ok", f"a worker of {host} is alive", ""))
    assert only(cli, "worker-here") == (1, ("failed", f"no worker of {host} is alive", "archisync worker"))


def test_a_probe_does_not_find_a_worker_that_was_killed_though_redis_still_believes_in_it(
    cli: Cli, database_url: str, redis_url: str
) -> None:
    dead = ("failed", f"no worker of {os.uname().nodename} is alive", "archisync worker")
    with working(redis_url, database_url, "--single") as process, redis.Redis.from_url(redis_url) as client:
        process.kill()
        process.wait()
        [key] = client.smembers("rq:workers:archisync")
        assert only(cli, "workers")[0] == 0
        assert only(cli, "worker-here") == (1, dead)
        client.hset(key, "pid_namespace", "pid:[1]")  # of another container with this host's name: only Redis can tell
        assert only(cli, "worker-here")[0] == 0
        client.hdel(key, "pid_namespace")
        assert only(cli, "worker-here")[0] == 0


@pytest.mark.parametrize(
    ("check", "missing", "told"),
    [
        ("worker-here", {"ARCHISYNC_REDIS_URL": ""}, "failed   redis        ARCHISYNC_REDIS_URL is not set\n"),
        ("ticks", {"ARCHISYNC_DATABASE_URL": ""}, "failed   database     ARCHISYNC_DATABASE_URL is not set\n"),
    ],
)
def test_a_check_that_could_not_be_made_is_no_good_news(
    cli: Cli, check: str, missing: dict[str, str], told: str
) -> None:
    done = cli("doctor", "--only", check, env=missing)
    assert done.returncode == ExitCode.CONFIGURATION
    assert done.stdout.startswith(told)


def test_a_check_that_a_missing_schema_or_right_prevents_is_no_good_news(
    cli: Cli, connection: Database, database_url: str, empty_database_url: str
) -> None:
    done = cli("doctor", "--only", "ticks", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert (done.returncode, done.stdout.startswith("failed   schema       the schema lacks 0001")) == (3, True)
    with logged_in_as(connection, database_url, "poorer") as url:
        connection.execute("grant usage on schema system to poorer")
        connection.execute("grant select on system.schema_migrations to poorer")
        done = cli("doctor", "--only", "ticks", env={"ARCHISYNC_DATABASE_URL": url})
    assert (done.returncode, done.stdout.startswith("failed   rights       the database role may not do that")) == (
        3,
        True,
    )


def test_a_probe_with_a_wrong_password_is_no_good_news(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("requirepass", "right")
        url = own_valkey.url.replace("unix://", "unix://:wrong@")
        done = cli("doctor", "--only", "worker-here", env={"ARCHISYNC_REDIS_URL": url})
        assert (done.returncode, done.stdout.startswith("failed   redis        Redis refused the credentials")) == (
            3,
            True,
        )
