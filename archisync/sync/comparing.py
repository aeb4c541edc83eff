"""Choosing how an export is compared with its table."""

from __future__ import annotations

from archisync.sync.comparison import Comparison, StagedComparison
from archisync.sync.inmemory import compare_in_memory, known_lines
from archisync.sync.knownrows import stage_new_lines
from archisync.sync.records import RecordReader
from archisync.sync.staging import load_first, stage_all
from archisync.sync.target import Target


def compare(target: Target, records: RecordReader, *, compare_all: bool, may_load: bool) -> Comparison:
    """Read the export and compare it with the table.

    An export for an empty table is copied straight into it (`may_load`). Else a small difference is found in memory, a large one in the
    database. `compare_all`: take no digest for proof. Raises what reading raises, and RepeatedKeyError after a first load.
    """
    known = known_lines(target)
    if may_load and not known.rows and not records.ignored_names:
        return StagedComparison(target, load_first(target, records))
    in_memory = compare_in_memory(target, records, known, compare_all=compare_all)
    if in_memory is not None:
        return in_memory
    staged = None if compare_all or known.without == known.rows else stage_new_lines(target, records)
    return StagedComparison(target, staged or stage_all(target, records))
