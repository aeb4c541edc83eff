"""What other programs ask of the panel: probes, which leave no line in the log, and metrics, which are those of `archisync metrics`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from archisync.store.database import Database
from tests.conftest import Cli
from tests.support import site as company
from tests.support.panel import READ_TOKEN, TOKENS, Panel, panel

PREFIX = {"ARCHISYNC_WEB_PREFIX": "/sync"}
PROXY = {"ARCHISYNC_WEB_PROXIES": "127.0.0.1"}
MARK = "/the-last-one"
FORMS = ("/healthz", "/readyz", "/healthz/", "/readyz/", "/healthz?verbose=1", "/readyz?x=/runs", "/%68ealthz")


def logged(log: Path, client: Any) -> list[str]:
    """The paths in the access log, once everything that was asked before is in it."""
    client.get(MARK)
    while True:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        paths = [str(line["path"]) for line in lines if line["event"] == "web-request"]
        if paths[-1:] == [MARK]:
            return paths


@pytest.mark.parametrize(
    ("environment", "headers", "before"),
    [
        ({}, {}, ("",)),
        (PREFIX, {}, ("", "/sync")),
        (PREFIX | PROXY, {"X-Forwarded-Prefix": "/other", "X-Forwarded-For": "10.1.2.3"}, ("", "/other")),
        (PROXY, {"X-Forwarded-Host": "erp.example", "Host": "10.0.0.7:8080"}, ("",)),
        ({}, {"Host": "a-pod.nobody.knows"}, ("",)),
    ],
)
def test_a_probe_is_answered_wherever_it_comes_from_and_is_not_in_the_log(
    environment: dict[str, str], headers: dict[str, str], before: tuple[str, ...],
    site: Database, database_url: str, redis_url: str, tmp_path: Path,
) -> None:  # fmt: skip
    log = tmp_path / "log"
    with (
        panel(database_url, redis_url, log, env=TOKENS | environment) as found,
        found.client(None, **headers) as client,
    ):
        for path in (prefix + form for prefix in before for form in FORMS):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n"), path
            head = client.head(path)
            assert (head.status_code, head.text, head.headers["content-length"]) == (200, "", "3"), path
        with found.client() as person:
            assert person.get("/healthz/more").status_code == 404
            assert logged(log, person) == ["/healthz/more", MARK]


def test_a_probe_says_that_postgresql_is_away_and_is_not_in_the_log_either(redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with panel("postgresql://nobody@127.0.0.1:9/x", redis_url, log) as found, found.client(None) as client:
        assert (client.get("/healthz").status_code, client.head("/readyz").status_code) == (200, 503)
        assert client.get("/readyz/").text == "PostgreSQL is out of reach\n"
        assert logged(log, client) == [MARK]


@pytest.fixture
def troubled(connection: Database) -> Database:
    """Pairs in every state, so that no metric is missing."""
    company.plant(connection)
    return connection


@pytest.fixture
def shown(troubled: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Panel]:
    env = TOKENS | PREFIX | {"ARCHISYNC_QUEUE": "night"}
    with panel(database_url, redis_url, tmp_path / "log", env=env) as found:
        yield found


def families(text: str) -> dict[str, tuple[str, str, dict[tuple[tuple[str, str], ...], float]]]:
    """Name → type, help, and values by labels, as Prometheus reads the text."""
    return {
        family.name: (family.type, family.documentation, {tuple(s.labels.items()): s.value for s in family.samples})
        for family in text_string_to_metric_families(text)
    }


def test_the_metrics_are_those_of_the_command(shown: Panel, troubled: Database, cli: Cli) -> None:
    typed = cli("metrics", env={"ARCHISYNC_QUEUE": "night"})
    assert typed.returncode == 0, typed.stderr
    with shown.client(READ_TOKEN) as client:
        scraped = client.get(
            "/sync/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"}
        )
        assert client.head("/metrics").status_code == 200
    assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    ours, theirs = families(scraped.text), families(typed.stdout)
    assert list(ours) == list(theirs)
    (_, _, scraped_age), (_, _, typed_age) = (found.pop("archisync_tick_age_seconds") for found in (ours, theirs))
    assert scraped_age[()] >= typed_age[()]  # the only one that grows by itself
    assert ours == theirs
    assert ours["archisync_queue_length"][2].keys() == {(("queue", "night"),)}
    assert len(ours) > 20
    assert all(kind == "gauge" and meaning for kind, meaning, _ in ours.values())
    comments = [line for line in scraped.text.splitlines() if line.startswith("#")]
    assert comments == [line for line in typed.stdout.splitlines() if line.startswith("#")]


def test_the_metrics_are_as_closed_as_the_pages(
    shown: Panel, site: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with shown.client(None) as stranger, shown.client("a-wrong-token-of-the-tests") as guessing:
        assert stranger.get("/metrics").status_code == guessing.get("/metrics").status_code == 401
        assert stranger.get("/sync/metrics?token=" + READ_TOKEN).status_code == 401
    with shown.client(READ_TOKEN) as reader:
        assert reader.post("/metrics").status_code == 405
        assert reader.get("/metrics", headers={"Host": "rebound.example"}).status_code == 421
    with panel(database_url, redis_url, tmp_path / "open", env={}) as found, found.client(None) as client:
        assert client.get("/metrics").status_code == 200  # nobody has to sign in, and only this machine can ask
