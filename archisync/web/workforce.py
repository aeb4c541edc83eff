"""The workers that Redis knows. A Redis that hangs must not hold a page up."""

from __future__ import annotations

from dataclasses import dataclass

from archisync.base.errors import ArchisyncError
from archisync.base.text import with_hint
from archisync.observe import plan
from archisync.queue.workers import LiveWorker
from archisync.rules.config import Config
from archisync.web.background import Background

PATIENCE_S = 1.0
"""For an answer, before a page is shown without it."""
STAFF_FRESH_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Staff:
    """`workers`: those alive; None when Redis does not say, and `note` is why. `note` is also a sentence when nobody is alive."""

    workers: tuple[LiveWorker, ...] | None
    note: str | None

    @property
    def busy(self) -> int:
        return sum(worker.state == "busy" for worker in self.workers or ())


class Workforce:
    """What all pages share of it. Usable from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._staff = Background(self._ask_redis, fresh_s=STAFF_FRESH_S, patience_s=PATIENCE_S)

    def staff(self) -> Staff:
        """Who is alive."""
        found, is_fresh = self._staff.answer()
        return found if found is not None and is_fresh else Staff(workers=None, note="Redis does not answer")

    def _ask_redis(self) -> Staff:
        try:
            found = plan.workers_of(self._config)
        except ArchisyncError as exc:
            return Staff(workers=None, note=with_hint(exc.message, exc.hint))
        return Staff(workers=tuple(found), note=None if found else "no worker is alive")
