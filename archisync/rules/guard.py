"""Whether an export may be applied. Pure: evidence in, verdict out. All six types are judged alike, small tables too.

A hold is a question to a person, not a failure: nothing is written, the export's sha256 and the numbers are kept, and
`archisync held accept` answers for exactly that export. Nothing turns the guard off. An export that can't be read at all is held too, but
can't be accepted: formats and records raise ExportError for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from archisync.base.text import counted, iso
from archisync.rules.changedrows import Suspicion
from archisync.rules.reasons import Limits, Rule

HIGH_WATER_DAYS = 7
SOME_VALUES, MANY_VALUES = 3, 5
"""Different values that a column must have had, in a table of three rows and in a larger one, where a rule wants many."""
LEAST_NOTATION = 2
LEAST_ROWS = 3
"""Rows that go back with an older export in the same place, or of another agent's export; fewer are a correction by hand, or chance."""
SAME_TIME = timedelta(seconds=2)
"""File systems and servers round their times."""
LEAST_QUARANTINED = 3
"""Fewer rejected rows don't hold an export: in a table of three rows, one bad cell is daily life."""
GROWTH_FACTOR = 10
GROWTH_ROWS = 1000
"""A table may grow to this many rows from any number; above, only to GROWTH_FACTOR times the known rows."""


DEFAULTS = Limits()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What applying the export would do to the table.

    `known`: rows that are not marked absent; of these, `vanishing` would be marked, and `rewritten` are a part of the `changed`. `deleted`
    and `restored`: rows that an earlier export marked, which was judged at that time, and that this export lacks or has.
    """

    known: int = 0
    vanishing: int = 0
    deleted: int = 0
    restored: int = 0
    changed: int = 0
    rewritten: int = 0
    new: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighed:
    """A suspicion, and the number of known rows that it might have been seen in."""

    suspicion: Suspicion
    whole: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Notation:
    """Numbers of a column: `other` were rejected because the other locale writes them so, `own` prove the one that they were read in.
    `comma`: the decimal sign of the rejected ones. `setting`: what makes the export readable."""

    column: str
    other: int
    own: int
    comma: bool
    setting: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Alike:
    """Another agent who has `rows` of the export's rows, to the letter, among the `known` ones."""

    agent_id: str
    rows: int
    known: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known before anything is written.

    `valid`: rows that could be read, with distinct keys. `known`: rows of the last applied export, None before the first one; `high`: rows
    of the largest one in the last seven days. `conflicting`: keys that the export has more than once, with different values.
    `suspicions`: what looks wrong in the rows that change, in the order of the rules. `notations`: columns with numbers in the other
    locale's notation. `another_agent`: the one for whom these very bytes were applied; `alike`: one who has most of these rows, if the
    export is the agent's first. `newly_open`: the last line lacks its line end, and
    that of the last applied export had one. `written_at` and `last_written_at`: when the ERP wrote this export, and the last applied one of
    the same folder; `beside`: under another name.
    """

    seen: int
    valid: int
    quarantined: int
    conflicting: int
    known: int | None
    high: int | None = None
    plan: Plan = Plan()
    suspicions: Sequence[Weighed] = ()
    notations: Sequence[Notation] = ()
    another_agent: str | None = None
    alike: Alike | None = None
    newly_open: bool = False
    written_at: datetime | None = None
    last_written_at: datetime | None = None
    beside: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a rule about values found in a column. `examples`: old and new values, which are agent data; the message has none."""

    rule: Rule
    column: str
    message: str
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """`hint`: what would make the export a good one, where its error said so. `findings`: all that is wrong with the values, whichever rule
    the export is held for."""

    rule: Rule
    message: str
    hint: str | None = None
    findings: tuple[Finding, ...] = ()


_OPEN = "the final line end is missing, so the last row may be cut off"


def exceeds(part: int, whole: int, percent: int) -> bool:
    """Whether `part` is more than `percent` of `whole`, exactly: the numbers are whole."""
    return part * 100 > whole * percent


def judge(evidence: Evidence, limits: Limits = DEFAULTS) -> Hold | None:
    """The reason to hold the export; None when it may be applied."""
    if broken := _broken(evidence):
        return broken
    findings = tuple(found for weighed in evidence.suspicions if (found := _weigh(weighed, limits)))
    unlikely = (
        _older(evidence)
        or _notation(evidence)
        or _rejected(evidence, limits)
        or _another_agents(evidence)
        or _more(evidence)
        or _values(findings)
        or _fewer(evidence, limits)
        or _planned(evidence.plan, limits)
    )
    if unlikely:
        unlikely = replace(unlikely, findings=findings)
    if not evidence.newly_open:
        return unlikely
    if unlikely:
        return replace(unlikely, message=f"{unlikely.message}; {_OPEN}")
    return Hold(rule=Rule.NO_FINAL_LINE_END, message=f"{_OPEN}; if the ERP always writes it so, accept it once")


@dataclass(frozen=True, kw_only=True, slots=True)
class Near:
    """How near a rule came: the share that it saw, in percent, and the one above which it holds."""

    rule: Rule
    column: str
    share: int
    limit: int


def nearest(evidence: Evidence, limits: Limits = DEFAULTS) -> list[Near]:
    """The rules that saw anything, the nearest to a hold first."""
    plan, known = evidence.plan, evidence.known or 0
    shares = [
        (Rule.QUARANTINED, "", evidence.quarantined, evidence.seen, limits.drop),
        (Rule.ROW_DROP, "", known - evidence.valid, known, limits.drop),
        (Rule.PLANNED_DELETES, "", plan.vanishing, plan.known, limits.delete),
        (Rule.PLANNED_REWRITES, "", plan.rewritten, plan.known, limits.rewrite),
    ]
    for weighed in evidence.suspicions:
        seen, whole = weighed.suspicion, weighed.whole
        if not _has_few_values(weighed):
            shares.append((seen.rule, seen.column, min(seen.hits, whole), whole, _limit(seen, limits)))
    found = [
        Near(rule=rule, column=column, share=100 * part // whole, limit=limit)
        for rule, column, part, whole, limit in shares
        if part > 0 and whole > 0
    ]
    return sorted(found, key=lambda near: -near.share / max(near.limit, 1))


def _broken(evidence: Evidence) -> Hold | None:
    if evidence.conflicting:
        return Hold(
            rule=Rule.DUPLICATE_KEYS,
            message=f"the export has {counted(evidence.conflicting, 'key')} more than once, with different values",
        )
    if evidence.seen and not evidence.valid:
        return Hold(rule=Rule.ALL_REJECTED, message=f"all {evidence.seen} rows of the export were rejected")
    return None


def _older(evidence: Evidence) -> Hold | None:
    """An old copy beside a file that has gone, or in its place: the rows would be as they were then."""
    written, last, plan = evidence.written_at, evidence.last_written_at, evidence.plan
    if written is None or last is None or written >= last:
        return None
    if not evidence.beside and (last - written < SAME_TIME or plan.changed + plan.vanishing < LEAST_ROWS):
        return None
    return Hold(
        rule=Rule.OLDER_FILE,
        message=f"the export was written at {iso(written)}, the one that was applied last at {iso(last)}",
    )


def _notation(evidence: Evidence) -> Hold | None:
    """A column that proves the other notation twice, and not much more often this one: numbers without decimals would be misread."""
    for seen in evidence.notations:
        if seen.other < LEAST_NOTATION or exceeds(seen.own, seen.other + seen.own, 90):
            continue
        written, read = ("comma", "point") if seen.comma else ("point", "comma")
        return Hold(
            rule=Rule.OTHER_NOTATION,
            message=f"{seen.column}: {seen.other} numbers are written with a decimal {written}, and the export is read with a decimal "
            f"{read}: others may be misread",
            hint=f"if the ERP writes numbers so from now on, set {seen.setting}",
        )
    return None


def _rejected(evidence: Evidence, limits: Limits) -> Hold | None:
    bad = evidence.quarantined
    if bad < LEAST_QUARANTINED or not exceeds(bad, evidence.seen, limits.drop):
        return None
    return Hold(
        rule=Rule.QUARANTINED,
        message=f"{bad} of {evidence.seen} rows of the export were rejected: {_share(bad, evidence.seen)} "
        f"(at most {limits.drop} % are applied unasked)",
    )


def _another_agents(evidence: Evidence) -> Hold | None:
    if evidence.another_agent is not None:
        message = f"the export is byte by byte the one that was applied for {evidence.another_agent}"
        return Hold(rule=Rule.ANOTHER_AGENTS, message=message)
    alike = evidence.alike
    if alike is None or alike.rows < LEAST_ROWS or not exceeds(alike.rows, max(evidence.valid, alike.known), 50):
        return None
    message = f"{alike.rows} of {evidence.valid} rows of this first export are those of {alike.agent_id}, to the letter"
    return Hold(rule=Rule.ANOTHER_AGENTS, message=message)


def _more(evidence: Evidence) -> Hold | None:
    """A pair without known rows has no history that makes a number unlikely."""
    if not evidence.known or evidence.valid <= max(GROWTH_ROWS, GROWTH_FACTOR * evidence.known):
        return None
    return Hold(
        rule=Rule.ROW_GROWTH,
        message=f"the export has {evidence.valid} rows, {evidence.known} are known: more than {GROWTH_FACTOR} times as many",
    )


def _weigh(weighed: Weighed, limits: Limits) -> Finding | None:
    """What is certain enough to hold an export. A small table must show it in more of its rows, and a column needs several values."""
    seen, whole = weighed.suspicion, max(weighed.whole, 1)
    hits = min(seen.hits, whole)
    limit = _limit(seen, limits)
    if _has_few_values(weighed) or not exceeds(hits, whole, limit):
        return None
    about, estimated = "", ""
    if seen.estimated_from is not None:
        looked_at, changed = seen.estimated_from
        about, estimated = "about ", f"; estimated from {looked_at} of {changed} changed rows"
    return Finding(
        rule=seen.rule,
        column=seen.column,
        message=f"{seen.column}: {seen.what} in {about}{hits} of {counted(whole, 'row')} {seen.bases[0].among}: {_share(hits, whole)} "
        f"(at most {limit} % are applied unasked{estimated})",
        examples=seen.examples,
    )


def _limit(seen: Suspicion, limits: Limits) -> int:
    return max(limits.share(seen.rule, seen.column), seen.floor)


def _has_few_values(weighed: Weighed) -> bool:
    """Whether the column had too few different values for a rule that wants many."""
    seen = weighed.suspicion
    return seen.many_values and seen.distinct < min(MANY_VALUES, max(SOME_VALUES, weighed.whole // 2 + 1))


def _values(findings: Sequence[Finding]) -> Hold | None:
    """The first rule that holds; the others are in the findings."""
    if not findings:
        return None
    first, more = findings[0], len({found.column for found in findings} - {findings[0].column})
    also = f"; {counted(more, 'more column')} {'looks' if more == 1 else 'look'} wrong" if more else ""
    return Hold(rule=first.rule, message=first.message + also)


def _fewer(evidence: Evidence, limits: Limits) -> Hold | None:
    known, high = evidence.known or 0, evidence.high or 0
    if not evidence.valid and known:
        return Hold(rule=Rule.ZERO_ROWS, message=f"the export has no rows, {known} are known")
    bad = f" ({evidence.quarantined} more were rejected)" if evidence.quarantined else ""
    if exceeds(known - evidence.valid, known, limits.drop):
        return Hold(
            rule=Rule.ROW_DROP,
            message=f"the export has {evidence.valid} rows{bad}, {known} are known: {_share(known - evidence.valid, known)} fewer "
            f"(at most {limits.drop} % are applied unasked)",
        )
    if exceeds(high - evidence.valid, high, limits.drop):
        return Hold(
            rule=Rule.HIGH_WATER,
            message=f"the export has {evidence.valid} rows{bad}, {high} were known within {HIGH_WATER_DAYS} days: "
            f"{_share(high - evidence.valid, high)} fewer (at most {limits.drop} % are applied unasked)",
        )
    return None


def _planned(plan: Plan, limits: Limits) -> Hold | None:
    if exceeds(plan.vanishing, plan.known, limits.delete):
        return Hold(
            rule=Rule.PLANNED_DELETES,
            message=f"{plan.vanishing} of {plan.known} known rows would vanish: {_share(plan.vanishing, plan.known)} "
            f"(at most {limits.delete} % are applied unasked)",
        )
    if exceeds(plan.rewritten, plan.known, limits.rewrite):
        return Hold(
            rule=Rule.PLANNED_REWRITES,
            message=f"{plan.rewritten} of {plan.known} known rows would change in more than half of their fields: "
            f"{_share(plan.rewritten, plan.known)} (at most {limits.rewrite} % are applied unasked)",
        )
    return None


def _share(part: int, whole: int) -> str:
    return f"{part * 100 // whole} %"
