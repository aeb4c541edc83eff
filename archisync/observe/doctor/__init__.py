"""Is everything there that archisync needs? One finding or more for each check, each failure with what to type next. Nothing is changed.

A check is a function in `here`, `in_database` or `in_redis`, and a line of the CHECKS there. What it decides from values alone is a
`judge_…` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from archisync.base.errors import UsageError
from archisync.observe.doctor import here, in_database, in_redis
from archisync.observe.doctor.findings import Finding, Obstacle
from archisync.rules.config import Config

CHECKS = (*here.CHECKS, *in_database.CHECKS, *in_redis.CHECKS)


def examine(config: Config, *, only: Sequence[str] = (), folder: Path | None = None) -> Iterator[Finding]:
    """The findings in the order of CHECKS, each as soon as it is made.

    `only` names the checks to make; without it, all but those that are made only on request. `folder` is that of the embedded servers,
    where there are any. Raises UsageError for an unknown name.
    """
    for name in only:
        if name not in CHECKS:
            raise UsageError(f"there is no check {ascii(name)[:40]}", hint=f"allowed: {', '.join(CHECKS)}")
    wanted = frozenset(only) or frozenset(CHECKS) - in_redis.ONLY_ON_REQUEST
    for checks, findings in (
        (here.CHECKS, here.examine(config, folder, wanted)),
        (in_database.CHECKS, in_database.examine(config, wanted)),
        (in_redis.CHECKS, in_redis.examine(config, wanted)),
    ):
        if wanted & checks.keys():
            yield from (f for f in findings if f.check in wanted or isinstance(f, Obstacle))
