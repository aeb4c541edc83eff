"""The README can't rot: its commands, settings, exit codes, promises and snippets are compared with the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from archisync.base.errors import EXIT_CODE_MEANING
from archisync.cli.main import root
from archisync.rules.config import SETTINGS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")


def commands(group: Any, prefix: str = "archisync") -> list[tuple[str, str]]:
    """(words, help) of every command that a person can type."""
    found: list[tuple[str, str]] = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command.help or ""))
    return found


COMMANDS = commands(typer.main.get_command(root()))


@pytest.mark.parametrize(("words", "text"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_each_command_is_in_the_readme_as_its_help_tells_it(words: str, text: str) -> None:
    first = " ".join(text.split("\n\n")[0].split())
    assert f"| `{words}` | {first} |" in README
    assert "Example" in text


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    table = set(re.findall(r"^\| `(archisync [a-z -]+)` \|", README, re.M))
    assert table == {words for words, _ in COMMANDS}
    known = {words.split()[1] for words, _ in COMMANDS}
    typed = set(re.findall(r"^\s*\$? ?archisync ([a-z]+)", README, re.M))
    assert typed
    assert typed <= known


def test_the_table_of_settings_is_the_code_s() -> None:
    found = re.findall(r"^\| `(ARCHISYNC_[^`]+)` \| ([^|]+) \| ([^|]+) \|$", README, re.M)
    assert found == [(s.shown_name, "(required)" if s.example else s.default or "-", s.meaning) for s in SETTINGS]


def test_the_table_of_exit_codes_is_the_code_s() -> None:
    found = re.findall(r"^\| (\d+) \| ([^|]+) \|$", README, re.M)
    assert [(int(code), meaning) for code, meaning in found] == [(c.value, m) for c, m in EXIT_CODE_MEANING.items()]


def test_each_promise_names_a_test_that_exists() -> None:
    sources = "".join(path.read_text("utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_[a-z_0-9]+)`", README)
    assert names
    assert [name for name in names if f"def {name}(" not in sources] == []
    assert [p for p in re.findall(r"`(tests/[^`]*)`", README) if not (REPOSITORY / p).exists()] == []


def test_the_crontab_and_cronjob_snippets_are_those_of_the_examples() -> None:
    assert re.search(r"^\* \* \* \* \* archisync tick", (REPOSITORY / "examples/crontab").read_text("utf-8"), re.M)
    cronjob = (REPOSITORY / "examples/kubernetes/cronjob.yaml").read_text("utf-8")
    assert 'schedule: "* * * * *"' in cronjob
    assert "concurrencyPolicy: Forbid" in cronjob
