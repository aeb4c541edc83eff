"""The example alerts: they name metrics that exist, and Prometheus itself finds that they fire when something is wrong and only then."""

import json
import re
import shutil
import subprocess
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import record_tick

FILE = REPOSITORY / "examples/prometheus/alerts.yml"
RULES = [rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]]
ALERTS = [rule["alert"] for rule in RULES]
OF_TYPES = {rule["alert"] for rule in RULES if re.search(r"archisync_(pairs|exports|runs)_", rule["expr"])}
PROMTOOL = shutil.which("promtool")


def scraped(cli: Cli) -> dict[str, float]:
    """Series, as Prometheus writes it → value."""
    return {
        s.name + json.dumps(s.labels).replace('": ', "=").replace('{"', "{").replace(', "', ", "): s.value
        for family in text_string_to_metric_families(cli("metrics").stdout)
        for s in family.samples
    }


def firing(folder: Path, series: dict[str, float]) -> AbstractSet[str]:
    """The alerts that Prometheus raises when it has scraped the same figures for twenty minutes."""
    assert PROMTOOL
    expected = [{"eval_time": "20m", "alertname": name, "exp_alerts": []} for name in ALERTS]
    inputs = [{"series": name, "values": f"{value:f}x20"} for name, value in series.items()]
    test = {"interval": "1m", "input_series": inputs, "alert_rule_test": expected}
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    unexpected = re.findall(r"alertname: (\w+), time", done.stdout + done.stderr)
    assert (done.returncode == 0) == (not unexpected), done.stdout + done.stderr
    return set(unexpected)


def test_they_name_metrics_that_exist(cli: Cli, connection: Database) -> None:
    agents.add(connection, "a", name=None, whitelisted=True)
    record_tick(connection, ago="1 s")
    names = {series.partition("{")[0] for series in scraped(cli)}
    for rule in RULES:
        used = set(re.findall(r"archisync_\w+", rule["expr"]))
        assert used
        assert used <= names
        assert set(rule["annotations"]) == {"summary", "action"}
    assert {"ArchisyncNoTick", "ArchisyncPairStale", "ArchisyncExportHeld", "ArchisyncRunFailing"} <= set(ALERTS)
    assert len(ALERTS) == len(set(ALERTS))


def test_none_of_a_type_fires_while_it_is_switched_off_or_paused() -> None:
    assert {"ArchisyncPairStale", "ArchisyncRunFailing", "ArchisyncDegraded"} <= OF_TYPES
    for rule in RULES:
        if rule["alert"] in OF_TYPES:
            assert rule["expr"].endswith(" and archisync_enabled == 1 and archisync_paused == 0"), rule["alert"]


@pytest.mark.check
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus)")
def test_prometheus_raises_them_for_what_is_wrong_and_not_for_what_is_paused(
    cli: Cli, connection: Database, tmp_path: Path
) -> None:
    agents.add(connection, "a", name=None, whitelisted=True)
    record_tick(connection, ago="1000 s")
    connection.execute(
        "update system.sync_state set last_success_at = '2026-03-01T12:00:00Z', consecutive_failures = 3"
        " where sync_type = 'orders'"
    )
    wrong = scraped(cli)
    wrong['archisync_exports_held{type="orders"}'] = 1
    assert firing(tmp_path, wrong) == set(ALERTS) - {"ArchisyncServerUnreachable"}
    away = {name: 0.0 if name == 'archisync_up{server="redis"}' else value for name, value in wrong.items()}
    assert firing(tmp_path, away) == set(ALERTS)
    assert cli("pause", "--all", "--reason", "the ERP is moved").returncode == 0
    paused = scraped(cli)
    paused['archisync_exports_held{type="orders"}'] = 1
    assert firing(tmp_path, paused) == {"ArchisyncNoTick", "ArchisyncNoWorker"}
    assert firing(tmp_path, {}) == {"ArchisyncNoTick"}
