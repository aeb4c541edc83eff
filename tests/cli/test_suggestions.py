"""A wrong name is answered with the right one: commands, options, sync types, agents."""

import pytest

from archisync.base.errors import ExitCode
from archisync.store import agents
from archisync.store.database import Database
from tests.cli.conftest import Typed
from tests.conftest import Cli

TYPES = "orders, customers, products, prices, ddt, invoices"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("statsu", "error: No such command 'statsu'. Did you mean 'status'?\nhint: archisync --help\n"),
        ("agnet list", "error: No such command 'agnet'. Did you mean 'agent'?\nhint: archisync --help\n"),
        ("agent lsit", "error: No such command 'lsit'. Did you mean 'list'?\nhint: archisync agent --help\n"),
        ("held acept 3", "error: No such command 'acept'. Did you mean 'accept'?\nhint: archisync held --help\n"),
        ("why ordrs anna", f"error: there is no sync type 'ordrs'\nhint: did you mean orders? allowed: {TYPES}\n"),
        ("run invoice", f"error: there is no sync type 'invoice'\nhint: did you mean invoices? allowed: {TYPES}, all\n"),
        ("disable dtt", f"error: there is no sync type 'dtt'\nhint: did you mean ddt? allowed: {TYPES}\n"),
    ],
)  # fmt: skip
def test_a_wrong_command_or_type_is_answered_with_the_right_one(typed: Typed, words: str, said: str) -> None:
    assert typed(*words.split()) == (ExitCode.USAGE, "", said)


@pytest.mark.parametrize("words", ["", "run", "agent", "agent add"])
def test_help_is_a_command_too(typed: Typed, words: str) -> None:
    code, help_text, said = typed("help", *words.split())
    assert (code, said) == (ExitCode.DONE, "")
    assert typed(*words.split(), "--help") == (ExitCode.DONE, help_text, "")
    assert help_text.startswith(f"Usage: archisync {words}".rstrip())


@pytest.mark.parametrize(
    ("words", "option", "said"),
    [
        ("status --watch --every nan", "--every", "nan is not a number of seconds."),
        ("status --watch --every inf", "--every", "inf is not in the range 0.5<=x<=3600."),
        ("run orders --wait --timeout nan", "--timeout", "nan is not a number of seconds."),
        ("run orders --wait --timeout inf", "--timeout", "inf is not a number of seconds."),
        ("run orders --wait --timeout -1", "--timeout", "-1.0 is not in the range x>=0."),
    ],
)
def test_a_number_of_seconds_without_an_end_is_refused(typed: Typed, words: str, option: str, said: str) -> None:
    assert typed(*words.split()) == (
        ExitCode.USAGE,
        "",
        f"error: Invalid value for '{option}': {said}\nhint: archisync {words.split()[0]} --help\n",
    )


def test_help_for_a_wrong_command_says_so(typed: Typed) -> None:
    said = "error: No such command 'statsu'. Did you mean 'status'?\nhint: archisync --help\n"
    assert typed("help", "statsu") == (ExitCode.USAGE, "", said)


def test_a_wrong_option_is_answered_with_similar_ones(typed: Typed) -> None:
    code, out, said = typed("run", "orders", "--agnet", "anna.bianchi")
    assert (code, out) == (ExitCode.USAGE, "")
    assert said.startswith("error: No such option: --agnet (Possible options: --agent")


@pytest.mark.parametrize(
    "words",
    [
        "run orders --agent {}", "agent show {}", "agent pause {}", "pause --agent {}", "diff orders --agent {}",
        "clear orders --agent {} --yes", "plan --agent {}", "history --agent {}",
    ],
)  # fmt: skip
def test_a_wrong_agent_is_answered_with_the_right_one(cli: Cli, connection: Database, words: str) -> None:
    for agent_id in ("anna.bianchi", "luca.ferrari"):
        agents.add(connection, agent_id, name=None, whitelisted=True)
    done = cli(*words.format("ana.bianchi").split())
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert done.stderr == (
        "error: there is no agent 'ana.bianchi'\nhint: did you mean anna.bianchi? archisync agent list\n"
    )
    unlike = cli(*words.format("zzz").split())
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


def test_in_a_large_registry_only_ids_with_the_same_beginning_are_compared(connection: Database) -> None:
    connection.execute(
        "insert into agents.users (id) select 'agent' || n from generate_series(1, %s) n", [agents.LOOKED_AT]
    )
    connection.execute("insert into agents.users (id) values ('mario.rossi')")
    assert agents.alike(connection, "mario.rosi") == "mario.rossi"
    assert agents.alike(connection, "mraio.rossi") == "mario.rossi"
    assert agents.alike(connection, "xario.rossi") is None
