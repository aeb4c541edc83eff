"""A site where something of everything has happened, for the panel and its API: written into the tables, so that it is there at once."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from archisync.actions import settings
from archisync.rules.reasons import Limits, Rule
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, held
from archisync.store.audit import Actor, Via
from archisync.store.database import Database
from tests.support.rows import add_run, record_tick

ANNA, PAOLO = "anna.bianchi", "paolo.conti"
RUN = 42
"""The run of Anna's customers whose export is held."""
_STARTED = {"started_at": "2026-01-01T10:00:00Z", "finished_at": "2026-01-01T10:00:02Z", "worker": "here:7"}
_PLANNED = {"known": 3, "vanishing": 2, "deleted": 0, "restored": 0, "changed": 1, "rewritten": 0, "new": 0}


def furnish(db: Database) -> None:
    """Two agents on the whitelist and one off it; runs of every state; a held export, failing and resting pairs, a pause, a tick."""
    for agent_id, whitelisted in ((ANNA, True), (PAOLO, True), ("off.list", False)):
        agents.add(db, agent_id, name=agent_id.title(), whitelisted=whitelisted)
    record_tick(db, ago="70 s")
    record_tick(db)
    times = {**_STARTED, "agent_id": ANNA}
    add_run(
        db,
        "succeeded",
        **times,
        rows_seen=3,
        rows_inserted=3,
        export=Jsonb({"origin": "/x"}),
        steps=Jsonb({"total": 12}),
    )
    add_run(db, "failed", **times, reason="source-unavailable", message="the ERP was away", hint="look at the ERP")
    add_run(db, "skipped", agent_id=ANNA, reason="type-disabled", message="the type orders is disabled")
    add_run(db, "cancelled", agent_id=PAOLO, reason="cancelled", message="cancelled by paolo")
    add_run(db, "queued", agent_id=PAOLO)
    add_run(db, "running", agent_id=PAOLO, sync_type="ddt", started_at="2026-01-01T12:00:00Z")
    _hold(db)
    db.execute(
        "update system.sync_state set consecutive_failures = 2, last_success_at = '2026-01-01', last_slot_at = '2026-01-01',"
        " last_run_id = (select max(id) from system.sync_runs where state = 'failed'),"
        " backoff_until = date_trunc('second', now()) + interval '1 day' where agent_id = %s and sync_type in ('orders', 'invoices')",
        [ANNA],
    )
    for number in range(3):
        db.execute(
            "insert into agents.customers (agent_id, customer_id, name, run_id) values (%s, %s, 'x', 1)",
            [ANNA, f"C{number}"],
        )
    settings.pause(db, Actor(name="paolo@web1", via=Via.CLI), sync_type="ddt", agent_id=ANNA, why="holidays")
    settings.set_limits(
        db,
        Actor(name="paolo@web1", via=Via.CLI),
        {SYNC_TYPES["orders"]: Limits(columns={(Rule.RESCALED, "total_amount"): 30})},
    )
    settings.set_intervals(db, Actor(name="paolo@web1", via=Via.CLI), {SYNC_TYPES["prices"]: 90})
    db.execute("select setval('system.queued_runs_id_seq', %s)", [RUN])  # the next run comes behind it


def _hold(db: Database) -> None:
    add_run(
        db,
        "held",
        **_STARTED,
        id=RUN,
        sync_type="customers",
        agent_id=ANNA,
        reason="row-drop",
        message="two of three rows are gone",
    )
    held.record(
        db,
        {
            "run_id": RUN, "sync_type": "customers", "agent_id": ANNA, "rule": "row-drop", "message": "two of three rows are gone",
            "hint": "look at the filter", "acceptable": True, "sha256": "ab", "rows_valid": 1, "sample": [["C1"], ["C2"]],
            "planned": _PLANNED, "changes": [{"key": ["C0"], "fields": {"name": ["x", "y"]}}], "findings": [],
        },
    )  # fmt: skip
