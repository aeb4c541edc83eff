"""Every error path, with a canary as every password and token. The canary must appear nowhere: not on standard output, not on standard
error (which has the logs and the traceback of --debug), not in a job's payload, not in a row of the database.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

import pytest
import redis
from psycopg import sql

from archisync.base.errors import ExitCode
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import Cli

CANARY = "canary7f3a9c"
AGENT = "anna.bianchi"
NOBODY = "127.0.0.1:1"  # no server listens there


NOBODY_ELSE = nullcontext()


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorPath:
    """An error path: what it changes in the environment, the commands typed, their exit codes. `{erp}` is the ERP's host and port."""

    id: str
    env: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...]
    codes: tuple[int, ...]

    @property
    def waits(self) -> bool:
        """For seconds: a worker tries again to reach a Redis that is away."""
        return "worker --burst" in self.commands and ExitCode.UNREACHABLE in self.codes


RUN = f"run orders --agent {AGENT} --inline"


def _source(id: str, source: str, code: int = 1, **env: str) -> ErrorPath:
    return ErrorPath(
        id=id, env={"ARCHISYNC_SOURCE": source, **env}, commands=(RUN, RUN + " --debug"), codes=(code, code)
    )


PATHS = (
    # PostgreSQL
    *(
        ErrorPath(
            id=f"database-{id}",
            env={"ARCHISYNC_DATABASE_URL": url},
            commands=("status", "tick", "status --debug"),
            codes=(code, code, code),
        )
        for id, url, code in (
            ("away", f"postgresql://user:{CANARY}@{NOBODY}/db", 4),
            ("away-by-keyword", f"host=127.0.0.1 port=1 user=u password={CANARY} dbname=db", 4),
            ("away-quoted", f"host=127.0.0.1 port=1 user=u password='{CANARY} x' dbname=db", 4),
            ("no-such-host", f"postgresql://user:{CANARY}@nowhere.invalid/db", 4),
            ("malformed", f"postgresql://user:{CANARY}@[::1/db", 3),
            ("slash-in-password", f"postgresql://user:{CANARY}/{CANARY}@host/db", 3),
            ("at-in-password", f"postgresql://user:{CANARY}@{CANARY}@nowhere.invalid/db", 3),
            ("hash-in-password", f"postgresql://user:a#{CANARY}@nowhere.invalid/db", 4),
            ("percent-in-password", f"postgresql://user:{CANARY}%zz@host/db", 3),
            ("unknown-option", f"postgresql://user:{CANARY}@host/db?nonsense={CANARY}", 3),
            ("no-key", f"postgres {CANARY}", 3),
            ("password-as-parameter", f"postgresql://{NOBODY}/db?user=u&password={CANARY}", 4),
        )
    ),
    # Redis
    *(
        ErrorPath(
            id=f"redis-{id}",
            env={"ARCHISYNC_REDIS_URL": url},
            commands=("tick", "worker --burst", f"run orders --agent {AGENT}", "doctor --only redis", "status --debug"),
            codes=(code, code, code, code, 0),
        )
        for id, url, code in (
            ("away", f"redis://user:{CANARY}@{NOBODY}/0", 4),
            ("no-such-host", f"redis://:{CANARY}@nowhere.invalid/0", 4),
            ("malformed", f"redis://:{CANARY}@host:port/0", 3),
            ("other-scheme", f"amqp://user:{CANARY}@host/", 3),
            ("at-in-password", f"redis://user:{CANARY}@{CANARY}@{NOBODY}/0", 4),
            ("password-as-parameter", f"redis://{NOBODY}/0?password={CANARY}", 4),
            ("no-scheme", f"user:{CANARY}@host:6379/0", 3),
            ("no-slashes", f"redis:user:{CANARY}@host/0", 3),
            ("one-slash", f"redis:/user:{CANARY}@host/0", 3),
            ("no-user", f":{CANARY}@host", 3),
            ("slash-behind-password", f"http://user:{CANARY}/@host", 3),
            ("password-alone", CANARY, 3),
            ("slash-in-password", f"redis://{CANARY}/x@host:6379/0", 3),
            ("base64-password", f"redis://{CANARY}/+w=@host:6379/0", 3),
            ("hash-in-password", f"rediss://{CANARY}#x@host:6379/0", 3),
            ("question-mark-in-password", f"redis://{CANARY}?x@host:6379/0", 3),
            ("sentinel-slash-in-password", f"redis+sentinel://:{CANARY}/x@host/primary", 3),
        )
    ),
    ErrorPath(
        id="redis-url-in-metrics",
        env={"ARCHISYNC_REDIS_URL": f"user:{CANARY}@host:6379/0"},
        commands=("metrics", "metrics --debug", "plan --debug"),
        codes=(3, 3, 3),
    ),
    # Sources
    _source("http-401", f"http://user:{CANARY}@{{erp}}/401"),
    _source("http-token-refused", "http://{erp}/403", ARCHISYNC_HTTP_TOKEN=CANARY),
    _source("http-password-refused", "http://{erp}/401", ARCHISYNC_HTTP_USER="u", ARCHISYNC_HTTP_PASSWORD=CANARY),
    _source("http-header-echoed", "http://{erp}/echo", ARCHISYNC_HTTP_HEADERS=json.dumps({"X-Api-Key": CANARY})),
    _source("http-404", f"http://{{erp}}/404?key={CANARY}", ARCHISYNC_HTTP_TOKEN=CANARY),
    _source("http-500", f"http://{{erp}}/500?token={CANARY}"),
    _source("http-redirected", f"http://{{erp}}/redirect?sig={CANARY}", ARCHISYNC_HTTP_TOKEN=CANARY),
    _source("http-login-page", f"http://{{erp}}/login?key={CANARY}", ARCHISYNC_HTTP_TOKEN=CANARY),
    _source("http-cut-off", f"http://{{erp}}/short?key={CANARY}", 6),
    _source("http-refused", f"http://user:{CANARY}@{NOBODY}/x?key={CANARY}"),
    _source("http-no-such-host", f"https://user:{CANARY}@nowhere.invalid/x?key={CANARY}"),
    _source("http-private", f"http://user:{CANARY}@10.0.0.1/x?key={CANARY}", ARCHISYNC_HTTP_ALLOW_PRIVATE=""),
    _source("http-malformed", f"http://user:{CANARY}@[::1/x"),
    _source("http-bad-headers", "http://{erp}/x", ARCHISYNC_HTTP_HEADERS=f'{{"X-Api-Key": {CANARY}'),
    _source("unknown-scheme", f"ftp://user:{CANARY}@host/x"),
    _source("unknown-placeholder", f"http://user:{CANARY}@host/{{what}}"),
    _source("braces-in-key", f"http://{{erp}}/x?key={{{CANARY}}}"),
    _source("json-argument", f'exec:/bin/cat \'{{"login": "{CANARY}"}}\''),
    _source("missing-file", "/nowhere/{agent}"),
    _source(
        "exec-fails",
        "exec:/bin/sh -c 'echo got $ERP_TOKEN >&2; exit 3'",
        ERP_TOKEN=CANARY,
        ARCHISYNC_EXEC_ENV="ERP_TOKEN",
    ),
    _source("exec-refused", f"exec:/bin/sh -c 'exit 77' --password={CANARY}"),
    _source("exec-missing", f"exec:/nowhere/program --password={CANARY}"),
    _source("exec-malformed", f"exec:/bin/sh -c 'echo {CANARY}"),
    _source("exec-assignment", f"exec:ERP_LOGIN={CANARY} /bin/true"),
    _source("exec-value-in-list-of-variables", "exec:/bin/true", ARCHISYNC_EXEC_ENV=f"ERP_LOGIN={CANARY}"),
    _source("credentials-in-list-of-hosts", "http://{erp}/x", ARCHISYNC_HTTP_ALLOW_PRIVATE=f"user:{CANARY}@10.0.0.1"),
    _source("exec-prints-our-settings", "exec:/bin/sh -c 'env; env >&2; exit 1'"),
    # The hook
    *(
        ErrorPath(
            id=f"hook-{id}", env={"ARCHISYNC_HOOK": hook}, commands=("doctor --only hook --debug", "tick"), codes=(3, 0)
        )
        for id, hook in (
            ("no-slashes", f"https:chat.example/{CANARY}"),
            ("address-as-program", f"exec:https://chat.example/{CANARY}"),
            ("assignment", f"exec:LOGIN={CANARY} /usr/local/bin/notify"),
        )
    ),
    # Commands
    ErrorPath(
        id="usage",
        commands=(
            "interval set orders 3",
            "interval set order 10",
            "run nothing",
            "show 999",
            "run orders --agent nobody",
        ),
        codes=(2, 2, 2, 5, 5),
    ),
    ErrorPath(
        id="configuration",
        env={"ARCHISYNC_LEASE_S": "soon", "ARCHISYNC_LOCALE": "de"},
        commands=("tick", "worker --burst"),
        codes=(3, 3),
    ),
)


class _Erp(BaseHTTPRequestHandler):
    """Answers by the first part of the path; /echo sends the request's headers back, as a careless server does."""

    def do_GET(self) -> None:
        what = urlsplit(self.path).path.strip("/")
        if what == "redirect":
            self._answer(302, b"", Location=f"http://user:{CANARY}@{NOBODY}/elsewhere?sig={CANARY}")
        elif what == "echo":
            self._answer(400, str(self.headers).encode())
        elif what == "login":
            self._answer(200, f"<html><form>{self.headers}".encode())
        elif what == "short":
            self._answer(200, b"order_id\n1\n", **{"Content-Length": "1000"})
        else:
            self._answer(int(what), f"{self.path} {self.headers}".encode())

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def erp() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Erp) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def check(path: ErrorPath, cli: Cli, erp: str, ticking: AbstractContextManager[object] = NOBODY_ELSE) -> None:
    env = {"ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8:*", "ARCHISYNC_FETCH_TIMEOUT_S": "5"}
    env |= {name: value.replace("{erp}", erp) for name, value in path.env.items()}
    ended = []
    for command in path.commands:
        with ticking if command == "tick" else NOBODY_ELSE:
            ended.append(cli(*command.split(), env=env))
    said = "".join(done.stdout + done.stderr for done in ended)
    assert tuple(done.returncode for done in ended) == path.codes, f"{path.id}: {said}"
    assert said, path.id
    assert CANARY not in said, path.id


@pytest.fixture
def stores_no_canary(connection: Database, redis_url: str) -> Iterator[None]:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    yield
    assert CANARY not in everything_stored(connection)
    assert CANARY not in everything_queued(redis_url)


@pytest.mark.usefixtures("stores_no_canary")
@pytest.mark.parametrize("path", [pytest.param(path, id=path.id) for path in PATHS if not path.waits])
def test_no_error_path_shows_or_stores_a_secret(cli: Cli, erp: str, path: ErrorPath) -> None:
    check(path, cli, erp)


@pytest.mark.slow
@pytest.mark.usefixtures("stores_no_canary")
def test_no_wait_for_a_redis_that_is_away_shows_or_stores_a_secret(cli: Cli, erp: str) -> None:
    """The paths wait side by side, but for their ticks: two at once leave the same deliveries to each other."""
    waiting = [path for path in PATHS if path.waits]
    assert len(waiting) == 4
    with ThreadPoolExecutor(len(waiting)) as pool:
        one_by_one = Lock()
        for checked in [pool.submit(check, path, cli, erp, one_by_one) for path in waiting]:
            checked.result()


@contextmanager
def _with_password(server: EmbeddedValkey) -> Iterator[None]:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", CANARY)
        yield
        client.config_set("requirepass", "")


def test_a_working_system_with_passwords_everywhere_stores_none(
    cli: Cli, connection: Database, database_url: str, own_valkey: EmbeddedValkey, erp: str
) -> None:
    """The same without errors: a tick, job payloads, a worker's log, a run that fails and one that is held."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    with_password = (
        f"{own_valkey.url}&password={CANARY}" if "?" in own_valkey.url else f"{own_valkey.url}?password={CANARY}"
    )
    env = {
        "ARCHISYNC_DATABASE_URL": f"{database_url}{'&' if '?' in database_url else '?'}password={CANARY}",
        "ARCHISYNC_REDIS_URL": with_password,
        "ARCHISYNC_SOURCE": f"http://{erp}/404?key={CANARY}",
        "ARCHISYNC_SOURCE_ORDERS": f"http://{erp}/short",
        "ARCHISYNC_HTTP_TOKEN": CANARY,
        "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8:*",
    }
    with _with_password(own_valkey):
        tick = cli("tick", env=env)
        assert tick.returncode == 0, tick.stderr
        queued = everything_queued(with_password)
        worker = cli("worker", "--burst", env=env)
        assert worker.returncode == 0, worker.stderr
        seen = [
            cli(*command.split(), env=env)
            for command in ("status", "history --json", "held list", "why orders anna.bianchi")
        ]
        queued += everything_queued(with_password)
    assert queued.count("archisync.work.job.sync") >= 2
    assert worker.stderr.count("run-finished") == 6
    assert all(done.returncode == 0 for done in seen)
    said = "".join(done.stdout + done.stderr for done in (tick, worker, *seen))
    assert CANARY not in said + queued + everything_stored(connection)


def everything_stored(db: Database) -> str:
    """Every row of every table but PostgreSQL's own, as text."""
    tables = db.execute(
        "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
    ).fetchall()
    assert len(tables) >= 14
    rows = []
    for table in tables:
        name = sql.Identifier(table["schemaname"], table["tablename"])
        rows += db.execute(sql.SQL("select to_jsonb(t)::text as line from {} t").format(name)).fetchall()
    return "\n".join(row["line"] for row in rows)


def everything_queued(url: str) -> str:
    """Every key and value in Redis, with RQ's payloads decompressed."""
    parts: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter("*"):
            kind = client.type(key)
            parts.append(key)
            if kind == b"hash":
                for name, value in client.hgetall(key).items():
                    parts += [name, _unpacked(value)]
            elif kind == b"list":
                parts += client.lrange(key, 0, -1)
            elif kind == b"set":
                parts += client.smembers(key)
            elif kind == b"zset":
                parts += client.zrange(key, 0, -1)
            else:
                parts.append(client.dump(key) or b"")
    return b"\n".join(parts).decode("utf-8", "replace")


def _unpacked(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value
