"""The function that RQ workers call. Its arguments are a delivery and the job's number there: no name, no path, no secret."""

from __future__ import annotations

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.work.child import Child


def sync(delivery_id: int, job_no: int) -> None:
    """Do a delivered job: what its agent has queued. The outcome is in PostgreSQL; RQ gets no result.

    A plain `rq worker --serializer json` with archisync's environment calls this once for each job. `archisync worker` gives the
    job to a child that has a connection already.
    """
    with Child(Config.from_environment(), EventLog()) as child:
        child.do(int(delivery_id), int(job_no))
