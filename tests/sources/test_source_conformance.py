"""The built-in sources pass the tests that authors of plug-ins run, and those tests find faults."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from archisync.base.errors import SourceError
from archisync.sources.conformance import SourceConformance
from archisync.sources.exec import ExecSource
from archisync.sources.http import HttpSource
from archisync.sources.interface import Export, Request, Source
from archisync.sources.path import PathSource
from tests.support.erp import Answer, Erp
from tests.support.fetching import CANARY


class FolderConformance(SourceConformance):
    """Exports in a folder: for the path source, and for a program that reads files."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.folder = tmp_path_factory.mktemp("exports")

    def _path(self, agent_id: str, sync_type: str) -> Path:
        return self.folder / f"{agent_id}.{sync_type}.csv"

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        self._path(agent_id, sync_type).write_bytes(content)

    def remove(self, agent_id: str, sync_type: str) -> None:
        self._path(agent_id, sync_type).unlink()


class TestPathSource(FolderConformance):
    supports_unchanged = True

    def source(self) -> Source:
        return PathSource()

    def template(self) -> str:
        return f"{self.folder}/{{agent}}.{{type}}.csv"


class TestExecSource(FolderConformance):
    def source(self) -> Source:
        return ExecSource()

    def template(self) -> str:
        return f"exec:sh -c 'cat \"$0\" || exit 66' {self.folder}/{{agent}}.{{type}}.csv {CANARY}"

    def variables(self) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], "ARCHISYNC_EXEC_ENV": "ERP_TOKEN", "ERP_TOKEN": CANARY}

    def secrets(self) -> Iterable[str]:
        return [CANARY]


class TestHttpSource(SourceConformance):
    supports_unchanged = True
    erp: Erp

    @pytest.fixture(autouse=True)
    def _erp(self, erp: Erp) -> None:
        self.erp = erp

    def source(self) -> Source:
        return HttpSource()

    def template(self) -> str:
        return f"{self.erp.url}/{{agent}}/{{type}}.csv?key={CANARY}"

    def variables(self) -> Mapping[str, str]:
        return {"ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.1:*", "ARCHISYNC_HTTP_TOKEN": CANARY}

    def secrets(self) -> Iterable[str]:
        return [CANARY]

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.erp.answers[f"/{agent_id}/{sync_type}.csv?key={CANARY}"] = Answer(body=content, etag=etag)

    def remove(self, agent_id: str, sync_type: str) -> None:
        del self.erp.answers[f"/{agent_id}/{sync_type}.csv?key={CANARY}"]


class Sabotaged(PathSource):
    """A source with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def fetch(self, request: Request) -> Export:
        if self.fault == "ignores the limit":
            request = replace(request, max_bytes=10**9)
        if self.fault == "leaves a file behind":
            (request.spool_dir / "left").touch()
        try:
            export = super().fetch(request)
            assert isinstance(export, Export)  # no request here has validators
        except SourceError:
            if self.fault != "invents an empty export":
                raise
            empty = request.spool_dir / "empty"
            empty.touch()
            return Export(path=empty, origin="x", suffix="", size_bytes=0, sha256=hashlib.sha256().hexdigest())
        if self.fault == "wrong sha256":
            return replace(export, sha256="0" * 64)
        if self.fault == "shared copy":
            return replace(export, path=export.path.rename(request.spool_dir / "the-one"))
        if self.fault == "readable by others":
            export.path.chmod(0o644)
        if self.fault == "validators that were not announced":
            return replace(export, validators={"v": "1"})
        return export


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("ignores the limit", "test_export_of_the_largest_size_is_fetched_and_a_larger_one_is_refused"),
        ("leaves a file behind", "test_truncated_gzip_is_refused"),
        ("invents an empty export", "test_missing_export_is_an_error_and_not_an_empty_export"),
        ("wrong sha256", "test_export_is_a_private_complete_copy"),
        ("readable by others", "test_export_is_a_private_complete_copy"),
        ("shared copy", "test_two_fetches_make_two_files"),
        ("validators that were not announced", "test_validators_are_short_texts"),
    ],
)
def test_source_with_a_fault_fails_the_test_of_it(tmp_path: Path, fault: str, test: str) -> None:
    class Faulty(FolderConformance):
        folder = tmp_path

        def source(self) -> Source:
            return Sabotaged(fault)

        def template(self) -> str:
            return f"{tmp_path}/{{agent}}.{{type}}.csv"

    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(AssertionError):
        getattr(Faulty(), test)(spool)


def test_conformance_module_can_be_imported_without_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import archisync.sources.conformance"
    subprocess.run([sys.executable, "-c", program], check=True)
