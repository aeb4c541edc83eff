"""`doctor` in PostgreSQL: each check is made to fail on a real server."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from archisync.base.errors import ExitCode
from archisync.observe.doctor.in_database import judge_postgresql, judge_skew
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, clock, queued_runs
from archisync.store.database import Database, connected
from archisync.store.locks import agent_lock
from tests.cli.rows import add_held
from tests.conftest import Cli
from tests.support.doctor import examine, only
from tests.support.erp import Answer, running_erp
from tests.support.odata import running_service
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.rows import add_run, record_tick
from tests.support.users import logged_in_as


def test_database_fails_with_4_when_it_is_out_of_reach_and_redis_is_still_checked(
    cli: Cli, own_postgres: EmbeddedPostgres
) -> None:
    own_postgres.kill()
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": own_postgres.url})
    assert code == ExitCode.UNREACHABLE
    assert found["database"][0].message.startswith("PostgreSQL is out of reach: ")
    assert "schema" not in found
    assert found["eviction"][0].level == "ok"


def test_an_old_postgresql_and_a_standby_fail() -> None:
    old, standby = judge_postgresql(140_012, standby=False), judge_postgresql(180_001, standby=True)
    assert (old.level, old.message) == ("failed", "PostgreSQL 14.12 is too old")
    assert old.hint == "PostgreSQL 15 or newer is needed"
    assert (standby.level, standby.message) == ("failed", "PostgreSQL 18.1 answers, but as a read-only standby")


@needs_pgbouncer
def test_pooler_warns_of_pgbouncer(cli: Cli, database_url: str) -> None:
    with pgbouncer(database_url) as url:
        assert only(cli, "pooler", {"ARCHISYNC_DATABASE_URL": url}) == (
            0,
            (
                "warning",
                "a pooler (PgBouncer?) stands between this process and PostgreSQL",
                "ticks may go through it; workers need an ARCHISYNC_DATABASE_URL of PostgreSQL itself",
            ),
        )


def test_schema_fails_when_migrations_are_missing_and_ends_the_checks_of_the_database(
    cli: Cli, empty_database_url: str
) -> None:
    code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    [(level, message, hint)] = found["schema"]
    assert (code, level, hint) == (ExitCode.CONFIGURATION, "failed", "archisync db migrate")
    assert message == "the schema lacks 0001 archisync"
    assert "ticks" not in found


def test_rights_fails_and_names_what_the_role_lacks(cli: Cli, connection: Database, database_url: str) -> None:
    hint = "archisync db grants   (SQL to run as the owner of the schema)"
    with logged_in_as(connection, database_url, "poor") as url:
        code, found = examine(cli, env={"ARCHISYNC_DATABASE_URL": url})
        assert code == ExitCode.CONFIGURATION
        message = "the role poor lacks: usage on schema agents, usage on schema shared, usage on schema system"
        assert found["rights"] == [("failed", message, hint)]
        connection.execute("grant usage on schema system, agents, shared to poor")
        connection.execute("grant select on all tables in schema system, agents to poor")
        code, finding = only(cli, "rights", {"ARCHISYNC_DATABASE_URL": url})
    assert code == ExitCode.CONFIGURATION
    assert finding.message.startswith("the role poor lacks: update on system.sync_state, ")


def test_tables_fails_when_somebody_has_dropped_a_column(cli: Cli, connection: Database) -> None:
    connection.execute("alter table agents.customers drop column phone")
    assert only(cli, "tables") == (
        3,
        (
            "failed",
            "the table agents.customers lacks the column phone, which somebody has dropped or renamed",
            "alter table agents.customers add column phone text",
        ),
    )


def test_clock_fails_when_it_stands_still(cli: Cli) -> None:
    code, (level, message, hint) = only(cli, "clock", {"PGOPTIONS": "-c archisync.now=2026-03-01T12:00:00Z"})
    assert (code, level) == (1, "failed")
    assert message.startswith("this host's clock is ")
    assert message.endswith(" s ahead of PostgreSQL's")
    assert hint == "PostgreSQL's clock decides what is due: check NTP on both, and that no role has archisync.now set"


def test_clocks_may_differ_by_seconds_and_not_by_a_minute() -> None:
    levels = [judge_skew(timedelta(seconds=s)).level for s in (5, -5, 6, -60, 61, -61)]
    assert levels == ["ok", "ok", "warning", "warning", "failed", "failed"]
    assert judge_skew(timedelta(seconds=-61)).message == "this host's clock is 61 s behind PostgreSQL's"


def test_ticks_fails_without_a_recent_tick_that_could_deliver(cli: Cli, connection: Database) -> None:
    hint = "crontab: * * * * * archisync tick   (examples/ has systemd and Kubernetes too)"
    never = "no tick has ever run: is cron calling archisync tick?"
    assert only(cli, "ticks") == (1, ("failed", never, hint))
    record_tick(connection, ago="10 min")
    silent = "no tick for 10 minutes: is cron calling archisync tick?"
    assert only(cli, "ticks") == (1, ("failed", silent, hint))
    record_tick(connection, error="Redis is out of reach: timeout")
    message = "the last tick could not deliver: Redis is out of reach: timeout"
    assert only(cli, "ticks") == (1, ("failed", message, "archisync tick"))


def test_runs_fails_for_an_expired_lease_and_for_a_long_wait(cli: Cli, connection: Database) -> None:
    now = clock.now(connection)
    for agent, worker, ago_s in (("anna", "host-1:7", 181), ("luca", "host-1:8", 170)):
        lease_until = now - timedelta(seconds=ago_s)
        add_run(connection, "running", agent_id=agent, worker=worker, lease_until=lease_until, started_at=now)
    for agent, ago_s in (("bea", 901), ("ugo", 890), ("anna", 901)):
        queued_at = now - timedelta(seconds=ago_s)
        add_run(connection, "queued", sync_type="ddt", agent_id=agent, queued_at=queued_at)
    waiting_hint = "archisync worker --processes 4   (are enough workers alive? archisync status)"
    assert examine(cli, "--only", "runs") == (
        1,
        {
            "runs": [
                ("failed", "the lease of run 1 on host-1:7 expired, and no tick took it back", "archisync tick"),
                ("failed", "run 3 (ddt of bea) waited more than 15 min", waiting_hint),
            ]
        },
    )


def test_agents_fails_for_an_id_that_no_source_accepts(cli: Cli, connection: Database) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('../etc', true), ('anna', true)")
    assert only(cli, "agents") == (
        ExitCode.CONFIGURATION,
        ("failed", "not an agent id: '../etc'", "correct agents.users: their syncs fail"),
    )


def test_exports_fails_and_names_the_missing_files(cli: Cli, connection: Database, exports: Path) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('../etc', true), ('anna', true)")
    (exports / "anna").mkdir()
    (exports / "anna" / "orders.csv").write_text("")
    assert only(cli, "exports") == (
        1,
        (
            "failed",
            "no export for customers of anna, ddt of anna, invoices of anna and 2 more",
            "check ARCHISYNC_SOURCE and the ERP; run doctor where the workers run, as their account",
        ),
    )


def test_exports_looks_for_names_that_change(cli: Cli, connection: Database, exports: Path) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    connection.execute("update system.sync_settings set enabled = (sync_type = 'orders')")
    (exports / "anna").mkdir()
    env = {"ARCHISYNC_SOURCE_ORDERS": f"{exports}/{{agent}}/orders_*.csv"}
    assert only(cli, "exports", env)[1][1] == "no export for orders of anna"
    (exports / "anna" / "orders_1.csv").write_text("")
    assert only(cli, "exports", env) == (0, ("ok", "no file is missing", ""))


def test_exports_fails_for_a_remote_source_that_refuses_us_or_has_no_export(
    cli: Cli, connection: Database, database_url: str, tmp_path: Path
) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    connection.execute("update system.sync_settings set enabled = (sync_type in ('orders', 'ddt', 'customers'))")
    query = tmp_path / "ddt.sql"
    query.write_text("select 1 as ddt_number, 2 as order_number")
    with running_erp() as erp, running_service() as service:
        erp.answers["/anna/orders.csv"] = Answer(body=b"x" * 10**7)
        service.put("Customers", [{"customer_id": "1", "name": "x"}])
        parts = urlsplit(database_url)
        place = parse_qs(parts.query)["host"][0]
        env = {
            "ARCHISYNC_SOURCE_ORDERS": f"{erp.url}/{{agent}}/{{type}}.csv",
            "ARCHISYNC_SOURCE_CUSTOMERS": f"odata+{service.url}/ODataV4/Customers",
            "ARCHISYNC_SOURCE_DDT": f"sql+postgresql://{parts.username}@erp{parts.path}?host={place}&query={query}",
            "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.1:*",
        }
        assert only(cli, "exports", env) == (0, ("ok", "no file is missing; 3 remote sources have their exports", ""))
        assert [asked.path for asked in erp.asked] == ["/anna/orders.csv"]
        query.write_text("select nothing")
        del erp.answers["/anna/orders.csv"], service.sets["Customers"]
        code, found = examine(cli, "--only", "exports", env=env)
    assert code == 1
    assert [finding[1] for finding in found["exports"]] == [
        f"customers of anna: {service.url}/ODataV4/Customers answers 404 Not Found: Resource not found for the segment 'Customers'",
        f'ddt of anna: sql+postgresql://{place}{parts.path} refuses the query: column "nothing" does not exist',
        f"orders of anna: {erp.url}/anna/orders.csv answers 404 Not Found",
    ]


@pytest.mark.parametrize(
    ("columns", "code", "finding"),
    [
        (None, 0, ("ok", "no notice waits", "")),
        ("", 0, ("ok", "the next tick sends 1 notice", "")),
        (
            ", attempts = 1, outcome = 'the address answered 503'",
            1,
            (
                "failed",
                "1 notice could not be delivered, the oldest about orders of anna: the address answered 503",
                "check ARCHISYNC_HOOK; each is tried again for a day",
            ),
        ),
        (
            ", next_attempt_at = '2096-01-01'",
            0,
            (
                "warning",
                "1 notice dated in the future: was PostgreSQL's clock set back?",
                "archisync tick   (sends them now)",
            ),
        ),
    ],
    ids=["none", "one-waits", "refused", "in-the-future"],
)
def test_notices_fails_when_the_hook_refuses_and_warns_of_a_wrong_clock(
    cli: Cli, connection: Database, columns: str | None, code: int, finding: tuple[str, str, str]
) -> None:
    if columns is not None:
        connection.execute(
            "insert into system.notices (event, sync_type, agent_id, message) values ('held', 'orders', 'anna', '-')"
        )
        connection.execute(f"update system.notices set event = event{columns}".encode())
    assert only(cli, "notices", {"ARCHISYNC_HOOK": "https://chat.example/hook"}) == (code, finding)
    assert examine(cli, "--only", "notices") == (0, {})


def test_access_fails_when_every_login_may_run_functions_as_their_owner_and_its_hint_closes_them(
    cli: Cli, connection: Database
) -> None:
    assert only(cli, "access") == (0, ("ok", "no login gets rights from functions of another one", ""))
    connection.execute("grant execute on function system.user_changed(), system.activate_agents(text[]) to public")
    code, finding = only(cli, "access")
    assert (code, finding) == (
        ExitCode.CONFIGURATION,
        (
            "failed",
            "every login may run with the rights of the schema's owner: system.activate_agents(text[]), system.user_changed()",
            "as that owner: revoke execute on function system.activate_agents(text[]), system.user_changed() from public",
        ),
    )
    connection.execute(finding.hint.partition(": ")[2].encode())
    assert only(cli, "access")[0] == 0


@pytest.mark.parametrize("schema", ["public", "tools", "agents"])
def test_access_warns_when_every_login_may_create_functions_that_others_call(
    cli: Cli, connection: Database, schema: str
) -> None:
    connection.execute("create schema tools; create schema elsewhere; grant create on schema elsewhere to public")
    connection.execute(f"alter database {connection.info.dbname} set search_path = '$user', tools, public".encode())
    connection.execute(f"grant create on schema {schema} to public".encode())
    code, finding = only(cli, "access")
    assert (code, finding) == (
        0,
        (
            "warning",
            f"every login may create functions in {schema}, which other programs then call with their own rights",
            f"as its owner: revoke create on schema {schema} from public",
        ),
    )
    connection.execute(finding.hint.partition(": ")[2].encode())
    assert only(cli, "access")[1].level == "ok"


def test_locks_fails_when_an_agent_is_locked_by_a_process_that_is_no_worker(
    cli: Cli, connection: Database, database_url: str
) -> None:
    assert only(cli, "locks") == (0, ("ok", "no agent is locked by a process that is no worker", ""))
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true)")
    queued_runs.force(connection, "orders", "anna", by="test", why=None)
    connection.execute("update system.queued_runs set reason = 'agent-locked'")
    with connected(database_url, purpose="x") as holder, agent_lock(holder, "anna"):
        code, finding = only(cli, "locks")
        pid = holder.info.backend_pid
    assert (code, finding.level, finding.hint) == (1, "failed", f"as a superuser: select pg_terminate_backend({pid})")
    assert (
        finding.message == f"anna is locked by PostgreSQL's process {pid} (role postgres, archisync x); its runs wait"
    )


def test_pairs_fails_while_what_is_scheduled_is_degraded_stale_or_held_for_long(cli: Cli, connection: Database) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    connection.execute("update system.sync_state set last_success_at = system.clock()")
    assert only(cli, "pairs") == (0, ("ok", "what is scheduled is fresh", ""))
    connection.execute("update system.sync_state set consecutive_failures = 3 where sync_type in ('orders', 'ddt')")
    retry = "archisync rest list, archisync history --state failed   (then: archisync retry --failed)"
    assert only(cli, "pairs") == (1, ("failed", "degraded: 1 of orders, 1 of ddt", retry))
    connection.execute("update system.sync_settings set enabled = sync_type <> 'ddt'")
    assert only(cli, "pairs") == (1, ("failed", "degraded: 1 of orders", retry))
    connection.execute(
        "update system.sync_state set consecutive_failures = 0, last_success_at = system.clock() - interval '21 minutes'"
        " where sync_type = 'orders'"
    )
    assert only(cli, "pairs") == (
        1,
        ("failed", "stale: 1 of orders", "archisync status, archisync why TYPE AGENT"),
    )
    connection.execute("update system.sync_state set last_success_at = system.clock()")
    run_id = add_held(connection)
    assert only(cli, "pairs")[0] == 0
    connection.execute("update system.held_exports set held_at = system.clock() - interval '25 hours'")
    assert only(cli, "pairs") == (
        1,
        ("failed", "held for more than 24 h: orders of anna", f"archisync held show {run_id}"),
    )


def test_triggers_fails_with_the_statement_that_enables_what_somebody_disabled(cli: Cli, connection: Database) -> None:
    assert only(cli, "triggers") == (0, ("ok", "what others write to the tables is noticed", ""))
    message = "what others write may go unnoticed, for it is disabled or missing: {}"
    connection.execute("alter table agents.orders disable trigger archisync_changed_outside")
    enable = "alter table agents.orders enable always trigger archisync_changed_outside"
    named = "archisync_changed_outside on agents.orders"
    assert only(cli, "triggers") == (1, ("failed", message.format(named), enable))
    connection.execute(enable.replace(" always", ""))  # not under session_replication_role = replica
    assert only(cli, "triggers")[0] == 1
    connection.execute(enable)
    connection.execute("drop trigger archisync_truncated on shared.products")
    assert only(cli, "triggers")[1][1] == message.format("archisync_truncated on shared.products")
    connection.execute("alter table agents.users disable trigger all")
    code, (_, said, _) = only(cli, "triggers")
    assert (code, "archisync_users_deleted on agents.users" in said) == (1, True)
