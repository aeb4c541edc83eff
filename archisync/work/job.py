"""The function that RQ workers call. Its arguments are a run id and a fence: no name, no path, no secret."""

from __future__ import annotations

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.work.child import Child


def sync(run_id: int, fence: int) -> None:
    """Do a delivery: the run, then its agent's other queued runs. The outcome is in PostgreSQL; RQ gets no result.

    A plain `rq worker --serializer json` with archisync's environment calls this once for each job. `archisync worker` gives the
    job to a child that has a connection already.
    """
    with Child(Config.from_environment(), EventLog()) as child:
        child.do(int(run_id), int(fence))
