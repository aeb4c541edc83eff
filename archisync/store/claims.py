"""`system.claims`: the agents that workers have. A row exists while one worker has the agent; no second worker can have it.

    tick ──▶ queued_runs ──claim──▶ begin ──▶ the run's end (archisync.store.endings)
                  ▲                   │
                  └── retry, or the lease is over (a tick takes the agent back)

A claim covers everything that the agent has queued. It holds the lease and the fence, a number that no other claim ever has: whoever
writes for an agent names its fence, and writes nothing when the agent was taken away.

Locks are taken in this order everywhere: claims, sync_state, queued_runs (by id), sync_runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from archisync.base.errors import LeaseLostError
from archisync.store.database import Database, Params, one
from archisync.store.locks import unlock_agent
from archisync.store.runs import Trigger

# The session's lock beside the claim is free milliseconds after a worker's death, and it outlives the lease while a worker that was taken
# for dead still talks to the ERP. In one statement with the claim, so that an agent costs one round trip.
_CLAIM = """
lock as materialized (
  select agent_id, pg_try_advisory_lock(hashtextextended('archisync.agent.' || agent_id, 0)) as locked from agent),
claim as (
  insert into system.claims (agent_id, worker, lease_until)
  select agent_id, %(worker)s, system.clock() + make_interval(secs => %(lease_s)s) from lock where locked
  on conflict (agent_id) do nothing
  returning agent_id, fence)
select l.agent_id, l.locked, c.fence, r.*, set_config('synchronous_commit', 'off', true) as no_wait_for_disk
  from lock l
  left join claim c using (agent_id)
  left join lateral (
    select q.id, q.sync_type, t.sha256 as declared, q.trigger, q.attempt,
           case when not coalesce(st.active, false) then 'not-whitelisted'
                when q.trigger = 'forced' then null
                when not s.enabled then 'type-disabled'
                when exists (select from system.pauses_of(q.sync_type, q.agent_id)) then 'paused' end as blocked,
           case when st.same_changes_nothing
                 and not exists (select from system.outside_changes o where o.sync_type = q.sync_type and o.agent_id = q.agent_id)
                then (select a.source from system.applied_exports a where a.sync_type = q.sync_type and a.agent_id = q.agent_id)
            end as applied
      from (select * from system.queued_runs w
             where w.agent_id = c.agent_id and (w.not_before is null or w.not_before <= system.clock())
             order by w.id for update) q
      join system.sync_types t using (sync_type)
      join system.sync_settings s using (sync_type)
      left join system.sync_state st on st.sync_type = q.sync_type and st.agent_id = q.agent_id
     order by q.trigger = 'forced' desc, t.level, q.id) r on true
"""

# Purpose: claim the agent of a job with all its runs, and bring what they need. The commit does not wait for the disk: a PostgreSQL
# that crashes and forgets the claim has ended the session too on which alone the runs could be finished. Caller: a worker with a job.
# Locks: the agent (session), the claim, the agent's queued runs.
SQL_CLAIM = f"""
with agent as materialized (
  select q.agent_id from system.queued_runs q
   where q.delivery_id = %(delivery_id)s and q.job_no = %(job_no)s
     and not exists (select from system.claims c where c.agent_id = q.agent_id)
   limit 1),
{_CLAIM}"""  # noqa: S608 - the part is a constant of this module
# Purpose: the same for an agent that is known: what came while its worker ended its last runs. Caller: a worker after it has let an
# agent go, and `run --inline`. Locks: the same.
SQL_CLAIM_AGENT = f"""
with agent as materialized (
  select %(agent_id)s::text as agent_id
   where exists (select from system.queued_runs q join system.sync_settings s using (sync_type)
                  where q.agent_id = %(agent_id)s and (q.not_before is null or q.not_before <= system.clock()))
     and not exists (select from system.claims c where c.agent_id = %(agent_id)s)),
{_CLAIM}"""  # noqa: S608

# Purpose: the run that the worker does next, named before anything leaves the process. It may have been taken away since the claim, or have
# become forced. Caller: worker. Locks: the claim.
SQL_BEGIN = """
with mine as (
  update system.claims
     set run_id = %(run_id)s, run_started_at = system.clock(), lease_until = system.clock() + make_interval(secs => %(lease_s)s)
   where agent_id = %(agent_id)s and fence = %(fence)s
  returning agent_id, set_config('synchronous_commit', 'off', true))
select q.id, q.trigger, q.attempt from mine left join system.queued_runs q on q.agent_id = mine.agent_id and q.id = %(run_id)s
"""

# Purpose: the worker is alive. SKIP LOCKED: while an apply holds the claim there is nothing to extend (a tick passes it by as well).
# Caller: the worker's heartbeat thread. Locks: the claim.
SQL_HEARTBEAT = """
with mine as (select agent_id from system.claims where agent_id = %(agent_id)s and fence = %(fence)s for update skip locked)
update system.claims c set lease_until = system.clock() + make_interval(secs => %(lease_s)s) from mine where c.agent_id = mine.agent_id
"""
# Purpose: does this worker still have the agent? Caller: heartbeat. No locks.
SQL_HOLDS = "select exists (select from system.claims where agent_id = %(agent_id)s and fence = %(fence)s) as held"

# Purpose: queue the current run again, to be tried later. Caller: worker. Locks: the claim, the run.
SQL_REQUEUE = """
with mine as materialized (
  select agent_id from system.claims where agent_id = %(agent_id)s and fence = %(fence)s for update),
unnamed as (update system.claims c set run_id = null from mine where c.agent_id = mine.agent_id)
update system.queued_runs q
   set attempt = attempt + %(spent)s, delivery_id = null, not_before = system.clock() + make_interval(secs => %(delay_s)s),
       reason = %(reason)s, message = %(message)s, hint = %(hint)s
  from mine where q.agent_id = mine.agent_id and q.id = %(run_id)s
"""

# Purpose: let an agent go, and its lock. This session has the lock even when the agent was taken away. Caller: a worker that stops early or
# whose run was taken away, and `run --inline`. Locks: the claim.
SQL_RELEASE = """
with released as (
  delete from system.claims where agent_id = %(agent_id)s and fence = %(fence)s returning agent_id)
select exists (select from released) as released,
       pg_advisory_unlock(hashtextextended('archisync.agent.' || %(agent_id)s, 0)) as unlocked
"""

# Purpose: what a released agent still has queued goes into another delivery. After the commit of the release: only then the statement sees
# every run whose job came in vain while the agent was claimed. Whoever has the agent by now looks for its runs. Caller: release. Locks: the
# runs, by id.
SQL_UNDELIVER = """
with theirs as materialized (
  select q.id from system.queued_runs q
   where q.agent_id = %(agent_id)s and q.delivery_id is not null
     and not exists (select from system.claims c where c.agent_id = q.agent_id)
   order by q.id for update)
update system.queued_runs q set delivery_id = null from theirs where q.id = theirs.id
"""

# Purpose: a worker that was interrupted gives back what it has of an agent; the run that it was doing has spent no attempt.
# Caller: `run --inline`, over another connection. Locks: the claim, the runs.
SQL_GIVE_BACK = """
with released as (
  delete from system.claims where agent_id = %(agent_id)s and worker = %(worker)s returning agent_id, run_id)
update system.queued_runs q
   set delivery_id = null,
       reason = case when q.id = released.run_id then %(reason)s else q.reason end,
       message = case when q.id = released.run_id then %(message)s else q.message end,
       hint = case when q.id = released.run_id then null else q.hint end
  from released where q.agent_id = released.agent_id
"""

# Purpose: the agent is locked by a process that has lost its lease: its runs wait a little, which spends no attempt. Nothing changes while
# somebody has the agent's claim: that worker looks for runs again when it lets the agent go. Caller: worker. Locks: the runs.
SQL_PUT_OFF = """
with theirs as materialized (
  select q.id from system.queued_runs q
   where q.agent_id = %(agent_id)s and not exists (select from system.claims c where c.agent_id = q.agent_id)
   order by q.id for update)
update system.queued_runs q
   set delivery_id = null, not_before = greatest(q.not_before, system.clock() + make_interval(secs => %(delay_s)s)),
       reason = 'agent-locked', message = 'another process still talks to the ERP for this agent', hint = null
  from theirs where q.id = theirs.id
"""

# The run that the claim names has spent an attempt (before it named one: the first that is ready, if any); beyond the bound it is failed.
# The agent's other runs only go into another delivery.
_TAKE_BACK = """
dead as (
  delete from system.claims c using silent s where c.agent_id = s.agent_id
  returning c.agent_id, c.run_id, c.run_started_at, c.worker, c.fence),
charged as materialized (
  select d.*, coalesce((select q.id from system.queued_runs q where q.id = d.run_id and q.agent_id = d.agent_id),
                       (select q.id from system.queued_runs q
                         where q.agent_id = d.agent_id and (q.not_before is null or q.not_before <= system.clock())
                         order by q.id limit 1), 0) as charged_id
    from dead d),
state as materialized (
  select st.sync_type, st.agent_id from charged c
    join system.queued_runs q on q.id = c.charged_id and q.attempt >= %(max_attempts)s
    join system.sync_state st on st.agent_id = q.agent_id and st.sync_type = q.sync_type
   order by st.agent_id, st.sync_type for update of st),
over as (
  delete from system.queued_runs q using charged c
   where q.id = c.charged_id and q.attempt >= %(max_attempts)s and (select count(*) from state) >= 0
  returning q.*, c.worker, c.fence, c.run_started_at),
history as (
  insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, hint, trigger, requested_by, request_reason,
                                slot_at, attempt, fence, queued_at, started_at, worker, finished_at)
  select id, sync_type, agent_id, 'failed', %(reason)s, coalesce(%(message)s, 'the worker ' || worker || ' fell silent'), %(hint)s,
         trigger, requested_by, request_reason, slot_at, attempt, fence, queued_at, run_started_at, worker, system.clock()
    from over),
failed as (
  update system.sync_state st
     set consecutive_failures = st.consecutive_failures + 1, last_run_id = over.id, same_changes_nothing = false,
         unfinished_run_id = case when st.unfinished_run_id = over.id then st.next_run_id else st.unfinished_run_id end,
         next_run_id = null,
         scheduled_failures = st.scheduled_failures + (over.trigger = 'scheduled')::int,
         backoff_until = case when over.trigger = 'forced' then st.backoff_until
                              else system.clock() + system.backoff(st.sync_type, st.scheduled_failures + 1) end
    from over where st.sync_type = over.sync_type and st.agent_id = over.agent_id),
back as (
  update system.queued_runs q
     set delivery_id = null, attempt = q.attempt + (q.id = c.charged_id)::int,
         reason = case when q.id = c.charged_id then %(reason)s else q.reason end,
         message = case when q.id = c.charged_id then coalesce(%(message)s, 'the worker ' || c.worker || ' fell silent')
                        else q.message end,
         hint = case when q.id = c.charged_id then %(hint)s else q.hint end
    from charged c
   where q.agent_id = c.agent_id and not (q.id = c.charged_id and q.attempt >= %(max_attempts)s)
  returning q.id = c.charged_id as charged)
select (select count(*) from over) + (select count(*) from back where charged) as reaped
"""

SILENT: Params = {"reason": "lease-expired", "message": None, "hint": None}
"""What a run says whose worker fell silent; the message names it."""

# Purpose: take agents back from workers that fell silent. A lease longer than any setting allows (an hour, see config.lease_s) comes from a
# clock that was wrong. Caller: tick, first step. Locks: the claims, SKIP LOCKED: an apply that is committing holds its own; then states, in
# order; then the runs.
SQL_REAP = f"""
with silent as materialized (
  select agent_id from system.claims
   where lease_until <= system.clock() or lease_until > system.clock() + interval '61 minutes'
   order by agent_id limit %(limit)s for update skip locked),
{_TAKE_BACK}"""  # noqa: S608 - the part is a constant of this module
# Purpose: a worker says why it can't go on with an agent. Caller: worker, over another connection: its own may be broken. Locks: the claim
# (an apply that the server is still committing is waited for), the state, the runs.
SQL_BREAK_OFF = f"""
with silent as materialized (
  select agent_id from system.claims where agent_id = %(agent_id)s and fence = %(fence)s for update),
{_TAKE_BACK}"""  # noqa: S608


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedRun:
    """One run of a claimed agent. `blocked`: why it is skipped instead of done, or None. `applied`: what is known of the export that
    was applied last, if the same export again would change nothing; else empty. `declared`: the SHA-256 of the type's declaration, if the
    company declared it."""

    run_id: int
    fence: int
    sync_type: str
    agent_id: str
    trigger: Trigger
    attempt: int
    blocked: str | None
    applied: dict[str, Any]
    declared: str | None = None

    @property
    def params(self) -> Params:
        """What names the run, its agent's fence and its pair in a statement."""
        return {"run_id": self.run_id, "fence": self.fence, "sync_type": self.sync_type, "agent_id": self.agent_id}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """An agent that this session has, and its runs in the order in which they are to be done."""

    agent_id: str
    fence: int
    runs: list[ClaimedRun] = field(default_factory=list)

    @property
    def params(self) -> Params:
        return {"agent_id": self.agent_id, "fence": self.fence}


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """The agent has no claim, and is locked all the same: by a process that was taken for dead."""

    agent_id: str


def claim_job(db: Database, delivery_id: int, job_no: int, *, worker: str, lease_s: int) -> Claim | Locked | None:
    """The agent of a delivered job with everything that it has queued. None when nothing of that job is left to do, or another worker has
    the agent: it finds the runs itself when it lets the agent go."""
    return _claimed(db, SQL_CLAIM, {"delivery_id": delivery_id, "job_no": job_no, "worker": worker, "lease_s": lease_s})


def claim_agent(db: Database, agent_id: str, *, worker: str, lease_s: int) -> Claim | Locked | None:
    """The agent with everything that it has queued; None when that is nothing, or another worker has the agent."""
    return _claimed(db, SQL_CLAIM_AGENT, {"agent_id": agent_id, "worker": worker, "lease_s": lease_s})


def _claimed(db: Database, statement: str, params: Params) -> Claim | Locked | None:
    rows = db.execute(statement, params, prepare=True).fetchall()
    if not rows:
        return None
    first = rows[0]
    agent_id, fence = first["agent_id"], first["fence"]
    if not first["locked"]:
        return Locked(agent_id=agent_id)
    if fence is None:  # another worker claimed the agent at the same instant
        unlock_agent(db, agent_id)
        return None
    runs = [
        ClaimedRun(
            run_id=row["id"],
            fence=fence,
            sync_type=row["sync_type"],
            declared=row["declared"],
            agent_id=agent_id,
            trigger=Trigger(row["trigger"]),
            attempt=row["attempt"],
            blocked=row["blocked"],
            applied=row["applied"] or {},
        )
        for row in rows
        if row["id"] is not None
    ]
    return Claim(agent_id=agent_id, fence=fence, runs=runs)


def begin(db: Database, run: ClaimedRun, *, lease_s: int) -> ClaimedRun | None:
    """Name the run as the one that is done now, and extend the lease. Returns the run as it is by now, for it may have become forced; None
    when it was taken away. Raises LeaseLostError when the agent was."""
    row = db.execute(SQL_BEGIN, run.params | {"lease_s": lease_s}, prepare=True).fetchone()
    if row is None:
        raise lost(run.agent_id)
    if row["id"] is None:
        return None
    trigger = Trigger(row["trigger"])
    forced_now = trigger is Trigger.FORCED and run.trigger is not Trigger.FORCED
    if (trigger, row["attempt"]) != (run.trigger, run.attempt):
        run = replace(run, trigger=trigger, attempt=row["attempt"])
    if forced_now:
        run = replace(run, applied={}, blocked=run.blocked if run.blocked == "not-whitelisted" else None)
    return run


def heartbeat(db: Database, run: ClaimedRun, *, lease_s: int) -> bool:
    """Extend the agent's lease; False when the agent was taken away."""
    params = run.params | {"lease_s": lease_s}
    return bool(db.execute(SQL_HEARTBEAT, params).rowcount) or bool(one(db, SQL_HOLDS, params)["held"])


def lost(agent_id: str) -> LeaseLostError:
    return LeaseLostError(
        f"another worker has the agent {agent_id} now",
        hint=f"nothing was written here; what became of the run: archisync history --agent {agent_id}",
    )


def requeue(
    db: Database,
    run: ClaimedRun,
    *,
    delay_s: int,
    reason: str,
    message: str,
    hint: str | None = None,
    spent_attempt: bool = True,
) -> None:
    """Queue the current run again for a later tick; the claim goes on. Raises LeaseLostError."""
    params: Params = {
        "delay_s": delay_s,
        "reason": reason,
        "message": message,
        "hint": hint,
        "spent": int(spent_attempt),
    }
    if db.execute(SQL_REQUEUE, run.params | params).rowcount == 0:
        raise lost(run.agent_id)


def release(db: Database, claim: Claim) -> None:
    """Let the agent go, and its lock. What it still has queued is delivered anew. Of an agent that was taken away, only the lock."""
    if one(db, SQL_RELEASE, claim.params)["released"]:
        db.execute(SQL_UNDELIVER, claim.params)


def give_back(db: Database, *, agent_id: str, worker: str, reason: str, message: str) -> None:
    """End the claim that this worker has of the agent, over another connection than the one that made it."""
    db.execute(SQL_GIVE_BACK, {"agent_id": agent_id, "worker": worker, "reason": reason, "message": message})


def put_off(db: Database, agent_id: str, *, delay_s: int) -> None:
    """Let the runs of an agent that is locked by another process wait."""
    db.execute(SQL_PUT_OFF, {"agent_id": agent_id, "delay_s": delay_s})


def reap(db: Database, *, max_attempts: int, limit: int = 10_000) -> int:
    """Runs that were taken back, with their agents, from workers that fell silent."""
    return int(one(db, SQL_REAP, {**SILENT, "max_attempts": max_attempts, "limit": limit})["reaped"])


def break_off(db: Database, claim: Claim, *, max_attempts: int, reason: str, message: str, hint: str | None) -> None:
    """End the claim because of an error, over another connection than the one that made it; the run that it names keeps the error. Of an
    agent that was taken away nothing changes."""
    params: Params = {"reason": reason, "message": message, "hint": hint}
    db.execute(SQL_BREAK_OFF, {**claim.params, "max_attempts": max_attempts, **params})
