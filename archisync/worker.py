"""RQ workers that do nothing but archisync's own job, and the supervisor that keeps them running.

* One queue: RQ then moves a job to `:intermediate` instead of popping it. What is lost there is pushed again by a tick.
* Only `archisync.jobs.sync(run id, fence)` is run. A job hash that is anything else is set aside with a log line.
* The work horse dies with its parent (PR_SET_PDEATHSIG), so that an agent's lock is never held by an orphan.
* SIGTERM lets the current run finish; the agent's further runs stay queued.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from archisync import jobs, queue
from archisync.config import Config
from archisync.database import connected
from archisync.log import EventLog
from archisync.pooler import require_direct
from archisync.store import migrations

PR_SET_PDEATHSIG = 1
WORKER_TTL_S = 75
"""RQ blocks this long less 15 s for a job, and gives a silent connection 10 s more: a dead network is noticed in 70 s."""
SET_ASIDE_S = 3600
RESTART_DELAY_S = 1.0
LONGEST_RESTART_DELAY_S = 30.0


class ForeignJobError(Exception):
    """A job that is not ours, or not readable: never run."""


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies. Linux only; elsewhere a tick's reaper does it later."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the call


class SyncJob(Job):
    """A job that can be restored only if it is `archisync.jobs.sync` with two whole numbers, in JSON."""

    def restore(self, raw_data: Any) -> Any:
        super().restore(raw_data)
        if (
            self.func_name != queue.JOB_FUNCTION
            or self.instance is not None
            or self.kwargs
            or len(self.args) != 2
            or not all(type(part) is int for part in self.args)
        ):
            raise ForeignJobError("not a run of archisync")
        for callback in ("success", "failure", "stopped"):
            if getattr(self, f"_{callback}_callback_name", None):
                raise ForeignJobError(f"it brings a {callback} callback")


class SyncQueue(Queue):
    """A queue that sets aside what can't be run, instead of ending the worker."""

    @classmethod
    def _fetch_dequeued_job(  # type: ignore[override]  # passes on whatever RQ passes
        cls, connection: redis.Redis, queue_key: str, job_id: str, **kwargs: Any
    ) -> Any:
        try:
            found = super()._fetch_dequeued_job(connection, queue_key, job_id, **kwargs)
        except redis.ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a forged or damaged hash makes RQ raise
            cls._set_aside(connection, queue_key, job_id, exc)
            return None
        if found is None:
            connection.lrem(f"{queue_key}:intermediate", 0, job_id)
        return found

    @classmethod
    def _set_aside(cls, connection: redis.Redis, queue_key: str, job_id: str, exc: Exception) -> None:
        """Out of the way, kept for an hour to be looked at. If it stood for a run, a tick pushes that run again."""
        connection.lrem(f"{queue_key}:intermediate", 0, job_id)
        connection.expire(Job.key_for(job_id), SET_ASIDE_S)
        EventLog().event("job-set-aside", job=job_id, because=f"{type(exc).__name__}: {exc}")


class SyncWorker(Worker):
    """RQ's forking worker, restricted as the module docstring says."""

    queue_class = SyncQueue
    job_class = SyncJob
    log_job_description = False
    log_result_lifespan = False

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        die_with_parent(self.pid or 0)
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Whoever signals the whole process group (a terminal, systemd) must not cut a run in two."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _stop_after_this_run)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            self.kill_horse(signal.SIGUSR1)

    def run_maintenance_tasks(self) -> None:
        """RQ's own housekeeping; a damaged registry must not end the worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except redis.ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - nothing of ours depends on RQ's registries
            from rq.utils import now

            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it by its first value, None
            EventLog().event("maintenance-failed", because=f"{type(exc).__name__}: {exc}")


def _stop_after_this_run(_number: int, _frame: FrameType | None) -> None:
    jobs.STOP_AFTER_THIS_RUN.set()


def work(config: Config, *, burst: bool) -> None:
    """One RQ worker in this process, until SIGTERM; `burst`: until the queue is empty.

    Raises ConfigurationError (schema, pooler) or UnreachableError before it takes a job.
    """
    config.require_all()
    with connected(config.database_url, purpose="worker start", answer_timeout_s=config.database_timeout_s) as db:
        require_direct(db)
        migrations.check_current(db)
    logging.getLogger("rq").setLevel(logging.WARNING)
    with queue.connected(config.redis_url) as client:
        client.ping()
        name = f"archisync.{socket.gethostname()}.{os.getpid()}"
        q = SyncQueue(config.queue, connection=client, serializer=JSONSerializer, job_class=SyncJob)
        worker = SyncWorker([q], name=name, connection=client, serializer=JSONSerializer, worker_ttl=WORKER_TTL_S)
        worker.work(burst=burst, logging_level="WARNING")


class Supervisor:
    """Keeps `processes` workers running, each a process of its own; passes SIGTERM and Ctrl-C on and waits for them."""

    def __init__(self, *, processes: int, burst: bool, log: EventLog) -> None:
        self._processes = processes
        self._burst = burst
        self._log = log
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def run(self) -> int:
        """Until stopped, or in burst mode until all are done; the worst exit code of the last workers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._log.event("workers-started", processes=self._processes, pid=os.getpid())
        self._children = [self._start() for _ in range(self._processes)]
        codes = self._watch()
        self._log.event("workers-stopped")
        return max(codes, default=0)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "archisync", "worker", "--single", *(["--burst"] if self._burst else [])]
        parent = os.getpid()
        return subprocess.Popen(  # noqa: S603 - our own command
            command, start_new_session=True, preexec_fn=lambda: die_with_parent(parent)
        )

    def _watch(self) -> list[int]:
        codes: list[int] = []
        delay_s = RESTART_DELAY_S
        while self._children:
            for child in list(self._children):
                try:
                    code = child.wait(timeout=0.2 / len(self._children))
                except subprocess.TimeoutExpired:
                    continue
                self._children.remove(child)
                if self._burst or self._stopping or code in _NOT_WORTH_A_RESTART:
                    codes.append(abs(code))
                    continue
                self._log.event("worker-restarted", exit_code=code, delay_s=delay_s)
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, LONGEST_RESTART_DELAY_S)
                if not self._stopping:
                    self._children.append(self._start())
        return codes

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._log.event("workers-stopping", hint="each finishes its current run")
        self._stopping = True
        for child in self._children:
            child.send_signal(signal.SIGTERM)


_NOT_WORTH_A_RESTART = (2, 3)
"""Usage and configuration errors stay as they are however often a worker starts."""
