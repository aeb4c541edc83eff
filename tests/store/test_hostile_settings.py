"""Settings that change what a session means, in each way in which they may come: every command is right.

Right is what the same commands leave without any such setting: rows, counts of runs, settings, schema. `make check` tries a third of the
settings at a time, `make soak` each by itself. The settings all at once are in test_sessions.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.session import ONLY_INSTEAD_OF
from archisync.store.session import SETTINGS as SESSION
from tests.conftest import roomy_memory
from tests.support.hostilesite import Found, Setting, Site
from tests.support.pgbouncer import needs_pgbouncer
from tests.support.systempostgres import needs_system_postgres, system_postgres
from tests.support.warm import WarmCommand

pytestmark = pytest.mark.check

SETTINGS: tuple[tuple[str, str], ...] = (
    # What the bytes mean.
    ("client_encoding", "LATIN1"), ("client_encoding", "SQL_ASCII"), ("client_encoding", "WIN1252"),
    ("DateStyle", "German, DMY"), ("DateStyle", "SQL, DMY"), ("DateStyle", "Postgres, MDY"), ("IntervalStyle", "sql_standard"),
    ("IntervalStyle", "iso_8601"), ("TimeZone", "Pacific/Kiritimati"), ("TimeZone", "America/St_Johns"),
    ("timezone_abbreviations", "India"),
    ("standard_conforming_strings", "off"), ("backslash_quote", "off"), ("escape_string_warning", "on"), ("bytea_output", "escape"),
    ("extra_float_digits", "-15"), ("array_nulls", "off"), ("transform_null_equals", "on"), ("quote_all_identifiers", "on"),
    ("xmloption", "document"), ("xmlbinary", "hex"), ("lc_messages", "C.UTF-8"), ("lc_monetary", "C"), ("lc_numeric", "C"),
    ("lc_time", "C"), ("default_text_search_config", "simple"),
    # Which names and rows are meant, and which triggers fire.
    ("search_path", "public, pg_catalog"), ("search_path", "nowhere"), ("search_path", ""), ("row_security", "on"),
    ("session_replication_role", "replica"), ("session_replication_role", "local"),
    ("restrict_nonsystem_relation_kind", "view, foreign-table"), ("plpgsql.variable_conflict", "use_variable"),
    ("plpgsql.variable_conflict", "use_column"), ("plpgsql.extra_errors", "all"), ("check_function_bodies", "off"),
    ("gin_fuzzy_search_limit", "1"), ("event_triggers", "off"),
    # What a transaction is.
    ("default_transaction_isolation", "serializable"), ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_deferrable", "on"), ("synchronous_commit", "off"), ("synchronous_commit", "local"), ("commit_delay", "1000"),
    # What ends it.
    ("statement_timeout", "250"), ("lock_timeout", "1"), ("transaction_timeout", "500"), ("idle_session_timeout", "500"),
    ("idle_in_transaction_session_timeout", "500"), ("client_connection_check_interval", "1"), ("exit_on_error", "on"),
    ("deadlock_timeout", "1"),
    # Where things go, and how much there may be.
    ("default_tablespace", ""), ("default_tablespace", "nowhere"), ("temp_tablespaces", "nowhere"),
    ("default_table_access_method", "nonsense"), ("default_toast_compression", "pglz"), ("temp_buffers", "100"), ("work_mem", "64"),
    ("temp_file_limit", "0"), ("maintenance_work_mem", "1024"), ("max_stack_depth", "100"),
    # How it is planned.
    ("jit", "on"), ("jit_above_cost", "0"), ("enable_seqscan", "off"), ("enable_indexscan", "off"), ("enable_bitmapscan", "off"),
    ("enable_sort", "off"), ("enable_hashjoin", "off"), ("enable_hashagg", "off"), ("enable_mergejoin", "off"), ("enable_nestloop", "off"),
    ("enable_material", "off"), ("plan_cache_mode", "force_generic_plan"), ("plan_cache_mode", "force_custom_plan"),
    ("debug_parallel_query", "on"), ("force_parallel_mode", "on"), ("parallel_setup_cost", "0"), ("max_parallel_workers_per_gather", "4"),
    ("join_collapse_limit", "1"), ("geqo_threshold", "2"), ("constraint_exclusion", "on"), ("ignore_system_indexes", "on"),
    # What is said.
    ("client_min_messages", "debug5"), ("client_min_messages", "error"), ("log_statement", "all"), ("track_activities", "off"),
    ("application_name", "somebody"), ("password_encryption", "md5"),
)  # fmt: skip
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {"PGCLIENTENCODING": "LATIN1"}, {"PGCLIENTENCODING": "nonsense"}, {"PGTZ": "Asia/Kathmandu"}, {"PGDATESTYLE": "SQL, DMY"},
    {"PGGEQO": "off"}, {"PGAPPNAME": "somebody"}, {"PGHOST": "nowhere.invalid", "PGPORT": "1", "PGUSER": "x", "PGDATABASE": "y"},
    {"PGCONNECT_TIMEOUT": "1"}, {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere"}, {"PGPASSFILE": "/nowhere"},
    {"PGSYSCONFDIR": "/nowhere"}, {"TZ": "Pacific/Kiritimati"},
)  # fmt: skip
WAYS = [
    ("embedded", "database"),
    ("embedded", "role"),
    ("embedded", "options"),
    pytest.param("embedded", "session", marks=needs_pgbouncer),
    pytest.param("embedded", "transaction", marks=needs_pgbouncer),
    pytest.param("system", "database", marks=needs_system_postgres),
    pytest.param("system", "options", marks=needs_system_postgres),
]
GROUPS = 3


@pytest.fixture(scope="module")
def site(
    session_postgres: EmbeddedPostgres, session_valkey: EmbeddedValkey, warm_command: WarmCommand, exports_of_all: Path
) -> Site:
    return Site(session_postgres.url, session_valkey.url, exports_of_all, warm_command)


@pytest.fixture(scope="module")
def older_site(session_valkey: EmbeddedValkey, warm_command: WarmCommand, exports_of_all: Path) -> Iterator[Site]:
    with system_postgres() as url:
        yield Site(url, session_valkey.url, exports_of_all, warm_command)


@pytest.fixture(scope="module")
def exports_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def right(site: Site) -> Found:
    """What the commands do without any setting."""
    return site.scenario()


def test_without_any_setting_everything_is_done(right: Found) -> None:
    assert right.refused == []
    runs = right.left["runs"]
    assert {run["state"] for run in runs} == {"succeeded"}
    counts = {(run["sync_type"], run["rows_inserted"], run["rows_updated"], run["rows_absent"]) for run in runs}
    assert {("customers", 2200, 0, 0), ("customers", 1, 700, 100)} <= counts
    customers = [row["line"] for row in right.left["agents.customers"]]
    assert len(customers) == 2201
    assert sum('"name": "Caffé \\\\\'Łódź€ ' in row for row in customers) == 700
    assert sum('"name": "NULL"' in row and '"city": "x\\\\N"' in row for row in customers) == 1


def test_the_table_has_what_a_session_sets_and_more() -> None:
    names = {name for name, _ in SETTINGS}
    assert names >= {*SESSION, *(name for name, *_ in ONLY_INSTEAD_OF)}
    assert len(names) > 60


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS, ids="=".join)
def test_a_setting_changes_nothing(site: Site, right: Found, setting: Setting) -> None:
    assert site.scenario([setting]) == right


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda env: "=".join(next(iter(env.items()))))
def test_a_variable_changes_nothing(site: Site, right: Found, environment: dict[str, str]) -> None:
    assert site.scenario(env=environment) == right


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize(("server", "way"), WAYS)
def test_it_may_come_by_any_way_to_any_server(
    request: pytest.FixtureRequest, server: str, way: str, right: Found, group: int
) -> None:
    site: Site = request.getfixturevalue("site" if server == "embedded" else "older_site")
    settings = SETTINGS[group::GROUPS]
    if way in ("session", "transaction"):  # between two transactions a pooler's own connection is not ours
        settings = tuple(setting for setting in settings if setting[0] != "idle_session_timeout")
    found = site.scenario(site.that_it_has(settings) if way == "options" else settings, way=way)
    assert found.refused == []
    assert {**found.left, "schema": None} == {**right.left, "schema": None}


def test_it_may_come_from_the_server_s_own_file(
    session_valkey: EmbeddedValkey, warm_command: WarmCommand, exports_of_all: Path, site: Site, right: Found
) -> None:
    settings = dict(site.that_it_has(SETTINGS))
    with (
        temporary_folder(roomy_memory()) as folder,
        EmbeddedPostgres(folder, durable=False, settings=settings) as server,
    ):
        assert Site(server.url, session_valkey.url, exports_of_all, warm_command).scenario() == right
