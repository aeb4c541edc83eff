"""The table of settings: each setting is read from the variables that it names, and its default is one that it accepts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archisync.base.errors import ConfigurationError
from archisync.rules.config import SETTINGS, Config, variable_names
from archisync.rules.settings import Setting, TypeSetting
from tests.support.builtintypes import DDT, ORDERS, PRICES

REQUIRED = {
    "ARCHISYNC_DATABASE_URL": "postgresql://host/db",
    "ARCHISYNC_REDIS_URL": "redis://host/0",
    "ARCHISYNC_SOURCE": "/srv/{agent}/{type}.csv",
}


def test_no_variable_belongs_to_two_settings() -> None:
    names = variable_names()
    assert len(names) == len(set(names))
    assert {name for setting in SETTINGS for name in setting.variables()} == set(names)


def test_every_default_is_accepted_and_only_three_settings_have_none() -> None:
    assert [str(problem) for setting in SETTINGS for problem in setting.problems(REQUIRED)] == []
    assert {setting.name for setting in SETTINGS if setting.example} == set(REQUIRED)
    Config(environment=REQUIRED).require_all()


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_variable_is_an_error_that_says_how_to_set_it(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Config(environment=REQUIRED | {name: " "}).require_all()
    assert raised.value.message == f"{name} is not set"
    assert raised.value.hint.startswith(f"export {name}=")


@pytest.mark.parametrize("setting", [s for s in SETTINGS if isinstance(s, Setting) and s.default.isdigit()])
def test_number_out_of_bounds_is_an_error_that_names_the_variable_and_the_bounds(setting: Setting[int]) -> None:
    for text in ("soon", "-1", "1.5", "9" * 16):
        [problem] = setting.problems({setting.name: text})
        assert problem.message == f"{setting.name} is {text!r}"
        low, high = problem.hint.removeprefix("a whole number from ").split(" to ")
        assert [setting.read({setting.name: bound}) for bound in (low, high)] == [int(low), int(high)]
        assert list(setting.problems({setting.name: str(int(high) + 1)}))


@pytest.mark.parametrize(
    "name",
    [s.name for s in SETTINGS if isinstance(s, Setting) and s.default.isdigit()],
)
def test_a_wrong_number_is_seen_when_a_worker_starts_and_not_in_its_runs(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'abc'"):
        Config(environment=REQUIRED | {name: "abc"}).require_all()


def test_setting_of_a_type_holds_for_that_type_and_the_common_one_for_the_others() -> None:
    config = Config(environment={"ARCHISYNC_CSV_DELIMITER": "PIPE", "ARCHISYNC_CSV_DELIMITER_DDT": " tab "})
    assert (config.csv_delimiter(DDT), config.csv_delimiter(ORDERS)) == ("\t", "|")
    assert Config(environment={}).csv_delimiter(DDT) is None


def test_wrong_setting_of_one_type_is_one_problem_that_names_its_variable() -> None:
    [problem] = Config.locale.problems({"ARCHISYNC_LOCALE_DDT": "de"})
    assert (problem.message, problem.hint) == ("ARCHISYNC_LOCALE_DDT is 'de'", "allowed: iso, it")


def test_setting_without_a_common_variable_is_read_from_the_variables_of_the_types_only() -> None:
    assert isinstance(Config.seed_interval, TypeSetting)
    assert "ARCHISYNC_INTERVAL" not in variable_names()
    config = Config(environment={"ARCHISYNC_INTERVAL": "7", "ARCHISYNC_INTERVAL_DDT": "8"})
    assert (config.seed_interval(DDT), config.seed_interval(PRICES)) == (8, PRICES.default_interval_minutes)


def test_configuration_is_shown_without_its_values() -> None:
    assert repr(Config(environment=REQUIRED)) == "Config(…)"


def test_a_machine_without_time_zone_files_says_how_to_get_them(tmp_path: Path) -> None:
    """As in a small container image."""
    code = "from archisync.rules.config import Config; Config.from_environment({}).zone"
    nowhere = {**os.environ, "PYTHONTZPATH": str(tmp_path)}
    hide = "import sys; sys.modules['tzdata'] = None; "
    done = subprocess.run([sys.executable, "-c", hide + code], env=nowhere, capture_output=True, text=True, check=False)
    assert "there is no time zone 'Europe/Rome' (ARCHISYNC_TIMEZONE)" in done.stderr
    hint = "from archisync.rules import zones; print(zones.hint())"
    done = subprocess.run([sys.executable, "-c", hide + hint], env=nowhere, capture_output=True, text=True, check=True)
    assert done.stdout == "this machine has no time zone files: apt install tzdata, or pip install tzdata\n"
