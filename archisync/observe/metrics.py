"""The metrics as Prometheus text: gauges that are read from PostgreSQL and Redis for each scrape.

This process counts nothing, so any number of them report the same. When a server is out of reach, its metrics are left out and
`archisync_up` is 0: a scrape does not fail because of what it watches. Importing this module raises ConfigurationError without the extra
`metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from archisync import __version__
from archisync.base.errors import ArchisyncError, ConfigurationError
from archisync.rules.config import Config
from archisync.store import health, migrations, ticks
from archisync.store.database import Database, connected
from archisync.store.health import TypeHealth

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import GaugeMetricFamily
except ModuleNotFoundError:
    raise ConfigurationError(
        "metrics need prometheus_client, which is not installed", hint="pip install 'archisync[metrics]'"
    ) from None

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FILE_MODE = 0o644
"""node-exporter reads the file as another user. Nothing in it is secret."""

_BY_TYPE: tuple[tuple[str, str, Callable[[TypeHealth], float | None]], ...] = (
    ("interval_seconds", "Interval of the type", lambda h: h.interval_minutes * 60),
    ("enabled", "1: the type is scheduled", lambda h: h.enabled),
    ("paused", "1: the type or everything is paused", lambda h: h.paused),
    ("pairs", "Pairs of type and agent that are scheduled", lambda h: h.pairs),
    ("pairs_stale", "Pairs whose last success is older than two intervals", lambda h: h.stale),
    ("pairs_failing", "Pairs whose last run failed", lambda h: h.failing),
    ("pairs_degraded", "Pairs whose last three runs failed, or more", lambda h: h.degraded),
    ("pairs_backing_off", "Pairs that are retried later after failures", lambda h: h.backing_off),
    ("exports_held", "Held exports without a decision", lambda h: h.held),
    ("runs_queued", "Runs that wait for a worker", lambda h: h.queued),
    ("runs_running", "Runs in progress", lambda h: h.running),
    ("last_success_timestamp_seconds", "Newest success of any pair", lambda h: _seconds(h.newest_success_at)),
    (
        "oldest_success_timestamp_seconds",
        "Last success of the least fresh pair; absent while a pair never succeeded",
        lambda h: _seconds(h.oldest_success_at),
    ),
)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def registry(config: Config) -> CollectorRegistry:
    """A registry with these metrics and none about this process. Raises ConfigurationError when a server's URL is missing."""
    _ = config.database_url, config.redis_url
    found = CollectorRegistry(auto_describe=False)
    found.register(_Collector(config))
    return found


def text(config: Config) -> str:
    """The metrics in the text format. Raises ConfigurationError; a server out of reach is no error."""
    return generate_latest(registry(config)).decode()


class _Collector:
    """Reads the metrics from PostgreSQL and Redis whenever the registry asks for them."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("build_info", "Version of archisync", 1, version=__version__)
        up = GaugeMetricFamily("archisync_up", "1: the server answers", labels=["server"])
        for server, read in (("postgresql", self._from_database), ("redis", self._from_redis)):
            try:
                found = list(read())
            except ArchisyncError:
                found = []
            up.add_metric([server], bool(found))
            yield from found
        yield up

    def _from_database(self) -> Iterator[GaugeMetricFamily]:
        with connected(self._config.database_url, purpose="metrics") as db:
            current = migrations.problem(db) is None
            yield _gauge("schema_current", "1: every migration is applied", current)
            if current:
                yield from _of_types(db)
                yield from _of_ticks(db)

    def _from_redis(self) -> Iterator[GaugeMetricFamily]:
        from archisync.queue.client import redis_client
        from archisync.queue.joblist import queue_length
        from archisync.queue.workers import live_workers

        name = self._config.queue
        with redis_client(self._config.redis_url) as client:
            yield _gauge("queue_length", "Deliveries that wait for a worker", queue_length(client, name), queue=name)
            yield _gauge("workers", "Workers that are alive", len(live_workers(client, name)), queue=name)


def _of_types(db: Database) -> Iterator[GaugeMetricFamily]:
    meaning = "Counts of pairs, runs and exports stop here; more pairs are an estimate"
    yield _gauge("counted_at_most", meaning, health.COUNTED)
    types = health.type_health(db)
    for name, meaning, value in _BY_TYPE:
        family = GaugeMetricFamily(f"archisync_{name}", meaning, labels=["type"])
        for of_type in types:
            if (number := value(of_type)) is not None:
                family.add_metric([of_type.sync_type], number)
        yield family


def _of_ticks(db: Database) -> Iterator[GaugeMetricFamily]:
    beat = ticks.last(db)
    if beat is None:
        return
    yield _gauge("tick_last_timestamp_seconds", "Start of the last tick", beat.started_at.timestamp())
    yield _gauge("tick_age_seconds", "Seconds since then by PostgreSQL's clock", beat.age_s)
    yield _gauge("tick_last_duration_seconds", "Duration of the last tick", beat.duration_ms / 1000)
    yield _gauge("tick_last_failed", "1: the last tick could not deliver", beat.error is not None)


def _gauge(name: str, meaning: str, value: float, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"archisync_{name}", meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
