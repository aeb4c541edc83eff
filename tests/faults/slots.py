"""The slots of all pairs as the state machine computes them: the due rule in words, not archisync's code."""

from datetime import datetime, timedelta

from hypothesis.stateful import RuleBasedStateMachine

from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.store.database import Database

TYPES = tuple(SYNC_TYPES.values())
Pair = tuple[str, str]


class Slots(RuleBasedStateMachine):
    """What people have set, and the slot at which each pair was last due. Its rules are in tests.faults.test_promises."""

    db: Database

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self.now = now
        self.whitelisted: set[str] = set()
        self.every = {type_.name: timedelta(minutes=type_.default_interval_minutes) for type_ in TYPES}
        self.enabled = {type_.name: True for type_ in TYPES}
        self.paused: set[tuple[str | None, str | None]] = set()
        self.slots: dict[Pair, datetime] = {}
        self.given_back: set[int] = set()

    def _pairs(self) -> set[Pair]:
        own = {(t.name, a) for t in TYPES for a in self.whitelisted if t.scope is Scope.AGENT}
        return own | {(t.name, "service-account") for t in TYPES if t.scope is Scope.SHARED}

    def _due(self) -> set[Pair]:
        """The due rule, written down a second time."""
        self._give_slots_back()
        unfinished, resting = self._unfinished_pairs(), self._resting_pairs()
        return {
            (type_, agent)
            for type_, agent in self._pairs()
            if self.enabled[type_]
            and not self.paused & {(None, None), (type_, None), (None, agent), (type_, agent)}
            and (type_, agent) not in unfinished | resting
            and ((type_, agent) not in self.slots or self.slots[type_, agent] + self.every[type_] <= self.now)
        }

    def _account(self, due: set[Pair], newest_before: int) -> None:
        """A tick queued exactly the runs that were due, each with the slot of the rule. If the tick itself failed a run for good, because
        its worker crashed three times, it may have queued the pair's next one too."""
        rows = self.db.execute(
            "select sync_type, agent_id, slot_at from system.runs where id > %s and trigger = 'scheduled'",
            [newest_before],
        ).fetchall()
        queued = {(row["sync_type"], row["agent_id"]): row["slot_at"] for row in rows}
        assert due <= set(queued)
        for pair, slot in queued.items():
            last, every = self.slots.get(pair), self.every[pair[0]]
            assert last is None or last + every <= self.now, "early"
            on_time = last is not None and last + every > self.now - every
            assert slot == (last + every if on_time and last else self.now)
            self.slots[pair] = slot
        assert set(queued) - due <= self._failed_pairs()

    def _give_slots_back(self) -> None:
        """A skipped run gives its slot back: the pair is due at that slot again."""
        rows = self.db.execute(
            "select id, sync_type, agent_id, slot_at from system.sync_runs where state = 'skipped' and slot_at is not null"
        ).fetchall()
        for row in rows:
            pair = row["sync_type"], row["agent_id"]
            if row["id"] not in self.given_back and self.slots.get(pair) == row["slot_at"]:
                self.slots[pair] = row["slot_at"] - self.every[row["sync_type"]]
            self.given_back.add(row["id"])

    def _failed_pairs(self) -> set[Pair]:
        return self._some_pairs("select sync_type, agent_id from system.sync_runs where state = 'failed'")

    def _unfinished_pairs(self) -> set[Pair]:
        return self._some_pairs("select sync_type, agent_id from system.unfinished_runs")

    def _resting_pairs(self) -> set[Pair]:
        return self._some_pairs(
            "select sync_type, agent_id from system.sync_state where backoff_until > system.clock()"
        )

    def _some_pairs(self, statement: str) -> set[Pair]:
        return {(row["sync_type"], row["agent_id"]) for row in self.db.execute(statement).fetchall()}
