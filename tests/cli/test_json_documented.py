"""archisync/observe/documents.md describes exactly what `--json` prints: each key, and the type of its value.

Every command looks at one site where everything has happened. A documented field that no command ever fills fails too, because nothing
would have checked its type.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import typer

from archisync.base.errors import ExitCode
from archisync.cli.root import root_command
from archisync.observe.fields import documents as documents_page
from archisync.observe.fields import tree
from archisync.rules.config import Config
from archisync.store import claims
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.documents import OBJECTS, Undocumented, compare_keys, every_field
from tests.support.rows import begin_run, drain, sync
from tests.support.samples import SAMPLES

SECTIONS = documents_page().commands


def json_commands(group: Any, prefix: str = "archisync") -> list[str]:
    """The words of every command that takes --json."""
    found: list[str] = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += json_commands(command, f"{prefix} {name}")
        elif any("--json" in getattr(p, "opts", []) for p in command.params):
            found.append(f"{prefix} {name}")
    return found


@pytest.fixture
def site(cli: Cli, connection: Database, database_url: str, redis_url: str, exports: Path) -> "Site":
    shutil.copytree(SAMPLES, exports, dirs_exist_ok=True)
    config = Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv",
        }
    )
    return Site(cli=cli, db=connection, config=config, exports=exports)


@dataclass(frozen=True, kw_only=True)
class Site:
    cli: Cli
    db: Database
    config: Config
    exports: Path

    def json(self, words: str, *, code: int = 0, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        done = self.cli(*words.split(), "--json", env=env)
        assert done.returncode == code, done.stderr
        document = json.loads(done.stdout)
        assert document.pop("schema") == 1
        assert isinstance(document, dict)
        return document

    def shown(self, words: str, *, code: int = 0, env: Mapping[str, str] | None = None) -> "Document":
        """The heading under which the command is documented, and its document."""
        heading = max((name for name in SECTIONS if f"archisync {words} ".startswith(f"{name} ")), key=len)
        return heading, self.json(words, code=code, env=env)

    def cut(self, agent_id: str, sync_type: str, lines: int) -> None:
        """The export's first lines, with another value in its first row."""
        path = self.exports / agent_id / f"{sync_type}.csv"
        kept = path.read_text("utf-8").splitlines(keepends=True)[:lines]
        path.write_text("".join(kept).replace("PORTO ASSEGNATO", "ALTRO", 1), "utf-8")

    def ruin(self, agent_id: str, sync_type: str) -> Path:
        """Every number × 100, which the guard finds in the values."""
        path = self.exports / agent_id / f"{sync_type}.csv"
        path.write_text(re.sub(r"(?<=[;,])([0-9]+)\.([0-9]{2})(?=[;,\n])", r"\1\2", path.read_text("utf-8")), "utf-8")
        return path

    def with_program(self, script: str) -> Config:
        """The configuration, with customers from that script."""
        path = self.exports / "program"
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return Config.from_environment(
            {**self.config.environment, "ARCHISYNC_SOURCE_CUSTOMERS": f"exec:{path} {{agent}}"}
        )


Document = tuple[str, dict[str, Any]]
"""A command, and what it prints with --json."""


def documents(site: Site, empty_database_url: str) -> Iterator[Document]:
    """Documents of every command that takes --json, at a site where everything happens."""
    elsewhere = {"ARCHISYNC_DATABASE_URL": empty_database_url}
    yield site.shown("db status", env=elsewhere)
    yield site.shown("db migrate", env=elsewhere)
    yield site.shown("db status")
    yield site.shown("status")
    yield site.shown("why orders nobody", code=ExitCode.NOT_FOUND)
    yield from while_runs_are_queued(site)
    yield from after_runs(site)
    held_run = _cut_export(site)
    yield from around_a_held_export(site, held_run)
    yield from around_a_ruined_export(site)
    yield from with_unfinished_runs(site, held_run)
    site.cli("interval", "set", "orders", "15", "--reason", "a test")
    site.cli("cancel", "--all")
    yield site.shown("audit list")
    site.db.execute(
        "update system.sync_state set consecutive_failures = 2, backoff_until = system.clock() + interval '1 hour'"
        " where agent_id = 'anna.bianchi' and sync_type = 'orders'"
    )
    yield site.shown("rest list")
    # more agents than `status` counts exactly
    site.db.execute("insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, 1100) n")
    site.db.execute("vacuum analyze system.sync_state")
    yield site.shown("status")


def while_runs_are_queued(site: Site) -> Iterator[Document]:
    site.cli("agent", "add", "anna.bianchi", "--name", "Anna Bianchi", "--allow")
    site.cli("agent", "add", "luca.ferrari", "--allow")
    yield site.shown("plan --for 2h")
    yield site.shown("tick --dry-run")
    site.cli("pause", "--type", "ddt", "--agent", "luca.ferrari", "--until", "2h", "--reason", "a test")
    site.cli("pause", "--type", "invoices", "--until", "2h")
    yield site.shown("tick", code=ExitCode.UNREACHABLE, env={"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"})
    yield site.shown("status")
    yield site.shown("tick")
    yield site.shown("plan --for 2h --workers 1")
    yield site.shown("history")


def after_runs(site: Site) -> Iterator[Document]:
    drain(site.db, site.config)
    yield site.shown("agent list")
    site.cli("resume", "--type", "invoices")
    site.cli("resume", "--type", "ddt", "--agent", "luca.ferrari")
    yield site.shown("run all --agent luca.ferrari --inline --reason test")
    for words in ("agent list", "agent show anna.bianchi", "agent show luca.ferrari", "interval list", "guard list"):
        yield site.shown(words)
    site.cli("type", "apply", f"{REPOSITORY}/examples/types/returns.toml")
    for words in ("type list", "type show orders", "type show returns"):
        yield site.shown(words)
    yield site.shown("plan --for 2h --workers 1")
    yield site.shown("doctor", code=ExitCode.SYNC_FAILED)
    # every shape of a warning; a source that says something; an export without news
    other = site.with_program('echo "one, two" >&2; printf "customer_id,name,colour\\n1,A,red\\n2,,red\\n"')
    quarantined = sync(site.db, other, "customers", "luca.ferrari")
    assert quarantined.export is not None
    yield site.shown(f"show {quarantined.run_id}")
    export = site.exports / "anna.bianchi" / "ddt.csv"
    export.write_text(export.read_text("utf-8").replace("\n", "\ncut off\n", 1), "utf-8")
    assert sync(site.db, site.config, "ddt", "anna.bianchi").state == "succeeded"
    yield site.shown("status")
    for _ in range(2):
        sync(site.db, site.config, "orders", "luca.ferrari", trigger="scheduled")
    yield site.shown("history --limit 100")


def _cut_export(site: Site) -> int:
    """Cut an export and hold it; the id of the run."""
    site.cut("anna.bianchi", "customers", 10)
    return sync(site.db, site.config, "customers", "anna.bianchi").run_id


def around_a_held_export(site: Site, run_id: int) -> Iterator[Document]:
    """The export is open, decided and used."""
    yield site.shown("diff customers --agent anna.bianchi", code=ExitCode.HELD)
    yield site.shown("held list")
    yield site.shown(f"held show {run_id}")
    rests = "update system.sync_state set backoff_until = system.clock() + make_interval(hours => %s) where agent_id = 'luca.ferrari'"
    site.db.execute(rests, [1])
    yield site.shown("status")
    site.db.execute(rests, [None])
    yield site.shown("why customers anna.bianchi")
    site.cli("held", "accept", str(run_id), "--why", "a test", "--no-run")
    sync(site.db, site.config, "customers", "anna.bianchi")
    yield site.shown(f"held show {run_id}")
    yield site.shown("held list --all")
    (site.exports / "anna.bianchi" / "customers.csv").write_text("customer_id,name,colour\n1,,red\n", "utf-8")
    yield site.shown("diff customers --agent anna.bianchi", code=ExitCode.HELD)
    damaged = site.exports / "anna.bianchi" / "customers.csv"
    damaged.write_text('customer_id,name\n1,"a "b" c"\n', "utf-8")
    yield site.shown("diff customers --agent anna.bianchi", code=ExitCode.HELD)
    yield site.shown(f"guard test customers --agent anna.bianchi --export {damaged}", code=ExitCode.HELD)
    yield site.shown("run customers --agent anna.bianchi --inline", code=ExitCode.HELD)


def around_a_ruined_export(site: Site) -> Iterator[Document]:
    """What the guard finds in values."""
    path = site.ruin("luca.ferrari", "orders")
    yield site.shown("diff orders --agent luca.ferrari", code=ExitCode.HELD)
    yield site.shown(f"guard test orders --agent luca.ferrari --export {path}", code=ExitCode.HELD)
    folder = site.exports / "old"
    folder.mkdir()
    shutil.copy(SAMPLES / "luca.ferrari" / "orders.csv", folder / "1.csv")
    shutil.copy(path, folder / "2.csv")
    (folder / "3.csv").write_text('order_id,created_at\n1,"a "b" c"\n', "utf-8")
    yield site.shown(f"guard test orders --agent luca.ferrari --export {folder}", code=ExitCode.HELD)
    run = sync(site.db, site.config, "orders", "luca.ferrari")
    yield site.shown(f"held show {run.run_id}")
    site.cli("guard", "set", "orders", "rescaled", "30", "gross_amount")
    yield site.shown("guard list")


def with_unfinished_runs(site: Site, held_run: int) -> Iterator[Document]:
    """One run is running, another one waits for its next attempt."""
    for _ in range(2):
        yield site.shown("run orders --agent anna.bianchi --reason test")
    running = site.json("run orders --agent luca.ferrari")["runs"][0]["run_id"]
    waiting = site.json("run ddt --agent anna.bianchi")["runs"][0]["run_id"]
    begin_run(site.db, running, worker="here:1")
    claims.requeue(
        site.db, begin_run(site.db, waiting, worker="here:2"), delay_s=600, reason="retry", message="the ERP was away"
    )
    site.db.execute("update system.ticks set started_at = started_at - interval '1 hour'")
    site.cli("pause", "--reason", "a test")
    site.cli("pause", "--agent", "luca.ferrari", "--until", "2h")
    site.cli("pause", "--type", "ddt", "--until", "2h")
    yield site.shown("status")
    yield site.shown("history --limit 100")
    folder = site.exports.with_name("folder")
    folder.mkdir()
    (folder / "archisync.env").write_text("ARCHISYNC_QUEUE=mine\n", "utf-8")
    with redis.Redis.from_url(site.config.redis_url) as client:
        moment = "2026-03-01T12:00:00.000001Z"
        fields = {"state": "idle", "memory_bytes": 1, "birth": moment, "last_heartbeat": moment}
        client.hset("rq:worker:archisync.host.7.x", mapping=fields)
        client.sadd("rq:workers:archisync", "rq:worker:archisync.host.7.x")
    yield site.shown("worker list")
    yield site.shown("config list", env={"ARCHISYNC_LEASE_S": "soon", "ARCHISYNC_FOLDER": str(folder)})
    for number in (running, waiting, held_run):
        yield site.shown(f"show {number}")
    for row in site.json("history --limit 100")["runs"]:
        yield "archisync show", {"run": row}


@pytest.mark.slow
def test_each_command_prints_what_is_documented_and_nothing_else(site: Site, empty_database_url: str) -> None:
    seen: set[str] = set()
    shown: set[str] = set()
    for command, document in documents(site, empty_database_url):
        shown.add(command)
        compare_keys(document, SECTIONS[command], command, seen)
    assert shown - {"archisync tick --dry-run"} == set(json_commands(typer.main.get_command(root_command())))
    never = [path for command in shown for path in every_field(SECTIONS[command], command) if path not in seen]
    assert sorted(p for p in never if not any(p.startswith(q) for q in ONE_COMMAND_IS_ENOUGH)) == []
    # a run, a held export, a tick … have the same fields wherever they are shown
    for kind, fields in OBJECTS.items():
        places = [place for command in shown for place in shown_at(command, kind)]
        for path in every_field(fields, ""):
            assert any(place + path in seen for place in places), f"{kind}: {path} was never seen"


def shown_at(command: str, kind: str) -> list[str]:
    """The paths in the command's document that have that shared kind."""
    fields = SECTIONS[command].items()
    return [f"{command}.{name}" for name, field in fields if field.kind == kind] + [
        f"{command}.{name}[]" for name, field in fields if field.kind == f"list of {kind}"
    ]


# A command that lists runs or held exports need not fill each of their fields: some other command does.
ONE_COMMAND_IS_ENOUGH = (
    "archisync status.running[].", "archisync status.held[].", "archisync held list.held[].", "archisync history.runs[].",
    "archisync held show.held.", "archisync show.run.",
)  # fmt: skip


def test_each_command_that_takes_json_is_documented() -> None:
    commands = set(json_commands(typer.main.get_command(root_command())))
    assert set(SECTIONS) - {"archisync tick --dry-run"} == commands


def test_the_page_explains_each_kind_of_value() -> None:
    kinds = {"text", "integer", "number", "boolean", "time", "value", "scalar", "object", *OBJECTS}
    page = documents_page()
    for fields in (*page.commands.values(), *page.requests.values(), *page.objects.values()):
        stack = list(fields.values())
        while stack:
            field = stack.pop()
            bare = re.sub(r"^((list|map) of )+", "", field.kind)
            assert bare in kinds
            assert bool(field.fields) == (bare == "object")
            stack += field.fields.values()


FIELDS = tree(
    [
        ("a", "integer", ""), ("b", "object or null", ""), ("b.c", "list of time", ""),
        ("d", "map of number, sometimes", ""),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"a": 1}, r"missing \['b'\]"),
        ({"a": 1, "b": None, "e": 1}, r"undocumented \['e'\]"),
        ({"a": None, "b": None}, "x.a is null"),
        ({"a": True, "b": None}, "x.a is no integer: True"),
        ({"a": "1", "b": None}, "x.a is no integer: '1'"),
        ({"a": 1, "b": {}}, r"x.b: missing \['c'\]"),
        ({"a": 1, "b": {"c": ["today"]}}, r"x.b.c\[\] is no time: 'today'"),
        ({"a": 1, "b": None, "d": {"k": "v"}}, r"x.d.\* is no number: 'v'"),
        ({"a": 1, "b": []}, r"x.b is no object: \[\]"),
    ],
)
def test_a_document_that_differs_is_refused(document: dict[str, Any], said: str) -> None:
    with pytest.raises(Undocumented, match=said):
        compare_keys(document, FIELDS, "x", set())


def test_a_document_as_described_passes() -> None:
    seen: set[str] = set()
    compare_keys({"a": 1, "b": {"c": ["2026-11-24T02:12:03Z"]}, "d": {"k": 1.5}}, FIELDS, "x", seen)
    assert seen == set(every_field(FIELDS, "x"))
