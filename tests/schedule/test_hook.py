"""The notification hook: a notice is kept in PostgreSQL until the hook takes it, and the hook gets no secret."""

import html
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from archisync.rules.config import Config
from archisync.schedule import hook
from archisync.schedule.hook import HookError, call_hook
from archisync.schedule.notify import send_notices
from archisync.standalone.folders import temporary_folder
from archisync.store import notices, ticks
from archisync.store.database import Database
from archisync.store.runs import State
from tests.conftest import Cli
from tests.support.queued import AGENT, one_due_pair
from tests.support.rows import end_queued
from tests.support.rows import sync as sync_pair
from tests.support.users import as_other_user, needs_program_of_root, program_of_root


class Receiver(ThreadingHTTPServer):
    """The address of a chat program: it keeps what it gets and answers with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.url = f"http://user:s3cret@127.0.0.1:{self.server_address[1]}/hook/t0ken"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def customers(connection: Database) -> None:
    """Only the customers of one agent are enabled."""
    one_due_pair(connection)


def outcomes(db: Database) -> list[str | None]:
    """How the sending of each notice has ended so far."""
    return [row["outcome"] for row in db.execute("select outcome from system.notices order by id").fetchall()]


def _degrade(db: Database) -> None:
    db.execute(
        "update system.sync_state set consecutive_failures = 3 where sync_type = 'customers' and agent_id = %s", [AGENT]
    )


def test_a_tick_posts_each_notice_once_as_a_document_without_a_secret(
    cli: Cli, connection: Database, receiver: Receiver
) -> None:
    _degrade(connection)
    connection.execute("update system.notices set run_id = 7")
    connection.execute("update system.notices set message = message || ' (postgresql://u:hunter2@db/x)'")
    at = connection.execute("select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') t from system.notices").fetchone()  # fmt: skip # noqa: E501
    assert at is not None
    done = [cli("tick", env={"ARCHISYNC_HOOK": receiver.url}) for _ in range(2)]
    assert [d.returncode for d in done] == [0, 0]
    message = f"customers of {AGENT} failed 3 times in a row (postgresql://u:***@db/x)"
    assert receiver.got == [
        {
            "schema": 1, "id": 1, "event": "degraded", "sync_type": "customers", "agent_id": AGENT, "run_id": 7,
            "at": at["t"], "message": message, "text": "archisync: " + message.replace("://", "[:]//").replace("@", "＠"),
            "error_hint": None, "hint": "archisync show 7",
        }
    ]  # fmt: skip
    assert outcomes(connection) == ["delivered"]
    assert "s3cret" not in done[0].stderr + done[0].stdout
    assert "t0ken" not in done[0].stderr + done[0].stdout


def test_a_refused_notice_is_sent_again_later_and_doctor_shows_it(
    cli: Cli, connection: Database, receiver: Receiver
) -> None:
    _degrade(connection)
    env = {"ARCHISYNC_HOOK": receiver.url}
    receiver.status = 503
    for _ in range(2):  # the second tick comes before the delay is over
        assert cli("tick", env=env).returncode == 0
    assert len(receiver.got) == 1
    assert outcomes(connection) == ["the address answered 503"]
    doctor = cli("doctor", "--only", "notices", env=env)
    assert (doctor.returncode, doctor.stdout.splitlines()[0]) == (
        1,
        f"failed   notices      1 notice could not be delivered, the oldest about customers of {AGENT}: "
        "the address answered 503",
    )
    receiver.status = 204
    connection.execute("update system.notices set next_attempt_at = system.clock()")
    cli("tick", env=env)
    assert [document["id"] for document in receiver.got] == [1, 1]  # the receiver can see that it is the same one
    assert outcomes(connection) == ["delivered"]


def test_a_notice_expires_after_a_day(cli: Cli, connection: Database, receiver: Receiver) -> None:
    _degrade(connection)
    connection.execute("update system.notices set created_at = system.clock() - interval '24 h 1 min'")
    cli("tick", env={"ARCHISYNC_HOOK": receiver.url})
    assert (receiver.got, outcomes(connection)) == ([], ["expired"])


def test_an_unreachable_address_does_not_fail_the_tick(cli: Cli, connection: Database) -> None:
    _degrade(connection)
    done = cli("tick", env={"ARCHISYNC_HOOK": "http://127.0.0.1:9/"})
    assert done.returncode == 0
    assert outcomes(connection) == ["the address can't be reached: ConnectError"]


@pytest.mark.parametrize("address", [f"https://{'a' * 70}.x/", "http://xn--a/", "http://[::1/"])
def test_an_address_that_httpx_refuses_is_a_refused_notice(cli: Cli, connection: Database, address: str) -> None:
    _degrade(connection)
    done = cli("tick", env={"ARCHISYNC_HOOK": address})
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["notice-refused"]
    assert outcomes(connection) == ["the address is not one that can be called"]


def test_a_program_reads_the_document_and_sees_no_setting(cli: Cli, connection: Database, tmp_path: Path) -> None:
    _degrade(connection)
    program = tmp_path / "notify"
    program.write_text('#!/bin/sh\ncat > "$1"\nenv > "$1.env"\n')
    program.chmod(0o755)
    assert cli("tick", env={"ARCHISYNC_HOOK": f"exec:{program} '{tmp_path}/said here'"}).returncode == 0
    assert json.loads((tmp_path / "said here").read_text())["event"] == "degraded"
    assert "ARCHISYNC" not in (tmp_path / "said here.env").read_text()
    assert outcomes(connection) == ["delivered"]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [("exit 3", "the program ended with 3"), ("sleep 60", "the program took longer than 1 s")],
)
def test_a_program_that_fails_or_hangs_gets_the_notice_again_later(
    connection: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, outcome: str
) -> None:
    monkeypatch.setattr(hook, "CALL_TIMEOUT_S", 1.0)
    _degrade(connection)
    program = tmp_path / "notify"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    send_notices(connection, f"exec:{program}", {"PATH": os.environ["PATH"]}, within_s=60)
    assert outcomes(connection) == [outcome]
    assert notices.refused(connection)[0].attempts == 1


def test_a_tick_killed_by_its_hook_has_left_its_heartbeat(cli: Cli, connection: Database, tmp_path: Path) -> None:
    _degrade(connection)
    program = tmp_path / "notify"
    program.write_text("#!/bin/sh\nkill -9 $PPID\n")
    program.chmod(0o755)
    assert cli("tick", env={"ARCHISYNC_HOOK": f"exec:{program}"}).returncode == -9
    assert (beat := ticks.last(connection)) is not None
    assert (beat.due, beat.error) == (1, None)
    assert notices.any_waiting(connection)


@needs_program_of_root
def test_a_hanging_program_that_can_t_be_killed_does_not_hold_up_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "CALL_TIMEOUT_S", 1.0)
    with temporary_folder() as folder:
        pid_file = folder / "pid"
        words = f"exec:{program_of_root(folder, f'echo $$ > {pid_file}; exec sleep 600')}"

        def call() -> None:
            with pytest.raises(HookError, match=r"^the program took longer than 1 s$"):
                call_hook(words, b"{}", {"PATH": os.environ["PATH"]})

        try:
            as_other_user(call)
        finally:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_a_tick_that_dies_during_the_call_leaves_the_notice_for_the_next_tick(connection: Database) -> None:
    _degrade(connection)
    with connection.transaction(force_rollback=True):
        assert notices.lock_next(connection) is not None
    assert notices.any_waiting(connection)


def test_a_notice_written_by_a_clock_years_ahead_is_shown_by_doctor_and_sent_by_the_next_tick(
    cli: Cli, connection: Database, receiver: Receiver
) -> None:
    env = {"ARCHISYNC_HOOK": receiver.url}
    assert cli("tick").returncode == 0  # queues what is due: the next tick finds only the notice
    connection.execute("set archisync.now = '2096-01-01T00:00:00Z'")
    _degrade(connection)
    connection.execute("reset archisync.now")
    doctor = cli("doctor", "--only", "notices", env=env)
    assert (doctor.returncode, doctor.stdout) == (
        0,
        "warning  notices      1 notice dated in the future: was PostgreSQL's clock set back?\n"
        f"{'':<21} hint: archisync tick   (sends them now)\n",
    )
    end_queued(connection)
    connection.execute("delete from system.deliveries")
    cli("tick", env=env)
    assert [(document["id"], document["at"] < "2096") for document in receiver.got] == [(1, True)]
    assert outcomes(connection) == ["delivered"]


@pytest.mark.parametrize(
    ("hook", "error", "hint"),
    [
        ("ftp://x", "ARCHISYNC_HOOK is neither an address nor a program", "https://chat.example/hook   or: exec:/usr/local/bin/notify"),
        ("exec:/no/such", "ARCHISYNC_HOOK names a program that can't be run: /no/such", "ls -l /no/such"),
        ("exec:https://chat.example/key", "ARCHISYNC_HOOK names a program that can't be run", "exec:/usr/local/bin/notify"),
        ("exec:'", "ARCHISYNC_HOOK names no program", "exec:/usr/local/bin/notify"),
    ],
)  # fmt: skip
def test_a_hook_that_can_t_be_called_fails_doctor_and_no_tick(
    cli: Cli, connection: Database, hook: str, error: str, hint: str
) -> None:
    _degrade(connection)
    found = cli("doctor", "--only", "hook", env={"ARCHISYNC_HOOK": hook})
    assert (found.returncode, found.stdout) == (3, f"failed   hook         {error}\n{'':<21} hint: {hint}\n")
    done = cli("tick", env={"ARCHISYNC_HOOK": hook})
    assert done.returncode == 0
    assert json.loads(done.stderr)["event"] == "hook-misconfigured"


def test_without_a_hook_nothing_is_delivered_and_old_notices_are_pruned(cli: Cli, connection: Database) -> None:
    _degrade(connection)
    cli("tick")
    assert outcomes(connection) == [None]
    connection.execute("update system.notices set created_at = system.clock() - interval '31 days'")
    cli("tick")
    assert outcomes(connection) == []


CALLS = (
    "<!channel>", "<!here|x>", "<@U024BE7LH>", "<#C024BE7LR>", "<!subteam^S1>", "<https://evil.example|pay here>",
    "@here", "@channel", "@all",
    "@everyone", "[pay here](https://evil.example)", "![x](https://evil.example/x.png)", "https://evil.example", "www.evil.example",
    "```", "mailto:a@b.example", "&lt;!channel&gt;",
)  # fmt: skip
"""What Slack, Mattermost, Teams and Discord would make a call or a link of."""


@pytest.mark.parametrize("label", CALLS)
def test_a_label_of_an_export_calls_nobody_in_a_chat(
    connection: Database, tmp_path: Path, receiver: Receiver, label: str
) -> None:
    exports = tmp_path / "exports"
    (exports / AGENT).mkdir(parents=True)
    (exports / AGENT / "customers.csv").write_text(f'"{label}",x\n1,2\n', "utf-8")
    config = Config.from_environment(
        {"ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv", "ARCHISYNC_DATABASE_URL": "-"}
    )
    one_due_pair(connection)
    assert sync_pair(connection, config, "customers", AGENT).state == State.HELD
    send_notices(connection, receiver.url, {}, within_s=15)
    [document] = receiver.got
    assert label in document["message"]
    assert not re.search(r"[<>`@]|://|www\.|\]\(|&(?!amp;|lt;|gt;)", document["text"])
    assert html.unescape(document["text"]).startswith(f"archisync: the export of customers of {AGENT} is held: ")
