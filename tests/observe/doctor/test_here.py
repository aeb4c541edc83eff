"""`doctor` on this machine: each check is made to fail."""

from pathlib import Path

import pytest

from archisync.base.errors import ExitCode
from archisync.observe.doctor.here import judge_disk, misspelt
from archisync.rules.config import variable_names
from tests.conftest import Cli
from tests.support.doctor import examine, only

EACH = "put {type} into it, or give each type a template: ARCHISYNC_SOURCE_ORDERS=…"


def test_settings_fails_for_a_value_that_cannot_be_read(cli: Cli) -> None:
    assert only(cli, "settings", {"ARCHISYNC_LEASE_S": "soon"}) == (
        3,
        ("failed", "ARCHISYNC_LEASE_S is 'soon'", "a whole number from 10 to 3600"),
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ARCHISYNC_RUN_TIMEOUT", "ARCHISYNC_RUN_TIMEOUT_S"),
        ("ARCHISYNC_LOCALE_ORDER", "ARCHISYNC_LOCALE_ORDERS"),
        ("ARCHISYNC_CSV_ENCODING_DDTS", "ARCHISYNC_CSV_ENCODING_DDT"),
        ("ARCHISYNC_HTTP_TOKENS_ORDERS", "ARCHISYNC_HTTP_TOKEN_ORDERS"),
        ("ARCHISYNC_LEASE", "ARCHISYNC_LEASE_S"),
        ("ARCHISYNC_HTTP_CA_ORDERS", "ARCHISYNC_HTTP_CERT_ORDERS"),
    ],
)
def test_settings_warns_of_a_misspelt_variable_and_names_the_right_one(cli: Cli, name: str, meant: str) -> None:
    assert only(cli, "settings", {name: "secret"}) == (
        0,
        ("warning", f"nothing reads the variable {name}", f"did you mean {meant}?"),
    )


def test_known_variables_and_those_of_others_are_not_misspelt() -> None:
    others = [
        "ARCHISYNC_DEBUG",
        "ARCHISYNC_METRICS_PORT",
        "ARCHISYNC_REDIS_SERVICE_HOST",
        "ARCHISYNC_REDIS_PORT_6379_TCP",
    ]
    assert list(misspelt([*variable_names(), *others, "ARCHISYNC_SFTP_KEY", "ARCHISYNC_AGENT", "PATH"])) == []
    assert {"ARCHISYNC_CSV_QUOTING_DDT", "ARCHISYNC_HTTP_KEY_PRICES", "ARCHISYNC_HOOK"} <= set(variable_names())
    assert not any("<" in name for name in variable_names())
    assert "ARCHISYNC_HTTP_CA_DDT" not in variable_names()


def test_sources_fails_for_the_type_whose_template_is_wrong(cli: Cli) -> None:
    code, finding = only(cli, "sources", {"ARCHISYNC_SOURCE_DDT": "/exports/{agnet}.csv"})
    assert (code, finding[:2]) == (3, ("failed", "ddt: the source has the unknown placeholder '{agnet}'"))


@pytest.mark.parametrize(
    ("env", "findings"),
    [
        (
            {"ARCHISYNC_SOURCE": "/srv/{type}.csv"},
            [
                (
                    "warning",
                    "the source of orders, customers, ddt, invoices has no {agent}: all agents would get the same rows",
                    "put {agent} into it, for example /srv/exports/{agent}/{type}.csv",
                )
            ],
        ),
        (
            {"ARCHISYNC_SOURCE": "https://erp.example/{agent}.csv", "ARCHISYNC_SOURCE_DDT": "/srv/{agent}/ddt.csv"},
            [
                ("warning", f"the source of {names} has no {{type}}: these types would read the same export", EACH)
                for names in ("orders, customers, invoices", "products, prices")
            ],
        ),
        (
            {"ARCHISYNC_SOURCE_PRODUCTS": "file:///srv/articles.csv", "ARCHISYNC_SOURCE_PRICES": "/srv/prices.csv"},
            [("ok", "the source of each type can be used", "")],
        ),
        ({"ARCHISYNC_SOURCE": "exec:/bin/cat"}, [("ok", "the source of each type can be used", "")]),
    ],
    ids=["no-agent", "no-type", "shared", "program"],
)
def test_sources_warns_of_a_template_that_gives_several_pairs_one_export(
    cli: Cli, env: dict[str, str], findings: list[tuple[str, str, str]]
) -> None:
    assert examine(cli, "--only", "sources", env=env) == (0, {"sources": findings})


def test_hook_fails_for_a_program_that_does_not_exist(cli: Cli) -> None:
    assert only(cli, "hook", {"ARCHISYNC_HOOK": "exec:/no/such"}) == (
        3,
        ("failed", "ARCHISYNC_HOOK names a program that can't be run: /no/such", "ls -l /no/such"),
    )
    assert only(cli, "hook", {"ARCHISYNC_HOOK": "exec:true"}) == (0, ("ok", "ARCHISYNC_HOOK can be called", ""))
    assert examine(cli, "--only", "hook") == (0, {})


def test_plug_ins_fails_for_one_that_cannot_be_loaded(cli: Cli, tmp_path: Path) -> None:
    package = tmp_path / "acme-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[archisync.sources]\nacme = acme_missing:Source\n")
    code, found = examine(cli, "--only", "plug-ins", env={"PYTHONPATH": str(tmp_path)})
    assert code == ExitCode.CONFIGURATION
    assert [f for f in found["plug-ins"] if f.level == "failed"] == [
        (
            "failed",
            "the source plug-in acme: can't be loaded: ModuleNotFoundError: No module named 'acme_missing'",
            "repair, update or uninstall acme 1 (acme_missing:Source)",
        )
    ]


def test_disk_fails_when_its_folder_is_missing_or_full(cli: Cli, tmp_path: Path) -> None:
    gone = cli("doctor", "--only", "disk", "--folder", str(tmp_path / "gone"))
    assert (gone.returncode, gone.stderr) == (
        3,
        f"error: there is no {tmp_path}/gone/archisync.env\nhint: archisync up --folder {tmp_path}/gone makes it\n",
    )
    (tmp_path / "archisync.env").write_text("")
    assert examine(cli, "--only", "disk", "--folder", str(tmp_path))[0] == 0
    assert judge_disk(tmp_path, 100 * 1024**2).message == f"100 MiB are free in {tmp_path}"
    levels = [judge_disk(tmp_path, n * 1024**2).level for n in (199, 200, 1023, 1024)]
    assert levels == ["failed", "warning", "warning", "ok"]
