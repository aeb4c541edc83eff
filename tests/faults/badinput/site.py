"""One agent with four known rows, a bad export for it, and what the tests check afterwards."""

import io
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, held, history, queued_runs, runs
from archisync.store.database import Database
from tests.faults.badinput.cases import KNOWN_KEYS, LABELS, BadExport, Outcome, known_rows
from tests.support.rows import do_run

LONGEST_S = 60.0
"""A bound for what never ends: the slowest takes three seconds on a quiet machine."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    stdout: str
    stderr: str


def hidden(text: str) -> list[str]:
    """The characters that could move a cursor, reorder text or forge a line. A line feed is none of them: it ends our own lines."""
    return [c for c in text if unicodedata.category(c) in _HIDDEN and c != "\n"]


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert hidden(text) == []
        assert "Traceback" not in text
        assert "a bug in archisync" not in text


TABLES = [kind.table for kind in SYNC_TYPES.values()]


def everything(db: Database, *, but_agent: str = "") -> list[str]:
    """A hash of each of the six tables, without the rows of `but_agent`."""
    hashes = "select md5(string_agg(t::text, chr(10) order by t::text)) as hash from {} t where true {}"
    found = []
    for table in TABLES:
        others = "and agent_id <> %(agent)s" if table.startswith("agents.") else ""
        row = db.execute(hashes.format(table, others), {"agent": but_agent}).fetchone()
        assert row is not None
        found.append(row["hash"])
    return found


def rows_of(db: Database, sync_type: str, agent: str) -> dict[str, str]:
    """The agent's rows: key → the whole row as text."""
    table, key = SYNC_TYPES[sync_type].table, LABELS[sync_type][0]
    statement = f"select {key} as key, t::text as row from {table} t where agent_id = %(agent)s"
    found = db.execute(statement, {"agent": agent}).fetchall()
    return {row["key"]: row["row"] for row in found}


# -- exports


@dataclass(frozen=True, kw_only=True)
class Site:
    """The agent of a case, and the path of its bad export."""

    agent: str
    path: Path
    config: Config


def config_for(url: str, folder: Path, *, suffix: str = ".csv", locale: str = "iso") -> Config:
    source = f"{folder}/{{agent}}/{{type}}{suffix}"
    return Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": url, "ARCHISYNC_SOURCE": source, "ARCHISYNC_LOCALE": locale}
    )


def do(db: Database, config: Config, sync_type: str, agent: str) -> tuple[runs.Run, str]:
    """Do a forced run of the pair as a worker does it; gives the run as it ended, and the log."""
    run_id = queued_runs.force(db, sync_type, agent, by="test", why=None).run_id
    log = io.StringIO()
    do_run(db, config, run_id, EventLog(log))
    return history.get(db, run_id), log.getvalue()


def prepare(db: Database, url: str, folder: Path, case: BadExport) -> Site:
    """Apply the four known rows, then put the bad export in place of the good one. Agents of other cases leave: their first export was the
    same."""
    agent = case.name
    db.execute("update agents.users set whitelisted = false")
    agents.add(db, agent, name=None, whitelisted=True)
    path = folder / agent / f"{case.sync_type}.csv"
    path.parent.mkdir()
    path.write_text(known_rows(case.sync_type))
    known, _ = do(db, config_for(url, folder), case.sync_type, agent)
    assert known.counts is not None
    assert (known.state, known.counts.inserted) == ("succeeded", len(KNOWN_KEYS))
    path.unlink()
    path = path.with_suffix(case.suffix)
    if isinstance(case.given, bytes):
        path.write_bytes(case.given)
    else:
        case.given(path)
    return Site(agent=agent, path=path, config=config_for(url, folder, suffix=case.suffix, locale=case.locale))


def assert_outcome(db: Database, case: BadExport, site: Site, run: runs.Run, before: dict[str, str]) -> None:
    """The run's state, reason and words, and the agent's rows, are as the case says."""
    after = rows_of(db, case.sync_type, site.agent)
    if case.outcome is Outcome.QUARANTINED:
        (warning,) = [w for w in run.warnings if w["code"] == "quarantined"]
        assert (run.state, run.reason, warning["count"]) == ("succeeded", case.reason, 1)
        assert warning["rows"] == [{"line": case.line, "field": case.field, "reason": case.words}]
        assert set(after) == {*KNOWN_KEYS, "good"}
        assert {key: after[key] for key in KNOWN_KEYS} == before
    elif case.outcome is Outcome.CLEANED:
        assert (run.state, run.reason) == ("succeeded", case.reason)
        assert [w["message"] for w in run.warnings] == [case.words]
        assert set(after) == {*KNOWN_KEYS, "k5", "good"}
    else:
        assert (run.state.value, run.reason) == (case.outcome.value, case.reason), run.message
        assert case.words.replace("{path}", str(site.path)) in (run.message or "")
        assert after == before


def assert_shown_harmlessly(db: Database, run: runs.Run, log: str, typed: Callable[..., Said]) -> None:
    """No place that shows the run lets a control character through."""
    assert_harmless(run.message or "", json.dumps(run.warnings, ensure_ascii=False), log)
    for command in (("show", str(run.run_id)), ("show", str(run.run_id), "--json")):
        shown = typed(*command)
        assert shown.code == 0
        assert_harmless(shown.stdout, shown.stderr)
    if run.state == "held":
        assert held.held_export(db, run.run_id).message == run.message
