"""What both embedded servers promise: private, restartable, one owner of a folder, gone when their parent is."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from archisync.base.errors import BusyError, ConfigurationError, UnreachableError
from archisync.standalone import folders, server
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from tests.conftest import REPOSITORY
from tests.support.processes import wait_until_gone

PARENT = """
import sys
from pathlib import Path
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as p, EmbeddedValkey(Path(sys.argv[1]), durable=False) as v:
    print(p.pid, v.pid, flush=True)
    sys.stdin.read()
"""
Embedded = type[EmbeddedPostgres] | type[EmbeddedValkey]


def test_both_servers_answer_on_private_sockets_only(
    session_postgres: EmbeddedPostgres, session_valkey: EmbeddedValkey
) -> None:
    assert session_postgres.url.startswith("postgresql://postgres@/archisync?host=/")
    assert session_postgres.url.endswith("&port=5432")
    assert session_valkey.url.startswith("unix:///")
    assert session_valkey.url.endswith("/valkey?db=0")
    with psycopg.connect(session_postgres.url) as connection:
        names = ("listen_addresses", "unix_socket_directories")
        (addresses,), (sockets,) = (connection.execute(f"show {name}".encode()).fetchone() or () for name in names)
    assert addresses == ""
    with redis.Redis.from_url(session_valkey.url, decode_responses=True) as client:
        assert client.config_get("port", "bind") == {"port": "0", "bind": "* -::*"}
        socket = Path(client.config_get("unixsocket")["unixsocket"])
    assert [stat.S_IMODE(f.stat().st_mode) for f in (Path(sockets), socket.parent, socket)] == [0o700, 0o700, 0o700]


@pytest.mark.parametrize("name", ["session_postgres", "session_valkey"])
def test_start_does_nothing_while_the_server_runs(name: str, request: pytest.FixtureRequest) -> None:
    running = request.getfixturevalue(name)
    pid = running.pid
    running.start()
    assert running.pid == pid


@pytest.mark.parametrize("name", ["session_postgres", "session_valkey"])
def test_a_folder_has_one_owner(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    running = request.getfixturevalue(name)
    monkeypatch.setattr(folders, "BUSY_TIMEOUT_S", 0.05)
    with pytest.raises(BusyError) as caught:
        type(running)(running.folder, durable=False).start()
    assert caught.value.message == f"the embedded {running.title} in {running.folder} is already running"
    assert caught.value.hint == f"fuser -v {running.folder}/{running.name}.lock"


def test_servers_die_with_a_parent_that_was_killed_and_can_be_started_again(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
        assert len(pids) == 2
        for pid in pids:
            wait_until_gone(pid)
    sockets = [folder / f"{name}.run" for name in ("postgres", "valkey")]
    assert all(path.exists() for path in sockets)
    with EmbeddedPostgres(folder, durable=False) as postgres, EmbeddedValkey(folder, durable=False):
        psycopg.connect(postgres.url).close()
    assert not any(path.exists() for path in sockets)


def test_a_terminals_ctrl_c_does_not_reach_the_servers(
    session_postgres: EmbeddedPostgres, session_valkey: EmbeddedValkey
) -> None:
    for pid in (session_postgres.pid, session_valkey.pid):
        assert os.getsid(pid) == pid


def test_a_server_inherits_no_variable_of_its_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_PASSWORD", "swordfish")
    program = folder / "environment"
    program.write_text("#!/bin/sh\nenv\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("archisync.standalone.valkey.valkey_binary", lambda: program)
    with pytest.raises(UnreachableError):
        EmbeddedValkey(folder, durable=False).start()
    lines = (folder / "valkey.log").read_text().splitlines()
    assert {line.partition("=")[0] for line in lines} <= {"PATH", "LC_ALL", "TZ", "PWD", "OLDPWD", "SHLVL", "_"}


def test_a_failed_start_shows_what_the_server_wrote_and_leaves_nothing_running(folder: Path) -> None:
    failing = EmbeddedPostgres(folder, durable=False, settings={"shared_buffers": "a lot"})
    with pytest.raises(UnreachableError) as caught:
        failing.start()
    assert caught.value.message.startswith("the embedded PostgreSQL ended while starting; it said:\n")
    assert 'invalid value for parameter "shared_buffers": "a lot"' in caught.value.message
    assert caught.value.hint == f"less {folder}/postgres.log"
    with pytest.raises(RuntimeError, match="was not started"):
        _ = failing.pid
    assert not (folder / "postgres.run").exists()


def test_a_server_that_never_answers_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(EmbeddedValkey, "_answers", lambda _: False)
    silent = EmbeddedValkey(folder, durable=False)
    with pytest.raises(UnreachableError, match=r"^the embedded Valkey did not answer within 0 s"):
        silent.start()
    monkeypatch.undo()
    with silent:
        assert silent.url


@pytest.mark.parametrize("embedded", [EmbeddedPostgres, EmbeddedValkey])
def test_a_missing_wheel_is_an_error_with_the_command_to_type(
    folder: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ConfigurationError) as caught:
        embedded(folder, durable=False).start()
    assert caught.value.message == "the embedded servers are not installed"
    assert caught.value.hint == "pip install 'archisync[embedded]'"


def test_a_missing_folder_is_made_and_nobody_else_may_read_it(folder: Path, session_postgres: EmbeddedPostgres) -> None:
    with EmbeddedValkey(folder / "new" / "data", durable=False) as valkey:
        assert stat.S_IMODE(valkey.folder.stat().st_mode) & 0o066 == 0
        assert stat.S_IMODE((valkey.folder / "valkey").stat().st_mode) == 0o700
        assert stat.S_IMODE(valkey.log.stat().st_mode) == 0o600
    assert stat.S_IMODE((session_postgres.folder / "postgres").stat().st_mode) == 0o700
