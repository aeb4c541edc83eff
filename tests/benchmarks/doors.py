"""Where exports come from, and workbooks: how far from the bare tools, and what they cost those who don't use them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from archisync.formats import open_table
from archisync.rules.config import DEFAULT_READER_LIMITS, DETECT, Config
from archisync.schedule.tick import tick
from archisync.sources import Export, Request, fetch
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from tests.benchmarks import registry
from tests.benchmarks.datapath import COLUMNS, customer
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.benchmarks.owntypes import Site, write_exports
from tests.benchmarks.scheduling import Place
from tests.support.rows import drain, forget_runs
from tests.support.sshd import SSHD, Sshd, running_sshd

MIB = 1024 * 1024
SIZES_MIB, QUICK_SIZES_MIB = (64, 1), (4, 1)
ROWS = 20_000
"""Below the header."""
FEW_COLUMNS = ("customer_id", "name", "vat_number", "street", "city", "last_order_date", "orders_count", "sales_amount")
AGENTS, SYNCED_AGENTS = 1_000, 100
ELSEWHERE = {"ARCHISYNC_SOURCE_ORDERS": "s3://exports/{agent}/{type}.xlsx"}
EXTRAS = ("obstore", "python_calamine")
S3 = """
import json, sys
from tests.support.s3 import running_s3
with running_s3() as variables:
    print(json.dumps(variables), flush=True)
    sys.stdin.read()
"""
READ_BYTES = 10 * MIB


class NotHereError(Exception):
    """A program or library of a figure is missing; the message says which."""


def figures(settings: Settings) -> Iterator[Figure]:
    """The area's figures."""
    sizes = QUICK_SIZES_MIB if settings.quick else SIZES_MIB
    with temporary_folder() as folder:
        for place in (_sftp, _objects):
            yield from place(settings, folder, sizes)
        yield from _workbooks(settings, folder, 1_000 if settings.quick else ROWS)
        yield from _bystanders(settings, folder)


def _speed(settings: Settings, name: str, mib: int, against: str, target: float, *works: Callable[[], float]) -> Figure:
    """Of two works that take seconds for so many MiB: ours and the peer's."""
    print(f" {name}", file=sys.stderr)
    for work in works:
        work()  # imports and caches
    ours, peer = side_by_side(settings.rounds, *works)
    return Figure(
        name=name, unit="MiB/s", ours=mib / ours, against=against, peer=mib / peer, ratio=peer / ours, target=target
    )  # fmt: skip


def _missing(name: str, against: str, target: float, why: object) -> Figure:
    return Figure(
        name=name, unit="", ours=None, against=against, peer=None, ratio=None, target=target, note=f"skipped: {why}"
    )


def _fetch_s(folder: Path, template: str, variables: Mapping[str, str], size: int) -> Callable[[], float]:
    """The seconds of one fetch by our source."""
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | dict(variables)
    request = Request(
        template=template, agent_id="anna", sync_type="orders", spool_dir=spool, max_bytes=size * MIB,
        config=Config.from_environment(environment),
    )  # fmt: skip

    def work() -> float:
        found: list[Any] = []
        seconds = timed(lambda: found.append(fetch(request)))
        assert found[0].size_bytes == size * MIB
        found[0].path.unlink()
        return seconds

    return work


# --- SFTP ---------------------------------------------------------------------------------------------------------


def _sftp(settings: Settings, folder: Path, sizes: tuple[int, ...]) -> Iterator[Figure]:
    against, target = "Debian's sftp, the same file and server", 0.7
    with ExitStack() as stack:
        try:
            place = folder / "sshd"
            place.mkdir()
            server = stack.enter_context(_server(place))
        except NotHereError as exc:
            yield from (_missing(f"SFTP, a file of {size} MiB", against, target, exc) for size in sizes)
            return
        for size in sizes:
            path = folder / f"export-{size}.bin"
            path.write_bytes(os.urandom(size * MIB))
            ours = _fetch_s(
                folder, f"sftp://127.0.0.1:{server.port}{path}",
                {"ARCHISYNC_SFTP_CONFIG": str(server.config_file)}, size,
            )  # fmt: skip
            yield _speed(
                settings, f"SFTP, a file of {size} MiB", size, against, target, ours, _sftp_s(server, path, folder / "got")
            )  # fmt: skip
            path.unlink()


@contextmanager
def _server(folder: Path) -> Iterator[Sshd]:
    for name, package in (("sshd", "openssh-server"), ("sftp", "openssh-client")):
        if (SSHD if name == "sshd" else shutil.which(name)) is None:
            raise NotHereError(f"no {name} (apt-get install {package})")
    with running_sshd(folder) as server:
        yield server


def _sftp_s(server: Sshd, path: Path, target: Path) -> Callable[[], float]:
    command = ["sftp", "-q", "-F", str(server.config_file), "-P", str(server.port), "-b", "-", "127.0.0.1"]

    def work() -> float:
        get = f"get {path} {target}\n".encode()
        seconds = timed(lambda: subprocess.run(command, input=get, check=True, capture_output=True))
        assert target.stat().st_size == path.stat().st_size
        target.unlink()
        return seconds

    return work


# --- object stores ------------------------------------------------------------------------------------------------


def _objects(settings: Settings, folder: Path, sizes: tuple[int, ...]) -> Iterator[Figure]:
    against, target = "obstore, the same object and server", 0.8
    with ExitStack() as stack:
        try:
            variables = stack.enter_context(_s3())
        except NotHereError as exc:
            yield from (_missing(f"bucket, an object of {size} MiB", against, target, exc) for size in sizes)
            return
        import obstore

        def opened() -> Any:
            config = {name.lower(): value for name, value in variables.items()}
            opens: Any = obstore.store.from_url
            return opens("s3://exports", config=config, client_options={"allow_http": True})

        for size in sizes:
            key = f"anna/{size}.bin"
            obstore.put(opened(), key, os.urandom(size * MIB))
            ours = _fetch_s(folder, f"s3://exports/{key}", variables, size)
            bare = _object_s(obstore, opened, key, folder / "got")
            yield _speed(settings, f"bucket, an object of {size} MiB", size, against, target, ours, bare)


@contextmanager
def _s3() -> Iterator[dict[str, str]]:
    """moto's S3 in a process of its own, and the variables with which it is read."""
    for name, package in (("obstore", "obstore"), ("moto", "moto[s3]"), ("flask", "flask")):
        if importlib.util.find_spec(name) is None:
            raise NotHereError(f"no {name} (pip install '{package}')")
    command = [sys.executable, "-c", S3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        said = server.stdout.readline()
        if not said:
            raise NotHereError("moto's server does not start")
        yield json.loads(said)
        server.stdin.close()


def _object_s(obstore: Any, opened: Callable[[], Any], key: str, target: Path) -> Callable[[], float]:
    def read() -> None:
        with target.open("wb") as out:
            for block in obstore.get(opened(), key).stream(min_chunk_size=READ_BYTES):
                out.write(block)

    return lambda: timed(read)


# --- workbooks ----------------------------------------------------------------------------------------------------


def _workbooks(settings: Settings, folder: Path, rows: int) -> Iterator[Figure]:
    for columns in (FEW_COLUMNS, COLUMNS):
        name = f"workbook, {rows + 1:,} rows of {len(columns)} columns"
        against, target = "python-calamine, the same file", 0.5
        if missing := [each for each in ("python_calamine", "xlsxwriter") if importlib.util.find_spec(each) is None]:
            yield _missing(name, against, target, f"no {missing[0]}")
            continue
        print(f" {name}", file=sys.stderr)
        path = folder / f"customers-{len(columns)}.xlsx"
        write_workbook(path, columns, rows)
        works = (partial(_table_rows, path), partial(_bare_rows, path))
        assert [work() for work in works] == [rows, rows + 1]
        ours, peer = side_by_side(2 * settings.rounds, *(partial(timed, work) for work in works))
        processor = side_by_side(settings.rounds, *(partial(_processor_s, work) for work in works))
        yield Figure(
            name=name, unit="rows/s", ours=rows / ours, against=against, peer=rows / peer, ratio=peer / ours, target=target,
            note=f"by the clock; {processor[1] / processor[0]:.2g} by processor time, its process included",
        )  # fmt: skip


def write_workbook(path: Path, columns: tuple[str, ...], rows: int) -> None:
    """Customers with these columns: texts, dates and numbers."""
    xlsxwriter: Any = importlib.import_module("xlsxwriter")
    with xlsxwriter.Workbook(str(path)) as book:
        sheet, day = book.add_worksheet(), book.add_format({"num_format": "yyyy-mm-dd"})
        sheet.write_row(0, 0, columns)
        for number in range(rows):
            record = dict(zip(COLUMNS, customer(number), strict=True))
            for place, name in enumerate(columns):
                if name in ("orders_count", "sales_amount"):
                    sheet.write_number(number + 1, place, float(record[name]))
                elif name == "last_order_date":
                    sheet.write_datetime(number + 1, place, date.fromisoformat(record[name]), day)
                else:
                    sheet.write_string(number + 1, place, record[name])


def _table_rows(path: Path) -> int:
    export = Export(path=path, origin="bench", suffix=".xlsx", size_bytes=path.stat().st_size, sha256="")
    required = lambda labels: (0, 1) if "customer_id" in labels else None  # noqa: E731
    return sum(1 for _ in open_table(export, DETECT, DEFAULT_READER_LIMITS, required).rows())


def _bare_rows(path: Path) -> int:
    import python_calamine

    return len(python_calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python())


def _processor_s(work: Callable[[], object]) -> float:
    """Seconds of processor time that the work takes here and in its child processes."""

    def spent_s() -> float:
        seen = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in seen)

    begun = spent_s()
    work()
    return spent_s() - begun


# --- those who have none of it ------------------------------------------------------------------------------------


def _bystanders(settings: Settings, folder: Path) -> Iterator[Figure]:
    agents, synced = (100, 20) if settings.quick else (AGENTS, SYNCED_AGENTS)
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(folder, durable=True, settings={"max_wal_size": "4GB"}))
        place = Place(postgres, stack.enter_context(EmbeddedValkey(folder, durable=False)), folder)
        write_exports(folder)
        site = Site(place, own=0, agents=agents)
        hidden = _without_extras(folder)
        questions: dict[str, Callable[[Mapping[str, str]], float]] = {
            "idle `archisync tick`, whole process": lambda more: _idle_s(site, more or hidden),
            f"{synced} syncs of unchanged files": lambda more: _unchanged_s(site, place, more, synced),
        }
        for what, measure in questions.items():
            print(f" {what}", file=sys.stderr)
            for more in (ELSEWHERE, {}):
                measure(more)  # imports, plans, and the first sync of exports that are then unchanged
            ours, peer = side_by_side(3 * settings.rounds, partial(measure, ELSEWHERE), partial(measure, {}))
            yield Figure(
                name=f"{what}, orders in workbooks in a bucket", unit="ms", ours=ours * 1000, against="files only, no extras",
                peer=peer * 1000, ratio=ours / peer, target=1.05, at_most=True,
            )  # fmt: skip


def _without_extras(folder: Path) -> dict[str, str]:
    """The variable for a process in which the extras can't be imported."""
    hidden = folder / "hidden"
    hidden.mkdir()
    for name in EXTRAS:
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})\n")
    return {"PYTHONPATH": str(hidden)}


def _idle_s(site: Site, more: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "archisync", "tick"]
    environment = os.environ | site.environment | dict(more)
    return timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))


def _unchanged_s(site: Site, place: Place, more: Mapping[str, str], agents: int) -> float:
    """The seconds of so many agents' syncs of customers, which are files with or without `more`."""
    config = Config.from_environment(site.environment | dict(more))
    with site.database() as db, place.emptied_valkey():
        forget_runs(db)
        db.execute(
            "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s) where sync_type = 'customers'"
            " and agent_id in (select id from agents.users order by id limit %s)",
            [registry.INTERVAL_MINUTES + 60, agents],
        )
        registry.settle(db)
        assert tick(db, config).due == agents
        done: list[int] = []
        seconds = timed(lambda: done.append(drain(db, config)))
        assert done == [agents]
    return seconds
