"""Of everything that a database has, each role of `db grants` may do what it is for and nothing else: asked of PostgreSQL's catalogs."""

from collections.abc import Iterator

import pytest
from psycopg.errors import InsufficientPrivilege

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import migrations
from archisync.store.database import Database, connected
from archisync.store.grants import EACH_TYPE, NEEDS_TEMPORARY, RIGHTS, Role, grants_sql
from tests.support.users import logged_in_as

PREFIX = "everything"
SCHEMAS = "('system', 'agents', 'shared')"
OF_TABLES = ("select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain")
OF_COLUMNS = ("select", "insert", "update", "references")


@pytest.fixture(params=["superuser", "owner"])
def db(request: pytest.FixtureRequest, connection: Database, database_url: str) -> Iterator[Database]:
    """A superuser's connection to a database whose schema was made by a superuser, or by an owner with no other right."""
    if request.param == "superuser":
        yield from _granted(connection, connection)
        return
    with logged_in_as(connection, database_url, f"{PREFIX}_owner") as url:
        connection.execute("drop schema system, agents, shared cascade")
        connection.execute(f"alter database {connection.info.dbname} owner to {PREFIX}_owner".encode())
        connection.execute(f"alter role {PREFIX}_owner createrole".encode())
        with connected(url, purpose="owner") as owner:
            migrations.migrate(owner, {})
            yield from _granted(connection, owner)
        connection.execute(f"alter database {connection.info.dbname} owner to postgres".encode())


def _granted(db: Database, owner: Database) -> Iterator[Database]:
    db.execute(
        "alter default privileges grant all on tables to public"
    )  # somebody's wish for other tables must not matter later
    db.execute("alter default privileges revoke all on tables from public")
    owner.execute(grants_sql(PREFIX).encode())
    yield db
    for role in Role:
        db.execute(f"drop owned by {PREFIX}_{role}".encode())
        db.execute(f"drop role {PREFIX}_{role}".encode())


def granted(role: Role) -> tuple[set[tuple[str, str]], dict[tuple[str, str], set[str]]]:
    """(privilege, table) on whole tables, and (privilege, table) → the columns that are withheld."""
    types = [type_.table for type_ in SYNC_TYPES.values()]
    whole = {
        (p, table)
        for r in RIGHTS[role]
        for p in r.privileges
        if not r.withheld
        for table in (types if r.table == EACH_TYPE else [r.table])
    }
    parts = {(p, r.table): set(r.withheld) for r in RIGHTS[role] for p in r.privileges if r.withheld}
    return whole, {right: withheld for right, withheld in parts.items() if right not in whole}


@pytest.mark.parametrize("role", Role)
def test_a_role_has_its_rights_on_every_relation_and_no_other(db: Database, role: Role) -> None:
    rows = db.execute(
        "select p.p as privilege, n.nspname || '.' || c.relname as relation, c.relkind = 'S' as is_sequence,"
        "       case when c.relkind <> 'S' then has_table_privilege(%(role)s, c.oid, p.p)"
        "            else p.p in ('select', 'update') and has_sequence_privilege(%(role)s, c.oid, p.p) end as has"
        "  from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join unnest(%(privileges)s::text[]) as p(p)"
        f" where n.nspname in {SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')",
        {"role": f"{PREFIX}_{role}", "privileges": list(OF_TABLES)},
    ).fetchall()
    assert len(rows) > 8 * 25
    whole, _ = granted(role)
    assert {(row["privilege"], row["relation"]) for row in rows if row["has"]} == whole


@pytest.mark.parametrize("role", Role)
def test_a_role_has_its_rights_on_every_column_and_no_other(db: Database, role: Role) -> None:
    rows = db.execute(
        "select p.p as privilege, n.nspname || '.' || c.relname as relation, a.attname as name,"
        "       has_column_privilege(%(role)s, c.oid, a.attnum, p.p) as has"
        "  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
        " cross join unnest(%(privileges)s::text[]) as p(p)"
        f" where n.nspname in {SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum > 0",
        {"role": f"{PREFIX}_{role}", "privileges": list(OF_COLUMNS)},
    ).fetchall()
    assert len(rows) > 4 * 300
    whole, parts = granted(role)

    def is_for(privilege: str, relation: str, name: str) -> bool:
        right = (privilege, relation)
        return right in whole or (right in parts and name not in parts[right])

    wrong = [row for row in rows if row["has"] != is_for(row["privilege"], row["relation"], row["name"])]
    assert wrong == []


@pytest.mark.parametrize("role", Role)
def test_a_role_may_make_nothing_but_temporary_tables(db: Database, role: Role) -> None:
    """That, on the database, is PUBLIC's unless somebody revoked it; `db grants` gives it to those that need it."""
    name = f"{PREFIX}_{role}"
    db.execute(f"revoke temporary on database {db.info.dbname} from public".encode())
    may = db.execute(
        "select has_database_privilege(%(role)s, current_database(), 'create') as database,"
        "       has_database_privilege(%(role)s, current_database(), 'temporary') as temporary,"
        "       (select count(*) from pg_namespace where nspname !~ '^pg_' and has_schema_privilege(%(role)s, oid, 'create')) as schemas,"
        "       (select array_agg(nspname::text order by nspname) from pg_namespace"
        f"        where nspname in {SCHEMAS} and has_schema_privilege(%(role)s, oid, 'usage')) as used,"
        "       (select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls or rolcanlogin from pg_roles"
        "         where rolname = %(role)s) as more,"
        "       (select count(*) from pg_auth_members m join pg_roles r on r.oid = m.member where r.rolname = %(role)s) as memberships",
        {"role": name},
    ).fetchone()
    assert may == {
        "database": False,
        "temporary": role in NEEDS_TEMPORARY,
        "schemas": 0,
        "used": ["agents", "shared", "system"],
        "more": False,
        "memberships": 0,
    }


@pytest.mark.parametrize("role", Role)
def test_a_role_may_call_no_function_of_ours_that_has_its_owner_s_rights(db: Database, role: Role) -> None:
    rows = db.execute(
        "select p.proname as name, p.prosecdef as definer from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        f" where n.nspname in {SCHEMAS} and has_function_privilege(%s, p.oid, 'execute')",
        [f"{PREFIX}_{role}"],
    ).fetchall()
    assert [row["name"] for row in rows if row["definer"]] == []
    assert {row["name"] for row in rows} >= {"clock", "or_never", "pauses_of", "backoff"}


AGENT_DATA = (
    "select changes from system.held_exports",
    "select findings from system.held_exports", "select sample from system.held_exports", "select * from system.held_exports",
    "select h from system.held_exports h", "select to_jsonb(h) from system.held_exports h", "table system.held_exports",
    "select quarantined_rows from system.sync_runs", "select * from system.sync_runs", "select r from system.sync_runs r",
    "update system.sync_runs set attempt = 1 returning quarantined_rows", "copy system.held_exports to stdout",
    "create temp table t as table system.sync_runs", "delete from system.sync_runs where quarantined_rows is not null",
)  # fmt: skip


@pytest.mark.parametrize("statement", AGENT_DATA)
def test_a_tick_sees_no_row_of_agent_data(db: Database, statement: str) -> None:
    with db.transaction(force_rollback=True):
        db.execute(f"set local role {PREFIX}_tick".encode())
        with pytest.raises(InsufficientPrivilege):
            db.execute(statement.encode())


def test_the_columns_that_are_withheld_are_all_that_has_rows_of_agent_data(db: Database) -> None:
    """A tick's views and tables have no other column of that kind: each column of type jsonb is one of these."""
    rows = db.execute(
        "select c.relname || '.' || a.attname as name from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where c.relnamespace = 'system'::regnamespace and a.attnum > 0 and a.atttypid = 'jsonb'::regtype and c.relkind in ('r', 'v')"
        f"   and has_column_privilege('{PREFIX}_tick', c.oid, a.attnum, 'select')"
    ).fetchall()
    columns = {"export", "steps", "warnings"}  # origin and hash; milliseconds; a word, a sentence and a count each
    of_runs = {f"{relation}.{column}" for relation in ("sync_runs", "runs", "unfinished_runs") for column in columns}
    others = {
        "ticks.skipped",
        "sync_state.high_rows",
        "held_exports.planned",
        "audit.before",
        "audit.after",
        "sync_settings.column_percents",
    }  # counts, hashes, settings
    assert {row["name"] for row in rows} == of_runs | others
