"""The one function that RQ workers run. Its payload is a run id and a fence: no name, no path, no secret.

Works under `archisync worker` and under a plain `rq worker --serializer json` with the same environment.
"""

from __future__ import annotations

import threading

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.store.database import connected, require_direct
from archisync.work.runner import serve

STOP_AFTER_THIS_RUN = threading.Event()
"""Set by the work horse's signal handler (archisync.work.worker). Module state, because RQ calls `sync` by name only."""


def sync(run_id: int, fence: int) -> None:
    """Do a delivered run and the agent's next ones. What becomes of them is in PostgreSQL; RQ gets no result."""
    config = Config.from_environment()
    with connected(config.database_url, purpose="worker", statement_timeout_s=config.run_timeout_s) as db:
        require_direct(db)
        serve(db, config, EventLog(), int(run_id), int(fence), stopping=STOP_AFTER_THIS_RUN.is_set)
