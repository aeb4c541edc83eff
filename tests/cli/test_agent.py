"""`agent`: the registry of agents, and how a change of it changes the pairs."""

import json

import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.rows import add_run

ALLOWED = (
    "hint: an agent id is 1 to 128 ASCII letters, digits and . _ @ + -, "
    "starts with a letter or digit and has no two dots in a row\n"
)


def _users(db: Database) -> list[tuple[object, ...]]:
    rows = db.execute("select id, full_name, whitelisted from agents.users order by id").fetchall()
    return [tuple(row.values()) for row in rows]


def _active(db: Database, agent_id: str) -> list[str]:
    rows = db.execute(
        "select sync_type from system.sync_state where agent_id = %s and active order by 1", [agent_id]
    ).fetchall()
    return [row["sync_type"] for row in rows]


def test_a_new_agent_is_off_the_whitelist_unless_allow_is_given(cli: Cli, connection: Database) -> None:
    assert cli("agent", "add", "anna", "--name", "Anna Bianchi").stdout == "anna: added, not on the whitelist\n"
    assert cli("agent", "add", "marco", "--allow").stdout == "marco: added, on the whitelist\n"
    assert _users(connection) == [("anna", "Anna Bianchi", False), ("marco", None, True)]
    assert _active(connection, "anna") == []
    assert _active(connection, "marco") == ["customers", "ddt", "invoices", "orders"]


def test_adding_an_agent_twice_leaves_it_as_it_is(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--name", "Anna Bianchi")
    done = cli("agent", "add", "anna", "--name", "Somebody else")
    assert (done.returncode, done.stdout) == (0, "anna: already registered, left as it is\n")
    assert _users(connection) == [("anna", "Anna Bianchi", False)]
    assert cli("agent", "add", "anna", "--allow").stdout == "anna: already registered, on the whitelist\n"
    assert _users(connection) == [("anna", "Anna Bianchi", True)]


@pytest.mark.parametrize(
    ("agent_id", "shown"),
    [
        ("a/b", "'a/b'"),
        ("..", "'..'"),
        ("", "''"),
        ("anna bianchi", "'anna bianchi'"),
        ("\x1b[31m../../etc/passwd", "'\\x1b\\x5b31m../../etc/passwd'"),
    ],
)
def test_a_wrong_id_among_several_adds_none(cli: Cli, connection: Database, agent_id: str, shown: str) -> None:
    done = cli("agent", "add", "marco", agent_id)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == f"error: {shown} is not an agent id\n{ALLOWED}"
    assert _users(connection) == []


def test_a_name_goes_with_one_id(cli: Cli, connection: Database) -> None:
    done = cli("agent", "add", "anna", "marco", "--name", "Anna")
    assert (done.returncode, done.stderr) == (
        ExitCode.USAGE,
        "error: a name goes with one agent\nhint: add the agents one by one\n",
    )
    assert _users(connection) == []


def test_allow_and_deny_take_several_ids(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "marco")
    done = cli("agent", "allow", "anna", "marco")
    assert done.stdout == "anna: on the whitelist\nmarco: on the whitelist\n"
    assert _active(connection, "anna") == _active(connection, "marco") == ["customers", "ddt", "invoices", "orders"]
    assert cli("agent", "deny", "anna").stdout == "anna: off the whitelist\n"
    assert _active(connection, "anna") == []
    assert len(_active(connection, "marco")) == 4


@pytest.mark.parametrize("verb", ["allow", "deny"])
def test_an_unknown_agent_among_several_changes_none(cli: Cli, connection: Database, verb: str) -> None:
    cli("agent", "add", "anna", *(["--allow"] if verb == "deny" else []))
    before = _users(connection)
    done = cli("agent", verb, "anna", "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'nobody'\nhint: archisync agent add nobody   (or: archisync agent list)\n",
    )
    assert _users(connection) == before


def test_a_denied_agents_queued_run_ends_skipped(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    add_run(connection, "queued")
    cli("agent", "deny", "anna")
    assert connection.execute("select state, reason from system.sync_runs").fetchall() == [
        {"state": "skipped", "reason": "not-whitelisted"}
    ]


def test_agents_are_listed_as_a_plain_table_and_as_json(cli: Cli, connection: Database) -> None:
    assert cli("agent", "list").stderr == "no agents yet\n"
    cli("agent", "add", "anna", "--name", "Anna Bianchi", "--allow")
    cli("agent", "add", "marco")
    cli("agent", "pause", "anna")
    connection.execute("update system.sync_state set last_success_at = '2026-03-01T12:00:00Z' where agent_id = 'anna'")
    assert cli("agent", "list").stdout.splitlines() == [
        "AGENT  NAME          WHITELISTED  PAUSED  ALL FRESH SINCE",
        "anna   Anna Bianchi  yes          yes     2026-03-01T12:00:00Z",
        "marco  -             no           no      never",
    ]
    document = json.loads(cli("agent", "list", "--json").stdout)
    assert document["agents"] == [
        {
            "agent_id": "anna",
            "name": "Anna Bianchi",
            "whitelisted": True,
            "paused": True,
            "oldest_success_at": "2026-03-01T12:00:00Z",
        },
        {"agent_id": "marco", "name": None, "whitelisted": False, "paused": False, "oldest_success_at": None},
    ]


def test_show_has_the_decision_about_each_type_of_the_agent(cli: Cli) -> None:
    cli("agent", "add", "anna", "--name", "Anna Bianchi", "--allow")
    cli("disable", "ddt")
    shown = cli("agent", "show", "anna").stdout
    assert shown.startswith("agent        anna\nname         Anna Bianchi\nwhitelisted  yes\npaused       no\n\n")
    assert [line.split("  ")[0] for line in shown.splitlines()[6:]] == ["orders", "customers", "ddt", "invoices"]
    types = json.loads(cli("agent", "show", "anna", "--json").stdout)["types"]
    assert {t["sync_type"]: t["reason"] for t in types} == {
        "orders": "due",
        "customers": "due",
        "ddt": "type-disabled",
        "invoices": "due",
    }


@pytest.mark.parametrize("verb", ["show", "pause"])
def test_an_unknown_agent_is_not_found(cli: Cli, verb: str) -> None:
    done = cli("agent", verb, "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'nobody'\nhint: archisync agent list\n",
    )


def test_an_agent_is_paused_and_resumed(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    noon = {"PGOPTIONS": "-c archisync.now=2026-03-01T12:00:00Z"}
    done = cli("agent", "pause", "anna", "--until", "2h", "--reason", "holiday", env=noon)
    assert done.stdout == "the agent anna: paused until 2026-03-01T14:00:00Z\n"
    assert connection.execute("select sync_type, agent_id, reason from system.pauses").fetchall() == [
        {"sync_type": None, "agent_id": "anna", "reason": "holiday"}
    ]
    assert cli("agent", "resume", "anna", env=noon).stdout == "the agent anna: resumed\n"
    assert cli("agent", "resume", "anna", env=noon).stdout == "the agent anna: was not paused\n"


def test_a_hostile_name_does_not_move_the_cursor(cli: Cli, connection: Database) -> None:
    connection.execute("insert into agents.users (id, full_name) values ('anna', E'\\x1b[2Jgone')")
    assert "\x1b" not in cli("agent", "list").stdout


@pytest.mark.parametrize(
    "change",
    [
        "truncate agents.users",
        "delete from agents.users",
        "update agents.users set whitelisted = false",
        "update agents.users set id = id || '-2'",
    ],
)
def test_an_agent_with_the_shared_id_does_not_touch_the_shared_runs(
    cli: Cli, connection: Database, change: str
) -> None:
    """The registry may have an agent with the id under which products and prices are fetched."""
    connection.execute("insert into agents.users (id, whitelisted) values ('service-account', true), ('anna', true)")
    assert cli("tick").returncode == 0
    connection.execute(change)
    rows = connection.execute("select sync_type, agent_id, state from system.runs").fetchall()
    assert len(rows) == 10
    assert {row["sync_type"] for row in rows if row["state"] == "queued"} == {"products", "prices"}
    assert [row["agent_id"] for row in rows if row["state"] == "queued"] == ["service-account"] * 2
    assert set(_active(connection, "service-account")) == {"products", "prices"}


def active(db: Database) -> list[str]:
    rows = db.execute(
        "select distinct agent_id from system.sync_state where active and agent_id <> 'service-account' order by 1"
    )
    return [row["agent_id"] for row in rows.fetchall()]


def test_a_change_of_whitelisted_by_another_trigger_is_noticed(connection: Database) -> None:
    connection.execute(
        """
        create function public.leaves() returns trigger language plpgsql as
          $$ begin new.whitelisted := new.username is not null; return new; end $$;
        create trigger leaves before update on agents.users for each row execute function public.leaves();
        insert into agents.users (id, username, whitelisted) values ('anna', 'anna', true)
        """
    )
    connection.execute("update agents.users set username = null")
    assert active(connection) == []
    connection.execute("update agents.users set username = 'anna'")
    assert active(connection) == ["anna"]


def test_doctor_finds_agents_that_replication_wrote_past_the_triggers_and_migrate_mends_them(
    cli: Cli, connection: Database
) -> None:
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true), ('luca', true)")
    connection.execute("set session_replication_role = replica")
    connection.execute("insert into agents.users (id, whitelisted) values ('mara', true)")
    connection.execute("delete from agents.users where id = 'luca'")
    done = cli("doctor", "--only", "agents")
    hint = (
        f"{'':<21} hint: archisync db migrate   (repairs it; if replication writes agents.users:"
        " alter table agents.users enable replica trigger archisync_user_replicated)"
    )
    past = "; agents.users was written past its triggers"
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            f"failed   agents       on the whitelist and not scheduled: mara{past}", hint,
            f"failed   agents       not on the whitelist and scheduled: luca{past}", hint,
            "ok       agents       2 on the whitelist",
        ],
    )  # fmt: skip
    assert cli("db", "migrate").returncode == 0
    assert active(connection) == ["anna", "mara"]
    assert cli("doctor", "--only", "agents").stdout == "ok       agents       2 on the whitelist\n"


def test_a_replicated_registry_is_followed_once_its_trigger_is_enabled(connection: Database) -> None:
    connection.execute("alter table agents.users enable replica trigger archisync_user_replicated")
    connection.execute("set session_replication_role = replica")
    connection.execute("insert into agents.users (id, whitelisted) values ('anna', true), ('luca', false)")
    assert active(connection) == ["anna"]
    connection.execute("update agents.users set whitelisted = not whitelisted")
    assert active(connection) == ["luca"]
    connection.execute("update agents.users set id = 'mara' where id = 'luca'")
    assert active(connection) == ["mara"]
    connection.execute("delete from agents.users")
    assert active(connection) == []


def test_the_id_of_the_shared_types_is_taken(cli: Cli, connection: Database) -> None:
    done = cli("agent", "add", "anna", "service-account", "--allow")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: service-account is taken: products and prices are fetched under it\nhint: choose another id\n",
    )
    assert connection.execute("select id from agents.users").fetchall() == []


def test_a_hint_quotes_the_agent_id_for_the_shell(cli: Cli) -> None:
    done = cli("agent", "allow", "x; echo hi")
    assert done.stderr == (
        "error: there is no agent 'x; echo hi'\nhint: archisync agent add 'x; echo hi'   (or: archisync agent list)\n"
    )


def test_an_id_that_is_typed_twice_is_added_once(cli: Cli) -> None:
    assert cli("agent", "add", "anna", "anna").stdout == "anna: added, not on the whitelist\n"
