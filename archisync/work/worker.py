"""RQ workers that do nothing but archisync's own job, and the supervisor that keeps them running.

* One queue: RQ then moves a job to `:intermediate` instead of popping it. What is lost there is pushed again by a tick.
* Only `archisync.work.job.sync(run id, fence)` is run. A job hash that is anything else is set aside with a log line.
* The work horse dies with its parent (PR_SET_PDEATHSIG), so that an agent's lock is never held by an orphan.
* It serves many deliveries, one after the other (archisync.work.child); RQ's bookkeeping is done for the first one only.
* SIGTERM lets the current run finish; the agent's further runs stay queued.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from datetime import timedelta
from secrets import token_hex
from time import monotonic, sleep
from types import FrameType
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue, Worker, worker_registration
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException
from rq.utils import now
from rq.worker.base import WorkerStatus

from archisync import sources
from archisync.base.errors import ExitCode
from archisync.base.log import EventLog
from archisync.base.processes import die_with_parent, pid_namespace
from archisync.queue import client as queue
from archisync.rules.config import Config
from archisync.store import migrations
from archisync.store.database import connected, require_direct
from archisync.work import job as jobs
from archisync.work.child import Horse, Progress

WORKER_TTL_S = 75
"""RQ blocks this long less 15 s for a job, and gives a silent connection 10 s more: a dead network is noticed in 70 s."""
SET_ASIDE_S = 3600
LONGEST_PAYLOAD_BYTES = 1024
"""Of a job, compressed; ours take about 60."""
LONGEST_REASON = 300
CONNECTION_RETRIES = 3
"""A worker rides out a restart of Redis that takes a moment; a tick leaves that to the next tick."""
LONGEST_RECONNECT_WAIT_S = 10.0
"""RQ's own is 60 s: too long a wait after Redis is back."""
RESTART_DELAY_S = 1.0
LONGEST_RESTART_DELAY_S = 30.0
LOOK_EVERY_S = 0.2
STEADY_S = 60.0
"""After this long without a crash the next one is restarted without the delay that earlier ones have built up."""


class ForeignJobError(Exception):
    """A job that is not ours: never run."""


_NEVER_OURS = (
    "_success_callback_name",
    "_failure_callback_name",
    "_stopped_callback_name",
    "_dependency_ids",
    "rate_limit_key",
    "repeats_left",
    "retries_left",
    "webhooks",
)
"""What RQ would call, send or queue on behalf of whoever wrote the job's hash; a push of ours has none of it."""


class SyncJob(Job):
    """A job that can be restored only if it is `archisync.work.job.sync` with two whole numbers, in JSON, and nothing else.

    To RQ's worker and housekeeping, any other hash is a job that does not exist.
    """

    serve: Callable[[int, int], None] | None = None
    """What a work horse of ours does with the two numbers, instead of `archisync.work.job.sync`, which begins from nothing."""

    def _execute(self) -> Any:
        return self.serve(*self.args) if self.serve else super()._execute()

    @classmethod
    def fetch(cls, id: str, connection: redis.Redis | None = None, serializer: Any = None) -> Job:
        try:
            return super().fetch(id, connection=connection, serializer=serializer)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as exc:
            _set_aside(connection, id, exc)
            raise NoSuchJobError(f"set aside: {id}") from exc

    def restore(self, raw_data: Any) -> Any:
        if len(raw_data.get(b"data", b"")) > LONGEST_PAYLOAD_BYTES:
            raise ForeignJobError("its payload is too long")
        super().restore(raw_data)
        if (
            self.func_name != queue.JOB_FUNCTION
            or self.instance is not None
            or self.kwargs != {}
            or not isinstance(self.args, list)
            or [type(part) for part in self.args] != [int, int]
        ):
            raise ForeignJobError("it is not a run of archisync")
        for name in _NEVER_OURS:
            if getattr(self, name, None):
                raise ForeignJobError(f"it brings {name.strip('_').replace('_', ' ')}")


def _set_aside(connection: redis.Redis | None, job_id: str, exc: Exception) -> None:
    """Keep it for an hour to be looked at. If it stood for a run, a tick pushes that run again."""
    if connection is not None:
        connection.expire(Job.key_for(job_id), SET_ASIDE_S)
    EventLog().event("job-set-aside", job=job_id, because=f"{type(exc).__name__}: {exc}"[:LONGEST_REASON])


class SyncQueue(Queue):
    """A queue that drops from `:intermediate` what can't be run."""

    @classmethod
    def lmove(cls, connection: redis.Redis, queue_key: str, timeout: int | None) -> Any:
        """RQ decodes the id outside of any guard: one that is not UTF-8 would end the worker."""
        moved = super().lmove(connection, queue_key, timeout)
        if moved is None:
            return None
        shown = moved[1].decode(errors="backslashreplace")
        if shown.encode() != moved[1]:
            connection.lrem(f"{queue_key}:intermediate", 0, moved[1])
        return queue_key, shown

    @classmethod
    def _fetch_dequeued_job(  # type: ignore[override]  # passes on whatever RQ passes
        cls, connection: redis.Redis, queue_key: str, job_id: str, **kwargs: Any
    ) -> Any:
        found = super()._fetch_dequeued_job(connection, queue_key, job_id, **kwargs)
        if found is None:
            connection.lrem(f"{queue_key}:intermediate", 0, job_id)
        return found

    def deliveries(self) -> Generator[SyncJob, None, None]:
        """What stands in the list, one after the other, gone from Redis for good when it is done; what can't be run is set aside.

        Close it: the last hash is deleted then, and the others in the round trip that asks for the next one.
        """
        spent: list[str] = []
        try:
            while popped := self._pop(spent):
                try:
                    job = SyncJob.fetch(popped.decode(errors="backslashreplace"), self.connection, JSONSerializer)
                except NoSuchJobError:
                    continue
                assert isinstance(job, SyncJob)
                spent.append(job.key)
                yield job
        finally:
            if spent:
                self.connection.delete(*spent)

    def _pop(self, spent: list[str]) -> bytes | None:
        with self.connection.pipeline(transaction=False) as pipe:
            for key in spent:
                pipe.delete(key)
            pipe.lpop(self.key)
            popped: bytes | None = pipe.execute()[-1]
        spent.clear()
        return popped


class SyncWorker(Worker):
    """RQ's forking worker, restricted as the module docstring says."""

    queue_class = SyncQueue
    job_class = SyncJob
    log_job_description = False
    log_result_lifespan = False
    max_connection_wait_time = LONGEST_RECONNECT_WAIT_S

    progress: Progress
    config: Config
    _handed_over: Job
    _ended: int | None = None

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        self._handed_over, self._ended = job, None
        self.progress.reset()
        super().fork_work_horse(job, queue)
        if self._shutdown_requested_date is not None:  # asked when there was no child yet to be told
            self._tell_horse()

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        die_with_parent(self.pid or 0)
        if self._shutdown_requested_date is not None:  # asked before the fork
            jobs.STOP_AFTER_THIS_RUN.set()
        super().main_work_horse(job, queue)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """In the work horse: RQ's way for the delivery that it was forked for, then without RQ's bookkeeping."""
        log = EventLog()
        with Horse(self.config, log, stopping=jobs.STOP_AFTER_THIS_RUN.is_set) as horse:
            assert isinstance(job, SyncJob)
            job.serve = horse.serve
            done = super().perform_job(job, queue, execution)
            if done:
                try:
                    self._go_on(horse, queue)
                except Exception as exc:  # noqa: BLE001 - the run stays in PostgreSQL, and the next delivery gets another child
                    log.event("delivery-failed", because=f"{type(exc).__name__}: {exc}"[:LONGEST_REASON])
        return done

    def _go_on(self, horse: Horse, queue: Queue) -> None:
        assert isinstance(queue, SyncQueue)
        with closing(queue.deliveries()) as deliveries:
            while horse.may_go_on and (job := next(deliveries, None)) is not None:
                self.progress.begin()
                timeout_s = job.timeout or self.queue_class.DEFAULT_TIMEOUT
                with self.death_penalty_class(timeout_s, JobTimeoutException, job_id=job.id):
                    horse.serve(*job.args)

    def wait_for_horse(self) -> Any:
        """RQ ends a work horse that is a minute over the time of its job. The job that counts is the one in its hands."""
        try:
            found = super().wait_for_horse()
        except HorseMonitorTimeoutException:
            if (seconds := self.progress.seconds) is not None:
                self._handed_over.started_at = now() - timedelta(seconds=seconds)
            raise
        self._ended = found[1]
        return found

    def serialize(self) -> dict[Any, Any]:
        """And what `doctor --only worker-here` needs to know whether it may look for the process itself."""
        namespace = pid_namespace()
        return super().serialize() | ({"pid_namespace": namespace} if namespace else {})

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """And all that RQ writes only when a worker begins: a Redis that was emptied or replaced would never know of this one."""
        if pipeline is None:
            with self.connection.pipeline() as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(timeout, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """The worker's own, once the job that RQ knows of is done."""
        if self.progress.seconds is None:
            super().maintain_heartbeats(job, execution)
        else:
            self.set_state(WorkerStatus.BUSY)
            self.heartbeat(self.job_monitoring_interval + 60)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        super().monitor_work_horse(job, queue, execution)
        if self._ended:
            code = os.waitstatus_to_exitcode(self._ended)
            EventLog().event("work-horse-died", exit_code=code, hint="the run that it had is taken back by a tick")

    def setup_work_horse_signals(self) -> None:
        """Whoever signals the whole process group (a terminal, systemd) must not cut a run in two."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _stop_after_this_run)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            self._tell_horse()

    def _tell_horse(self) -> None:
        """It alone, and not its process group, which is still ours in its first moment."""
        with suppress(ProcessLookupError):
            os.kill(self.horse_pid, signal.SIGUSR1)

    def check_for_suspension(self, burst: bool) -> None:
        """`rq suspend` leaves a key that stops every worker for good, and nobody sees why. Ours is `archisync pause`."""

    def run_maintenance_tasks(self) -> None:
        """RQ's own housekeeping; a damaged registry must not end the worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as exc:  # noqa: BLE001 - nothing of ours depends on RQ's registries
            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it by its first value, None
            EventLog().event("maintenance-failed", because=f"{type(exc).__name__}: {exc}")


def _stop_after_this_run(_number: int, _frame: FrameType | None) -> None:
    jobs.STOP_AFTER_THIS_RUN.set()


def work(config: Config, *, burst: bool) -> None:
    """One RQ worker in this process, until SIGTERM; `burst`: until the queue is empty.

    Raises ConfigurationError (schema, pooler) or UnreachableError before it takes a job.
    """
    config.require_all()
    sources.check_all(config)
    with connected(config.database_url, purpose="worker start", answer_timeout_s=config.database_timeout_s) as db:
        require_direct(db)
        migrations.check_current(db)
    logging.getLogger("rq").setLevel(logging.WARNING)
    with queue.connected(config.redis_url, retries=CONNECTION_RETRIES) as client:
        queue.clear_the_way(client, config.queue, EventLog())
        name = (
            f"archisync.{socket.gethostname()}.{os.getpid()}.{token_hex(4)}"  # a restarted container has the same pid
        )
        q = SyncQueue(config.queue, connection=client, serializer=JSONSerializer, job_class=SyncJob)
        worker = SyncWorker([q], name=name, connection=client, serializer=JSONSerializer, worker_ttl=WORKER_TTL_S)
        worker.config, worker.progress = config, Progress()
        # A child has it from its first moment: told early, it does not die of it.
        signal.signal(signal.SIGUSR1, _stop_after_this_run)
        worker.work(burst=burst, logging_level="WARNING")


class Supervisor:
    """Keeps `processes` workers running, each a process of its own; passes SIGTERM and Ctrl-C on and waits for them."""

    def __init__(self, *, processes: int, burst: bool, log: EventLog) -> None:
        self._processes = processes
        self._burst = burst
        self._log = log
        self._children: list[subprocess.Popen[bytes]] = []
        self._asked = 0
        self._told: dict[int, int] = {}
        self._said = False
        self._delay_s = RESTART_DELAY_S
        self._last_crash = -STEADY_S

    def run(self) -> int:
        """Until stopped, or in burst mode until all are done; the worst exit code of the last workers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._log.event("workers-started", processes=self._processes, pid=os.getpid())
        while len(self._children) < self._processes and not self._asked:
            self._children.append(self._start())
        codes = self._watch()
        self._say_stopping()
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
        while self._children:
            self._pass_on()
            self._say_stopping()
            for child in list(self._children):
                try:
                    code = child.wait(timeout=LOOK_EVERY_S / len(self._children))
                except subprocess.TimeoutExpired:
                    continue
                self._children.remove(child)
                if self._burst or self._asked or code in _NOT_WORTH_A_RESTART:
                    codes.append(self._exit_code(code))
                else:
                    self._restart(code)
        return codes

    def _exit_code(self, code: int) -> int:
        """A worker that was told to stop before it could listen to the signal has stopped; any other signal is a failure."""
        if code == -signal.SIGTERM and self._asked:
            return ExitCode.DONE
        return code if code >= 0 else ExitCode.SYNC_FAILED

    def _restart(self, code: int) -> None:
        """Another worker after a delay that doubles with each crash; SIGTERM meanwhile ends the delay."""
        if monotonic() - self._last_crash > STEADY_S:
            self._delay_s = RESTART_DELAY_S
        self._log.event("worker-restarted", exit_code=code, delay_s=self._delay_s)
        over_at = monotonic() + self._delay_s
        while monotonic() < over_at and not self._asked:
            sleep(LOOK_EVERY_S)
        self._delay_s = min(self._delay_s * 2, LONGEST_RESTART_DELAY_S)
        self._last_crash = monotonic()
        if not self._asked:
            self._children.append(self._start())

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """The signal may come in the middle of any line, also of one that starts a child: `_watch` tells whom this does not know yet."""
        self._asked += 1
        self._pass_on()

    def _pass_on(self) -> None:
        """To every child, whenever it was started, as often as it was asked; a second signal ends a run at once."""
        for child in list(self._children):
            if self._told.get(child.pid, 0) < self._asked:
                self._told[child.pid] = self._asked
                child.send_signal(signal.SIGTERM)

    def _say_stopping(self) -> None:
        """Once, and not in the signal's handler: it may have interrupted the writing of another line."""
        if self._asked and not self._said:
            self._said = True
            self._log.event("workers-stopping", hint="each finishes its current run")


_NOT_WORTH_A_RESTART = (2, 3)
"""Usage and configuration errors stay as they are however often a worker starts."""
