"""A site as its people see it on a Tuesday: most of it fresh, something held, something failing, something paused. For pages."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from archisync.actions import settings, types
from archisync.rules import declarations
from archisync.rules.config import Config
from archisync.rules.reasons import Limits, Rule
from archisync.store import agents, audit
from archisync.store.audit import Actor, Deed, Via
from archisync.store.database import Database
from tests.support.rows import add_run, count, record_tick

NAMES = ("anna.bianchi", "luca.ferrari", "giulia.romano", "mario.bassi", "sara.conti", "paolo.greco")
LONG_ID = "maria-antonietta.della-rovere+northern.branch@sales.example-company.com"
HOSTILE = "<script>document.title='taken'</script>"
HOSTILE_TEXT = f'{HOSTILE}" onload="x" \'); drop table users;-- \u202e\u0007\x1b[31m' + "W" * 300
HOSTILE_IDS = (
    "x<b onmouseover=alert(1)>",
    "../../etc/passwd",
    "a?b=c&d#e",
    "%2e%2e%2f",
    "' or 1=1 --",
    "\u202egnp.exe",
    "x" * 200,
)

SPREAD = """
update system.sync_state st
   set last_success_at = system.clock() - age.age, last_slot_at = system.clock() - age.age,
       known_rows = 40 + abs(hashtext(st.agent_id)) %% 100
  from system.sync_settings s
 cross join lateral (select make_interval(mins => s.interval_minutes) as every) e
 cross join lateral (
   select e.every * (0.05 + 0.008 * (abs(hashtext(p.agent_id || p.sync_type)) %% 100)) as age, p.sync_type, p.agent_id
     from system.sync_state p where p.sync_type = s.sync_type) age
 where age.sync_type = st.sync_type and age.agent_id = st.agent_id
"""
HISTORY = """
insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, slot_at, queued_at, delivered_at, started_at,
                              finished_at, worker, rows_seen, rows_inserted, rows_updated, rows_unchanged, rows_absent, rows_restored,
                              rows_deleted, rows_quarantined, steps)
select nextval('system.queued_runs_id_seq'), sync_type, agent_id, 'succeeded', 'applied', '41 rows seen: 1 updated, 40 unchanged',
       'scheduled', at, at, at, at, at + interval '1 second', 'host-1:' || 100 + n %% 3, 41, 0, 1, 40, 0, 0, 0, 0,
       jsonb_build_object('fetch', 3 + n * 7 %% 11, 'read', 2, 'compare', 1, 'write', 4, 'total', 10 + n * 13 %% 40)
  from (select st.sync_type, st.agent_id, n, st.last_slot_at - n * interval '10 minutes' as at
          from system.sync_state st, generate_series(%(runs)s, 0, -1) n where st.active) x
 order by at
"""


def plant(db: Database, *, number: int = 6, hostile: bool = False, runs: int = 8) -> list[str]:
    """Agents with their history; the first ones have troubles. Their ids."""
    record_tick(db)
    ids = [NAMES[i] if i < len(NAMES) else f"agent-{i:03}" for i in range(number)]
    if hostile:
        ids[: len(HOSTILE_IDS)] = HOSTILE_IDS[:number]
    for agent_id in ids:
        db.execute(
            "insert into agents.users (id, full_name, whitelisted) values (%s, %s, true)",
            [agent_id, HOSTILE_TEXT if hostile else agent_id.replace(".", " ").title()],
        )
    db.execute(SPREAD, {})
    db.execute(HISTORY, {"runs": runs})
    if number >= len(NAMES):
        _plant_troubles(db, ids, HOSTILE_TEXT if hostile else None)
    return ids


def _plant_troubles(db: Database, ids: Sequence[str], hostile: str | None) -> None:
    message = hostile or "the ERP refused the login (401)"
    for n in range(4):
        failed = add_run(
            db, "failed", agent_id=ids[3], reason="authentication", message=message, hint=hostile or "check ARCHISYNC_HTTP_TOKEN_ORDERS",
            attempt=3, worker="host-1:101", steps=Jsonb({"fetch": 61000, "total": 61003}), trigger="scheduled",
        )  # fmt: skip
        times = {"id": failed, "ago": 200 - 45 * n}
        db.execute(
            "update system.sync_runs set queued_at = queued_at - %(ago)s * interval '1 minute', started_at = queued_at - %(ago)s * interval"
            " '1 minute', finished_at = finished_at - (%(ago)s - 1) * interval '1 minute' where id = %(id)s",
            times,
        )
    db.execute(
        "delete from system.sync_runs where sync_type = 'orders' and agent_id = %s and state = 'succeeded'"
        " and finished_at > system.clock() - interval '3 hours'",
        [ids[3]],
    )
    db.execute(
        "update system.sync_state set consecutive_failures = 4, backoff_until = system.clock() + interval '37 minutes',"
        " last_success_at = system.clock() - interval '3 hours', last_slot_at = system.clock() - interval '64 minutes', last_run_id = %s"
        " where sync_type = 'orders' and agent_id = %s",
        [failed, ids[3]],
    )
    hold(db, "customers", ids[0], message=hostile or "54 of 120 known rows would vanish (45 %; allowed are 40 %)", rule="planned-deletes",
         sample=[[hostile or f"C-{n}"] for n in range(8)], changes=[], planned={"vanishing": 54, "changed": 2, "new": 0})  # fmt: skip
    hold(
        db, "invoices", ids[1], message=hostile or "118 of 120 known rows would be rewritten (98 %; allowed are 50 %)",
        rule="planned-rewrites", sample=[],
        changes=[{"key": [hostile or f"F/26/{1800 + n}"],
                  "fields": {"net_amount": [f"{n}240.50", f"{n}24050.00"], "total_amount": [f"{n}513.41", hostile or f"{n}51341.00"],
                             "due_date": ["2026-12-31", None]}}
                 for n in range(1, 9)],
        planned={"rewritten": 118, "changed": 118, "new": 0, "vanishing": 0},
        findings=[_finding("rescaled", "net_amount", "becomes 100 times as large", [["1240.50", "124050.00"], ["2240.50", "224050.00"],
                   ["3240.50", "324050.00"]], hostile),
                  _finding("emptied", "due_date", "loses its value", [["2026-12-31", ""]], hostile)],
    )  # fmt: skip
    add_run(
        db,
        "queued",
        sync_type="ddt",
        agent_id=ids[2],
        trigger="forced",
        requested_by=hostile or "anna",
        request_reason=hostile or "a customer waits",
    )
    add_run(db, "running", sync_type="orders", agent_id=ids[4], worker="host-2:77", started_at=_now(db))
    add_run(
        db, "succeeded", sync_type="ddt", agent_id=ids[5], trigger="forced", requested_by="anna@desk", request_reason="new price list",
        rows_seen=12,
        rows_quarantined=1, rows_inserted=11, reason="applied", message="12 rows seen: 11 inserted, 1 could not be read",
        warnings=Jsonb([{"code": "quarantined", "message": hostile or "1 row could not be read"}]),
        quarantined_rows=Jsonb([{"line": 7, "field": "quantity", "reason": hostile or "'12,,5' is no number"}]),
        export=Jsonb({"origin": "https://erp.example/ddt.csv", "bytes": 4096, "sha256": "3f" * 32, "format": "csv"}),
        steps=Jsonb({"fetch": 30, "read": 4, "write": 6, "total": 41}), started_at=_now(db), finished_at=_now(db), delivered_at=_now(db),
        worker="host-1:101",
    )  # fmt: skip
    db.execute(
        "insert into system.pauses (sync_type, until, reason, paused_by)"
        " values ('prices', system.clock() + interval '7 hours', %s, 'luca')",
        [hostile or "price list of December"],
    )
    somebody = Actor(name=hostile or "anna@desk", via=Via.CLI)
    deed = Deed(sync_type="orders", before={"interval_minutes": 15}, after={"interval_minutes": 10})
    audit.record(db, somebody, "interval set", [deed], why=hostile or "fresher orders")
    audit.record(
        db,
        somebody,
        "agent allow",
        [Deed(agent_id=ids[5], before={"whitelisted": False}, after={"whitelisted": True})],
        why=None,
    )


def plant_long_names(db: Database) -> str:
    """Six agents, one with a long id, and a type with names as long as PostgreSQL has them; its name."""
    plant(db)
    name, column = ("returned_goods_and_credit_notes_of_the_branch_offices_" + "x" * 63)[:50], "c" * 63
    toml = f'name = "{name}"\nscope = "agent"\ninterval = 30\nkey = ["return_number"]\n[fields]\n'
    toml += (
        f'return_number = {{ kind = "identifier", labels = ["N"] }}\n{column} = {{ kind = "date", labels = ["D"] }}\n'
    )
    type_ = declarations.read(declarations.parse_toml(toml.encode(), "long.toml"), file="long.toml")
    somebody = Actor(name="anna@desk", via=Via.CLI)
    types.apply(db, somebody, type_, Config(environment={}), file="long.toml")
    agents.add(db, LONG_ID, name="Maria Antonietta " * 6, whitelisted=True)
    columns = {(Rule.COLUMNS_SWAPPED, column): 30, (Rule.EMPTIED, ""): 70}
    settings.set_limits(db, somebody, {type_: Limits(columns=columns)}, why="w" * 200)
    settings.pause(db, somebody, sync_type=name, agent_id=LONG_ID, why="w" * 200)
    db.execute("update system.sync_state set consecutive_failures = 5 where sync_type = %s", [name])
    finding = _finding("columns-swapped", column, "m " * 40, [["a" * 50, "b" * 50]], None)
    changes: list[object] = [{"key": ["K" * 80], "fields": {column: ["v" * 90, None]}}]
    hold(db, name, LONG_ID, message="54 of 120 known rows would vanish", rule="planned-deletes", sample=[["R" * 60]], changes=changes,
         planned={"vanishing": 54}, findings=[finding])  # fmt: skip
    return name


def _finding(rule: str, column: str, what: str, examples: list[list[str]], hostile: str | None) -> dict[str, object]:
    message = (
        hostile or f"{column}: {what} in 118 of 120 rows that have a value: 98 % (at most 10 % are applied unasked)"
    )
    return {
        "rule": rule,
        "column": hostile or column,
        "message": message,
        "examples": [*examples, [hostile, hostile]] if hostile else examples,
    }


def hold(
    db: Database,
    sync_type: str,
    agent_id: str,
    *,
    message: str,
    rule: str,
    sample: list[object],
    changes: list[object],
    planned: dict[str, int],
    findings: Sequence[object] = (),
) -> int:
    """An export of the pair that waits for a decision; its run."""
    run_id = add_run(db, "held", sync_type=sync_type, agent_id=agent_id, reason=rule, message=message, rows_seen=120)
    db.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, sha256, rows_valid, known_rows,"
        " data_version, sample, planned, changes, findings)"
        " select %s, %s, %s, %s, %s, true, %s, 66, 120, st.data_version, %s, %s, %s, %s"
        " from system.sync_state st where st.sync_type = %s and st.agent_id = %s",
        [
            run_id,
            sync_type,
            agent_id,
            rule,
            message,
            "3f1c" * 16,
            Jsonb(sample),
            Jsonb(planned),
            Jsonb(changes),
            Jsonb(list(findings)),
            sync_type,
            agent_id,
        ],
    )
    return run_id


def _now(db: Database) -> object:
    row = db.execute("select system.clock() as now").fetchone()
    assert row is not None
    return row["now"]


def audited(db: Database) -> list[tuple[str, str, str]]:
    """Who did what from where, newest first."""
    return [(r.who, r.via, r.action) for r in audit.newest(db)]


def waiting(db: Database) -> int:
    return count(db, "select count(*) from system.held_exports where decision is null")
