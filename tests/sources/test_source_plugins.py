"""Source plug-ins: real packages in a folder on the path, working and broken in every way."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import ExportError, PluginError, TransientSourceError
from archisync.sources import Export, Plugin, Request, check_template, plugins
from tests.conftest import REPOSITORY
from tests.support import fetching
from tests.support.fetching import CANARY
from tests.support.plugins import WORKING, install


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path. Modules imported from it are removed afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def request_of(tmp_path: Path, template: str, *, validators: Mapping[str, str] | None = None) -> Request:
    return fetching.request_of(tmp_path, template, max_bytes=1000, validators=validators, ACME_CONTENT="order_id|1|")


def test_plug_in_reads_the_scheme_that_it_brings(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_one", scheme="acme", code=WORKING)
    for template in ("acme://host/{agent}", "ACME:anything"):
        check_template(template)
        export = sources.fetch(request_of(tmp_path, template))
        assert isinstance(export, Export)
        assert export.path.read_bytes() == b"order_id\n1\n"


def test_installed_plug_in_is_imported_only_when_its_scheme_is_used(packages: Path) -> None:
    install(packages, "acme_one", scheme="acme", code="raise SystemExit(9)")
    program = (
        "import sys; from archisync import sources\n"
        "sources.check_template('/exports/{agent}.csv'); sources.check_template('exec:cat x')\n"
        "assert 'acme_one' not in sys.modules and 'importlib.metadata' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], cwd=packages, env={"PYTHONPATH": f"{packages}:{REPOSITORY}"}, check=True
    )


BROKEN: dict[str, tuple[str, str]] = {
    "syntax": ("def (", "can't be loaded: SyntaxError: invalid syntax (acme_broken.py, line 1)"),
    "import": ("import no_such_module", "can't be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
    "exit": ("raise SystemExit(7)", "can't be loaded: SystemExit: 7"),
    "no-factory": ("", "can't be loaded: AttributeError: module 'acme_broken' has no attribute 'Source'"),
    "no-callable": ("Source = 5", "can't be loaded: TypeError: 'int' object is not callable"),
    "no-source": ("Source = dict", "makes no source: its dict has no fetch()"),
    "secret": (
        f"raise ValueError('postgresql://user:{CANARY}@host/db\\x1b[2J')",
        "can't be loaded: ValueError: postgresql://user:***@host/db�[2J",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_plug_in_that_can_not_be_loaded_fails_its_fetch_and_passes_the_check(
    tmp_path: Path, packages: Path, name: str
) -> None:
    code, message = BROKEN[name]
    install(packages, "acme_broken", scheme="acme", code=code)
    check_template("acme://host/{agent}")  # a worker starts nevertheless, and does not import it
    assert "acme_broken" not in sys.modules
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme://host/{agent}"))
    assert caught.value.message == f"the source plug-in acme: {message}"
    assert caught.value.reason == "source-plugin"
    assert plugins() == [
        Plugin(
            scheme="acme",
            package="acme_broken 1.0",
            target="acme_broken:Source",
            state="broken",
            error=f"the source plug-in acme: {message}",
        )
    ]


def _fetching(body: str) -> str:
    return f"from archisync.sources.interface import *\nclass Source:\n    def fetch(self, request):\n        {body}\n"


EXPORT = "Export(path={path}, origin='x', suffix='', size_bytes={size}, sha256={sha}{more})"
EMPTY_SHA = "'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'"
MAKE = "p = request.spool_dir / 'f'; p.touch(); "
NOT_RECORDED = "returned details that can't be recorded: "
ODD: dict[str, tuple[str, str]] = {
    "raises": ("raise KeyError('x')", "raised KeyError: 'x'"),
    "silent": ("raise RuntimeError", "raised RuntimeError"),
    "exits": ("raise SystemExit(3)", "raised SystemExit: 3"),
    "recurses": ("return self.fetch(request)", "raised RecursionError: maximum recursion depth exceeded"),
    "none": ("return None", "returned NoneType, not an Export"),
    "a-path": ("return request.spool_dir", "returned PosixPath, not an Export"),
    "unasked": ("return Unchanged(origin='x')", "says that the export is unchanged, but was not asked that"),
    "elsewhere": (
        "return " + EXPORT.format(path="request.spool_dir.parent", size=0, sha=EMPTY_SHA, more=""),
        "returned an export that can't be read: ValueError: it is no regular file in the spool directory",
    ),
    "lies-about-hash": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha="'00'", more=""),
        "returned an export whose size or sha256 is not that of its file",
    ),
    "lies-about-size": (
        MAKE + "return " + EXPORT.format(path="p", size=1, sha=EMPTY_SHA, more=""),
        "returned an export whose size or sha256 is not that of its file",
    ),
    "odd-validators": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", validators={'v': 1}"),
        "returned validators that are not text",
    ),
    "long-validators": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", validators={'v': 'x' * 5000}"),
        "returned validators of more than 4096 characters",
    ),
    "odd-time": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", written_at='today'"),
        "returned a time that is no number",
    ),
    "nul-in-origin": ("p = Unchanged(origin='a\\0b'); request.validators['v'] = '1'; return p", NOT_RECORDED),
    "nul-in-details": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", details={'d': 'a\\0b'}"),
        NOT_RECORDED + "a NUL character, or too much",
    ),
    "surrogate": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", details={'d': '\\ud800'}"),
        NOT_RECORDED + "UnicodeEncodeError: ",
    ),
    "not-json": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", details={'d': request}"),
        NOT_RECORDED + "TypeError: Object of type Request is not JSON serializable",
    ),
    "nan": (
        MAKE + "return " + EXPORT.format(path="p", size=0, sha=EMPTY_SHA, more=", details={'d': float('nan')}"),
        NOT_RECORDED + "ValueError: ",
    ),
    "wordless-error": (
        "import archisync.base.errors as e; raise e.SourceError(5)",
        "raised an error without a text",
    ),
    "too-large": (
        "p = request.spool_dir / 'f'; p.write_bytes(bytes(1001)); import hashlib; "
        "return " + EXPORT.format(path="p", size=1001, sha="hashlib.sha256(bytes(1001)).hexdigest()", more=""),
        "returned an export that is larger than it may be",
    ),
}


@pytest.mark.parametrize("name", list(ODD))
def test_plug_in_that_breaks_the_contract_is_an_error_with_its_name(tmp_path: Path, packages: Path, name: str) -> None:
    body, message = ODD[name]
    install(packages, "acme_odd", scheme="acme", code=_fetching(body))
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme:x"))
    assert caught.value.message.startswith(f"the source plug-in acme: {message}")
    assert [plugin.state for plugin in plugins()] == ["ok"]


@pytest.mark.parametrize(
    ("raised", "error_class"),
    [("TransientSourceError", TransientSourceError), ("ExportError", ExportError)],
)
def test_errors_of_the_contract_are_passed_on(
    tmp_path: Path, packages: Path, raised: str, error_class: type[Exception]
) -> None:
    install(
        packages,
        "acme_busy",
        scheme="acme",
        code="import archisync.base.errors as e\n" + _fetching(f"raise e.{raised}('busy')"),
    )
    with pytest.raises(error_class, match="busy"):
        sources.fetch(request_of(tmp_path, "acme:x"))


@pytest.mark.parametrize("raised", ["LeaseLostError", "BusyError", "UnreachableError"])
def test_errors_outside_the_contract_are_errors_of_the_plug_in(tmp_path: Path, packages: Path, raised: str) -> None:
    install(
        packages,
        "acme_bold",
        scheme="acme",
        code="import archisync.base.errors as e\n" + _fetching(f"raise e.{raised}('mine')"),
    )
    with pytest.raises(PluginError, match=f"raised {raised}: mine"):
        sources.fetch(request_of(tmp_path, "acme:x"))


def test_unchanged_is_an_answer_to_a_request_with_validators(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_same", scheme="acme", code=_fetching("return Unchanged(origin='x')"))
    found = sources.fetch(request_of(tmp_path, "acme:x", validators={"v": "1"}))
    assert found == sources.Unchanged(origin="x")


def test_two_packages_with_one_scheme_are_an_error_of_that_scheme_only(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_one", scheme="acme", code=WORKING)
    install(packages, "acme_two", scheme="Acme", code=WORKING)
    install(packages, "acme_three", scheme="fine", code=WORKING)
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme:x"))
    assert caught.value.message == "several packages bring the scheme acme: (acme_one 1.0, acme_two 1.0)"
    assert isinstance(sources.fetch(request_of(tmp_path, "fine:x")), Export)
    assert [(plugin.scheme, plugin.state) for plugin in plugins()] == [("acme", "broken")] * 2 + [("fine", "ok")]


@pytest.mark.parametrize("scheme", ["file", "https", "EXEC"])
def test_built_in_schemes_can_not_be_replaced(packages: Path, scheme: str) -> None:
    install(packages, "acme_thief", scheme=scheme, code=WORKING)
    assert type(sources.source_for(f"{scheme.lower()}://host/x")).__module__.startswith("archisync.sources.")
    assert [plugin.error for plugin in plugins()] == [f"the scheme {scheme.lower()}: is built in and can't be replaced"]
    assert "acme_thief" not in sys.modules


def test_there_are_no_plug_ins_without_packages() -> None:
    assert plugins() == []
