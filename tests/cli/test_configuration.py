"""Missing and wrong settings: the message names the variable, never its value, and the hint says what to type."""

import pytest

from archisync.base.errors import ExitCode
from archisync.rules.config import Config
from tests.conftest import Cli
from tests.support.said import as_text


@pytest.mark.parametrize("name", ["ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL"])
def test_a_missing_setting_exits_3_with_a_hint(cli: Cli, name: str) -> None:
    done = cli("tick", env={name: ""})
    assert done.returncode == ExitCode.CONFIGURATION
    assert as_text(done.stderr).startswith(f"error: {name} is not set\nhint: export {name}=")


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("user:pw@host:6379/0", "can't be read as a Redis URL", "it begins with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://"),  # noqa: E501
        ("redis://:p/w@host", "has a /, ? or # before its @", "in a password, write %2F for /, %3F for ?, %23 for # and %40 for @"),
    ],
)  # fmt: skip
def test_a_wrong_redis_url_is_refused_without_showing_it(cli: Cli, url: str, message: str, hint: str) -> None:
    done = cli("tick", env={"ARCHISYNC_REDIS_URL": url})
    assert (done.returncode, as_text(done.stderr)) == (3, f"error: ARCHISYNC_REDIS_URL {message}\nhint: {hint}\n")


@pytest.mark.parametrize(
    "url",
    ["redis://user:p@ss@{}/0", "redis://{}/0?password=a@b", "redis://{}/0?username=u&password=a/@b", "redis://{}/0#x"],
)
def test_a_redis_url_may_have_an_at_sign_in_its_password(url: str) -> None:
    wanted = url.format("127.0.0.1:1")
    assert Config.from_environment({"ARCHISYNC_REDIS_URL": wanted}).redis_url == wanted


def test_a_missing_schema_exits_3_and_names_the_command(cli: Cli, empty_database_url: str) -> None:
    done = cli("status", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert (done.returncode, done.stderr) == (
        ExitCode.CONFIGURATION,
        'error: the database schema is missing or not current: relation "system.ticks" does not exist\n'
        "hint: archisync db migrate   (if it has nothing to do: archisync doctor --only schema --only tables)\n",
    )
