"""Is everything there that archisync needs? One finding a check, each failure with the next command to type.

`judge_…` decide from values alone; the rest asks PostgreSQL, Redis and this machine. A check whose question can't be asked (no
database, no schema) is left out: the finding that stopped it is there already. Nothing is changed.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archisync import sources
from archisync.base.errors import ArchisyncError, ExitCode, UsageError
from archisync.rules.agentid import check_agent_id
from archisync.rules.config import SETTINGS, Config, variable_names
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type
from archisync.store import agents, checks, clock, grants, migrations, notices, ticks
from archisync.store.database import Database, connected

if TYPE_CHECKING:
    import redis

    from archisync.queue.workers import LiveWorker

OLDEST_POSTGRESQL = 150_000
"""`unique nulls not distinct` came with 15."""
OLDEST_REDIS = (6, 2)
"""RQ takes jobs with LMOVE."""
SKEW_WARNING = timedelta(seconds=5)
SKEW_FAILURE = timedelta(seconds=60)
PAIRS_LOOKED_AT = 5_000
"""Exports looked for: a bound on the time, not a sample that anybody relies on; the finding says when there are more."""
AGENTS_COUNTED = 10_000
AGENTS_COMPARED = 100_000
"""Half a second; the finding of an agent that comes later in the alphabet waits for `db migrate`, which compares all."""
SHOWN = 3
PREFIX = "ARCHISYNC_"
ALIKE = 0.8
"""How like a known variable's a name is that nobody reads (difflib's ratio), to be taken for a slip of the keyboard."""
_OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")
"""What Kubernetes tells of a service called archisync-…"""
DISK_FAILURE_BYTES = 200 * 1024**2
DISK_WARNING_BYTES = 1024**3


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found. `exit_code` counts when it failed."""

    check: str
    level: Level
    message: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.SYNC_FAILED


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle(Finding):
    """A failure because of which other questions could not be asked: shown whichever checks were wanted, or a check that never
    took place would look like one that found nothing."""


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def warning(check: str, message: str, hint: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, message=message, hint=hint)


def failed(check: str, message: str, hint: str, exit_code: ExitCode = ExitCode.SYNC_FAILED) -> Finding:
    return Finding(check=check, level=Level.FAILED, message=message, hint=hint, exit_code=exit_code)


def of_error(check: str, exc: ArchisyncError) -> Finding:
    return failed(check, exc.message, exc.hint, exc.exit_code)


def obstacle(check: str, exc: ArchisyncError) -> Obstacle:
    return Obstacle(check=check, level=Level.FAILED, message=exc.message, hint=exc.hint, exit_code=exc.exit_code)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """The gravest failure: out of reach, then configuration, then the rest. Warnings are no failure."""
    codes = {f.exit_code for f in findings if f.level is Level.FAILED}
    for code in (ExitCode.UNREACHABLE, ExitCode.CONFIGURATION):
        if code in codes:
            return code
    return ExitCode.SYNC_FAILED if codes else ExitCode.DONE


def some(names: Sequence[str]) -> str:
    """The first few of a list: a, b, c and 4 more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# --- decisions ----------------------------------------------------------------------------------------------------


def judge_postgresql(version: int, *, standby: bool) -> Finding:
    told = f"PostgreSQL {version // 10_000}.{version % 10_000} answers"
    if version < OLDEST_POSTGRESQL:
        return failed("database", f"{told}: too old", "PostgreSQL 15 or newer is needed", ExitCode.CONFIGURATION)
    if standby:
        hint = "ARCHISYNC_DATABASE_URL must name the primary"
        return failed("database", f"{told}, but as a read-only standby", hint, ExitCode.CONFIGURATION)
    return ok("database", told)


def judge_skew(skew: timedelta) -> Finding:
    """`skew`: how far this host's clock is ahead of PostgreSQL's, less what the question itself took."""
    seconds = abs(skew.total_seconds())
    if abs(skew) <= SKEW_WARNING:
        return ok("clock", "this host and PostgreSQL agree on the time")
    told = f"this host's clock is {seconds:.0f} s {'ahead of' if skew > timedelta(0) else 'behind'} PostgreSQL's"
    hint = "PostgreSQL's clock decides what is due: check NTP on both, and that no role has archisync.now set"
    return failed("clock", told, hint) if abs(skew) > SKEW_FAILURE else warning("clock", told, hint)


def judge_redis_version(version: str) -> Finding:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < OLDEST_REDIS:
        return failed("redis", f"Redis {version} is too old", "Redis 6.2 or newer is needed", ExitCode.CONFIGURATION)
    return ok("redis", f"Redis {version} answers")


def judge_eviction(policy: str, maxmemory_bytes: int) -> Finding:
    """A policy that evicts drops accepted jobs silently. `volatile-…` takes keys with an expiry only: the workers' own."""
    if policy == "noeviction":
        return ok("eviction", "Redis evicts nothing (maxmemory-policy noeviction)")
    told = f"Redis may drop queued jobs: maxmemory-policy is {policy}"
    hint = "CONFIG SET maxmemory-policy noeviction   (and in redis.conf, or in the provider's console)"
    if policy.startswith("allkeys-") and maxmemory_bytes:
        return failed("eviction", told, hint, ExitCode.CONFIGURATION)
    return warning("eviction", told if policy.startswith("allkeys-") else f"maxmemory-policy is {policy}", hint)


def judge_persistence(*, append_only: bool, snapshots: bool) -> Finding:
    if append_only or snapshots:
        return ok("persistence", f"Redis keeps its data ({'append-only file' if append_only else 'snapshots'})")
    hint = "nothing is lost (the next ticks deliver again); to keep the queue: CONFIG SET appendonly yes"
    return warning("persistence", "Redis forgets the queue when it restarts", hint)


def judge_disk(folder: Path, free_bytes: int) -> Finding:
    told = f"{free_bytes / 1024**2:.0f} MiB are free in {folder}"
    hint = "make room: the embedded PostgreSQL stops when its disk is full"
    if free_bytes < DISK_FAILURE_BYTES:
        return failed("disk", told, hint)
    return warning("disk", told, hint) if free_bytes < DISK_WARNING_BYTES else ok("disk", told)


# --- the checks ---------------------------------------------------------------------------------------------------


def check_hook(config: Config) -> Iterator[Finding]:
    """Whether the hook can be called at all; nothing is sent."""
    from archisync.schedule import hook

    try:
        if config.hook is None:
            return
        hook.check_hook(config.hook)
    except ArchisyncError as exc:
        yield of_error("hook", exc)
    else:
        yield ok("hook", "ARCHISYNC_HOOK can be called")


def check_notices(db: Database, config: Config) -> Iterator[Finding]:
    """Notices that the hook does not take, or that no tick has sent."""
    if not config.text("ARCHISYNC_HOOK"):
        return
    refused = notices.refused(db)
    if refused:
        told = f"{len(refused)} notice(s) could not be delivered, the oldest about {refused[0].subject}: {refused[0].outcome}"
        yield failed("notices", told, "check ARCHISYNC_HOOK; each is tried again for a day")
        return
    waiting, of_a_wrong_clock = notices.count_waiting(db)
    if of_a_wrong_clock:
        told = f"{of_a_wrong_clock} notice(s) are dated in the future: was PostgreSQL's clock set back?"
        yield warning("notices", told, "archisync tick   (sends them now)")
    else:
        yield ok("notices", f"{waiting} wait(s) for the next tick" if waiting else "none waits")


_CHECKED_APART = ("ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL", "ARCHISYNC_SOURCE", "ARCHISYNC_HOOK")


def check_settings(config: Config) -> Iterator[Finding]:
    """Every number and name that the environment gives, as a worker would read it; variables that nobody reads."""
    found: dict[str, Finding] = {}
    for setting in SETTINGS:
        if setting.name not in _CHECKED_APART:
            found |= {exc.message: of_error("settings", exc) for exc in setting.problems(config.environment)}
    found |= {name: judge_misspelt(name, meant) for name, meant in misspelt(config.environment)}
    yield from found.values() or [ok("settings", "the environment's settings can be read")]


def misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Variables that nobody reads, each with the one that is probably meant. A name that is like none of ours may be a plug-in's, or
    a Kubernetes service's (`ARCHISYNC_METRICS_PORT`)."""
    from difflib import get_close_matches

    known = [name.removeprefix(PREFIX) for name in variable_names()]
    for name in sorted(names):
        own = name.removeprefix(PREFIX)
        if own == name or own in known or _OF_A_SERVICE.search(own):
            continue
        if close := get_close_matches(own, known, n=1, cutoff=ALIKE):
            yield name, PREFIX + close[0]


def judge_misspelt(name: str, meant: str) -> Finding:
    return warning("settings", f"nothing reads the variable {name}", f"did you mean {meant}?")


def check_sources(config: Config) -> Iterator[Finding]:
    """The template of each type, with its own settings."""
    found: dict[str, Finding] = {}
    templates: dict[str, str] = {}
    for kind in SYNC_TYPES.values():
        try:
            template = config.source(kind)
        except ArchisyncError as exc:
            found.setdefault(exc.message, of_error("sources", exc))
            continue
        try:
            sources.check_template(template, config, kind.name)
            templates[kind.name] = template
        except ArchisyncError as exc:
            found[kind.name] = failed("sources", f"{kind.name}: {exc.message}", exc.hint, exc.exit_code)
    yield from [*found.values(), *judge_placeholders(templates)] or [
        ok("sources", "the source of each type can be used")
    ]


def judge_placeholders(templates: Mapping[str, str]) -> Iterator[Finding]:
    """Type → template. Of files and addresses each pair needs its own; a program is told agent and type anyway, as is a plug-in."""
    addresses = {name: t for name, t in templates.items() if sources.is_address(t)}
    by_export: dict[str, list[str]] = {}
    for name, template in addresses.items():
        shared = sync_type(name).scope is Scope.SHARED
        export = template.replace("{type}", name).replace("{agent}", SHARED_AGENT if shared else "{agent}")
        by_export.setdefault(export, []).append(name)
    for names in by_export.values():
        if len(names) > 1:
            told = f"the source of {', '.join(names)} has no {{type}}: these types would read the same export"
            yield warning(
                "sources", told, "put {type} into it, or give each type a template: ARCHISYNC_SOURCE_ORDERS=…"
            )
    alike = [n for n, t in addresses.items() if sync_type(n).scope is Scope.AGENT and "{agent}" not in t]
    if alike:
        told = f"the source of {', '.join(alike)} has no {{agent}}: all agents would get the same rows"
        yield warning("sources", told, "put {agent} into it, for example /srv/exports/{agent}/{type}.csv")


def check_plugins() -> Iterator[Finding]:
    found = sources.plugins()
    for plugin in found:
        if plugin.error:
            hint = f"mend, update or uninstall {plugin.package} ({plugin.target})"
            yield failed("plug-ins", plugin.error, hint, ExitCode.CONFIGURATION)
        else:
            yield ok("plug-ins", f"{plugin.scheme}: from {plugin.package}")
    if not found:
        yield ok("plug-ins", "none are installed")


def check_disk(folder: Path) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        yield failed("disk", f"{folder}: {exc.strerror}", "name the folder that `archisync up --folder` was given")
        return
    yield judge_disk(folder, free)


def check_database(db: Database) -> Iterator[Finding]:
    """Whatever needs the server, but not yet the schema."""
    server = checks.server(db)
    yield judge_postgresql(server.version, standby=server.standby)
    yield _judge_pooler(db, server)


def _judge_pooler(db: Database, server: checks.Server) -> Finding:
    """A pooler can't pass on the process id that PostgreSQL tells a new connection: it makes one up."""
    if server.backend_pid == db.info.backend_pid:
        return ok("pooler", "no pooler stands between this process and PostgreSQL")
    told = "a pooler (PgBouncer?) stands between this process and PostgreSQL"
    return warning(
        "pooler", told, "ticks may go through it; workers need an ARCHISYNC_DATABASE_URL of PostgreSQL itself"
    )


def check_schema(db: Database) -> Iterator[Finding]:
    problem = migrations.problem(db)
    yield obstacle("schema", problem) if problem else ok("schema", "the schema is current")


def check_rights(db: Database) -> Iterator[Finding]:
    """The connection's role must be enough for a tick or for a worker."""
    lacking = {role: grants.missing_rights(db, role) for role in (grants.Role.TICK, grants.Role.WORKER)}
    role = checks.server(db).role
    enough = [name.value for name, missing in lacking.items() if not missing]
    if enough:
        yield ok("rights", f"the role {role} has the rights of {' and '.join(f'a {name}' for name in enough)}")
        return
    missing = min(lacking.values(), key=len)
    hint = "archisync db grants   (SQL to run as the owner of the schema)"
    yield failed("rights", f"the role {role} lacks: {some(missing)}", hint, ExitCode.CONFIGURATION)


def check_clock(db: Database) -> Iterator[Finding]:
    before = datetime.now(UTC)
    server = clock.now(db)
    after = datetime.now(UTC)
    # PostgreSQL read its clock between the two, and cut it to the second.
    low, high = before - server - timedelta(seconds=1), after - server
    inside = low <= timedelta(0) <= high
    yield judge_skew(timedelta(0) if inside else min(low, high, key=abs))


def check_ticks(db: Database) -> Iterator[Finding]:
    beat = ticks.last(db)
    note = ticks.overdue_note(beat)
    if note is not None:
        yield failed("ticks", note, "crontab: * * * * * archisync tick   (examples/ has systemd and Kubernetes too)")
    elif beat is not None and beat.error:
        yield failed("ticks", f"the last tick could not deliver: {beat.error}", "archisync tick")
    elif beat is not None:
        yield ok("ticks", f"the last tick was {beat.age_s:.0f} s ago on {beat.host} and took {beat.duration_ms} ms")


def check_runs(db: Database) -> Iterator[Finding]:
    stuck = checks.stuck_runs(db)
    expired = [f"run {s.run_id} on {s.worker}" for s in stuck if s.state == "running"]
    waiting = [f"run {s.run_id} ({s.sync_type} of {s.agent_id})" for s in stuck if s.state == "queued"]
    if expired:
        yield failed("runs", f"the lease of {some(expired)} expired, and no tick took it back", "archisync tick")
    if waiting:
        yield failed(
            "runs",
            f"{some(waiting)} waited more than {checks.STUCK_AFTER_S // 60} min",
            "archisync worker --processes 4   (are enough workers alive? archisync status)",
        )
    if not stuck:
        yield ok("runs", "no run is stuck")


def check_agents(db: Database, config: Config) -> Iterator[Finding]:
    """Ids that no source may be asked for, and files that should be there."""
    yield from _check_registry(db)
    ids = checks.whitelisted_ids(db, limit=PAIRS_LOOKED_AT)
    if not ids:
        yield warning("agents", "no agent is on the whitelist", "archisync agent add ID --allow")
        return
    refused = [agent_id for agent_id in ids if not _allowed(agent_id)]
    if refused:
        shown = some([ascii(agent_id)[:40] for agent_id in refused])
        yield failed(
            "agents", f"not an agent id: {shown}", "correct agents.users: their syncs fail", ExitCode.CONFIGURATION
        )
    pairs = checks.active_pairs(db, limit=PAIRS_LOOKED_AT)
    absent = [f"{name} of {agent_id}" for name, agent_id in pairs if _export_is_absent(config, name, agent_id)]
    if absent:
        hint = "check ARCHISYNC_SOURCE and the ERP; run doctor where the workers run, as their account"
        yield failed("exports", f"no export for {some(absent)}", hint)
    more = f" (the first {PAIRS_LOOKED_AT} were looked at)" if len(pairs) == PAIRS_LOOKED_AT else ""
    if not refused:
        total = agents.count_whitelisted(db, limit=AGENTS_COUNTED)
        told = f"more than {AGENTS_COUNTED}" if total > AGENTS_COUNTED else str(total)
        yield ok("agents", f"{told} on the whitelist{more}")


def _check_registry(db: Database) -> Iterator[Finding]:
    """Whether the triggers on agents.users have seen all that was written to it."""
    hint = (
        "archisync db migrate   (mends it; if replication writes agents.users:"
        " alter table agents.users enable replica trigger archisync_user_replicated)"
    )
    missing, left = checks.out_of_step(db, limit=AGENTS_COMPARED)
    for ids, told in ((missing, "on the whitelist and not scheduled"), (left, "not on the whitelist and scheduled")):
        if ids:
            shown = some([ascii(agent_id)[1:-1][:40] for agent_id in ids])
            yield failed("agents", f"{told}: {shown}; agents.users was written past its triggers", hint)


def _allowed(agent_id: str) -> bool:
    try:
        check_agent_id(agent_id)
    except UsageError:
        return False
    return True


def _export_is_absent(config: Config, type_name: str, agent_id: str) -> bool:
    """Only files can be looked for without asking the ERP for an export; whatever else is wrong, other checks tell."""
    from archisync.sources.interface import Request
    from archisync.sources.path import export_path
    from archisync.sources.template import scheme_of

    kind = sync_type(type_name)
    try:
        template = config.source(kind)
        if scheme_of(template) not in (None, "file"):
            return False
        path = export_path(
            Request(template=template, agent_id=agent_id, sync_type=kind.name, spool_dir=Path(), max_bytes=0)
        )
    except ArchisyncError:
        return False
    return not path.exists() and not path.with_name(path.name + ".gz").exists()


def check_redis(client: redis.Redis) -> Iterator[Finding]:
    info: dict[str, Any] = client.info()
    yield judge_redis_version(str(info.get("valkey_version") or info["redis_version"]))
    yield judge_eviction(str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0)))
    yield judge_persistence(append_only=bool(info.get("aof_enabled")), snapshots=_snapshots(client))


def _snapshots(client: redis.Redis) -> bool:
    """Whether Redis saves by itself; a server that doesn't tell (managed ones hide CONFIG) is believed to."""
    import redis

    try:
        return bool(dict(client.config_get("save")).get("save", "?"))
    except redis.ResponseError:
        return True


def check_workers(client: redis.Redis, config: Config) -> Iterator[Finding]:
    from archisync.queue.workers import live_workers

    workers = live_workers(client, config.queue)
    if workers:
        yield ok("workers", f"{len(workers)} alive on the queue {config.queue}")
    else:
        yield failed("workers", f"no worker is alive on the queue {config.queue}", "archisync worker --processes 2")


def check_worker_here(client: redis.Redis, config: Config) -> Iterator[Finding]:
    """For a liveness probe: a worker of this host (of this container) tells Redis that it lives, and its process is there."""
    from archisync.queue.workers import live_workers

    host = socket.gethostname()
    if any(_is_here(worker, host) for worker in live_workers(client, config.queue)):
        yield ok("worker-here", f"a worker of {host} is alive")
    else:
        yield failed("worker-here", f"no worker of {host} is alive", "archisync worker")


def _is_here(worker: LiveWorker, host: str) -> bool:
    """A worker that was killed is believed by Redis for two more minutes. Its process id means something here only if it counts in the
    same namespace as ours: not in another container of the pod, for example."""
    from archisync.base.processes import is_running, pid_namespace

    place = worker.host_and_pid
    if place is None or place[0] != host:
        return False
    return worker.pid_namespace is None or worker.pid_namespace != pid_namespace() or is_running(place[1])


# --- all of them --------------------------------------------------------------------------------------------------

HERE = ("settings", "sources", "hook", "plug-ins", "disk")
IN_DATABASE = ("database", "pooler", "schema", "rights", "clock", "ticks", "runs", "agents", "exports", "notices")
IN_REDIS = ("redis", "eviction", "persistence", "workers", "worker-here")
ONLY_WHEN_ASKED = ("worker-here",)
CHECKS = HERE + IN_DATABASE + IN_REDIS


def examine(config: Config, *, only: Sequence[str] = (), folder: Path | None = None) -> Iterator[Finding]:
    """Findings as they are made; `only`: names out of CHECKS. `folder`: that of the embedded servers, if there are any.

    Raises UsageError for an unknown name.
    """
    for name in only:
        if name not in CHECKS:
            raise UsageError(f"there is no check {ascii(name)[:40]}", hint=f"allowed: {', '.join(CHECKS)}")
    wanted = set(only) or set(CHECKS) - set(ONLY_WHEN_ASKED)
    for finding in _all(config, wanted, folder):
        if finding.check in wanted or isinstance(finding, Obstacle):
            yield finding


def _all(config: Config, wanted: set[str], folder: Path | None) -> Iterator[Finding]:
    if wanted & set(HERE):
        yield from check_settings(config)
        yield from check_sources(config)
        yield from check_hook(config)
        yield from check_plugins()
        if folder is not None:
            yield from check_disk(folder)
    if wanted & set(IN_DATABASE):
        yield from _in_database(config)
    if wanted & set(IN_REDIS):
        yield from _in_redis(config, wanted)


def _in_database(config: Config) -> Iterator[Finding]:
    try:
        with connected(config.database_url, purpose="doctor") as db:
            yield from check_database(db)
            yield from _with_schema(db, config)
    except ArchisyncError as exc:
        yield obstacle("database", exc)


def _with_schema(db: Database, config: Config) -> Iterator[Finding]:
    import psycopg

    try:
        schema = list(check_schema(db))
    except psycopg.errors.InsufficientPrivilege:
        yield from check_rights(db)
        return
    yield from schema
    if any(finding.level is Level.FAILED for finding in schema):
        return
    for check in (check_rights, check_clock, check_ticks, check_runs):
        yield from _guarded(check, db)
    yield from _guarded(lambda db: check_agents(db, config), db)
    yield from _guarded(lambda db: check_notices(db, config), db)


def _guarded(check: Callable[[Database], Iterator[Finding]], db: Database) -> Iterator[Finding]:
    """A role that may not read a table must not hide what the other checks find."""
    import psycopg

    from archisync.store.database import translate

    try:
        yield from list(check(db))
    except psycopg.errors.InsufficientPrivilege as exc:
        yield obstacle("rights", translate(exc))


def _in_redis(config: Config, wanted: set[str]) -> Iterator[Finding]:
    from archisync.queue.client import redis_client

    try:
        with redis_client(config.redis_url) as client:
            yield from check_redis(client)
            yield from check_workers(client, config)
            if "worker-here" in wanted:
                yield from check_worker_here(client, config)
    except ArchisyncError as exc:
        yield obstacle("redis", exc)
