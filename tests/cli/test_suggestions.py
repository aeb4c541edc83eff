"""A wrong name is answered with the right one: commands, options, sync types, agents."""

import pytest

from archisync.base.errors import ExitCode
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli

TYPES = "orders, customers, products, prices, ddt, invoices"


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("statsu", 2, "error: No such command 'statsu'. Did you mean 'status'?\nhint: archisync --help\n"),
        ("agnet list", 2, "error: No such command 'agnet'. Did you mean 'agent'?\nhint: archisync --help\n"),
        ("agent lsit", 2, "error: No such command 'lsit'. Did you mean 'list'?\nhint: archisync agent --help\n"),
        ("held acept 3", 2, "error: No such command 'acept'. Did you mean 'accept'?\nhint: archisync held --help\n"),
        ("why ordrs anna", 2, f"error: there is no sync type 'ordrs'\nhint: did you mean orders? allowed: {TYPES}\n"),
        ("run invoice", 2, f"error: there is no sync type 'invoice'\nhint: did you mean invoices? allowed: {TYPES}, all\n"),
        ("disable dtt", 2, f"error: there is no sync type 'dtt'\nhint: did you mean ddt? allowed: {TYPES}\n"),
        ("pause --type price", 2, f"error: there is no sync type 'price'\nhint: did you mean prices? allowed: {TYPES}\n"),
    ],
)  # fmt: skip
def test_a_wrong_command_or_type_is_answered_with_the_right_one(cli: Cli, typed: str, code: int, said: str) -> None:
    done = cli(*typed.split())
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize("typed", ["", "run", "agent", "agent add"])
def test_help_is_a_command_too(cli: Cli, typed: str) -> None:
    done, asked = cli("help", *typed.split()), cli(*typed.split(), "--help")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.DONE, asked.stdout, "")
    assert done.stdout.startswith(f"Usage: archisync {typed}".rstrip())


@pytest.mark.parametrize(
    ("typed", "option", "said"),
    [
        ("status --watch --every nan", "--every", "nan is not a number of seconds."),
        ("status --watch --every inf", "--every", "inf is not in the range 0.5<=x<=3600."),
        ("run orders --wait --timeout nan", "--timeout", "nan is not a number of seconds."),
        ("run orders --wait --timeout inf", "--timeout", "inf is not a number of seconds."),
        ("run orders --wait --timeout -1", "--timeout", "-1.0 is not in the range x>=0."),
    ],
)
def test_a_number_of_seconds_that_never_passes_is_refused(cli: Cli, typed: str, option: str, said: str) -> None:
    done = cli(*typed.split())
    command = typed.split()[0]
    assert (done.returncode, done.stderr) == (
        2,
        f"error: Invalid value for '{option}': {said}\nhint: archisync {command} --help\n",
    )


def test_help_for_a_wrong_command_says_so(cli: Cli) -> None:
    done = cli("help", "statsu")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == "error: No such command 'statsu'. Did you mean 'status'?\nhint: archisync --help\n"


def test_a_wrong_option_is_answered_with_those_alike(cli: Cli) -> None:
    done = cli("run", "orders", "--agnet", "anna.bianchi")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr.startswith("error: No such option: --agnet (Possible options: --agent")


@pytest.mark.parametrize(
    "typed",
    [
        "run orders --agent {}", "agent show {}", "agent pause {}", "pause --agent {}", "diff orders --agent {}",
        "clear orders --agent {} --yes", "plan --agent {}", "history --agent {}",
    ],
)  # fmt: skip
def test_a_wrong_agent_is_answered_with_the_right_one(cli: Cli, connection: Database, typed: str) -> None:
    for agent_id in ("anna.bianchi", "luca.ferrari"):
        agents.add(connection, agent_id, name=None, whitelisted=True)
    done = cli(*typed.format("ana.bianchi").split())
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert done.stderr == (
        "error: there is no agent 'ana.bianchi'\nhint: did you mean anna.bianchi? archisync agent list\n"
    )
    unlike = cli(*typed.format("zzz").split())
    assert unlike.stderr == "error: there is no agent 'zzz'\nhint: archisync agent list\n"


def test_allowing_a_wrong_agent_is_answered_with_the_right_one_and_how_to_add_it(
    cli: Cli, connection: Database
) -> None:
    agents.add(connection, "anna.bianchi", name=None, whitelisted=False)
    done = cli("agent", "allow", "anna.bianci")
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert done.stderr == (
        "error: there is no agent 'anna.bianci'\n"
        "hint: did you mean anna.bianchi? archisync agent add anna.bianci   (or: archisync agent list)\n"
    )


def test_why_of_a_wrong_agent_names_the_right_one(cli: Cli, connection: Database) -> None:
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    done = cli("why", "orders", "anna.bianki")
    assert done.returncode == ExitCode.NOT_FOUND
    assert "note: did you mean anna.bianchi?\n" in done.stdout
    assert "did you mean" not in cli("why", "orders", "zzz").stdout


def test_in_a_large_registry_those_that_begin_alike_are_looked_at(connection: Database) -> None:
    connection.execute(
        "insert into agents.users (id) select 'agent' || n from generate_series(1, %s) n", [agents.LOOKED_AT]
    )
    connection.execute("insert into agents.users (id) values ('mario.rossi')")
    assert agents.alike(connection, "mario.rosi") == "mario.rossi"
    assert agents.alike(connection, "mraio.rossi") == "mario.rossi"
    assert agents.alike(connection, "xario.rossi") is None
