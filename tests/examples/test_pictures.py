"""The README's pictures show what the commands show. `UPDATE_PICTURES=1 pytest tests/examples/test_pictures.py` makes them anew."""

import os
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from archisync.store import agents
from archisync.store.database import Database
from tests.cli.rows import AT_NOON, NOW
from tests.conftest import REPOSITORY, Cli
from tests.support import pictures
from tests.support.browser import chromium

pytestmark = pytest.mark.check
UPDATE = bool(os.environ.get("UPDATE_PICTURES"))
MOST_DIFFERENT = 8.0
"""Mean difference of a pixel's colours (0 to 255): another machine has other fonts. A page without its charts differs by more."""
WEEK = """
insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, queued_at, started_at, finished_at, steps)
select nextval('system.queued_runs_id_seq'), p.sync_type, p.agent_id, s.state, s.reason, s.message, 'scheduled',
       at, at, at + interval '1 s', jsonb_build_object('total', 40 + (n * 7919) % 400)
  from generate_series(1, 7 * 12) n
 cross join lateral (select system.clock() - n * interval '2 hours' as at) t
 cross join system.sync_state p
 cross join lateral (select case when n in (30, 31) and p.sync_type = 'orders' then 'failed' else 'succeeded' end as state) f
 cross join lateral (select f.state, case f.state when 'failed' then 'source-missing' else 'applied' end as reason,
                            case f.state when 'failed' then 'no export at /srv/exports/' || p.agent_id || '/orders.csv' end as message) s
 order by n desc, p.sync_type, p.agent_id
"""


def test_the_picture_of_the_demo_is_what_it_prints() -> None:
    made = pictures.demo_svg()
    if UPDATE:
        pictures.FOLDER.mkdir(exist_ok=True)
        pictures.DEMO.write_text(made, "utf-8")
    assert pictures.DEMO.read_text("utf-8") == made


@pytest.fixture
def week(connection: Database) -> None:
    """Seven days of runs until noon; one export is held."""
    connection.execute(f"set archisync.now = '{NOW}'")
    for name in ("anna.bianchi", "luca.ferrari", "giulia.romano"):
        agents.add(connection, name, name=None, whitelisted=True)
    connection.execute(WEEK)
    connection.execute(
        "update system.sync_state set last_success_at = system.clock() - interval '4 min', last_slot_at = system.clock() - interval '4 min'"
    )
    connection.execute("insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
                       " values (system.clock() - interval '20 s', 5, 'erp-1', 0, 0, 0, 0, '{}')")  # fmt: skip
    row = connection.execute(
        "insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, queued_at, finished_at)"
        " values (nextval('system.queued_runs_id_seq'), 'customers', 'luca.ferrari', 'held', 'row-drop', 'held', 'scheduled',"
        " system.clock() - interval '1 hour', system.clock() - interval '1 hour') returning id"
    ).fetchone()
    assert row is not None
    connection.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, rows_valid, data_version, held_at)"
        " values (%s, 'customers', 'luca.ferrari', 'row-drop', 'the export has 14 rows, 46 are known: 69 %% fewer', true, 14, 0,"
        " system.clock() - interval '1 hour')",
        [row["id"]],
    )


@pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
@pytest.mark.usefixtures("week")
def test_the_picture_of_the_report_is_a_screenshot_of_it(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    env = AT_NOON | {"ARCHISYNC_REDIS_URL": ""}  # whose workers are no part of the picture
    assert cli("report", "--html", str(page), env=env).returncode == 0
    made = pictures.report_picture(page, tmp_path / "profile")
    if UPDATE:
        made.quantize(64).save(pictures.REPORT, optimize=True)
    kept = Image.open(pictures.REPORT).convert("RGB")
    assert made.size == kept.size
    difference = ImageChops.difference(made, kept)
    assert sum(ImageStat.Stat(difference).mean) / 3 < MOST_DIFFERENT


def test_the_readme_shows_both() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    for picture in (pictures.DEMO, pictures.REPORT):
        assert f"]({picture.relative_to(REPOSITORY)})" in readme
        assert picture.stat().st_size < 300_000
