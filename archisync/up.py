"""`archisync up`: the parts of a small installation kept running in a folder of the user's, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

from archisync import sources
from archisync.config import Config
from archisync.database import connected
from archisync.embedded import embedded_servers
from archisync.errors import UsageError
from archisync.output import Output
from archisync.store import migrations

TICK_EVERY_S = 60.0
STOP_TIMEOUT_S = 120.0


def up(output: Output, config: Config, folder: Path, *, processes: int) -> None:
    """Run until SIGINT or SIGTERM.

    Raises ConfigurationError when the source or the embedded servers are missing, UsageError for a folder that can't be made.
    """
    sources.check_all(config)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(
            f"the folder {folder} can't be made: {exc.strerror}", hint="archisync up --folder ~/archisync"
        ) from None
    with embedded_servers(folder.resolve(), durable=True) as servers:
        urls = {"ARCHISYNC_DATABASE_URL": servers.database_url, "ARCHISYNC_REDIS_URL": servers.redis_url}
        environment = dict(os.environ) | urls
        with connected(servers.database_url, purpose="up") as db:
            migrations.migrate(db, environment)
        _write_environment(folder / "archisync.env", environment)
        output.say(f"running in {folder}; in other terminals: . {folder}/archisync.env   (Ctrl-C stops everything)")
        worker = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "archisync", "worker", "--processes", str(processes)],
            env=environment,
            start_new_session=True,
        )
        try:
            _tick_until(stop, environment)
        finally:
            output.say("stopping: workers finish their current run")
            worker.terminate()
            worker.wait(timeout=STOP_TIMEOUT_S)
            (folder / "archisync.env").unlink(missing_ok=True)


def _tick_until(stop: threading.Event, environment: dict[str, str]) -> None:
    while not stop.is_set():
        subprocess.run(
            [sys.executable, "-m", "archisync", "tick"], env=environment, check=False, start_new_session=True
        )
        stop.wait(TICK_EVERY_S)


def _write_environment(path: Path, environment: dict[str, str]) -> None:
    """A file for `.` in a shell: the variables that other terminals need."""
    names = sorted(name for name in environment if name.startswith("ARCHISYNC_"))
    path.write_text("".join(f"export {name}={shlex.quote(environment[name])}\n" for name in names), "utf-8")
    path.chmod(0o600)
