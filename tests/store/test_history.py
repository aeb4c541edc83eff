"""The newest runs by type, agent, state and time are those that a walk over all runs finds."""

from datetime import UTC, datetime

from archisync.store import health, history
from archisync.store.database import Database
from archisync.store.runs import State
from tests.support.rows import RUN_ID, add_run, whitelist_agents


def test_the_newest_runs_are_those_that_a_walk_over_all_runs_finds(connection: Database) -> None:
    whitelist_agents(connection, 9)
    connection.execute("select setseed(0.5)")
    connection.execute(f"""
        insert into system.sync_runs (id, sync_type, agent_id, state, trigger, queued_at, finished_at)
        select {RUN_ID}, (array['orders', 'customers', 'ddt'])[1 + (random() * 2)::int], 'a' || 1 + (random() * 8)::int,
               (array['succeeded', 'failed', 'held', 'skipped'])[1 + (random() * 3)::int], 'scheduled',
               timestamptz '2026-03-01 12:00Z' + n * interval '1 minute', timestamptz '2026-03-01 12:02Z' + n * interval '1 minute'
          from generate_series(1, 600) n""")
    add_run(connection, "queued", agent_id="a1", queued_at="2026-03-02T00:00:00Z")
    add_run(connection, "running", agent_id="a1", sync_type="ddt", queued_at="2026-03-02T00:00:00Z")
    for sync_type in (None, "orders", "ddt", "prices"):
        for agent_id in (None, "a1", "a2", "nobody"):
            for state in (None, State.FAILED, State.QUEUED, State.RUNNING, State.SUCCEEDED):
                for since in (None, datetime(2026, 3, 1, 20, tzinfo=UTC)):
                    rows = connection.execute(
                        "select id from system.runs where (%(t)s::text is null or sync_type = %(t)s)"
                        " and (%(a)s::text is null or agent_id = %(a)s) and (%(s)s::text is null or state = %(s)s)"
                        " and (%(since)s::timestamptz is null or queued_at >= %(since)s) order by id desc limit 7",
                        {"t": sync_type, "a": agent_id, "s": state, "since": since},
                    ).fetchall()
                    found = history.newest(
                        connection,
                        sync_type=sync_type,
                        agent_id=agent_id,
                        state=state,
                        since=since,
                        limit=7,
                    )
                    assert [run.run_id for run in found] == [row["id"] for row in rows]


def test_queued_runs_are_counted_and_listed_with_or_without_a_delivery(connection: Database) -> None:
    whitelist_agents(connection, 60)
    connection.execute("insert into system.deliveries (forced) select false from generate_series(1, 5)")
    connection.execute("""
        insert into system.queued_runs (sync_type, agent_id, trigger, queued_at, delivery_id)
        select t.name, 'a' || n, 'scheduled', timestamptz '2026-03-01 12:00Z' + n * interval '1 minute',
               case when n <= 50 then (select min(id) from system.deliveries) + (n - 1) / 10 end
          from generate_series(1, 60) n join (values ('orders', 1), ('ddt', 3), ('invoices', 70)) t(name, every) on n % t.every = 0""")
    connection.execute(
        "update system.sync_state st set unfinished_run_id = q.id from system.queued_runs q"
        " where (st.sync_type, st.agent_id) = (q.sync_type, q.agent_id)"
    )
    queued = {h.sync_type: h.queued for h in health.type_health(connection)}
    assert queued == {"orders": 60, "ddt": 20, "invoices": 0, "customers": 0, "products": 0, "prices": 0}
    for sync_type in (None, "orders", "ddt", "invoices"):
        for since in (None, datetime(2026, 3, 1, 12, 45, tzinfo=UTC)):
            for limit in (3, 17, 100):
                rows = connection.execute(
                    "select id from system.runs where (%(t)s::text is null or sync_type = %(t)s)"
                    " and (%(since)s::timestamptz is null or queued_at >= %(since)s) order by id desc limit %(limit)s",
                    {"t": sync_type, "since": since, "limit": limit},
                ).fetchall()
                found = history.newest(
                    connection, sync_type=sync_type, agent_id=None, state=State.QUEUED, since=since, limit=limit
                )
                assert [run.run_id for run in found] == [row["id"] for row in rows]
