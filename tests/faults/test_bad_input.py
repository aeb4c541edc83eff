"""Every case of `bad_input.py`: refused, held or quarantined, with a reason that says where; nothing else is touched.

Small exports run in this process on one shared database, an agent a case. Heavy ones run as the real command in a process of
their own, whose peak memory and time are measured. Files that somebody else writes meanwhile, and what is cut, come last.
"""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from archisync.__main__ import main
from archisync.base.log import EventLog
from archisync.cli.output import Output
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, held, history, queued_runs, runs
from archisync.store.database import Database, connected
from tests.conftest import Cli, migrated_copy
from tests.faults.bad_input import (
    AGENT_IDS,
    EXPORTS,
    KNOWN_KEYS,
    LABELS,
    MIB,
    BadExport,
    BadId,
    Outcome,
    good_row,
    known_rows,
)
from tests.support.rows import do_delivery
from tests.support.samples import SAMPLES

LONGEST_S = 10.0
MOST_MEMORY_KIB = 256 * 1024
AS_ROOT = os.geteuid() == 0
NOBODY = 65534
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

SMALL = [case for case in EXPORTS if not case.heavy]
HEAVY = [case for case in EXPORTS if case.heavy]


def name_of(case: BadExport | BadId) -> str:
    return f"{case.kind}-{case.id}" if isinstance(case, BadExport) else case.id


def hidden(text: str) -> list[str]:
    """The characters that could move a cursor, reorder text or forge a line; a line feed ends our own lines."""
    return [c for c in text if unicodedata.category(c) in _HIDDEN and c != "\n"]


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert hidden(text) == []
        assert "Traceback" not in text
        assert "a bug in archisync" not in text


def test_the_table_is_as_large_as_promised() -> None:
    kinds = Counter(case.kind for case in EXPORTS)
    assert len(AGENT_IDS) >= 40
    assert kinds["csv"] >= 30
    assert kinds["jsonl"] >= 20
    assert kinds["value"] >= 20
    assert kinds["file"] >= 10
    assert len(AGENT_IDS) + len(EXPORTS) >= 150
    names = [*map(name_of, AGENT_IDS), *map(name_of, EXPORTS)]
    assert [name for name, times in Counter(names).items() if times > 1] == []


# -- the shared database


@pytest.fixture(scope="module")
def shared_url(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[str]:
    with migrated_copy(admin, session_postgres, template, next(database_names)) as url:
        yield url


@pytest.fixture(scope="module")
def db(shared_url: str) -> Iterator[Database]:
    with connected(shared_url, purpose="test") as connection:
        yield connection


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared_url: str) -> Callable[..., Said]:
    """The command line in this process: `typed("run", "orders")`."""
    monkeypatch.setenv("ARCHISYNC_DATABASE_URL", shared_url)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["archisync", *arguments])
        capsys.readouterr()
        code = main()
        out, err = capsys.readouterr()
        return Said(code=code, stdout=out, stderr=err)

    return run


TABLES = [kind.table for kind in SYNC_TYPES.values()]


def everything(db: Database, *, but_agent: str = "") -> list[str]:
    """A hash of each of the six tables; the rows of one agent may be left out."""
    hashes = "select md5(string_agg(t::text, chr(10) order by t::text)) as hash from {} t where true {}"
    found = []
    for table in TABLES:
        others = "and agent_id <> %(agent)s" if table.startswith("agents.") else ""
        row = db.execute(hashes.format(table, others), {"agent": but_agent}).fetchone()
        assert row is not None
        found.append(row["hash"])
    return found


def rows_of(db: Database, sync_type: str, agent: str) -> dict[str, str]:
    """Key → the whole row as text."""
    table, key = SYNC_TYPES[sync_type].table, LABELS[sync_type][0]
    statement = f"select {key} as key, t::text as row from {table} t where agent_id = %(agent)s"
    found = db.execute(statement, {"agent": agent}).fetchall()
    return {row["key"]: row["row"] for row in found}


# -- exports


@dataclass(frozen=True, kw_only=True)
class Site:
    """One agent with four known rows, and the path at which the bad export is put."""

    agent: str
    path: Path
    config: Config


def config_for(url: str, folder: Path, *, suffix: str = ".csv", locale: str = "iso") -> Config:
    source = f"{folder}/{{agent}}/{{type}}{suffix}"
    return Config.from_environment(
        {"ARCHISYNC_DATABASE_URL": url, "ARCHISYNC_SOURCE": source, "ARCHISYNC_LOCALE": locale}
    )


def do(db: Database, config: Config, sync_type: str, agent: str) -> tuple[runs.Run, str]:
    """What a worker does with a forced run of that pair: the run as it is left, and the log."""
    run_id = queued_runs.force(db, sync_type, agent, by="test", why=None).run_id
    log = io.StringIO()
    do_delivery(db, config, run_id, history.get(db, run_id).fence, EventLog(log))
    return history.get(db, run_id), log.getvalue()


def prepare(db: Database, url: str, folder: Path, case: BadExport) -> Site:
    """Four known rows are applied, then the bad export takes the place of the good one."""
    agent = name_of(case)
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
    """The run's state, reason and words, and this agent's rows, are as the table says."""
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


def assert_told_harmlessly(db: Database, run: runs.Run, log: str, typed: Callable[..., Said]) -> None:
    """No place that shows the run lets a control character through."""
    assert_harmless(run.message or "", json.dumps(run.warnings, ensure_ascii=False), log)
    for command in (("show", str(run.run_id)), ("show", str(run.run_id), "--json")):
        shown = typed(*command)
        assert shown.code == 0
        assert_harmless(shown.stdout, shown.stderr)
    if run.state == "held":
        assert held.held_export(db, run.run_id).message == run.message


@pytest.mark.parametrize("case", SMALL, ids=name_of)
def test_a_bad_export_is_refused_or_quarantined_and_says_where(
    case: BadExport, db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    if case.id == "device" and not AS_ROOT:
        pytest.skip("only root can make a device")
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    started = monotonic()
    run, log = do(db, site.config, case.sync_type, site.agent)
    assert monotonic() - started < LONGEST_S
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_told_harmlessly(db, run, log, typed)


MEASURED = """
import sys
from pathlib import Path
from archisync.__main__ import main
try:
    sys.exit(main())
finally:
    status = Path("/proc/self/status").read_text()
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
@pytest.mark.parametrize("case", HEAVY, ids=name_of)
def test_a_boundless_export_ends_in_bounded_memory_and_time(
    case: BadExport, db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    command = [sys.executable, "-c", MEASURED, "run", case.sync_type, "--agent", site.agent, "--inline"]
    started = monotonic()
    done = subprocess.run(
        command, env=os.environ | site.config.environment, capture_output=True, text=True, check=False
    )
    assert monotonic() - started < LONGEST_S
    *talk, peak_kib = done.stderr.splitlines()
    assert int(peak_kib) <= MOST_MEMORY_KIB
    assert done.returncode == (6 if case.outcome is Outcome.HELD else 0)
    assert_harmless(done.stdout, *talk)
    (run,) = history.newest(db, agent_id=site.agent, limit=1)
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_told_harmlessly(db, run, "", typed)


# -- cut-off exports


def cuts(content: bytes) -> list[int]:
    """Where the file is cut: at each whole percent of its length."""
    return [len(content) * percent // 100 for percent in range(1, 100)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_cut_at_any_percent_is_held_unless_it_falls_between_two_rows(
    db: Database, shared_url: str, tmp_path: Path, ending: str, encoding: str
) -> None:
    """An accepted cut lies exactly behind a row and keeps at least half of them; its missing rows are counted as absent."""
    agent = f"cut-{encoding}-{len(ending)}"
    agents.add(db, agent, name=None, whitelisted=True)
    path = tmp_path / agent / "customers.csv"
    path.parent.mkdir()
    whole = (SAMPLES / "anna.bianchi" / "customers.csv").read_text("utf-8").replace("\n", ending)
    content = whole.encode(encoding)
    rows = len(whole.split(ending)) - 2
    config = config_for(shared_url, tmp_path)
    path.write_bytes(content)
    assert do(db, config, "customers", agent)[0].state == "succeeded"
    others = everything(db, but_agent=agent)
    for length in cuts(content):
        before = rows_of(db, "customers", agent)
        path.write_bytes(content[:length])
        run, _ = do(db, config, "customers", agent)
        kept = content[:length].decode(encoding, "ignore")
        if run.state == "held":
            assert run.reason in ("truncated", "unreadable", "missing-column", "zero-rows", "row-drop")
            assert rows_of(db, "customers", agent) == before
            continue
        assert kept.endswith(ending)
        assert kept.encode(encoding) == content[:length]
        assert run.counts is not None
        assert run.counts.seen == kept.count(ending) - 1 >= rows / 2
        assert (run.counts.absent, run.counts.deleted) == (rows - run.counts.seen, 0)
        path.write_bytes(content)
        do(db, config, "customers", agent)  # the rows are restored for the next cut
    assert everything(db, but_agent=agent) == others


# -- files that somebody else writes meanwhile, or forbids


GROW = """
with open(path, "ab", buffering=0) as file:
    while step():
        file.write(b"k5,Due,,1,1,\\n")
"""
WRITE_OVER = """
with open(path, "r+b", buffering=0) as file:
    while step():
        os.pwrite(file.fileno(), b"x", 0)
"""
REPLACE = """
versions = [open(path + name, "rb").read() for name in (".old", ".new")]
while step():
    versions.reverse()
    open(path + ".part", "wb").write(versions[0])
    os.replace(path + ".part", path)
"""
WRITER = """
import itertools, os, sys
path, steps = sys.argv[1], itertools.count()
def step():
    if next(steps) == 1:
        print("writing", flush=True)
    return True
"""


@contextmanager
def meanwhile(writer: str, path: Path) -> Iterator[None]:
    """An ERP that writes to the path again and again, in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", WRITER + writer, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        try:
            yield
        finally:
            assert process.poll() is None
            process.kill()


def _large(path: Path) -> None:
    """So large that it can't be copied between two writes."""
    with path.open("wb") as file:
        file.truncate(64 * MIB)


@pytest.mark.parametrize(("name", "writer"), [("grows", GROW), ("overwritten", WRITE_OVER)])
def test_an_export_that_is_written_while_it_is_read_is_tried_again_later(
    name: str, writer: str, db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    case = BadExport(
        id=name, kind="file", given=_large, outcome=Outcome.RETRIED, words="{path} changed while", reason="retry"
    )
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    with meanwhile(writer, site.path):
        run, log = do(db, site.config, case.sync_type, site.agent)
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_told_harmlessly(db, run, log, typed)


def test_an_export_that_is_replaced_while_it_is_read_is_wholly_the_old_or_the_new_one(
    db: Database, shared_url: str, tmp_path: Path
) -> None:
    def place(path: Path) -> None:
        row = good_row("customers", "{}")
        for name in (".old", ".new"):
            version = known_rows() + "".join(row.format(f"n{n}").replace("Name", name) for n in range(2000))
            Path(f"{path}{name}").write_text(version)
        path.write_text(version)

    case = BadExport(id="replaced", kind="file", given=place, outcome=Outcome.CLEANED, words="")
    site = prepare(db, shared_url, tmp_path, case)
    with meanwhile(REPLACE, site.path):
        run, _ = do(db, site.config, "customers", site.agent)
    assert run.state == "succeeded", run.message
    found = db.execute("select name, count(*) as n from agents.customers where agent_id = %s group by 1", (site.agent,))
    names = {row["name"]: row["n"] for row in found.fetchall()}
    assert names in ({"Name": 4, ".old": 2000}, {"Name": 4, ".new": 2000})


@contextmanager
def unprivileged() -> Iterator[None]:
    """The effective rights of nobody, for a test that runs as root."""
    if not AS_ROOT:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("packed", [False, True])
def test_an_unreadable_export_fails_the_run_at_once(
    db: Database, shared_url: str, typed: Callable[..., Said], packed: bool
) -> None:
    import tenacity  # noqa: F401 - what a run imports lazily may be unreadable for nobody

    name = f"unreadable-{packed}"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        case = BadExport(id=name, kind="file", given=b"", outcome=Outcome.FAILED, words="", reason="source-refused")
        site = prepare(db, shared_url, folder, case)
        path = site.path.with_name("customers.csv.gz") if packed else site.path
        site.path.rename(path)
        path.chmod(0)
        before = everything(db)
        with unprivileged():
            run, log = do(db, site.config, "customers", site.agent)
    assert (run.state, run.reason, run.message) == ("failed", "source-refused", f"no permission to read {path}")
    assert everything(db) == before
    assert_told_harmlessly(db, run, log, typed)


def test_a_source_that_is_not_utf_8_fails_the_run_and_not_the_worker(
    db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m"))
    folder.mkdir()
    agents.add(db, "not-utf-8", name=None, whitelisted=True)
    run, log = do(db, config_for(shared_url, folder), "customers", "not-utf-8")
    assert (run.state, run.reason) == ("failed", "no-export")
    assert (run.message or "").startswith(f"no export at {tmp_path}/��[31m/not-utf-8/customers.csv, nor")
    assert_told_harmlessly(db, run, log, typed)
    (folder / "not-utf-8").mkdir()
    (folder / "not-utf-8" / "customers.csv").write_text(known_rows())
    run, log = do(db, config_for(shared_url, folder), "customers", "not-utf-8")
    assert (run.state, run.reason) == ("succeeded", "applied")
    assert_told_harmlessly(db, run, log, typed)


# -- agent ids

DOORS: dict[str, Callable[[str], list[str]]] = {
    "add": lambda value: ["agent", "add", "--allow", "--", value],
    "run": lambda value: ["run", "orders", "--inline", f"--agent={value}"],
    "why": lambda value: ["why", "orders", "--", value],
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", AGENT_IDS, ids=name_of)
def test_a_bad_agent_id_is_refused_at_every_door(
    case: BadId, door: str, db: Database, typed: Callable[..., Said]
) -> None:
    before = db.execute(
        "select count(*) as n, (select count(*) from system.sync_runs) as r from agents.users"
    ).fetchone()
    arguments = DOORS[door](case.value)
    said = typed(*arguments)
    expected = case.said_by_why if door == "why" and case.said_by_why else case.said
    expected = expected.replace("argument {}", f"argument {len(arguments)}")
    assert said.stderr.splitlines()[0] == f"error: {expected}"
    assert said.stderr.splitlines()[1].startswith("hint: ")
    assert (said.code, said.stdout) == (2, "")
    assert len(said.stderr) < 1000
    assert_harmless(said.stderr)
    after = db.execute(
        "select count(*) as n, (select count(*) from system.sync_runs) as r from agents.users"
    ).fetchone()
    assert after == before


REAL: dict[str, tuple[list[str | bytes], str]] = {
    "bytes that are not UTF-8": (["agent", "add", b"anna\xff\xfe"], "argument 3 is not valid UTF-8"),
    "bytes in an option": ([b"--\xff"], "argument 1 is not valid UTF-8"),
    "a reason that is not UTF-8": (["run", "orders", "--reason", b"\xff"], "argument 4 is not valid UTF-8"),
    "-rf": (["agent", "add", "-rf"], "No such option: -r"),
    "an option with an escape": (["run", "--\x1b[31m"], "No such option: --\\x1b[31m"),
    "a word too many with an escape": (["tick", "\x1b]0;x\x07"], "Got unexpected extra argument(s) (\\x1b]0;x\\x07)"),
    "a command with a right-to-left override": (["x\u202ey"], "No such command 'x\\u202ey'."),
    "a type with an escape": (["run", "\x1b[31m"], "there is no sync type '\\x1b[31m'"),
    "an id of 100,000 letters": (["agent", "add", "a" * 100_000], f"'{'a' * 40}'… is not an agent id"),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_command_refuses_hostile_arguments_with_one_line(name: str, shared_url: str) -> None:
    arguments, message = REAL[name]
    command = [sys.executable, "-m", "archisync", *arguments]
    env = {"ARCHISYNC_DATABASE_URL": shared_url, "ARCHISYNC_REDIS_URL": "redis://nowhere", "PATH": os.environ["PATH"]}
    said = subprocess.run(command, env=env, capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (2, b"")
    assert said.stderr.decode().splitlines()[0] == f"error: {message}"
    assert_harmless(said.stderr.decode())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


GOOD_AGENTS = ("anna.bianchi", "luca.ferrari")


def test_bad_ids_in_the_registry_fail_alone_and_are_shown_harmlessly(
    cli: Cli, connection: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody inserts every bad id that PostgreSQL takes, whitelisted, with SQL."""
    env = {"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}
    connection.execute("update system.sync_settings set enabled = sync_type = 'orders'")
    bad = {case.value: case.said for case in AGENT_IDS if case.in_sql}
    for agent in (*bad, *GOOD_AGENTS):
        connection.execute("insert into agents.users (id, whitelisted) values (%s, true)", (agent,))
    ticked = cli("tick", "--json", env=env)
    assert (ticked.returncode, json.loads(ticked.stdout)["tick"]["enqueued"]) == (0, len(bad) + len(GOOD_AGENTS))
    worked = cli("worker", "--burst", env=env)
    assert worked.returncode == 0

    found = history.newest(connection, sync_type="orders", limit=1000)
    assert {run.agent_id: run.state for run in found if run.agent_id in GOOD_AGENTS} == dict.fromkeys(
        GOOD_AGENTS, runs.State.SUCCEEDED
    )
    ended = {run.agent_id: (run.state, run.reason, run.message) for run in found if run.agent_id not in GOOD_AGENTS}
    assert ended == {value: (runs.State.FAILED, "invalid-agent-id", said) for value, said in bad.items()}
    assert_harmless(worked.stdout, worked.stderr, *(run.message or "" for run in found))

    for command in ("status", "history --limit 1000", "agent list", "tick --dry-run", "tick"):
        for arguments in (command.split(), [*command.split(), "--json"]):
            said = cli(*arguments, env=env)
            assert said.returncode == 0, said.stderr
            assert_harmless(said.stdout, said.stderr)
    listed = json.loads(cli("agent", "list", "--json").stdout)["agents"]
    assert {agent["agent_id"] for agent in listed} == {*bad, *GOOD_AGENTS}  # escaped, not lost
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    Output(stdout=screen).table(["agent"], [["[red]anna[/red]"], ["anna\u202eihcnaib"]])
    assert "[red]anna[/red]" in screen.getvalue()
    assert "\u202e" not in screen.getvalue()


@pytest.mark.parametrize("value", ["\x1b[31manna", "anna\u202eihcnaib", "-rf", "", "[red]anna[/red]", "anna\nforged"])
def test_an_operator_can_look_at_a_bad_id_and_take_it_off_the_whitelist(
    value: str, db: Database, typed: Callable[..., Said]
) -> None:
    db.execute("insert into agents.users (id, whitelisted) values (%s, true)", (value,))
    for command in (["why", "orders"], ["agent", "show"], ["agent", "pause"], ["agent", "resume"], ["agent", "deny"]):
        if command[0] == "why" and not value:
            continue  # the one id that `why` can't be asked about
        said = typed(*command, "--", value)
        assert said.code == 0, said.stderr
        assert_harmless(said.stdout, said.stderr)
    assert not agents.agent(db, value).whitelisted
    db.execute("delete from agents.users where id = %s", (value,))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("select 'anna' || chr(0)", "null character not permitted"),
        ("select convert_from(decode('616e6e61ff', 'hex'), 'utf8')", "invalid byte sequence"),
        ("select string_agg(md5(g::text), '') from generate_series(1, 312500) g", "index row requires 10000016 bytes"),
    ],
)
def test_postgresql_itself_refuses_what_no_id_column_can_hold(db: Database, statement: str, words: str) -> None:
    count = "select count(*) as n from system.sync_state"
    before = db.execute(count).fetchone()
    with pytest.raises(psycopg.Error, match=re.escape(words)):
        db.execute(f"insert into agents.users (id, whitelisted) select ({statement}), true")
    assert db.execute(count).fetchone() == before
