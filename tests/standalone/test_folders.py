"""The folder of the embedded servers is one that nobody else can have prepared, and nobody else connects to them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from archisync.base.errors import ConfigurationError, ExitCode
from archisync.standalone.folders import HINT_FOLDER, make_folder, make_temporary
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from tests.conftest import Cli
from tests.support.said import as_text
from tests.support.users import as_other_user

NOBODY = 65534
CLOSED = 0o711 if os.geteuid() == 0 else 0o700
as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can prepare a folder of somebody else")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077], ids=oct)
def test_a_new_folder_is_closed_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_folder(folder / "data")
    finally:
        os.umask(before)
    assert mode(folder / "data") == CLOSED


@pytest.mark.parametrize(("permissions", "content"), [(0o755, True), (0o700, True), (0o775, False), (0o777, False)])
def test_a_folder_of_ours_that_nobody_else_can_have_changed_is_closed(
    folder: Path, permissions: int, *, content: bool
) -> None:
    data = folder / "data"
    data.mkdir()
    if content:
        (data / "notes").write_text("x")
    data.chmod(permissions)
    make_folder(data)
    assert mode(data) == CLOSED


def of_somebody_else(data: Path) -> str:
    os.chown(data, NOBODY, NOBODY)
    return f"{data} belongs to nobody, not to root"


def writable_for_a_group(data: Path) -> str:
    data.chmod(0o770)
    return f"others may write to {data}"


def writable_for_everybody(data: Path) -> str:
    data.chmod(0o1777)
    return f"others may write to {data}"


def in_a_folder_of_somebody_else(data: Path) -> str:
    os.chown(data.parent, NOBODY, NOBODY)
    return f"{data.parent} belongs to nobody, who may put another folder in its place"


def in_a_folder_that_everybody_may_write_to(data: Path) -> str:
    data.parent.chmod(0o777)
    return f"others may write to {data.parent}"


def in_a_folder_of_a_group(data: Path) -> str:
    data.parent.chmod(0o770)
    os.chown(data.parent, 0, 50)
    return f"others may write to {data.parent}"


def with_a_link(data: Path) -> str:
    note = data / "valkey.sockets"
    note.unlink()
    note.symlink_to(data.parent / "victim")
    return f"{note} is a link, or somebody else's"


def with_a_file_of_somebody_else(data: Path) -> str:
    os.chown(data / "valkey.sockets", 1234, 1234)
    return f"{data / 'valkey.sockets'} is a link, or somebody else's"


PREPARED = (
    of_somebody_else, writable_for_a_group, writable_for_everybody, in_a_folder_of_somebody_else, with_a_link,
    in_a_folder_that_everybody_may_write_to, in_a_folder_of_a_group, with_a_file_of_somebody_else,
)  # fmt: skip


@as_root_only
@pytest.mark.parametrize("prepare", PREPARED)
def test_a_folder_that_somebody_else_may_have_prepared_is_refused_and_nothing_is_touched(
    cli: Cli, folder: Path, prepare: Callable[[Path], str]
) -> None:
    data, victim = folder / "shared" / "data", folder / "shared" / "victim"
    data.mkdir(parents=True)
    left = folder / "archisync-left"
    left.mkdir()
    victim.write_text(str(left))
    (data / "valkey.sockets").write_text(str(left))
    said = prepare(data)
    before = mode(data)
    for server in (EmbeddedPostgres(data, durable=False), EmbeddedValkey(data, durable=False)):
        with pytest.raises(ConfigurationError) as caught:
            server.start()
        assert (caught.value.message, caught.value.hint) == (
            f"the embedded servers don't use {data}: {said}",
            HINT_FOLDER,
        )
    up = cli("up", "--folder", str(data))
    assert (up.returncode, as_text(up.stderr)) == (
        ExitCode.CONFIGURATION,
        f"error: the embedded servers don't use {data}: {said}\nhint: {HINT_FOLDER}\n",
    )
    assert (mode(data), victim.read_text(), left.exists()) == (before, str(left), True)
    assert sorted(path.name for path in data.iterdir()) == ["valkey.sockets"]


@as_root_only
def test_one_s_own_group_is_nobody_else(folder: Path) -> None:
    folder.chmod(0o771)
    make_folder(folder / "data")


@pytest.mark.parametrize(("permissions", "taken"), [(0o1777, True), (0o777, False)])
def test_a_temporary_folder_is_made_where_nobody_can_take_its_place(
    folder: Path, permissions: int, *, taken: bool
) -> None:
    folder.chmod(permissions)
    made = make_temporary(None, inside=folder)
    made.rmdir()
    assert (made.parent == folder) is taken


@as_root_only
def test_a_note_does_not_remove_a_folder_of_somebody_else(folder: Path) -> None:
    left = folder / "archisync-of-somebody"
    left.mkdir()
    os.chown(left, 1234, 1234)
    deep = folder / ("d" * 90)  # too long for a socket
    deep.mkdir()
    (deep / "valkey.sockets").write_text(str(left))
    with EmbeddedValkey(deep, durable=False) as valkey:
        assert left.exists()
        assert str(left) not in valkey.url


@as_root_only
def test_a_place_that_somebody_took_meanwhile_is_not_used(folder: Path) -> None:
    deep = folder / ("d" * 90)
    with EmbeddedValkey(deep, durable=False):
        noted = Path((deep / "valkey.sockets").read_text())
    assert not noted.exists()
    noted.mkdir()
    os.chown(noted, 1234, 1234)
    with EmbeddedValkey(deep, durable=False) as valkey:
        assert str(noted) not in valkey.url
        assert noted.exists()
    noted.rmdir()


@as_root_only
def test_a_process_of_the_account_that_postgresql_runs_as_may_not_connect(session_postgres: EmbeddedPostgres) -> None:
    def connect() -> None:
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            psycopg.connect(session_postgres.url)

    as_other_user(connect)


def test_a_folder_made_before_is_asked_for_the_kernel_s_word_too(folder: Path) -> None:
    """Its own pg_hba.conf trusted everybody."""
    with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    (folder / "postgres.hba").unlink()
    with EmbeddedPostgres(folder, durable=False) as server, psycopg.connect(server.url) as db:
        rows = db.execute("select auth_method from pg_hba_file_rules").fetchall()
    assert rows == [("peer",)]
