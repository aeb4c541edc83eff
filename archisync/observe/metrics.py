"""What a monitoring system wants to know, as Prometheus text: gauges read from PostgreSQL and Redis at the moment of asking.

Nothing is counted in this process, so any number of them tell the same. What can't be asked (Redis or PostgreSQL is away) is left
out, and `archisync_up` says so: a scrape never fails because of the thing that it is to watch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from archisync import __version__
from archisync.base.errors import ArchisyncError, ConfigurationError, UsageError
from archisync.rules.config import Config
from archisync.store import health, migrations, ticks
from archisync.store.database import Database, connected
from archisync.store.health import TypeHealth

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import CollectorRegistry

FILE_MODE = 0o644
"""node-exporter reads the file under another account; nothing in it is secret."""

_BY_TYPE: tuple[tuple[str, str, Callable[[TypeHealth], Any]], ...] = (
    ("interval_seconds", "Interval of the type", lambda h: h.interval_minutes * 60),
    ("enabled", "1: the type is scheduled", lambda h: int(h.enabled)),
    ("paused", "1: a pause of the type, or of everything, stands", lambda h: int(h.paused)),
    ("pairs", "Pairs of type and agent that are scheduled", lambda h: h.pairs),
    ("pairs_stale", "Pairs whose last success is older than two intervals", lambda h: h.stale),
    ("pairs_failing", "Pairs whose last run failed", lambda h: h.failing),
    ("pairs_degraded", "Pairs whose last three runs failed, or more", lambda h: h.degraded),
    ("pairs_backing_off", "Pairs that rest after failures", lambda h: h.backing_off),
    ("exports_held", "Exports that wait for a person", lambda h: h.held),
    ("runs_queued", "Runs that wait", lambda h: h.queued),
    ("runs_running", "Runs that are being done", lambda h: h.running),
    ("last_success_timestamp_seconds", "Newest success of any pair", lambda h: _seconds(h.newest_success_at)),
    (
        "oldest_success_timestamp_seconds",
        "Last success of the least fresh pair; absent while one never succeeded",
        lambda h: _seconds(h.oldest_success_at),
    ),
)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _library() -> Any:
    try:
        import prometheus_client
    except ModuleNotFoundError:
        raise ConfigurationError(
            "metrics need prometheus_client, which is not installed", hint="pip install 'archisync[metrics]'"
        ) from None
    return prometheus_client


class Collector:
    """Asks PostgreSQL and Redis each time that it is collected."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[GaugeMetricFamily]:
        from prometheus_client.core import GaugeMetricFamily

        yield _gauge("build_info", "Version of archisync", 1, version=__version__)
        up = GaugeMetricFamily("archisync_up", "1: the server answers", labels=["server"])
        for server, read in (("postgresql", self._database), ("redis", self._redis)):
            try:
                found = list(read())
            except ArchisyncError:
                found = []
            up.add_metric([server], int(bool(found)))
            yield from found
        yield up

    def _database(self) -> Iterator[GaugeMetricFamily]:
        with connected(self._config.database_url, purpose="metrics") as db:
            current = migrations.problem(db) is None
            yield _gauge("schema_current", "1: every migration is applied", int(current))
            if current:
                yield from _of_types(db)
                yield from _of_ticks(db)

    def _redis(self) -> Iterator[GaugeMetricFamily]:
        from archisync.queue.client import redis_client
        from archisync.queue.joblist import queue_length
        from archisync.queue.workers import live_workers

        with redis_client(self._config.redis_url) as client:
            name = self._config.queue
            yield _gauge("queue_length", "Deliveries that wait for a worker", queue_length(client, name), queue=name)
            yield _gauge("workers", "Workers that are alive", len(live_workers(client, name)), queue=name)


def _of_types(db: Database) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    types = health.type_health(db)
    yield _gauge(
        "counted_at_most",
        "Counts of pairs, runs and exports stop here; pairs beyond it are an estimate",
        health.COUNTED,
    )
    for name, meaning, value in _BY_TYPE:
        family = GaugeMetricFamily(f"archisync_{name}", meaning, labels=["type"])
        for one in types:
            if (number := value(one)) is not None:
                family.add_metric([one.sync_type], number)
        yield family


def _of_ticks(db: Database) -> Iterator[GaugeMetricFamily]:
    beat = ticks.last(db)
    if beat is None:
        return
    at = beat.started_at.timestamp()
    yield _gauge("tick_last_timestamp_seconds", "Start of the last tick", at)
    yield _gauge("tick_age_seconds", "Time since then, by PostgreSQL's clock", beat.age_s)
    yield _gauge("tick_last_duration_seconds", "Duration of the last tick", beat.duration_ms / 1000)
    yield _gauge("tick_last_failed", "1: the last tick could not deliver", int(beat.error is not None))


def _gauge(name: str, meaning: str, value: float, **labels: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"archisync_{name}", meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def registry(config: Config) -> CollectorRegistry:
    """A registry of our own: no figures about this short-lived process. Raises ConfigurationError."""
    library = _library()
    _ = config.database_url, config.redis_url
    found: CollectorRegistry = library.CollectorRegistry(auto_describe=False)
    found.register(Collector(config))
    return found


def text(config: Config) -> str:
    """The metrics as Prometheus text. Raises ConfigurationError; a server that is away is told in the text."""
    exposition: bytes = _library().generate_latest(registry(config))
    return exposition.decode()


def parse_address(text: str) -> tuple[str, int]:
    """[HOST:]PORT; without a host, this machine only. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise UsageError(f"{ascii(text)[:40]} is not [HOST:]PORT", hint="for example 9464, or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


def serve(config: Config, host: str, port: int) -> tuple[Any, Any, int]:
    """Answer scrapes from a thread: (server, its thread, its port). Raises UsageError when the port can't be had."""
    collected = registry(config)
    try:
        server, thread = _library().start_http_server(port, addr=host, registry=collected)
    except OSError as exc:
        raise UsageError(f"{host}:{port} can't be listened on: {exc.strerror}", hint="choose another port") from None
    return server, thread, server.server_port
