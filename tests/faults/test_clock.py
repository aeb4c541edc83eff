"""Wrong clocks and awkward time zones: PostgreSQL's clock decides, to the second, and a wrong time costs one tick at most."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from archisync.base.errors import ConfigurationError
from archisync.queue.client import redis_client
from archisync.rules.config import Config
from archisync.rules.due import FUTURE_SLOT, LONGEST_BACKOFF, LONGEST_RETRY, PairState, Reason, decide
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.tick import tick
from archisync.store import (
    activity,
    agents,
    clock,
    health,
    history,
    pairs,
    queued_runs,
    runs,
    settings,
    ticks,
    timetable,
)
from archisync.store.database import Database, connected
from tests.conftest import Cli
from tests.support.rows import RUN_ID, begin_run, count, drain, forget_runs
from tests.support.versions import AGENT

REPOSITORY = Path(__file__).parents[2]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
TEN_YEARS = timedelta(days=3650)
SECOND = timedelta(seconds=1)
NOW = datetime(2026, 5, 5, 12, tzinfo=UTC)

CHANGES = [
    ("Europe/Rome", "2026-03-29T01:00:00Z"),
    ("Europe/Rome", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),  # skips a whole day
    ("Asia/Kathmandu", "1985-12-31T18:30:00Z"),  # a quarter of an hour
    ("UTC", "2026-03-29T01:00:00Z"),
]


@pytest.fixture
def one_pair(connection: Database) -> Database:
    """Only the orders of one agent are scheduled; it is NOW."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("update system.sync_settings set enabled = sync_type = 'orders'")
    set_clock(connection, NOW)
    return connection


def set_clock(db: Database, moment: datetime) -> None:
    db.execute(f"set archisync.now = '{moment.isoformat()}'")


def state_now(db: Database) -> tuple[PairState, datetime]:
    return pairs.state(db, SYNC_TYPES["orders"], AGENT), clock.now(db)


# --- the host's clock -------------------------------------------------------------------------------------------------


def test_only_the_log_and_doctor_read_the_host_s_clock() -> None:
    reads = re.compile(
        r"datetime\.(now|today|utcnow)|date\.today|time\.(time|localtime|gmtime)\(|import time\b.*\btime\b"
    )
    found = {p.name for p in (REPOSITORY / "archisync").rglob("*.py") if reads.search(p.read_text("utf-8"))}
    # A line of `tick --json` has the time of a log line; a page of an error says when it was made.
    assert found == {"log.py", "in_database.py", "quicktick.py", "look.py"}
    statements = re.compile(r"\b(now\(\)|current_timestamp|clock_timestamp|localtimestamp)", re.I)
    stores = [*(REPOSITORY / "archisync/store").glob("*.py")]
    # The migrations table is written before system.clock() exists.
    assert [p.name for p in stores if statements.search(p.read_text("utf-8"))] == ["migrations.py"]


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (apt-get install faketime)")
@pytest.mark.parametrize("offset", ["+3650d", "-3650d"])
def test_a_host_whose_clock_is_ten_years_off_decides_and_works_as_any_other(
    cli: Cli, connection: Database, config: Config, offset: str
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    # Without an RQ worker: libfaketime can break short waits for a lock, which a thread of redis-py relies on.
    wrong = dict(config.environment) | {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset}
    assert "enqueued 6" in cli("tick", env=wrong).stdout
    assert "due 0, enqueued 0" in cli("tick", env=wrong).stdout
    worked = cli("run", "all", "--inline", env=wrong)
    assert worked.returncode == 0, worked.stderr
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") == 6
    off = "abs(extract(epoch from system.clock() - t)) > 120"
    stamps = "select unnest(array[queued_at, slot_at, delivered_at, started_at, finished_at]) as t from system.runs"
    assert count(connection, f"select count(*) from ({stamps}) s where {off}") == 0
    assert count(connection, f"select count(*) from (select started_at as t from system.ticks) s where {off}") == 0
    assert "due 0, enqueued 0" in cli("tick", env=wrong).stdout


# --- time zones -------------------------------------------------------------------------------------------------------


@pytest.fixture
def abroad(connection: Database, database_url: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A connection with the test's `zone`. Our sessions have UTC, and what they compute would be right without."""
    zone = request.getfixturevalue("zone")
    agents.add(connection, AGENT, name=None, whitelisted=True)
    with connected(database_url, purpose="abroad") as db:
        db.execute(f"set timezone to '{zone}'".encode())
        assert db.execute("select current_setting('timezone') as zone").fetchone() == {"zone": zone}
        yield db


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_intervals_are_exact_to_the_second_across_a_change_of_the_clocks(
    abroad: Database, config: Config, zone: str, change: str
) -> None:
    orders = SYNC_TYPES["orders"]
    abroad.execute("update system.sync_settings set enabled = sync_type = 'orders'")
    changes_at = datetime.fromisoformat(change)
    for minutes in (5, 60, 720, 1440):
        every = timedelta(minutes=minutes)
        settings.set_interval(abroad, orders, minutes)
        for before in (SECOND, every / 2, every - SECOND):
            slot = (changes_at - before).replace(microsecond=0)
            forget_runs(abroad)
            abroad.execute("update system.sync_state set last_slot_at = %s", (slot,))
            for moment, due in ((slot + every - SECOND, 0), (slot + every, 1)):
                set_clock(abroad, moment)
                state, now = state_now(abroad)
                assert now == moment
                decision = decide(state, now)
                assert (decision.due, decision.next_at) == (bool(due), slot + every)
                assert tick(abroad, config).due == due
            assert history.newest(abroad, limit=1)[0].slot_at == slot + every


@pytest.mark.parametrize(("zone", "change"), [CHANGES[0], CHANGES[5]])
def test_a_back_off_across_a_change_of_the_clocks_is_exact(abroad: Database, zone: str, change: str) -> None:
    settings.set_interval(abroad, SYNC_TYPES["orders"], 1440)
    moment = datetime.fromisoformat(change) - timedelta(hours=2)
    set_clock(abroad, moment)
    row = abroad.execute("select system.clock() + system.backoff('orders', 5) as until").fetchone()
    assert row == {"until": moment + timedelta(days=1)}


def test_a_date_style_of_the_database_changes_nothing(cli: Cli, connection: Database) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute(
        "do $$ begin execute format('alter database %I set datestyle to German', current_database()); end $$"
    )
    assert cli("tick").returncode == 0
    why = cli("why", "orders", AGENT)
    assert re.match(r"orders of anna\.bianchi: run \d+ is queued since \d{4}-\d\d-\d\dT", why.stdout), why


# --- times in the future ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "latest"), [("last_slot_at", FUTURE_SLOT), ("backoff_until", LONGEST_BACKOFF)])
def test_a_pair_whose_time_is_far_in_the_future_is_run_by_the_next_tick_and_why_agrees(
    one_pair: Database, config: Config, column: str, latest: timedelta
) -> None:
    for future, due in ((latest, False), (latest + SECOND, True), (TEN_YEARS, True)):
        forget_runs(one_pair)
        one_pair.execute("update system.sync_state set last_slot_at = null, backoff_until = null")
        one_pair.execute(f"update system.sync_state set {column} = %s", (NOW + future,))
        assert decide(*state_now(one_pair)).due == due
        assert tick(one_pair, config).due == due


def test_a_retry_beyond_the_longest_delay_is_delivered_by_the_next_tick(one_pair: Database, config: Config) -> None:
    run = queued_runs.force(one_pair, "orders", AGENT, by="test", why=None).run_id
    for future, delivered in ((LONGEST_RETRY, 0), (LONGEST_RETRY + SECOND, 1), (TEN_YEARS, 1)):
        one_pair.execute(
            "update system.queued_runs set not_before = %s, delivery_id = null where id = %s", (NOW + future, run)
        )
        decision = decide(*state_now(one_pair))
        assert decision.reason is Reason.QUEUED
        assert ("begins after" in decision.sentence) == (not delivered)
        assert tick(one_pair, config).enqueued == delivered


def test_a_delivery_and_a_lease_in_the_future_delay_nothing(one_pair: Database, config: Config) -> None:
    run = queued_runs.force(one_pair, "orders", AGENT, by="test", why=None).run_id
    assert tick(one_pair, config).enqueued == 1
    with redis_client(config.redis_url) as client:
        client.flushall()
    one_pair.execute("update system.deliveries set delivered_at = %s", (NOW + TEN_YEARS,))
    assert tick(one_pair, config).redelivered == 1
    begin_run(one_pair, run)
    one_pair.execute("update system.claims set lease_until = %s", (NOW + TEN_YEARS,))
    summary = tick(one_pair, config)
    assert (summary.reaped, summary.enqueued) == (1, 1)


def test_a_tick_with_a_smaller_lease_than_a_worker_s_leaves_its_runs_alone(one_pair: Database, config: Config) -> None:
    longest = Config.from_environment({"ARCHISYNC_LEASE_S": "3600"})
    shortest = Config.from_environment(dict(config.environment) | {"ARCHISYNC_LEASE_S": "10"})
    with pytest.raises(ConfigurationError, match="3601"):
        _ = Config.from_environment({"ARCHISYNC_LEASE_S": "3601"}).lease_s
    run = queued_runs.force(one_pair, "orders", AGENT, by="test", why=None).run_id
    begin_run(one_pair, run, lease_s=longest.lease_s)
    assert (tick(one_pair, shortest).reaped, history.get(one_pair, run).state) == (0, "running")
    set_clock(one_pair, NOW - timedelta(minutes=1, seconds=1))
    assert tick(one_pair, shortest).reaped == 1  # no setting allows such a long lease


def test_a_pause_of_ten_years_is_obeyed_because_a_person_said_so(one_pair: Database, config: Config) -> None:
    settings.pause(one_pair, sync_type=None, agent_id=AGENT, until=NOW + TEN_YEARS, reason=None, by="test")
    assert tick(one_pair, config).due == 0
    assert decide(*state_now(one_pair)).reason is Reason.PAUSED


@pytest.mark.parametrize("leap", [TEN_YEARS, -TEN_YEARS])
def test_postgresql_s_clock_may_leap_ten_years_and_back_and_each_time_there_is_one_run(
    one_pair: Database, config: Config, leap: timedelta
) -> None:
    for moment, due in (
        (NOW, 1),
        (NOW + timedelta(minutes=1), 0),
        (NOW + leap, 1),
        (NOW + leap + timedelta(minutes=1), 0),
        (NOW + timedelta(minutes=2), 1),
        (NOW + timedelta(minutes=3), 0),
        (NOW + timedelta(minutes=12), 1),
    ):
        set_clock(one_pair, moment)
        assert (moment, tick(one_pair, config).due) == (moment, due)
        drain(one_pair, config)
    assert count(one_pair, "select count(*) from system.runs where state <> 'succeeded'") == 0


@pytest.mark.parametrize("leap", [TEN_YEARS, -TEN_YEARS])
def test_runs_of_a_wrong_clock_hide_no_later_ones(one_pair: Database, leap: timedelta) -> None:
    insert = (
        "insert into system.sync_runs (id, sync_type, agent_id, state, trigger, queued_at, started_at, finished_at, steps)"
        f" select {RUN_ID}, 'orders', %s, 'succeeded', 'scheduled', c, c, c, jsonb_build_object('total', %s::int) from"
        " generate_series(1, %s), system.clock() c returning id"
    )
    for moment, total_ms, number in ((NOW - timedelta(hours=2), 1000, 30), (NOW + leap, 9000, 1500), (NOW, 2000, 25)):
        set_clock(one_pair, moment)
        ids = [row["id"] for row in one_pair.execute(insert, [AGENT, total_ms, number]).fetchall()]
    newest = sorted(ids, reverse=True)
    for filters in ({}, {"sync_type": "orders"}, {"state": runs.State.SUCCEEDED}, {"since": NOW - timedelta(hours=1)}):
        assert [run.run_id for run in history.newest(one_pair, limit=20, **filters)] == newest[:20], filters
    assert {point.seconds for point in activity.trends(one_pair, limit=24)["orders"]} == {2.0}
    assert timetable.durations(one_pair)["orders"] == pytest.approx((25 * 2 + 975 * 9) / 1000)
    slowest = activity.slowest(one_pair, since=NOW - timedelta(hours=1), limit=2000)
    assert {slow.run_id for slow in slowest} >= set(ids)


def test_history_of_the_future_is_pruned_like_any_other(one_pair: Database, config: Config) -> None:
    """Its age is unknown: it is kept as long as a run that finished on the day when a tick finds it."""
    set_clock(one_pair, NOW + TEN_YEARS)
    for _ in range(2):
        queued_runs.force(one_pair, "orders", AGENT, by="test", why=None)
        drain(one_pair, config)
    set_clock(one_pair, NOW)
    tick(one_pair, config)
    assert drain(one_pair, config) == 1
    for day, left in ((89, [1, 2, 3]), (91, [2, 3])):  # the pair's state names the last two
        set_clock(one_pair, NOW + timedelta(days=day))
        one_pair.execute("update system.sync_state set last_slot_at = system.clock()")
        tick(one_pair, config)
        rows = one_pair.execute("select id from system.sync_runs order by id").fetchall()
        assert (day, [row["id"] for row in rows]) == (day, left)


def test_status_does_not_call_a_pair_healthy_for_a_success_in_the_future(one_pair: Database, config: Config) -> None:
    tick(one_pair, config)
    drain(one_pair, config)
    assert next(h for h in health.type_health(one_pair) if h.sync_type == "orders").word == "healthy"
    set_clock(one_pair, NOW - TEN_YEARS)
    assert next(h for h in health.type_health(one_pair) if h.sync_type == "orders").word == "stale"
    note = "the last tick is dated in the future: was PostgreSQL's clock set back?"
    assert ticks.overdue_note(ticks.last(one_pair)) == note
    tick(one_pair, config)
    assert ticks.overdue_note(ticks.last(one_pair)) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("zone", ["Europe/Rome"])
def test_a_tick_and_decide_agree_on_any_times(abroad: Database, config: Config, zone: str, seed: int) -> None:
    random = Random(seed)
    now = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # half an hour after the clocks went forward in Rome
    set_clock(abroad, now)
    abroad.execute("insert into agents.users (id, whitelisted) select 'b' || g, true from generate_series(1, 150) g")
    edges = [
        FUTURE_SLOT,
        LONGEST_BACKOFF,
        LONGEST_RETRY,
        TEN_YEARS,
        timedelta(hours=1),
        timedelta(minutes=10),
        timedelta(),
    ]

    def any_time() -> datetime | None:
        if random.random() < 0.3:
            return None
        return now + random.choice([-1, 1]) * random.choice(edges) + random.randint(-1, 1) * SECOND

    found = abroad.execute("select sync_type, agent_id from system.sync_state").fetchall()
    with abroad.cursor() as cursor:
        cursor.executemany(
            "update system.sync_state set last_slot_at = %s, backoff_until = %s where sync_type = %s and agent_id = %s",
            [(any_time(), any_time(), row["sync_type"], row["agent_id"]) for row in found],
        )
        cursor.executemany(
            "insert into system.pauses (agent_id, until) values (%s, %s)", [(f"b{n}", any_time()) for n in range(1, 40)]
        )
    expected = {(f.sync_type, f.agent_id) for f in pairs.active_states(abroad) if decide(f, now).due}
    tick(abroad, config)
    made = abroad.execute("select sync_type, agent_id from system.queued_runs where trigger = 'scheduled'").fetchall()
    assert {(row["sync_type"], row["agent_id"]) for row in made} == expected
    assert 50 < len(expected) < len(found) - 50
