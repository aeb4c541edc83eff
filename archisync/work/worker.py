"""RQ's forking worker, restricted to archisync's own job.

* It has one queue: RQ then moves a job to `:intermediate` instead of popping it. A tick pushes again what is lost there.
* It runs `archisync.work.job.sync(delivery, job number)` and nothing else (archisync.work.accepted).
* Its child dies with it (PR_SET_PDEATHSIG), so that no orphan holds an agent's lock.
* A child does many deliveries (archisync.work.child). RQ does its bookkeeping for the first one only.
* SIGTERM lets the current run finish. The agent's other runs stay queued.

RQ's name for the child is "work horse".
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue, Worker, worker_registration
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException
from rq.utils import now
from rq.worker.base import WorkerStatus

from archisync import sources
from archisync.base import librarylogs
from archisync.base.errors import ArchisyncError
from archisync.base.log import EventLog
from archisync.base.processes import die_with_parent, pid_namespace
from archisync.queue.client import redis_client
from archisync.queue.foreignkeys import move_foreign_keys_aside, workers_key
from archisync.queue.job import job_id, job_timeout_s
from archisync.queue.workers import forget_dead_workers, new_worker_name, require_own_queue
from archisync.rules.config import Config
from archisync.store import migrations
from archisync.store.database import connected, require_direct
from archisync.store.site import site_of
from archisync.work.accepted import SyncJob, SyncQueue, reason_of
from archisync.work.child import Child, CurrentDelivery, resident_bytes

WORKER_TTL_S = 75
"""RQ waits 15 s less than this for a job, and gives a silent connection 10 s more: a dead network is noticed in 70 s."""
CONNECTION_RETRIES = 5
"""A worker waits for a Redis that restarts in a moment; a tick leaves that to the next tick."""
LONGEST_RECONNECT_WAIT_S = 10.0
"""RQ's own 60 s are a long wait after Redis is back."""
HINT_DELIVERY = "the runs are still queued, and a tick delivers them again; archisync doctor"
STOP_AFTER_THIS_RUN = threading.Event()
"""A signal told this process to end after its current run. Module state, because signal handlers set it."""


class SyncWorker(Worker):
    """RQ's forking worker, restricted as the module docstring says."""

    queue_class = SyncQueue
    job_class = SyncJob
    log_job_description = False
    log_result_lifespan = False
    max_connection_wait_time = LONGEST_RECONNECT_WAIT_S

    config: Config
    site: str | None = None
    current: CurrentDelivery
    _handed_over: Job
    _wait_status: int | None = None

    # --- in the child -----------------------------------------------------------------------------------------

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        die_with_parent(self.pid or 0)
        if self._shutdown_requested_date is not None:  # asked before the fork
            STOP_AFTER_THIS_RUN.set()
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """A signal to the whole process group (from a terminal, from systemd) must not interrupt a run."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _stop_after_this_run)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Do the delivery that the child was forked for as RQ does a job, then others without RQ's bookkeeping."""
        log = EventLog()
        assert isinstance(job, SyncJob)
        waiting = partial(others_wait, queue)
        with Child(self.config, log, stopping=STOP_AFTER_THIS_RUN.is_set, others_wait=waiting) as child:
            job.do = child.do
            done = super().perform_job(job, queue, execution)
            if done:
                try:
                    self._take_more(child, queue)
                except Exception as exc:  # noqa: BLE001 - PostgreSQL keeps the run; another child does the next delivery
                    report_failure(log, exc)
        return done

    def _take_more(self, child: Child, queue: Queue) -> None:
        assert isinstance(queue, SyncQueue)
        timeout_s = job_timeout_s(self.config)
        with closing(queue.popped()) as jobs:
            while child.may_go_on and (job := next(jobs, None)) is not None:
                self.current.begin()
                with self.death_penalty_class(timeout_s, JobTimeoutException, job_id=job_id(job)):
                    child.do(*job)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log the failure of the delivery that RQ knows of as that of any other."""
        report_failure(EventLog(), exc_info[1])

    # --- in the parent: the child -----------------------------------------------------------------------------

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        self._handed_over, self._wait_status = job, None
        self.current.reset()
        super().fork_work_horse(job, queue)
        if self._shutdown_requested_date is not None:  # asked when there was no child to tell
            self._tell_child_to_stop()

    def wait_for_horse(self) -> Any:
        """RQ ends a child that is a minute over the time of its job. Let it count from the start of the current delivery."""
        try:
            found = super().wait_for_horse()
        except HorseMonitorTimeoutException:
            if (seconds := self.current.seconds) is not None:
                self._handed_over.started_at = now() - timedelta(seconds=seconds)
            raise
        self._wait_status = found[1]
        return found

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        super().monitor_work_horse(job, queue, execution)
        if self._wait_status:
            code = os.waitstatus_to_exitcode(self._wait_status)
            EventLog().event("child-died", exit_code=code, hint="a tick takes back the run that it was doing")

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            self._tell_child_to_stop()

    def _tell_child_to_stop(self) -> None:
        """Signal the child alone: in its first moment it is still in our own process group."""
        with suppress(ProcessLookupError):
            os.kill(self.horse_pid, signal.SIGUSR1)

    # --- in the parent: Redis ---------------------------------------------------------------------------------

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Once the child is done with the job that RQ knows of, only the worker itself has a heartbeat."""
        if self.current.seconds is None:
            super().maintain_heartbeats(job, execution)
        else:
            self.set_state(WorkerStatus.BUSY)
            self.heartbeat(self.job_monitoring_interval + 60)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Write each time what RQ writes only when a worker starts: a Redis that was emptied or replaced learns of this worker."""
        if pipeline is None:
            with self.connection.pipeline() as own:
                self.heartbeat(timeout, own)
                own.execute()
            return
        super().heartbeat(timeout, pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)

    def serialize(self) -> dict[Any, Any]:
        """RQ's fields, our site, and the namespace of our process id: `doctor --only worker-here` looks for the process if it is its own.
        And for `worker list` the process that does the syncs, and its memory; 0 while there is none."""
        child = self._child_pid
        said = {"pid_namespace": pid_namespace(), "site": self.site}
        own = {"child_pid": child, "memory_bytes": resident_bytes(child or "self")}
        return super().serialize() | own | {name: value for name, value in said.items() if value}

    @property
    def _child_pid(self) -> int:
        """The child writes a heartbeat too, when it begins the job that RQ knows of."""
        return os.getpid() if os.getpid() != self.pid else self.horse_pid

    def unsubscribe(self) -> None:
        """RQ stops its listening thread after the unsubscription, whose answer the thread may have read by then: it would wait a second."""
        thread: Any = self.pubsub_thread
        if thread is not None:
            thread.stop()
        super().unsubscribe()  # type: ignore[no-untyped-call]

    def check_for_suspension(self, burst: bool) -> None:
        """Do nothing: `rq suspend` would stop every worker until somebody finds its key. `archisync pause` is what to use."""

    def clean_registries(self) -> None:
        """RQ's housekeeping of this queue, without the keys that all applications of the server share."""
        for queue in self.queues:
            if not queue.acquire_maintenance_lock():
                continue
            for registry in (queue.finished_job_registry, queue.started_job_registry, queue.failed_job_registry):
                registry.cleanup()
            forget_dead_workers(self.connection, queue.name)
            queue.intermediate_queue.cleanup(self, queue)
            queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it by its first value, None

    def clean_group_registries(self) -> None:
        """Do nothing: groups of jobs are other applications'."""

    def run_maintenance_tasks(self) -> None:
        """Do RQ's own housekeeping; a damaged registry must not end the worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as exc:  # noqa: BLE001 - nothing of ours depends on RQ's registries
            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it by its first value, None
            hint = "no sync depends on it; archisync doctor"
            EventLog().event("maintenance-failed", because=reason_of(exc), hint=hint)


def report_failure(log: EventLog, exc: Exception) -> None:
    """Log why a delivery could not be done."""
    if isinstance(exc, ArchisyncError):
        log.event("delivery-failed", because=exc.message, hint=exc.hint or HINT_DELIVERY)
    else:
        where = "".join(traceback.format_exception(exc))[-librarylogs.LONGEST_TRACEBACK :]
        log.event("delivery-failed", because=reason_of(exc), hint=HINT_DELIVERY, traceback=where)


def others_wait(queue: Queue) -> bool:
    """Whether other agents wait for a worker. Where Redis can't say so, one lets them have a turn."""
    try:
        return queue.count > 0
    except redis.RedisError:
        return True


def _stop_after_this_run(_number: int, _frame: FrameType | None) -> None:
    STOP_AFTER_THIS_RUN.set()


def work(config: Config, *, burst: bool) -> None:
    """Be one RQ worker in this process, until SIGTERM; with `burst`, until the queue is empty.

    Raises ConfigurationError (schema, pooler) or UnreachableError before it takes a job.
    """
    config.require_all()
    sources.check_all(config)
    with connected(config.database_url, purpose="worker start", answer_timeout_s=config.database_timeout_s) as db:
        require_direct(db, silent_s=config.longest_silence_s)
        migrations.check_current(db)
        site = site_of(db)
    librarylogs.collect(EventLog())
    with redis_client(config.redis_url, retries=CONNECTION_RETRIES) as client:
        move_foreign_keys_aside(client, config.queue, EventLog())
        require_own_queue(client, config.queue, site)
        q = SyncQueue(config.queue, connection=client, serializer=JSONSerializer, job_class=SyncJob)
        worker = SyncWorker(
            [q], name=new_worker_name(), connection=client, serializer=JSONSerializer, worker_ttl=WORKER_TTL_S
        )
        worker.redis_workers_keys = workers_key(config.queue)
        worker.config, worker.site, worker.current = config, site, CurrentDelivery()
        # Set before the first fork: a child that is told to stop in its first moment does not die of the signal.
        signal.signal(signal.SIGUSR1, _stop_after_this_run)
        worker.work(burst=burst, logging_level="WARNING")
