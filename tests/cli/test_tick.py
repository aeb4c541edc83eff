"""`tick` from the command line, with and without typer."""

import re

import pytest

from archisync.store.database import Database
from tests.cli.rows import AT_NOON
from tests.conftest import Cli
from tests.support.said import as_text


@pytest.mark.parametrize("words", [["tick"], ["tick", "--json"]])
def test_a_tick_prints_the_same_with_and_without_typer(cli: Cli, words: list[str]) -> None:
    """--quiet is an option of typer's, so that a tick with it goes the long way."""
    cli("tick")
    quickly, by_typer = cli(*words), cli("--quiet", *words)
    shown = [
        re.sub(r"[0-9]+(?= ms)|(?<=duration_ms\": )[0-9]+|(?<=time\": )\"[^\"]+", "…", done.stdout)
        for done in (quickly, by_typer)
    ]
    assert shown[0] == shown[1] != ""
    unset = {"ARCHISYNC_REDIS_URL": ""}
    refused = [cli(*start, *words, env=unset) for start in ([], ["--quiet"])]
    assert [(done.returncode, as_text(done.stderr)) for done in refused] == [(3, as_text(refused[0].stderr))] * 2
    assert as_text(refused[0].stderr).startswith("error: ARCHISYNC_REDIS_URL is not set\n")


def test_a_dry_run_prints_each_decision_and_writes_nothing(cli: Cli, noon: Database) -> None:
    cli("disable", "ddt")
    done = cli("tick", "--dry-run", env=AT_NOON)
    assert done.returncode == 0
    assert "type-disabled  ddt        anna                     the type ddt is disabled\n" in done.stdout
    assert as_text(done.stderr) == "due: 5 of 6 pairs; nothing was written (dry run)\n"
    assert noon.execute("select count(*) as n from system.runs").fetchone() == {"n": 0}
