"""Checks that ask PostgreSQL: the server, the schema, rights, the clock, ticks, runs, agents, exports, notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from psycopg.errors import InsufficientPrivilege

from archisync.base.errors import ArchisyncError, ConfigurationError, ExitCode
from archisync.base.text import counted
from archisync.observe.doctor import exports
from archisync.observe.doctor.findings import SHOWN, Finding, Obstacle, failed, first_few, obstacle, ok, warning
from archisync.rules.agentid import is_agent_id
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, checks, clock, grants, health, locks, migrations, notices, ticks
from archisync.store.database import Database, connected
from archisync.store.refusals import translate

OLDEST_POSTGRESQL = 150_000
"""`unique nulls not distinct` came with 15."""
SKEW_WARNING = timedelta(seconds=5)
SKEW_FAILURE = timedelta(seconds=60)
PAIRS_LOOKED_AT = 5_000
"""Agents that are looked at one by one. This bounds the time."""
HELD_HOURS = 24
"""An export that waits so long for a person has been overlooked."""
AGENTS_COUNTED = 10_000
AGENTS_COMPARED = 100_000
"""Half a second. `db migrate` compares all agents."""


def check_server(db: Database, _: Config) -> Iterator[Finding]:
    server = checks.server(db)
    yield judge_postgresql(server.version, standby=server.standby)


def judge_postgresql(version: int, *, standby: bool) -> Finding:
    name = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version < OLDEST_POSTGRESQL:
        return failed("database", f"{name} is too old", "PostgreSQL 15 or newer is needed", ExitCode.CONFIGURATION)
    if standby:
        hint = "ARCHISYNC_DATABASE_URL must name the primary"
        return failed("database", f"{name} answers, but as a read-only standby", hint, ExitCode.CONFIGURATION)
    return ok("database", f"{name} answers")


def check_pooler(db: Database, _: Config) -> Iterator[Finding]:
    if not db.is_pooled:
        yield ok("pooler", "no pooler stands between this process and PostgreSQL")
        return
    hint = "ticks may go through it; workers need an ARCHISYNC_DATABASE_URL of PostgreSQL itself"
    yield warning("pooler", "a pooler (PgBouncer?) stands between this process and PostgreSQL", hint)


def check_schema(db: Database, config: Config) -> Iterator[Finding]:
    """An Obstacle unless every migration is applied: all other checks read tables."""
    try:
        problem = migrations.problem(db)
    except InsufficientPrivilege:
        yield from check_rights(db, config)
        return
    yield obstacle("schema", problem) if problem else ok("schema", "the schema is current")


def check_rights(db: Database, _: Config) -> Iterator[Finding]:
    """The connection's role needs the rights of a tick or of a worker."""
    missing = {role: grants.missing_rights(db, role) for role in (grants.Role.TICK, grants.Role.WORKER)}
    role = checks.server(db).role
    enough = [f"a {name.value}" for name, rights in missing.items() if not rights]
    if enough:
        yield ok("rights", f"the role {role} has the rights of {' and '.join(enough)}")
        return
    message = f"the role {role} lacks: {first_few(min(missing.values(), key=len))}"
    hint = "archisync db grants   (SQL to run as the owner of the schema)"
    yield obstacle("rights", ConfigurationError(message, hint=hint))


def check_access(db: Database, _: Config) -> Iterator[Finding]:
    """Rights of PUBLIC with which any login could become another one."""
    functions, schemas = checks.open_functions(db), checks.open_schemas(db)
    if functions:
        message = f"every login may run with the rights of the schema's owner: {first_few(functions)}"
        hint = f"as that owner: revoke execute on function {', '.join(functions)} from public"
        yield failed("access", message, hint, ExitCode.CONFIGURATION)
    if schemas:
        message = f"every login may create functions in {first_few(schemas)}, which other programs then call with their own rights"
        yield warning("access", message, f"as its owner: revoke create on schema {', '.join(schemas)} from public")
    if not functions and not schemas:
        yield ok("access", "no login gets rights from functions of another one")


def check_clock(db: Database, _: Config) -> Iterator[Finding]:
    before = datetime.now(UTC)
    server = clock.now(db)
    after = datetime.now(UTC)
    # PostgreSQL read its clock between the two and cut the time to whole seconds, so the skew lies between `low` and `high`.
    low, high = before - server - timedelta(seconds=1), after - server
    inside = low <= timedelta(0) <= high
    yield judge_skew(timedelta(0) if inside else min(low, high, key=abs))


def judge_skew(skew: timedelta) -> Finding:
    """`skew`: how far this host's clock is ahead of PostgreSQL's."""
    if abs(skew) <= SKEW_WARNING:
        return ok("clock", "this host and PostgreSQL agree on the time")
    direction = "ahead of" if skew > timedelta(0) else "behind"
    message = f"this host's clock is {abs(skew.total_seconds()):.0f} s {direction} PostgreSQL's"
    hint = "PostgreSQL's clock decides what is due: check NTP on both, and that no role has archisync.now set"
    return failed("clock", message, hint) if abs(skew) > SKEW_FAILURE else warning("clock", message, hint)


def check_ticks(db: Database, _: Config) -> Iterator[Finding]:
    beat = ticks.last(db)
    note = ticks.overdue_note(beat)
    if note is not None:
        yield failed("ticks", note, "crontab: * * * * * archisync tick   (examples/ has systemd and Kubernetes too)")
    elif beat is not None and beat.error:
        yield failed("ticks", f"the last tick could not deliver: {beat.error}", "archisync tick")
    elif beat is not None:
        yield ok("ticks", f"the last tick was {beat.age_s:.0f} s ago on {beat.host} and took {beat.duration_ms} ms")


def check_runs(db: Database, _: Config) -> Iterator[Finding]:
    stuck = checks.stuck_runs(db)
    expired = [f"run {s.run_id} on {s.worker}" for s in stuck if s.state == "running"]
    waiting = [f"run {s.run_id} ({s.sync_type} of {s.agent_id})" for s in stuck if s.state == "queued"]
    if expired:
        message = f"the lease of {first_few(expired)} expired, and no tick took it back"
        yield failed("runs", message, "archisync tick")
    if waiting:
        message = f"{first_few(waiting)} waited more than {checks.STUCK_AFTER_S // 60} min"
        yield failed("runs", message, "archisync worker --processes 4   (are enough workers alive? archisync status)")
    if not stuck:
        yield ok("runs", "no run is stuck")


def check_locks(db: Database, _: Config) -> Iterator[Finding]:
    """Agents that no worker can have: a process that stands still holds their lock, or another program, since any login can take it."""
    found = locks.strangers(db, locks.found_locked(db, limit=PAIRS_LOOKED_AT))
    for stranger in found[:SHOWN]:
        yield failed("locks", f"{stranger}; its runs wait", stranger.remedy)
    if not found:
        yield ok("locks", "no agent is locked by a process that is no worker")


def check_pairs(db: Database, _: Config) -> Iterator[Finding]:
    """Types that are scheduled and whose data is not fresh, and exports that have waited long for a person."""
    watched = [h for h in health.type_health(db) if h.enabled and not h.paused]
    for word, number, hint in (
        (
            "degraded",
            "degraded",
            "archisync rest list, archisync history --state failed   (then: archisync retry --failed)",
        ),
        ("stale", "stale", "archisync status, archisync why TYPE AGENT"),
    ):
        found = [f"{h.shown(number)} of {h.sync_type}" for h in watched if getattr(h, number)]
        if found:
            yield failed("pairs", f"{word}: {', '.join(found)}", hint)
    waiting = checks.held_long(db, hours=HELD_HOURS)
    if waiting:
        message = f"held for more than {HELD_HOURS} h: {first_few([f'{h.sync_type} of {h.agent_id}' for h in waiting])}"
        yield failed("pairs", message, f"archisync held show {waiting[0].run_id}")
    if not waiting and not any(h.degraded or h.stale for h in watched):
        yield ok("pairs", "what is scheduled is fresh")


def check_tables(db: Database, _: Config) -> Iterator[Finding]:
    """Tables of agent data that somebody has changed so that no export can be written."""
    from archisync.sync import tablecheck

    found = [problem for one in SYNC_TYPES.values() if (problem := tablecheck.problem(db, one)) is not None]
    for problem in found:
        yield failed("tables", problem.message, problem.hint or "", ExitCode.CONFIGURATION)
    if not found:
        yield ok("tables", "the tables of agent data have the columns that archisync writes")


def check_triggers(db: Database, _: Config) -> Iterator[Finding]:
    """Triggers that tell of what others write to our tables."""
    idle = checks.idle_triggers(db)
    if not idle:
        yield ok("triggers", "what others write to the tables is noticed")
        return
    repair = "; ".join(enable for _, enable in idle if enable)
    hint = (
        repair
        or "make them again: archisync/store/sql/migrations has them; then archisync clear --all, which loads the rows anew"
    )
    message = (
        f"what others write may go unnoticed, for it is disabled or missing: {first_few([name for name, _ in idle])}"
    )
    yield failed("triggers", message, hint)


def check_agents(db: Database, _: Config) -> Iterator[Finding]:
    """Ids that every source refuses, and agents that the triggers on agents.users have missed."""
    missing, left = checks.out_of_step(db, limit=AGENTS_COMPARED)
    for ids, message in ((missing, "on the whitelist and not scheduled"), (left, "not on the whitelist and scheduled")):
        if ids:
            shown = first_few([ascii(agent_id)[1:-1][:40] for agent_id in ids])
            hint = (
                "archisync db migrate   (repairs it; if replication writes agents.users:"
                " alter table agents.users enable replica trigger archisync_user_replicated)"
            )
            yield failed("agents", f"{message}: {shown}; agents.users was written past its triggers", hint)
    refused = [i for i in checks.whitelisted_ids(db, limit=PAIRS_LOOKED_AT) if not is_agent_id(i)]
    if refused:
        shown = first_few([ascii(agent_id)[:40] for agent_id in refused])
        hint = "correct agents.users: their syncs fail"
        yield failed("agents", f"not an agent id: {shown}", hint, ExitCode.CONFIGURATION)
        return
    total = agents.count_whitelisted(db, limit=AGENTS_COUNTED)
    if total:
        number = f"more than {AGENTS_COUNTED}" if total > AGENTS_COUNTED else str(total)
        yield ok("agents", f"{number} on the whitelist")
    else:
        yield warning("agents", "no agent is on the whitelist", "archisync agent add ID --allow")


def check_notices(db: Database, config: Config) -> Iterator[Finding]:
    """Notices that the hook does not accept, or that no tick sends."""
    if not config.text("ARCHISYNC_HOOK"):
        return
    refused = notices.refused(db)
    if refused:
        message = (
            f"{counted(len(refused), 'notice')} could not be delivered, "
            f"the oldest about {refused[0].subject}: {refused[0].outcome}"
        )
        yield failed("notices", message, "check ARCHISYNC_HOOK; each is tried again for a day")
        return
    waiting, in_the_future = notices.count_waiting(db)
    if in_the_future:
        message = f"{counted(in_the_future, 'notice')} dated in the future: was PostgreSQL's clock set back?"
        yield warning("notices", message, "archisync tick   (sends them now)")
    else:
        yield ok("notices", f"the next tick sends {counted(waiting, 'notice')}" if waiting else "no notice waits")


CHECKS: Mapping[str, Callable[[Database, Config], Iterator[Finding]]] = {
    "database": check_server,
    "pooler": check_pooler,
    "schema": check_schema,
    "rights": check_rights,
    "access": check_access,
    "clock": check_clock,
    "ticks": check_ticks,
    "runs": check_runs,
    "locks": check_locks,
    "pairs": check_pairs,
    "tables": check_tables,
    "triggers": check_triggers,
    "agents": check_agents,
    "exports": exports.check_exports,
    "notices": check_notices,
}


def examine(config: Config, wanted: frozenset[str]) -> Iterator[Finding]:
    """The findings of the wanted checks, and of `schema`, which comes before those that read tables."""
    try:
        with connected(config.database_url, purpose="doctor") as db:
            for name in CHECKS:
                if name not in wanted and name != "schema":
                    continue
                findings = _findings(name, db, config)
                yield from findings
                if name == "schema" and any(isinstance(f, Obstacle) for f in findings):
                    return
    except ArchisyncError as exc:
        yield obstacle("database", exc)


def _findings(name: str, db: Database, config: Config) -> list[Finding]:
    """A role that may not read one table does not keep the other checks from being made."""
    try:
        return list(CHECKS[name](db, config))
    except InsufficientPrivilege as exc:
        return [obstacle("rights", translate(exc))]
