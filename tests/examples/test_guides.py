"""Every command of README and guides, typed into a shell with real servers: what a document shows must be what happens.

`tests/support/guides.py` says how a block is read. Each document has its own folder, home and database. Cron is replaced by a program
`crontab` that runs the lines of each minute once, when it gets them, as cron would: with /bin/sh and almost no environment.
"""

import csv
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import yaml

from archisync.queue.client import redis_client
from archisync.queue.workers import live_workers
from archisync.rules.synctypes import SYNC_TYPES
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents, migrations
from archisync.store.database import connected
from tests.conftest import REPOSITORY, migrated_copy
from tests.support.erp import Answer, Erp, running_erp
from tests.support.guides import SHELL_LANGUAGES, Block, Shell, WrongDocument, blocks, commands
from tests.support.odata import Service, running_service
from tests.support.programs import postgresql_program
from tests.support.samples import SAMPLES

GUIDES = REPOSITORY / "examples" / "guides"
DOCUMENTS = [REPOSITORY / "README.md", *sorted(GUIDES.glob("*.md"))]
AGENTS = "anna.bianchi luca.ferrari giulia.romano"

# The reasons for which a block may be left out, and the only commands that such a block may have. None of them is archisync's.
NOT_RUN = {
    "pip downloads from a package index": r"(/usr/bin/)?python3 -m venv \S+|\. \S+/bin/activate"
    r"|(/opt/archisync/bin/)?pip install (--upgrade )?'(\.|archisync)\[[a-z,]+\]'( +# in a checkout: pip install '\.\[[a-z,]+\]')?",
    "installs Debian packages and makes a role in the system's PostgreSQL, as root": r"apt install [a-z0-9 -]+"
    r"|runuser -u postgres -- create(user|db) .+",
    "makes an account of the system, as root": r"useradd --system .+ archisync",
    "needs systemd": r"(sudo )?systemctl \w+( --now)? archisync-(tick\.timer|worker\.service)( archisync-worker\.service)?"
    r"|systemctl daemon-reload|journalctl -u 'archisync-\*' --since -5min",
    "needs a Kubernetes cluster": r"kubectl .+",
    "asks a remote repository": r"git pull",
    "asks an SSH server for its key": r"ssh-keyscan -t ed25519 \S+ >> ~/\.ssh/known_hosts",
}

CRONTAB = r"""
case "$1" in
  -l) cat "$HOME/.crontab" 2>/dev/null || { echo "no crontab for $USER" >&2; exit 1; } ;;
  -) cat > "$HOME/.crontab"
     grep '^\* \* \* \* \* ' "$HOME/.crontab" | cut -d' ' -f6- | while read -r line; do
       env -i HOME="$HOME" LOGNAME="$USER" PATH=/usr/bin:/bin SHELL=/bin/sh /bin/sh -c "$line" < /dev/null
     done ;;
  *) exit 2 ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as made:
        yield made


@pytest.fixture
def erp() -> Iterator[Erp]:
    """An ERP that serves the sample exports at /exports/{agent}/{type}.csv to clients with the token."""
    with running_erp() as erp:
        for path in SAMPLES.rglob("*.csv"):
            erp.answers[f"/exports/{path.parent.name}/{path.name}"] = _with_token(path.read_bytes())
        yield erp


def _with_token(body: bytes) -> Callable[..., None]:
    def answer(handler: object) -> None:
        from tests.support.erp import Handler

        assert isinstance(handler, Handler)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        granted = headers.get("authorization") == "Bearer 4f1a"
        handler.answer(Answer(body=body, etag='"v1"') if granted else Answer(status=401), headers)

    return answer


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """A person's shell: a home, and a PATH with archisync on it."""
    programs = folder / "erp" / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").touch()
    scripts = {
        "archisync": f'PYTHONPATH="${{CHECKOUT:-{REPOSITORY}}}" exec {sys.executable} -m archisync "$@"',
        "python3": f'PYTHONPATH="${{CHECKOUT:-{REPOSITORY}}}" exec {sys.executable} "$@"',
        "crontab": CRONTAB,
        "make": 'test "$*" = demo && exec archisync demo',  # the Makefile's target does this once it has installed
        "psql": f'exec {postgresql_program("psql")} "$@"',
        "pg_dump": f'exec {postgresql_program("pg_dump")} "$@"',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(folder),
        "USER": "mario",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }


@pytest.fixture
def at_work(environment: dict[str, str], folder: Path, empty_database_url: str, redis_url: str) -> dict[str, str]:
    """The environment of a running site: servers, and the sample exports in ./exports."""
    shutil.copytree(SAMPLES, folder / "exports")
    return environment | {
        "ARCHISYNC_DATABASE_URL": empty_database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"{folder}/exports/{{agent}}/{{type}}.csv",
    }


def started(shell: Shell) -> None:
    """Type what the guides start from: three agents whose data has been synced once, and a worker."""
    synced(shell)
    script(shell, "archisync worker &")


def synced(shell: Shell) -> None:
    script(shell, "archisync db migrate", f"archisync agent add {AGENTS} --allow")
    script(shell, "archisync tick", "archisync worker --burst")


def script(shell: Shell, *lines: str) -> None:
    """Type it; each line must succeed."""
    shell.run(Block(language="sh", words=(), lines=lines, line=0, not_run=None))


def type_all(shell: Shell, document: Path) -> None:
    type_blocks(shell, document.read_text("utf-8"))


def type_blocks(shell: Shell, text: str) -> None:
    for block in blocks(text):
        if block.language in SHELL_LANGUAGES and block.not_run is None:
            shell.run(block)
    shell.close_terminals()


@pytest.mark.check
def test_the_readme(environment: dict[str, str], folder: Path, empty_database_url: str, redis_url: str) -> None:
    stands_for = {
        "postgresql:///archisync?host=/var/run/postgresql": empty_database_url,
        "redis://localhost:6379/0": redis_url,
    }
    with Shell(folder=folder, environment=environment, stands_for=stands_for) as shell:
        type_all(shell, REPOSITORY / "README.md")
    cron = (folder / ".crontab").read_text("utf-8")
    assert "%" not in cron  # cron would take it for a line end
    assert re.fullmatch(r"\* \* \* \* \* .+\n@reboot .+\n", cron)


@pytest.fixture
def business_central() -> Iterator[Service]:
    """An OData service with the customers of those samples that have the same labels, each with its agent."""
    with running_service() as service:
        service.secret = "s3cr3t"
        rows = []
        for path in SAMPLES.glob("*/customers.csv"):
            with path.open(newline="", encoding="utf-8") as file:
                read = [{**row, "Agent": path.parent.name, "Memo": "x"} for row in csv.DictReader(file)]
                rows += [row for row in read if "customer_id" in row]
        service.put("Company('ACME')/Customers", rows)
        yield service


@pytest.mark.check
def test_connect(at_work: dict[str, str], folder: Path, erp: Erp, business_central: Service) -> None:
    urls = {"erp.example": erp.url, "bc.example": business_central.url}
    stands_for = {f"https://{name}": url for name, url in urls.items()}
    stands_for |= {f"{name}:443": url.removeprefix("http://") for name, url in urls.items()}
    with Shell(folder=folder, environment=at_work, stands_for=stands_for) as shell:
        started(shell)
        type_all(shell, GUIDES / "connect.md")


@pytest.mark.check
@pytest.mark.parametrize("name", ["resync-from-ci", "held"])
def test_a_guide_at_a_running_site(at_work: dict[str, str], folder: Path, name: str) -> None:
    with Shell(folder=folder, environment=at_work) as shell:
        started(shell)
        type_all(shell, GUIDES / f"{name}.md")


@pytest.mark.check
def test_stale(at_work: dict[str, str], folder: Path) -> None:
    """The ERP stopped writing one agent's orders an hour ago; two slots have failed since."""
    with Shell(folder=folder, environment=at_work) as shell:
        synced(shell)
        (folder / "exports/luca.ferrari/orders.csv").rename(folder / "orders-of-luca.csv")
        for _ in range(2):
            with psycopg.connect(at_work["ARCHISYNC_DATABASE_URL"]) as db:
                db.execute(
                    "update system.sync_state set last_success_at = last_success_at - interval '1 hour',"
                    " last_slot_at = last_slot_at - interval '1 hour' where sync_type = 'orders' and agent_id = 'luca.ferrari'"
                )
            script(shell, "archisync tick", "archisync worker --burst")
        script(shell, "archisync worker &")
        with redis_client(at_work["ARCHISYNC_REDIS_URL"]) as client:
            while not live_workers(client, "archisync"):
                continue
        type_all(shell, GUIDES / "stale.md")


@pytest.mark.check
def test_upgrade(
    at_work: dict[str, str],
    folder: Path,
    database_url: str,
    admin: psycopg.Connection,
    session_postgres: EmbeddedPostgres,
    database_names: Iterator[str],
) -> None:
    """Beside the site's database there is one that a development version made, with one agent, and an empty one."""
    with connected(database_url, purpose="test") as db:
        agents.add(db, "anna.bianchi", name=None, whitelisted=True)
        db.execute("delete from system.schema_migrations")
        for version, name in ((1, "initial"), (2, "source_validators")):
            db.execute(migrations.SQL_RECORD, {"version": version, "name": name})
    with migrated_copy(admin, session_postgres, "template0", next(database_names)) as new:
        stands_for = {
            "postgresql://archisync@db.example/old": database_url,
            "postgresql://archisync@db.example/new": new,
        }
        with Shell(folder=folder, environment=at_work, stands_for=stands_for) as shell:
            script(shell, "archisync db migrate")
            type_all(shell, GUIDES / "upgrade.md")


@pytest.mark.check
def test_panel(at_work: dict[str, str], folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Shell(folder=folder, environment=at_work, stands_for={"127.0.0.1:8080": f"127.0.0.1:{port}"}) as shell:
        started(shell)
        type_all(shell, GUIDES / "panel.md")


@pytest.mark.check
def test_cluster(at_work: dict[str, str], folder: Path, own_postgres: EmbeddedPostgres) -> None:
    stands_for = {
        "postgresql://archisync@db.example/company": own_postgres.url,
        "redis://queue.example:6379/0": at_work["ARCHISYNC_REDIS_URL"].replace("db=0", "db=1"),
    }
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    with Shell(folder=folder, environment=at_work, stands_for=stands_for) as shell:
        started(shell)
        type_all(shell, GUIDES / "cluster.md")


@pytest.mark.check
@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
def test_server(
    environment: dict[str, str], folder: Path, own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey
) -> None:
    """As far as a test may go: below its folder instead of /etc, with servers of its own and the roles that the guide makes."""
    with psycopg.connect(own_postgres.url, autocommit=True) as db:
        db.execute("create role archisync login")
        db.execute("alter database archisync owner to archisync")
        [(sockets,)] = db.execute("show unix_socket_directories").fetchall()
    programs = folder / "erp" / "venv" / "bin"
    socket = unquote(urlsplit(own_valkey.url).path)
    scripts = {
        "runuser": f'export PGHOST="{sockets}" PGUSER="$2"; shift 3; exec "$@"',
        "redis-cli": f'exec {shutil.which("redis-cli")} -s "{socket}" "$@"',
        "pg_restore": f'exec {postgresql_program("pg_restore")} "$@"',
        "createdb": f'exec {postgresql_program("createdb")} "$@"',
        "chgrp": "exit 0",
        "install": 'for last; do :; done; case "$1$2" in -d*) mkdir -p "$last" ;; *) shift 2; cp "$@" ;; esac',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (programs / name).chmod(0o755)
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    for place in ("etc/systemd/system", "usr/local/bin"):
        (folder / "root" / place).mkdir(parents=True)
    stands_for = {
        "postgresql:///archisync?host=/var/run/postgresql": own_postgres.url.replace("//postgres@", "//archisync@"),
        "redis://localhost:6379/0": own_valkey.url,
        **{
            name: f"{folder}/root{name}"
            for name in ("/etc/archisync", "/etc/systemd", "/srv/exports", "/usr/local/bin")
        },
    }
    with Shell(folder=folder, environment=environment, stands_for=stands_for) as shell:
        type_all(shell, GUIDES / "server.md")
    installed = {path.name for path in (folder / "root/etc/systemd/system").iterdir()}
    assert installed == {path.name for path in (REPOSITORY / "examples/systemd").iterdir()}


@pytest.mark.check
def test_add_a_type(at_work: dict[str, str], folder: Path) -> None:
    with Shell(folder=folder, environment=at_work) as shell:
        started(shell)
        type_all(shell, GUIDES / "add-a-type.md")


@pytest.mark.parametrize("name", ["promises", "settings", "scale"])
def test_a_page_of_tables_shows_no_commands(name: str) -> None:
    """test_readme.py compares them with the code and the tests."""
    assert [b for b in blocks((GUIDES / f"{name}.md").read_text("utf-8")) if b.language in SHELL_LANGUAGES] == []


KNOWN = {
    "README", "connect", "resync-from-ci", "held", "stale", "upgrade", "cluster", "add-a-type", "panel", "promises",
    "settings", "scale", "server",
}  # fmt: skip


def test_each_document_has_a_test_here_and_a_link_in_the_readme() -> None:
    assert {path.stem for path in DOCUMENTS} == KNOWN
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert [p.name for p in DOCUMENTS[1:] if f"(examples/guides/{p.name})" not in readme] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.stem)
def test_each_link_leads_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        path = (document.parent / file) if file else document
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.stem)
def test_a_block_that_is_not_run_has_an_accepted_reason_and_only_its_commands(document: Path) -> None:
    for block in blocks(document.read_text("utf-8")):
        if block.language not in SHELL_LANGUAGES:
            assert not re.search(r"^\s*\$ |^archisync ", "\n".join(block.lines), re.M) or block.language == "crontab"
        if block.not_run is None:
            continue
        assert block.not_run in NOT_RUN
        for command in commands(block):
            for line in command.text.splitlines():
                assert re.fullmatch(NOT_RUN[block.not_run], line), line
                _check_names(line)


def _check_names(line: str) -> None:
    """The extras, units and manifests that a command names exist in this repository."""
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    for extras in re.findall(r"'(?:\.|archisync)\[([a-z,]+)\]'", line):
        assert all(re.search(rf"^{name} = \[", project, re.M) for name in extras.split(",")), line
    for unit in re.findall(r"archisync-\w+\.\w+", line):
        assert (REPOSITORY / "examples" / "systemd" / unit).exists()
    for manifest in re.findall(r"\S+\.yaml", line):
        assert list(yaml.safe_load_all((REPOSITORY / manifest).read_text("utf-8")))


def test_make_demo_is_the_demo_command() -> None:
    recipe = re.search(r"^demo:.*\n\t(.+)$", (REPOSITORY / "Makefile").read_text("utf-8"), re.M)
    assert recipe is not None
    assert recipe[1] == "@$(BIN)/archisync demo"


def test_the_table_of_fields_matches_the_registry() -> None:
    text = (GUIDES / "connect.md").read_text("utf-8")
    for sync_type in SYNC_TYPES.values():
        shown = [
            ("**" if f.name in sync_type.key else "") + f.name + ("**" if f.name in sync_type.key else "")
            + {"text": "", "identifier": ""}.get(f.kind.value, f" {f.kind.value}")
            + (" (required)" if f.required and f.name not in sync_type.key else "")
            for f in sync_type.fields
        ]  # fmt: skip
        assert f"| {sync_type.name} | {', '.join(shown)} |" in text


# --- a document that is wrong fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```console\n$ echo one\ntwo\n```", "-two"),
        ("```console\n$ echo one\n```", r"\+one"),
        ("```console\n$ true\none\n```", "-one"),
        ("```console\n$ echo at 2026-11-24T02:12:03\nat 2026-11-24T02:12:03Z\n```", "-at"),
        ("```console\n$ echo a; echo c\na\n…b\n```", r"\+c"),
        ("```console\n$ false\n```", "exit code 1, not 0"),
        ("```console\n$ true   # exit code 6\n```", "exit code 0, not 6"),
        ("```console\n$ nosuchcommand\n```", "exit code 127, not 0"),
        ("```console stays\n$ echo one\ntwo\n```", "ended"),
        ("```sh\nfalse\ntrue\n```", "exit code 1, not 0"),
        ("```sh\nif\n```", "exit code 2, not 0"),
        ("```\ntrue\n```", "a block of the language ''"),
        ("```console\nno command\n```", "begins with a command"),
        ("<!-- not run: laziness -->\ntext\n```sh\nfalse\n```", "right before a block"),
    ],
)
def test_a_wrong_document_is_refused(folder: Path, text: str, said: str) -> None:
    with (
        Shell(folder=folder, environment={"PATH": os.environ["PATH"]}) as shell,
        pytest.raises(WrongDocument, match=said),
    ):
        type_blocks(shell, text)


def test_a_right_document_passes(folder: Path) -> None:
    text = """
```console
$ export A=1; echo "$A at 2027-01-01T00:00:00Z"
1 at 2026-11-24T02:12:03Z
$ (exit 6)   # exit code 6
$ cat <<END
> a   b
> $A run 17 of x
> END
a b
1 run … of x
$ seq 9
1
…
9
```
```console stays
$ trap 'exit 0' INT; echo ready; sleep 1000
ready
```
```sh
false || B=2
```
```console
$ echo $A$B
12
```
"""
    with Shell(folder=folder, environment={"PATH": os.environ["PATH"]}) as shell:
        type_blocks(shell, text)
