"""README and guides are compared with the code: commands, settings, exit codes, snippets, and the tests that promises name."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from archisync.base.envfile import FOLDER_VARIABLE
from archisync.base.errors import EXIT_CODE_MEANING
from archisync.cli.root import SECTIONS, root_command
from archisync.rules.config import SETTINGS, variable_names

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
GUIDES = sorted((REPOSITORY / "examples/guides").glob("*.md"))
LONGEST_README_WORDS = 2000
PROMISES = REPOSITORY / "examples/guides/promises.md"


def commands(group: Any, prefix: str = "archisync") -> list[tuple[str, str]]:
    """(words, help) of every command that a person can type."""
    found: list[tuple[str, str]] = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                found.append((f"{prefix} {name}", command.help or ""))
            found += commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command.help or ""))
    return found


COMMANDS = commands(typer.main.get_command(root_command()))


@pytest.mark.parametrize(("words", "text"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_the_readme_has_each_command_with_the_first_sentence_of_its_help(words: str, text: str) -> None:
    first = re.split(r"(?<=[.]) ", " ".join(text.split("\n\n")[0].split()))[0]
    assert f"\n* `{words.removeprefix('archisync ')}`: {first}\n" in README
    assert "Example" in text


def test_each_command_that_the_readme_names_exists() -> None:
    listed = re.findall(r"^\* `([a-z -]+)`: ", README, re.M)
    assert sorted(f"archisync {words}" for words in listed) == sorted(words for words, _ in COMMANDS)
    sections = re.findall(r"^\*\*(\w+)\*\*$", README, re.M)
    assert sections == list(SECTIONS)
    known = {words.split()[1] for words, _ in COMMANDS}
    typed = set(re.findall(r"^\s*\$? ?archisync ([a-z]+)", README, re.M))
    assert typed
    assert typed <= known


def test_the_table_of_settings_matches_the_code() -> None:
    settings = (REPOSITORY / "examples/guides/settings.md").read_text("utf-8")
    found = re.findall(r"^\| `(ARCHISYNC_[^`]+)` \| ([^|]+) \| ([^|]+) \|$", settings, re.M)
    assert found == [(s.shown_name, "(required)" if s.example else s.default or "-", s.meaning) for s in SETTINGS]


def test_the_readme_names_what_must_be_set_and_no_setting_that_there_is_not() -> None:
    section = README.split("\n## Settings\n")[1]
    assert [s.name for s in SETTINGS if s.example] == re.findall(
        r"`(ARCHISYNC_[A-Z_]+)`", section.split("[All others]")[0]
    )
    assert set(re.findall(r"ARCHISYNC_[A-Z_]+", README)) <= {*variable_names(), FOLDER_VARIABLE}


def test_the_readme_is_short_and_has_its_sections_in_order() -> None:
    assert len(README.split()) <= LONGEST_README_WORDS
    assert re.findall(r"^## (.+)$", README, re.M) == [
        "See it", "First sync", "On a schedule", "Install", "What it promises", "Commands", "Exit codes", "Settings", "License",
    ]  # fmt: skip


def test_each_extra_is_named() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    install = README.split("\n## Install\n")[1].split("\n## ")[0]
    assert set(re.findall(r"`([a-z]+)`", install)) - {"demo", "up"} == set(extras) - {"dev", "bench"}


def test_the_table_of_exit_codes_matches_the_code() -> None:
    found = re.findall(r"^\| (\d+) \| ([^|]+) \|$", README, re.M)
    assert [(int(code), meaning) for code, meaning in found] == [(c.value, m) for c, m in EXIT_CODE_MEANING.items()]


@pytest.mark.parametrize("document", [REPOSITORY / "README.md", *GUIDES], ids=lambda path: path.stem)
def test_each_test_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_[a-z_0-9]+)`", text)
    assert [name for name in named if f"def {name}(" not in sources] == []
    paths = re.findall(r"\b(tests/[\w/.]+)", text)
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_each_promise_names_a_test() -> None:
    rows = re.findall(r"^\| (?!promise|what was broken)(.+) \|$", PROMISES.read_text("utf-8"), re.M)
    assert len(rows) == 29
    assert [row for row in rows if not re.search(r"`test_\w+`|`tests/[\w/]+\.py`", row)] == []


def test_the_crontab_and_cronjob_snippets_match_the_examples() -> None:
    assert re.search(r"^\* \* \* \* \* archisync tick", (REPOSITORY / "examples/crontab").read_text("utf-8"), re.M)
    cronjob = (REPOSITORY / "examples/kubernetes/cronjob.yaml").read_text("utf-8")
    assert 'schedule: "* * * * *"' in cronjob
    assert "concurrencyPolicy: Forbid" in cronjob
