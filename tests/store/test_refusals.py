"""What can't be had is refused in one sentence, with what to do and the exit code of its kind, by every command."""

from collections.abc import Mapping
from typing import NamedTuple

import psycopg
import pytest

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.rows import count
from tests.support.said import refusal
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
COMMANDS = (
    ("db", "migrate"), ("tick",), ("worker", "--burst", "--single"), ("status",), ("run", "customers", "--agent", AGENT, "--inline"),
)  # fmt: skip
RAISES = (
    "create function public.no() returns {kind} language plpgsql as $$ begin raise exception 'not on Sundays'; end $$;"
)


class Refusal(NamedTuple):
    code: int
    said: str
    hint: str
    env: Mapping[str, str] = {}
    before: str = ""


VALUE = "check options in ARCHISYNC_DATABASE_URL, PG… variables (PGOPTIONS, PGTZ), and what alter role has set"
UNREAD = (
    "check ARCHISYNC_DATABASE_URL, PG… variables, what alter role and alter database have set, the server's pg_hba.conf"
)
DEMANDS = (
    "check what ARCHISYNC_DATABASE_URL and PG… variables demand of the server (sslmode, PGREQUIREPEER, PGSERVICEFILE)"
)
KIND = "check target_session_attrs in ARCHISYNC_DATABASE_URL, and PGTARGETSESSIONATTRS"
REFUSALS = {
    # libpq's own refusals
    "gssencmode": Refusal(3, "GSSAPI encryption required", DEMANDS, {"PGGSSENCMODE": "require"}),
    "channel binding": Refusal(3, "channel binding required", DEMANDS, {"PGCHANNELBINDING": "require"}),
    "peer": Refusal(3, 'requirepeer specifies "nosuchuser"', DEMANDS, {"PGREQUIREPEER": "nosuchuser"}),
    "authentication": Refusal(3, "authentication method requirement", DEMANDS, {"PGREQUIREAUTH": "scram-sha-256"}),
    "service file": Refusal(3, 'service file "/nowhere" not found', DEMANDS, {"PGSERVICE": "x", "PGSERVICEFILE": "/nowhere"}),
    "service": Refusal(3, "has a wrong service", "check service in", {"PGSERVICE": "nowhere"}),
    "sslmode": Refusal(3, "has a wrong sslmode", "check sslmode in", {"PGSSLMODE": "nonsense"}),
    "a standby": Refusal(4, "server is not in hot standby mode", KIND, {"PGTARGETSESSIONATTRS": "standby"}),
    # a server's refusals
    "a value": Refusal(3, 'invalid value for parameter "TimeZone": "nonsense"', VALUE, {"PGTZ": "nonsense"}),
    "no such object": Refusal(3, 'Tablespace "nowhere" does not exist', VALUE, {"PGOPTIONS": "-c default_tablespace=nowhere"}),
    "a boolean": Refusal(3, 'parameter "geqo" requires a Boolean value', UNREAD, {"PGGEQO": "nonsense"}),
    "a fixed setting": Refusal(3, 'parameter "is_superuser" cannot be changed', UNREAD, {"PGOPTIONS": "-c is_superuser=off"}),
    "a library": Refusal(3, 'could not access file "nowhere"', UNREAD, {"PGOPTIONS": "-c session_preload_libraries=nowhere"}),
    "a role": Refusal(3, "permission denied for ", "grant the rights, or use another role", {"PGOPTIONS": "-c role=pg_monitor"}),
    "read-only": Refusal(4, "PostgreSQL is read-only there", "is it a standby?", {"PGOPTIONS": "-c default_transaction_read_only=on"}),
    "login trigger": Refusal(3, "not on Sundays", UNREAD, before=RAISES.format(kind="event_trigger")
                             + "create event trigger no on login execute function public.no(); alter event trigger no enable always"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_every_command_refuses_what_can_t_be_had(cli: Cli, connection: Database, name: str) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    expected = REFUSALS[name]
    if expected.before:
        connection.execute(expected.before.encode())
    try:
        for words in COMMANDS:
            if expected.said == "PostgreSQL is read-only there" and words[0] in ("status", "worker"):
                continue  # they write nothing; a worker finds an empty queue
            done = cli(*words, env={"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv", **expected.env})
            found = refusal(done.stderr)
            assert (words, done.returncode) == (words, expected.code), done.stderr
            assert expected.said in found.message
            assert found.hint.startswith(expected.hint)
            assert "Traceback" not in done.stderr
    finally:
        if expected.before:
            connection.execute("drop event trigger no")


OBJECTS = {
    "a trigger": (
        RAISES.format(kind="trigger") + "create trigger no before insert on agents.customers for each row execute function public.no()",
        "a function of the database, public.no(), refused it: not on Sundays",
        "psql: \\sf public.no() shows it; a trigger of yours must let archisync pass",
    ),
    "a fault in one": (
        "create function public.no() returns trigger language plpgsql as $$ begin new.city := (1 / 0)::text; return new; end $$;"
        "create trigger no before insert on agents.customers for each row execute function public.no()",
        "a function of the database, public.no(), refused it: division by zero",
        "psql: \\sf public.no() shows it; a trigger of yours must let archisync pass",
    ),
    "a check": (
        "alter table agents.customers add constraint roman check (city = 'Roma')",
        'agents.customers does not take a row: new row for relation "customers" violates check constraint "roman"',
        "psql: \\d agents.customers shows roman; alter or drop it if it is yours",
    ),
    "a column": (
        "alter table agents.customers add mine text not null",
        'the column mine of agents.customers must be filled, and no export has it',
        "alter table agents.customers alter column mine drop not null   (or give it a default)",
    ),
    "a foreign key": (
        "create table public.zones (city text primary key); alter table agents.customers add constraint zone foreign key (city)"
        " references public.zones",
        'agents.customers does not take a row: insert or update on table "customers" violates foreign key constraint "zone"',
        "psql: \\d agents.customers shows zone; alter or drop it if it is yours",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_what_somebody_added_to_a_table_is_named_and_no_row_is_shown(cli: Cli, connection: Database, name: str) -> None:
    before, message, hint = OBJECTS[name]
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute(before.encode())
    done = cli(
        "run", "customers", "--agent", AGENT, "--inline", env={"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}
    )
    assert done.returncode == 1
    row = connection.execute("select state, reason, message, hint from system.sync_runs").fetchone()
    assert row == {"state": "failed", "reason": "configuration", "message": message, "hint": hint}
    assert "Pasticceria" not in done.stdout + done.stderr
    assert count(connection, "select count(*) from agents.customers") == 0


@pytest.mark.parametrize("table", ["system.queued_runs", "system.ticks"])
def test_a_trigger_on_a_table_of_the_system_is_named(cli: Cli, connection: Database, table: str) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute(
        (RAISES.format(kind="trigger") + f"create trigger no before insert on {table} for each row execute function public.no()").encode()
    )  # fmt: skip
    done = cli("tick")
    assert done.returncode == 3
    assert refusal(done.stderr).message == "a function of the database, public.no(), refused it: not on Sundays"


def test_an_event_trigger_that_refuses_the_schema_is_named(cli: Cli, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True, application_name="test") as db:
        db.execute(
            (RAISES.format(kind="event_trigger") + "create event trigger no on ddl_command_start execute function public.no()").encode()
        )  # fmt: skip
    done = cli("db", "migrate", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert done.returncode == 3
    assert refusal(done.stderr).message == "a function of the database, public.no(), refused it: not on Sundays"
