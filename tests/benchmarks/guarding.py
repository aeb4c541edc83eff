"""The guard's look at values: how many ruined exports it holds, and what it costs a sync. Its peer is the same sync without that look."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from archisync.rules.synctypes import SYNC_TYPES
from archisync.sync import verdict
from tests.benchmarks.datapath import Case, Peers, cases, new_peers
from tests.benchmarks.figures import Figure, Settings, side_by_side
from tests.support import mutations, weighing
from tests.support.tables import table

SEEDS = 3


def figures(settings: Settings) -> Iterator[Figure]:
    for size in (5, 20, 200) if settings.quick else (5, 20, 200, 2000):
        for share in (30, 60, 100):
            yield _held(size, share)
    with new_peers() as peers:
        for rows in (200, 2000) if settings.quick else (200, 2000, 20_000):
            for case in cases(rows):
                if case.base is not None:
                    yield _cost(peers, case, rows, settings)


def _held(size: int, share: int) -> Figure:
    """Of all mutations that a type's columns allow, over the usual changes of a day."""
    print(f" {share} % of {size} rows", file=sys.stderr)
    held = total = 0
    for name in SYNC_TYPES.built_in:
        for seed in range(1 if size > 200 else SEEDS):
            old = table(name, size, seed)
            for case in mutations.cases(name, old, share, seed):
                total += 1
                held += weighing.verdict(name, old, case.rows) is not None
    wanted = 95 if share >= 60 and size >= 20 else None
    return Figure(
        name=f"ruined exports held: {share} % of {size:,} rows", unit="%", ours=100 * held / total, against="all of them",
        peer=100.0, ratio=held / total, target=wanted and wanted / 100, note=f"{total} exports",
    )  # fmt: skip


def _cost(peers: Peers, case: Case, rows: int, settings: Settings) -> Figure:
    print(f" {rows:,} rows: {case.name}", file=sys.stderr)
    with_look, without = side_by_side(
        settings.rounds * (5 if rows <= 2000 else 1), lambda: peers.case_s(case), lambda: _without_look_s(peers, case)
    )
    return Figure(
        name=f"whole sync, {rows:,} customers: {case.name}", unit="ms", ours=1000 * with_look, against="without a look at values",
        peer=1000 * without, ratio=with_look / without, target=1.10 if case.name == "every row changed" else 1.02, at_most=True,
    )  # fmt: skip


def _without_look_s(peers: Peers, case: Case) -> float:
    names = vars(verdict)
    look = names["weighed_suspicions"]
    names["weighed_suspicions"] = lambda *_, **__: []
    try:
        return peers.case_s(case)
    finally:
        names["weighed_suspicions"] = look
