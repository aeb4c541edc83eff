"""`make bench`: the figures of each area against their peers, as a table, kept in `results.json` and `results.md` beside this file.

`python -m tests.benchmarks [AREA …] [--quick]`. An area is a module of this folder with a function
`figures(settings) -> Iterable[Figure]`, which reports its progress on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from tests.benchmarks.figures import Figure, Settings

FOLDER = Path(__file__).parent
AREAS: tuple[str, ...] = (
    "datapath",
    "loaders",
    "pdf",
    "scheduling",
    "working",
    "small",
    "installed",
    "owntypes",
    "guarding",
    "doors",
    "panel",
    "atscale",
)
"""Modules of this folder, in the order in which they run."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all when none is named")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one round, to try the benchmarks; no result is kept"
    )
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.areas) - set(AREAS):
        parser.error(f"no such area: {', '.join(sorted(unknown))}")
    settings = Settings(rounds=1 if chosen.quick else chosen.rounds, quick=chosen.quick)
    with settings.until_the_end:
        _measure([area for area in AREAS if area in (chosen.areas or AREAS)], settings)
    return 0


def _measure(areas: Sequence[str], settings: Settings) -> None:
    results = _kept()
    for area in areas:
        print(f"== {area}", file=sys.stderr)
        begun = perf_counter()
        figures = list(importlib.import_module(f"tests.benchmarks.{area}").figures(settings))
        results[area] = {"machine": _machine(), "figures": [asdict(figure) for figure in figures]}
        print(f" {area} took {perf_counter() - begun:.0f} s", file=sys.stderr)
        print(table(figures))
        if not settings.quick:
            (FOLDER / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
            (FOLDER / "results.md").write_text(_report(results), "utf-8")


def _kept() -> dict[str, dict[str, object]]:
    path = FOLDER / "results.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _machine() -> str:
    import os

    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def table(figures: list[Figure]) -> str:
    """A Markdown table, aligned so that it can be read on a terminal too."""
    rows = [["figure", "ours", "against", "peer", "ratio", "target", "met", "note"]]
    for f in figures:
        sign = "≤" if f.at_most else "≥"
        rows.append(
            [
                f.name,
                _number(f.ours, f.unit),
                f.against,
                _number(f.peer, f.unit),
                "" if f.ratio is None else f"{f.ratio:.3g}",
                "" if f.target is None else f"{sign} {f.target:g}",
                "" if f.target is None else {True: "yes", False: "NO", None: "not measured"}[f.met],
                f.note,
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.4g} {unit}"


def _report(results: dict[str, dict[str, object]]) -> str:
    parts = ["# What `make bench` measured last\n"]
    for area, result in results.items():
        figures = [Figure(**each) for each in result["figures"]]  # type: ignore[attr-defined]
        parts.append(f"## {area}\n\n{result['machine']}\n\n{table(figures)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
