"""Exports that are cut off, that somebody writes to while they are read, or that nobody may read."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archisync.store import agents
from archisync.store.database import Database
from tests.faults.badinput.cases import MIB, BadExport, Outcome, good_row, head, known_rows
from tests.faults.badinput.site import (
    Said,
    assert_outcome,
    assert_shown_harmlessly,
    config_for,
    do,
    everything,
    prepare,
    rows_of,
)
from tests.support.samples import SAMPLES

AS_ROOT = os.geteuid() == 0
NOBODY = 65534


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
    own = f"\n{len(encoding)}{len(ending)}"  # rows of another agent would be held
    whole = (SAMPLES / "anna.bianchi" / "customers.csv").read_text("utf-8").replace("\n10", own).replace("\n", ending)
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
            assert run.reason in (
                "truncated", "unreadable", "missing-column", "no-final-line-end", "zero-rows", "row-drop",
            )  # fmt: skip
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
        id=name, form="file", given=_large, outcome=Outcome.RETRIED, words="{path} changed while", reason="retry"
    )
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    with meanwhile(writer, site.path):
        run, log = do(db, site.config, case.sync_type, site.agent)
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_shown_harmlessly(db, run, log, typed)


def test_an_export_that_is_replaced_while_it_is_read_is_wholly_the_old_or_the_new_one(
    db: Database, shared_url: str, tmp_path: Path
) -> None:
    def place(path: Path) -> None:
        row = good_row("customers", "{}")
        for name in (".old", ".new"):
            version = known_rows() + "".join(row.format(f"n{n}").replace("Name", name) for n in range(900))
            Path(f"{path}{name}").write_text(version)
        path.write_text(version)

    case = BadExport(id="replaced", form="file", given=place, outcome=Outcome.CLEANED, words="")
    site = prepare(db, shared_url, tmp_path, case)
    with meanwhile(REPLACE, site.path):
        run, _ = do(db, site.config, "customers", site.agent)
    assert run.state == "succeeded", run.message
    found = db.execute("select name, count(*) as n from agents.customers where agent_id = %s group by 1", (site.agent,))
    names = {row["name"]: row["n"] for row in found.fetchall()}
    assert names in ({"Name": 4, ".old": 900}, {"Name": 4, ".new": 900})


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
        case = BadExport(id=name, form="file", given=b"", outcome=Outcome.FAILED, words="", reason="source-refused")
        site = prepare(db, shared_url, folder, case)
        path = site.path.with_name("customers.csv.gz") if packed else site.path
        site.path.rename(path)
        path.chmod(0)
        before = everything(db)
        with unprivileged():
            run, log = do(db, site.config, "customers", site.agent)
    assert (run.state, run.reason, run.message) == ("failed", "source-refused", f"no permission to read {path}")
    assert everything(db) == before
    assert_shown_harmlessly(db, run, log, typed)


def test_a_source_that_is_not_utf_8_fails_the_run_and_not_the_worker(
    db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m"))
    folder.mkdir()
    agents.add(db, "not-utf-8", name=None, whitelisted=True)
    run, log = do(db, config_for(shared_url, folder), "customers", "not-utf-8")
    assert (run.state, run.reason) == ("failed", "no-export")
    assert (run.message or "").startswith(f"no export at {tmp_path}/��[31m/not-utf-8/customers.csv, nor")
    assert_shown_harmlessly(db, run, log, typed)
    (folder / "not-utf-8").mkdir()
    own_rows = "".join(
        good_row("customers", f"own-{number}") for number in range(3)
    )  # those of another agent would be held
    (folder / "not-utf-8" / "customers.csv").write_text(head("customers") + own_rows)
    run, log = do(db, config_for(shared_url, folder), "customers", "not-utf-8")
    assert (run.state, run.reason) == ("succeeded", "applied")
    assert_shown_harmlessly(db, run, log, typed)
