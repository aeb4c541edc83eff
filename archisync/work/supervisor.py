"""`archisync worker`: keeps a number of worker processes running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import monotonic, sleep
from types import FrameType

from archisync.base.errors import ExitCode
from archisync.base.log import EventLog
from archisync.base.processes import start

RESTART_DELAY_S = 1.0
LONGEST_RESTART_DELAY_S = 30.0
LOOK_EVERY_S = 0.2
STEADY_S = 60.0
"""After this long without a crash the delay begins again with RESTART_DELAY_S."""
_NOT_WORTH_A_RESTART = (ExitCode.USAGE, ExitCode.CONFIGURATION)
"""A worker that starts again would end with the same error."""


class Supervisor:
    """Keeps `processes` workers running, each in a process of its own. Passes SIGTERM and Ctrl-C on and waits for them.

    With `burst`, each worker ends when the queue is empty.
    """

    def __init__(self, *, processes: int, burst: bool, log: EventLog) -> None:
        self._processes = processes
        self._burst = burst
        self._log = log
        self._workers: list[subprocess.Popen[bytes]] = []
        self._asked = 0
        self._sent: dict[int, int] = {}
        self._announced = False
        self._delay_s = RESTART_DELAY_S
        self._last_crash = -STEADY_S

    def run(self) -> int:
        """Run until stopped, or with `burst` until all have ended. Returns the worst exit code of the last workers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._log.event("workers-started", processes=self._processes, pid=os.getpid())
        while len(self._workers) < self._processes and not self._asked:
            self._workers.append(self._start())
        codes = self._watch()
        self._announce_stop()
        self._log.event("workers-stopped")
        return max(codes, default=0)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "archisync", "worker", "--single", *(["--burst"] if self._burst else [])]
        return start(command)

    def _watch(self) -> list[int]:
        codes: list[int] = []
        while self._workers:
            self._pass_on()
            self._announce_stop()
            for worker in list(self._workers):
                try:
                    code = worker.wait(timeout=LOOK_EVERY_S / len(self._workers))
                except subprocess.TimeoutExpired:
                    continue
                self._workers.remove(worker)
                if self._burst or self._asked or code in _NOT_WORTH_A_RESTART:
                    codes.append(self._exit_code(code))
                else:
                    self._restart(code)
        return codes

    def _exit_code(self, code: int) -> int:
        """A worker may get SIGTERM before it handles the signal: it has stopped as asked. Any other signal is a failure."""
        if code == -signal.SIGTERM and self._asked:
            return ExitCode.DONE
        return code if code >= 0 else ExitCode.SYNC_FAILED

    def _restart(self, code: int) -> None:
        """Start another worker after a delay that doubles with each crash. SIGTERM ends the delay."""
        if monotonic() - self._last_crash > STEADY_S:
            self._delay_s = RESTART_DELAY_S
        hint = "the lines above say why it ended; archisync doctor"
        self._log.event("worker-restarted", exit_code=code, delay_s=self._delay_s, hint=hint)
        over_at = monotonic() + self._delay_s
        while monotonic() < over_at and not self._asked:
            sleep(LOOK_EVERY_S)
        self._delay_s = min(self._delay_s * 2, LONGEST_RESTART_DELAY_S)
        self._last_crash = monotonic()
        if not self._asked:
            self._workers.append(self._start())

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """The signal may come on any line, also while a worker is being started: `_watch` passes it on to that one."""
        self._asked += 1
        self._pass_on()

    def _pass_on(self) -> None:
        """Send SIGTERM to every worker as often as this process was asked to stop. A second one ends a run at once."""
        for worker in list(self._workers):
            if self._sent.get(worker.pid, 0) < self._asked:
                self._sent[worker.pid] = self._asked
                worker.send_signal(signal.SIGTERM)

    def _announce_stop(self) -> None:
        """Log it once, and not in the signal handler, which may interrupt the writing of another line."""
        if self._asked and not self._announced:
            self._announced = True
            self._log.event("workers-stopping", hint="each finishes its current run")
