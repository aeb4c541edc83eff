"""`archisync up`: PostgreSQL, Valkey, workers and a tick each minute, kept running with their data in one folder until Ctrl-C.

A part that ends by itself is started again; the servers keep their addresses, so the workers find them. All parts die with this process,
also when it is killed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from types import FrameType

from archisync import sources
from archisync.actions.settings import set_enabled
from archisync.base.envfile import FILE, FOLDER_VARIABLE, settings_of, write_env_file
from archisync.base.errors import UsageError
from archisync.base.processes import end, start
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.sources.path import has_exports
from archisync.standalone.account import check_reachable, postgres_account
from archisync.standalone.folders import check_folder, make_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import migrations
from archisync.store.audit import Actor
from archisync.store.database import Database, connected

TICK_EVERY_S = 60.0
LOOK_EVERY_S = 0.2
WORKER_RESTART_DELAY_S = 5.0

FIRST_MIGRATION = "0001 archisync"
"""Applied in a new folder only."""

Say = Callable[[str], None]
"""Prints one line for the user."""


class _Stop:
    """Counts the SIGINTs and SIGTERMs. The handler does no more than that, because it may interrupt any line."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def up(say: Say, actor: Actor, folder: Path, *, processes: int) -> None:
    """Run until SIGINT or SIGTERM; a second one ends the workers at once. Settings that the environment lacks are those of the last time,
    which archisync.env in the folder keeps.

    Raises ConfigurationError when ARCHISYNC_SOURCE can't be used or somebody else may change the folder, UsageError when it can't be made,
    and what `Server.start` raises. What can be seen before is raised before anything is made.
    """
    given = {**settings_of(folder, os.environ), **{name: text for name, text in os.environ.items() if text.strip()}}
    config = Config.from_environment(given)
    sources.check_all(config)
    check_folder(folder)
    check_reachable(folder, postgres_account())
    stop = _Stop()
    try:
        make_folder(folder)
    except OSError as exc:
        raise UsageError(
            f"the folder {folder} can't be made: {exc.strerror}", hint="archisync up --folder ~/archisync"
        ) from None
    home = folder.resolve()
    with EmbeddedPostgres(home, durable=True) as postgres, EmbeddedValkey(home, durable=True) as valkey:
        environment = given | {
            "ARCHISYNC_DATABASE_URL": postgres.url,
            "ARCHISYNC_REDIS_URL": valkey.url,
        }
        with connected(postgres.url, purpose="up") as db:
            if migrations.migrate(db, environment)[:1] == [FIRST_MIGRATION]:
                _disable_without_exports(say, db, actor, config)
        settings = folder / FILE
        ours = {n: v for n, v in environment.items() if n.startswith("ARCHISYNC_") and n != FOLDER_VARIABLE}
        write_env_file(
            settings, ours, remark="Written by `archisync up`, which takes from it what its environment lacks."
        )
        say(f"running in {folder}; in other terminals: . {shlex.quote(str(settings))}   (Ctrl-C stops everything)")
        _keep_running(say, stop, environment, servers=(postgres, valkey), processes=processes)


def _disable_without_exports(say: Say, db: Database, actor: Actor, config: Config) -> None:
    """In a new folder, schedule only the types of which there is an export, so that nothing fails that nobody has asked for."""
    without = [t for t in SYNC_TYPES.values() if not has_exports(config.source(t), t.name)]
    if without:
        names = " ".join(type_.name for type_ in without)
        set_enabled(db, actor, without, False, why="there was no export when `archisync up` first ran")
        say(f"not scheduled, for there is no export: {names}   (when there is: archisync enable {names})")


def _keep_running(
    say: Say,
    stop: _Stop,
    environment: Mapping[str, str],
    *,
    servers: Sequence[EmbeddedPostgres | EmbeddedValkey],
    processes: int,
) -> None:
    arguments = ["worker", "--processes", str(processes)]
    worker = _start(arguments, environment)
    next_tick = monotonic()
    try:
        while not stop.count:
            _restart_ended(say, servers)
            if worker.poll() is not None:
                say(f"the workers ended with {worker.returncode} and are started again")
                _pause(stop, WORKER_RESTART_DELAY_S)
                worker = _start(arguments, environment)
            if monotonic() >= next_tick:
                next_tick = monotonic() + TICK_EVERY_S
                _start(["tick"], environment).wait()
            _pause(stop, LOOK_EVERY_S)
        say("stopping: workers finish their current run (Ctrl-C again cuts it off; a tick takes it back)")
        worker.terminate()
        while worker.poll() is None and stop.count == 1:
            _restart_ended(say, servers)
            sleep(LOOK_EVERY_S)
    finally:
        end(worker)


def _restart_ended(say: Say, servers: Sequence[EmbeddedPostgres | EmbeddedValkey]) -> None:
    for server in servers:
        if not server.running:
            say(f"{server.title} ended and is started again (less {shlex.quote(str(server.log))})")
            server.start()


def _pause(stop: _Stop, seconds: float) -> None:
    until = monotonic() + seconds
    while monotonic() < until and not stop.count:
        sleep(LOOK_EVERY_S)


def _start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """One of archisync's own commands. The terminal's Ctrl-C does not reach it, and it dies with this process."""
    return start([sys.executable, "-m", "archisync", *arguments], env=environment)
