"""`archisync demo`: the whole path on this machine in one screen. A line that begins with $ is a real command, and its output follows.

PostgreSQL and Valkey run in a temporary folder with the sample agents and exports; a tick queues every sync and two workers do them. Then a
changed row, a vanished row and an export that is cut to a third are forced through the queue. At the end everything is stopped and removed.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from archisync.base.errors import ArchisyncError, ExitCode
from archisync.base.processes import end, start
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey

AGENT = "anna.bianchi"
COMMAND = (sys.executable, "-m", "archisync")
COMMAND_TIMEOUT_S = 120.0
_FRESH = "type,health,minutes,agents,held,last_success,next_due"
SAMPLES = Path(__file__).with_name("samples")
"""`agents.csv`, and `exports/{agent}/{type}.csv`."""

Show = Callable[[str], None]
"""Prints one line for the user."""


class Demo:
    """One run of the demo in `folder`, which holds a copy of SAMPLES."""

    def __init__(self, show: Show, folder: Path, environment: Mapping[str, str]) -> None:
        self._show = show
        self._exports = folder / "exports"
        self._environment = dict(environment)

    def run(self) -> None:
        started = monotonic()
        self._first_round()
        self._change_exports()
        self._second_round()
        self._show(f"Done in {monotonic() - started:.0f} s; the servers stop now and nothing is left behind.")

    def _first_round(self) -> None:
        self._say("A fresh PostgreSQL and Valkey are running. Make the schema, register three agents:")
        self._type("db", "migrate")
        with (self._exports.parent / "agents.csv").open(newline="", encoding="utf-8") as file:
            ids = [row["id"] for row in csv.DictReader(file) if row["whitelisted"] == "true"]
        self._type("agent", "add", *ids, "--allow")
        self._say("What cron does each minute, and two workers until the queue is empty:")
        self._type("tick")
        self._type("worker", "--processes", "2", "--burst", quiet=True)
        self._type(
            "status", "--columns", _FRESH, ARCHISYNC_REDIS_URL=""
        )  # the workers have ended: it would warn of that

    def _change_exports(self) -> None:
        self._say(f"Now the ERP of {AGENT} changes: customers gets a new phone number in one row and loses")
        self._say("another row; the export of orders is cut to a third (a broken filter, say).", gap=False)
        customers = self._exports / AGENT / "customers.csv"
        with customers.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        rows[1][rows[0].index("phone")] = "+39 02 000 9999"
        del rows[2]
        with customers.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        orders = self._exports / AGENT / "orders.csv"
        lines = orders.read_text("utf-8").splitlines(keepends=True)
        orders.write_text("".join(lines[: len(lines) // 3]), encoding="utf-8")

    def _second_round(self) -> None:
        worker = start([*COMMAND, "worker"], env=self._environment, stderr=subprocess.DEVNULL)
        try:
            self._type("run", "customers", "--agent", AGENT, "--wait", "--timeout", "60")
            self._type("run", "orders", "--agent", AGENT, "--wait", "--timeout", "60", expect=ExitCode.HELD)
        finally:
            end(worker, (signal.SIGTERM, COMMAND_TIMEOUT_S))
        self._say(
            "The phone number is updated. The vanished customer is marked absent, and deleted if the next export lacks it"
        )
        self._say("too. No order is lost: the suspicious export waits for a person.", gap=False)
        self._type("held", "list", "--columns", "run,type,agent,rule,decision")

    def _say(self, text: str, *, gap: bool = True) -> None:
        if gap:
            self._show("")
        self._show(f"# {text}")

    def _type(self, *args: str, expect: ExitCode = ExitCode.DONE, quiet: bool = False, **environment: str) -> None:
        """Run a command as a user would and show its output, with `quiet` only if it fails."""
        self._show(f"$ archisync {' '.join(args)}")
        done = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, *args],
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if not quiet or done.returncode != expect:
            for line in (done.stderr + done.stdout).splitlines():
                self._show(f"  {line}")
        if expect is not ExitCode.DONE:
            self._show(f"  (exit code {done.returncode})")
        if done.returncode != expect:
            raise ArchisyncError(f"archisync {args[0]} ended {done.returncode} instead of {expect.value}")


def demo(show: Show) -> None:
    """Run the demo. Raises what `Server.start` raises, and ArchisyncError when a command does not end as it should."""
    show("archisync demo: starting PostgreSQL and Valkey in a temporary folder …")
    with (
        temporary_folder() as folder,
        EmbeddedPostgres(folder, durable=False) as postgres,
        EmbeddedValkey(folder, durable=False) as valkey,
    ):
        work = folder / "demo"
        shutil.copytree(SAMPLES, work)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ARCHISYNC_")} | {
            "ARCHISYNC_DATABASE_URL": postgres.url,
            "ARCHISYNC_REDIS_URL": valkey.url,
            "ARCHISYNC_SOURCE": str(work / "exports" / "{agent}" / "{type}.csv"),
        }
        Demo(show, work, environment).run()
