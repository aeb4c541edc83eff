"""PostgreSQL hangs, is slow, locked, read-only or full: every command ends by itself and says so, and nothing is half done."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.deadlines import TICK_DEADLINE_S
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, clock, deliveries, history, queued_runs
from archisync.store.database import ANSWER_TIMEOUT_S, Database, connected
from archisync.store.migrations import migrate
from archisync.store.session import IDLE_IN_TRANSACTION_TIMEOUT_S
from tests.conftest import Cli
from tests.support.programs import postgresql_program
from tests.support.proxy import Proxy
from tests.support.rows import count, do_run, drain, fingerprint, forget_runs
from tests.support.said import as_text
from tests.support.versions import AGENT, Versions, only_customers

GRACE_S = 5.0
"""Until a tick whose time is up has ended."""
HINT_WAITING = "hint: to see who blocks it: select pid, pg_blocking_pids(pid), query from pg_stat_activity\n"


@pytest.fixture
def registered(connection: Database) -> Database:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    return connection


TICK_WITH_DEADLINE = """
from archisync.schedule import deadlines
deadlines.TICK_DEADLINE_S = {}
from archisync.__main__ import script
script()
"""


@contextmanager
def started(
    url: str, redis_url: str, *words: str, deadline_s: float | None = None, timeout_s: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A running `archisync WORDS`, with another deadline for a tick; its stderr can be read when it has ended."""
    run = ["-m", "archisync"] if deadline_s is None else ["-c", TICK_WITH_DEADLINE.format(deadline_s)]
    own = {
        "ARCHISYNC_DATABASE_URL": url,
        "ARCHISYNC_DATABASE_TIMEOUT_S": str(timeout_s),
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": "/none/{agent}/{type}",
    }
    with subprocess.Popen(
        [sys.executable, *run, *words],
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def text_of(statement: str) -> bytes:
    """The text of a statement, up to its first parameter, as a proxy sees it."""
    return statement.partition("%(")[0].strip().encode()


def no_answer(timeout_s: int) -> str:
    return (
        f"error: PostgreSQL did not finish a statement: no answer within {timeout_s} s (a lock, too much load, or a dead network)\n"
        + HINT_WAITING
    )


def bytes_of_a_tick(database_url: str, config: Config) -> int:
    with Proxy.of(database_url) as proxy, connected(proxy.url(database_url), purpose="measured") as db:
        tick(db, config)
        return proxy.sent


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSALS = (
    ("guest", "password=x", 'password authentication failed for user "guest"', "check ARCHISYNC_DATABASE_URL"),
    ("guest", "", "fe_sendauth: no password supplied", "put the password into ARCHISYNC_DATABASE_URL or ~/.pgpass"),
    ("nobody", "", 'role "nobody" does not exist', "check ARCHISYNC_DATABASE_URL"),
    ("archisync_tick", "", 'role "archisync_tick" is not permitted to log in', "name an account in ARCHISYNC_DATABASE_URL that may log in: archisync db grants shows how to make one"),  # noqa: E501
    ("stranger", "", 'pg_hba.conf rejects connection for host "[local]", user "stranger", database "closed", no encryption', "allow host, user and database in the server's pg_hba.conf, or check ARCHISYNC_DATABASE_URL"),  # noqa: E501
    ("visitor", "", 'permission denied for database "closed" DETAIL: User does not have CONNECT privilege.', "as the database's owner: grant connect on database DATABASE to ROLE"),  # noqa: E501
    ("postgres", "options=-c%20nonsense%3D1", 'unrecognized configuration parameter "nonsense"', "check options in ARCHISYNC_DATABASE_URL, PG… variables (PGOPTIONS, PGTZ), and what alter role has set"),  # noqa: E501
)  # fmt: skip


def let_in(server: EmbeddedPostgres, *rules: str) -> None:
    """Put these rules before those of the server, which lets in nobody but the user that has started it."""
    with connected(server.url, purpose="test") as db:
        (row,) = db.execute("select current_setting('hba_file') as path, pg_conf_load_time() as loaded").fetchall()
        hba = Path(row["path"])
        hba.write_text("".join(f"{rule}\n" for rule in rules) + hba.read_text())
        db.execute("select pg_reload_conf()")
        while db.execute("select pg_conf_load_time() as loaded").fetchall() == [{"loaded": row["loaded"]}]:
            continue


def test_a_server_that_refuses_a_connection_is_a_wrong_setting_and_a_full_one_is_away(
    cli: Cli, own_postgres: EmbeddedPostgres
) -> None:
    with connected(own_postgres.url, purpose="test") as db:
        for role in ("guest", "stranger", "visitor"):
            db.execute(f"create role {role} login")
        db.execute("create role archisync_tick nologin")
        db.execute("create role crowd login connection limit 0")
        db.execute("create database closed")
        db.execute("revoke connect on database closed from public")
    let_in(own_postgres, "local all guest scram-sha-256", "local all stranger reject", "local all all trust")
    url = own_postgres.url.replace("archisync?", "closed?", 1)
    for role, more, said, hint in REFUSALS:
        done = cli(
            "status", env={"ARCHISYNC_DATABASE_URL": f"{url.replace('postgres@', f'{role}@')}&{more}".rstrip("&")}
        )
        assert done.returncode == 3, done.stderr
        assert done.stderr.startswith("error: PostgreSQL refused the connection: connection failed: "), done.stderr
        assert done.stderr.endswith(f"{said}\nhint: {hint}\n"), done.stderr
    full = cli("status", env={"ARCHISYNC_DATABASE_URL": own_postgres.url.replace("postgres@", "crowd@")})
    assert full.returncode == 4
    assert full.stderr.startswith("error: PostgreSQL is out of reach: ")


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("postgresql://user@127.0.0.1:canary/db", "port"),
        ("postgresql://user@127.0.0.1:99999/db", "port"),
        ("host=127.0.0.1 port=canary", "port"),
        ("postgresql://user@127.0.0.1:1/db?sslmode=canary", "sslmode"),
        ("postgresql://user@127.0.0.1:1/db?target_session_attrs=canary", "target_session_attrs"),
        ("postgresql://user@127.0.0.1:1/db?ssl_min_protocol_version=canary", "ssl_min_protocol_version"),
        ("service=canary", "service"),
    ],
)
def test_a_wrong_option_in_the_database_url_is_named_without_its_value(cli: Cli, url: str, option: str) -> None:
    done = cli("tick", env={"ARCHISYNC_DATABASE_URL": url})
    assert (done.returncode, as_text(done.stderr)) == (
        3,
        f"error: ARCHISYNC_DATABASE_URL or a PG… variable has a wrong {option}\n"
        f"hint: check {option} in ARCHISYNC_DATABASE_URL and PG… variables "
        "(in a password, write %2F for /, %3F for ? and %40 for @)\n",
    )


# --- hanging and slow -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deadline_s", "timeout_s"),
    [(3.0, 1), pytest.param(TICK_DEADLINE_S, ANSWER_TIMEOUT_S, marks=pytest.mark.soak, id="the real ones")],
)
def test_a_tick_ends_by_its_deadline_wherever_postgresql_hangs_or_is_slow(
    registered: Database, database_url: str, redis_url: str, deadline_s: float, timeout_s: int
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    length = bytes_of_a_tick(database_url, config)
    registered.execute("update system.sync_state set last_slot_at = null")
    forget_runs(registered)
    never_connected = (
        "error: PostgreSQL is out of reach: connection timeout expired\n"
        'hint: is it up? pg_isready -d "$ARCHISYNC_DATABASE_URL"\n'
    )
    stopped = (
        f"error: the tick did not end within {deadline_s:g} s and was stopped: PostgreSQL or Redis answers too slowly\n"
        "hint: archisync status; the next tick goes on with what is left\n"
    )
    bytes_per_s = int(length / (2 * deadline_s))
    breaks: list[tuple[Callable[[Proxy], object], str, int, float]] = [
        (Proxy.hang, never_connected, timeout_s, TICK_DEADLINE_S),
        (lambda p: p.when(text_of(clock.SQL_MEND), p.hang), no_answer(timeout_s), timeout_s, TICK_DEADLINE_S),
        (
            lambda p: p.when(text_of(deliveries.SQL_MARK_DELIVERED), p.hang),
            no_answer(timeout_s),
            timeout_s,
            TICK_DEADLINE_S,
        ),
        (lambda p: p.when(b"system.clock", lambda: p.slow(bytes_per_s)), stopped, 3600, deadline_s),
    ]
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy.of(database_url)) for _ in breaks]
        for proxy, (spoil, *_) in zip(proxies, breaks, strict=True):
            spoil(proxy)
        begun = time.monotonic()
        ticks = [
            stack.enter_context(
                started(proxy.url(database_url), redis_url, "tick", deadline_s=ends_after_s, timeout_s=answer_s)
            )
            for proxy, (_, _, answer_s, ends_after_s) in zip(proxies, breaks, strict=True)
        ]
        for process, (_, said, *_) in zip(ticks, breaks, strict=True):
            _, stderr = process.communicate(timeout=begun + TICK_DEADLINE_S + GRACE_S - time.monotonic())
            assert (process.returncode, as_text(stderr)) == (4, said)
    assert tick(registered, config).due + count(registered, "select count(*) from system.queued_runs") >= 6


def test_runs_of_a_tick_that_hung_while_it_delivered_are_delivered_by_a_later_one(
    registered: Database, database_url: str, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    with Proxy.of(database_url) as proxy:
        proxy.when(text_of(deliveries.SQL_MARK_DELIVERED), proxy.hang)
        with started(proxy.url(database_url), redis_url, "tick") as hung:
            assert hung.wait(TICK_DEADLINE_S) == 4
        assert tick(registered, config).enqueued == 0  # the server does not know yet that the tick is gone
    left = "select count(*) from pg_stat_activity where application_name = 'archisync tick'"
    while count(registered, left):
        continue
    assert tick(registered, config).enqueued == 6


def test_the_server_ends_a_transaction_whose_client_fell_silent(connection: Database) -> None:
    with connection.transaction():
        inside = connection.execute("select current_setting('idle_in_transaction_session_timeout') as set").fetchone()
    assert inside == {"set": f"{IDLE_IN_TRANSACTION_TIMEOUT_S // 60}min"}


@pytest.mark.parametrize("words", ["status", "interval list", "why orders anna.bianchi"])
def test_a_command_on_a_hung_database_ends_with_a_clear_error(
    registered: Database, database_url: str, redis_url: str, words: str
) -> None:
    with Proxy.of(database_url) as proxy:
        proxy.when(b"system.", proxy.hang)
        with started(proxy.url(database_url), redis_url, *words.split()) as process:
            _, stderr = process.communicate(timeout=TICK_DEADLINE_S)
    assert (process.returncode, as_text(stderr)) == (4, no_answer(1))


def test_an_error_of_a_cut_connection_names_what_happened(cli: Cli, database_url: str) -> None:
    with Proxy.of(database_url) as proxy:
        proxy.cut()
        refused = cli("status", env={"ARCHISYNC_DATABASE_URL": proxy.url(database_url)})
        assert refused.returncode == 4
        assert refused.stderr.startswith("error: PostgreSQL is out of reach: connection failed: ")
        proxy.resume()
        assert cli("status", env={"ARCHISYNC_DATABASE_URL": proxy.url(database_url)}).returncode == 0


# --- locks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "queued"),
    [
        ("system.sync_types", 0),
        ("system.sync_state", 0),
        ("system.queued_runs", 0),
        ("system.claims", 0),
        ("system.deliveries", 0),
        ("system.sync_runs", 0),
        ("system.pauses", 0),
        ("system.ticks", 6),
    ],
)
def test_a_tick_ends_while_somebody_holds_a_lock_and_the_next_one_goes_on(
    cli: Cli, registered: Database, database_url: str, table: str, queued: int
) -> None:
    with connected(database_url, purpose="blocker") as blocker, blocker.transaction():
        blocker.execute(f"lock table {table} in access exclusive mode")
        ended = cli("tick", env={"ARCHISYNC_DATABASE_TIMEOUT_S": "1"})
        waiting = "select count(*) from pg_stat_activity where application_name = 'archisync tick'"
        while count(blocker, waiting):  # until its statement is cancelled; otherwise it would wait for the lock
            continue
    assert (ended.returncode, as_text(ended.stderr)) == (4, no_answer(1))
    assert count(registered, "select count(*) from system.queued_runs") == queued
    assert cli("tick").returncode == 0
    assert count(registered, "select count(*) from system.queued_runs") == 6


def test_a_command_that_gave_up_changes_no_setting_later(cli: Cli, registered: Database, database_url: str) -> None:
    with connected(database_url, purpose="blocker") as blocker, blocker.transaction():
        blocker.execute("lock table system.sync_settings in access exclusive mode")
        ended = cli("interval", "set", "orders", "15", env={"ARCHISYNC_DATABASE_TIMEOUT_S": "1"})
        assert ended.returncode == 4
        waiting = "select count(*) from pg_stat_activity where application_name = 'archisync interval set'"
        while count(blocker, waiting):
            continue
    assert count(registered, "select interval_minutes from system.sync_settings where sync_type = 'orders'") == 10


# --- read-only ----------------------------------------------------------------------------------------------------

READ_ONLY = (
    "error: PostgreSQL is read-only there\n"
    "hint: is it a standby? point ARCHISYNC_DATABASE_URL at the primary (target_session_attrs=read-write finds it); "
    "else somebody has set default_transaction_read_only\n"
)


def test_a_tick_on_a_read_only_database_says_so_and_exits_4(cli: Cli, registered: Database) -> None:
    refused = cli("tick", env={"PGOPTIONS": "-c default_transaction_read_only=on"})
    assert (refused.returncode, as_text(refused.stderr)) == (4, READ_ONLY)


@contextmanager
def standby_of(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A streaming standby, made by the pg_basebackup that comes with the embedded server."""
    program = postgresql_program("pg_basebackup")
    if not program.exists():
        pytest.skip("the embedded PostgreSQL comes without pg_basebackup")
    where = parse_qs(urlsplit(primary.url).query)
    let_in(primary, "local replication all trust")
    with temporary_folder() as folder:
        data = folder / "postgres"
        source = f"host={where['host'][0]} port={where['port'][0]} user=postgres"
        subprocess.run([program, "-D", data, "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync"], check=True)
        owner = (primary.folder / "postgres").stat()
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        with EmbeddedPostgres(folder, durable=False) as server:
            yield server


@pytest.mark.slow
def test_a_real_standby_is_refused_by_a_tick_and_used_by_commands_that_only_read(
    own_postgres: EmbeddedPostgres, cli: Cli
) -> None:
    with connected(own_postgres.url, purpose="test") as db:
        migrate(db, {})
        agents.add(db, AGENT, name=None, whitelisted=True)
    with standby_of(own_postgres) as standby:
        on_standby = {"ARCHISYNC_DATABASE_URL": standby.url}
        refused = cli("tick", env=on_standby)
        assert (refused.returncode, as_text(refused.stderr)) == (4, READ_ONLY)
        assert cli("interval", "list", env=on_standby).returncode == 0
        assert (
            cli("tick", env={"ARCHISYNC_DATABASE_URL": f"{standby.url}&target_session_attrs=read-write"}).returncode
            == 4
        )


# --- full -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 3 MB that the server may write to."""
    with temporary_folder() as folder:
        place = folder / "disk"
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=False, capture_output=True
        )
        if mounted.returncode:
            pytest.skip("a small file system can be mounted by root only, and not in every container")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            continue


@pytest.mark.slow
def test_a_full_disk_leaves_the_table_as_it_was_and_work_goes_on_when_there_is_room(
    own_postgres: EmbeddedPostgres, small_disk: Path, redis_url: str, cli: Cli, tmp_path: Path
) -> None:
    space = small_disk / "space"
    space.mkdir(mode=0o700)
    shutil.chown(space, (own_postgres.folder / "postgres").stat().st_uid)
    versions = Versions(tmp_path)
    config = Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": own_postgres.url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": versions.template,
        }
    )
    with connected(own_postgres.url, purpose="test") as db:
        migrate(db, {})
        agents.add(db, AGENT, name=None, whitelisted=True)
        only_customers(db)
        db.execute(f"create tablespace small location '{space}'")
        db.execute("alter table agents.customers set tablespace small")
        versions.write(1, rows=4000)
        tick(db, config)
        drain(db, config)
        before = fingerprint(db, SYNC_TYPES["customers"])
        versions.write(2, rows=30_000)
        run_id = queued_runs.force(db, "customers", AGENT, by="test", why=None).run_id
        do_run(db, config, run_id)
        failed = history.get(db, run_id)
        assert failed.state == "queued"  # a later tick tries again
        assert (failed.message or "").startswith("PostgreSQL has no room to write: could not extend file ")
        assert fingerprint(db, SYNC_TYPES["customers"]) == before

        db.execute("alter table agents.customers set tablespace pg_default")
        db.execute("alter table system.queued_runs set tablespace small")
        db.execute("insert into agents.users (id, whitelisted) select 'a' || g, true from generate_series(1, 500) g")
        fill(small_disk / "filler")
        full = cli("tick", env=dict(config.environment))
        assert full.returncode == 4
        assert as_text(full.stderr).startswith("error: PostgreSQL has no room to write: could not extend file ")
        assert count(db, "select count(*) from system.queued_runs where agent_id <> 'anna.bianchi'") == 0

        (small_disk / "filler").unlink()
        assert cli("tick", env=dict(config.environment)).returncode == 0
        assert count(db, "select count(*) from system.queued_runs where agent_id <> 'anna.bianchi'") == 500
        db.execute("select set_config('archisync.now', (system.clock() + interval '5 minutes')::text, false)")
        do_run(db, config, run_id)
        assert history.get(db, run_id).state == "succeeded"
        assert count(db, "select count(*) from agents.customers where name like '%version 2'") == 30_000
