"""Plug-in sources: real packages in a folder on the path, working ones and every kind of broken one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import ExportError, PluginError, TransientSourceError
from archisync.rules.config import Config
from archisync.sources import Export, Plugin, Request, check_template, plugins
from tests.conftest import REPOSITORY
from tests.support.plugins import WORKING, install

CANARY = "canary-9f3a1c77"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path; what was imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def request_of(tmp_path: Path, template: str, **changes: dict[str, str]) -> Request:
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    return Request(
        template=template,
        agent_id="agent-1",
        sync_type="orders",
        spool_dir=spool,
        max_bytes=1000,
        config=Config.from_environment({"ACME_CONTENT": "order_id|1|"}),
        validators=changes.get("validators", {}),
    )


def test_a_plug_in_reads_the_scheme_that_it_brings(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_one", scheme="acme", code=WORKING)
    for template in ("acme://host/{agent}", "ACME:anything"):
        check_template(template)
        export = sources.fetch(request_of(tmp_path, template))
        assert isinstance(export, Export)
        assert export.path.read_bytes() == b"order_id\n1\n"


def test_an_installed_plug_in_is_imported_only_when_its_scheme_is_used(packages: Path) -> None:
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
def test_a_plug_in_that_can_t_be_loaded_says_so_and_passes_the_check(tmp_path: Path, packages: Path, name: str) -> None:
    code, told = BROKEN[name]
    install(packages, "acme_broken", scheme="acme", code=code)
    check_template("acme://host/{agent}")  # a worker starts all the same, and does not even import it
    assert "acme_broken" not in sys.modules
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme://host/{agent}"))
    assert caught.value.message == f"the source plug-in acme: {told}"
    assert caught.value.reason == "source-plugin"
    assert plugins() == [
        Plugin(
            scheme="acme",
            package="acme_broken 1.0",
            target="acme_broken:Source",
            state="broken",
            error=f"the source plug-in acme: {told}",
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
def test_a_plug_in_that_behaves_oddly_is_told_by_its_name(tmp_path: Path, packages: Path, name: str) -> None:
    body, told = ODD[name]
    install(packages, "acme_odd", scheme="acme", code=_fetching(body))
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme:x"))
    assert caught.value.message.startswith(f"the source plug-in acme: {told}")
    assert [plugin.state for plugin in plugins()] == ["ok"]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [("TransientSourceError", TransientSourceError), ("ExportError", ExportError)],
)
def test_a_plug_in_s_errors_of_the_contract_pass_as_they_are(
    tmp_path: Path, packages: Path, raised: str, kind: type[Exception]
) -> None:
    install(
        packages,
        "acme_busy",
        scheme="acme",
        code="import archisync.base.errors as e\n" + _fetching(f"raise e.{raised}('busy')"),
    )
    with pytest.raises(kind, match="busy"):
        sources.fetch(request_of(tmp_path, "acme:x"))


@pytest.mark.parametrize("raised", ["LeaseLostError", "BusyError", "UnreachableError"])
def test_a_plug_in_can_t_raise_what_is_not_its_business(tmp_path: Path, packages: Path, raised: str) -> None:
    install(
        packages,
        "acme_bold",
        scheme="acme",
        code="import archisync.base.errors as e\n" + _fetching(f"raise e.{raised}('mine')"),
    )
    with pytest.raises(PluginError, match=f"raised {raised}: mine"):
        sources.fetch(request_of(tmp_path, "acme:x"))


def test_an_answer_of_unchanged_passes_when_it_was_asked_for(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_same", scheme="acme", code=_fetching("return Unchanged(origin='x')"))
    found = sources.fetch(request_of(tmp_path, "acme:x", validators={"v": "1"}))
    assert found == sources.Unchanged(origin="x")


def test_two_packages_with_one_scheme_are_ambiguous_and_harm_no_other_scheme(tmp_path: Path, packages: Path) -> None:
    install(packages, "acme_one", scheme="acme", code=WORKING)
    install(packages, "acme_two", scheme="Acme", code=WORKING)
    install(packages, "acme_three", scheme="fine", code=WORKING)
    with pytest.raises(PluginError) as caught:
        sources.fetch(request_of(tmp_path, "acme:x"))
    assert caught.value.message == "several packages bring the scheme acme: (acme_one 1.0, acme_two 1.0)"
    assert isinstance(sources.fetch(request_of(tmp_path, "fine:x")), Export)
    assert [(plugin.scheme, plugin.state) for plugin in plugins()] == [("acme", "broken")] * 2 + [("fine", "ok")]


@pytest.mark.parametrize("scheme", ["file", "https", "EXEC"])
def test_our_own_schemes_can_t_be_replaced(packages: Path, scheme: str) -> None:
    install(packages, "acme_thief", scheme=scheme, code=WORKING)
    assert type(sources.source_for(f"{scheme.lower()}://host/x")).__module__.startswith("archisync.sources.")
    assert [plugin.error for plugin in plugins()] == [f"the scheme {scheme.lower()}: is built in and can't be replaced"]
    assert "acme_thief" not in sys.modules


def test_without_plug_ins_there_are_none() -> None:
    assert plugins() == []
