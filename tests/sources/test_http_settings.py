"""The settings of the HTTP source: allowed addresses, settings that contradict each other, and secrets, which nothing shows."""

import ipaddress
import logging
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync import sources
from archisync.base.errors import (
    ConfigurationError,
    SourceError,
    SyncError,
    TransientSourceError,
)
from archisync.rules.config import Config
from archisync.sources import check_template
from archisync.sources.addresses import Address, Allowed, GuardedBackend, innermost, resolve
from tests.support.erp import Answer, Erp, redirect, running_erp
from tests.support.fetching import CANARY, CONTENT, fetched, refused, request_of

# --- addresses ----------------------------------------------------------------------------------------------------


NOTATIONS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "localhost", "0", "0.0.0.0"]  # noqa: S104
NOTATIONS += ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]
NOTATIONS += ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fc00::1]"]
NOTATIONS += ["224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "[ff02::1]", "[::]", "[fec0::1]", "[3fff::1]"]


@pytest.mark.parametrize("host", NOTATIONS)
def test_address_that_is_not_public_is_refused_in_every_notation(tmp_path: Path, host: str) -> None:
    request = request_of(tmp_path, f"http://{host}:9/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE="")
    error = refused(request)
    assert type(error) is SourceError
    assert error.message.endswith("which is not public, and ARCHISYNC_HTTP_ALLOW_PRIVATE does not allow its port 9")
    shown = shlex.quote(f"{host}:9")
    assert error.hint == f"if it is your ERP: export ARCHISYNC_HTTP_ALLOW_PRIVATE={shown}"


# The special-purpose registries of IANA (2025), without what they call globally reachable.
SPECIAL = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/29",
    "192.0.0.8/32", "192.0.0.170/31", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "::1/128", "::/128", "64:ff9b:1::/48",
    "100::/64", "100:0:0:1::/64", "2001::/32", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7",
    "fe80::/10", "fec0::/10", "ff00::/8", "::ffff:0:0:0/96", "200::/7", "4000::/3",
)  # fmt: skip


def wrapped(address: ipaddress.IPv4Address) -> list[str]:
    """The same address inside IPv6 ones: mapped, compatible, translated, 6to4, NAT64, its local prefix, and Teredo as server and client."""
    number = int(address)
    parts = [number << 0 | 0xFFFF << 32, number, number | 0xFFFF << 48, 0x2002 << 112 | number << 80]
    parts += [0x64FF9B << 96 | number, 0x64FF9B0001 << 80 | number, 0x20010000 << 96 | number << 64]
    parts += [0x20010000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF)]
    return [str(ipaddress.IPv6Address(part)) for part in parts]


@pytest.mark.parametrize("network", SPECIAL)
def test_special_addresses_are_not_public_nor_are_those_that_wrap_them(network: str) -> None:
    where = ipaddress.ip_network(network)
    for address in {where[0], where[-1], where[where.num_addresses // 2]}:
        ways = [str(address), *(wrapped(address) if isinstance(address, ipaddress.IPv4Address) else [])]
        assert [way for way in ways if Allowed().permits("erp.example", ipaddress.ip_address(way), 443)] == []


@given(st.ip_addresses())
def test_nothing_is_public_that_python_does_not_call_global(address: Address) -> None:
    if Allowed().permits("erp.example", address, 443):
        assert innermost(address).is_global
        assert not innermost(address).is_multicast
        assert not innermost(address).is_reserved


@pytest.mark.parametrize(
    "text",
    ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_public(text: str) -> None:
    assert Allowed().permits("erp.example", ipaddress.ip_address(text), 443)


@pytest.mark.parametrize(
    "allow",
    [
        "127.0.0.1:PORT",
        "127.0.0.0/8:PORT",
        "yes",
        "erp.example 127.0.0.1:*",
        "10.0.0.0/8,127.0.0.1/32:PORT",
        "127.0.0.1:1 127.0.0.1:PORT",
    ],
)
def test_allowed_address_is_fetched_from(tmp_path: Path, erp: Erp, allow: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    allow = allow.replace("PORT", str(erp.port))
    for host in ("127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"):
        request = request_of(tmp_path, f"http://{host}:{erp.port}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allow)
        assert fetched(request).size_bytes == len(CONTENT)


@pytest.mark.parametrize(
    "allow", ["127.0.0.1", "127.0.0.0/8", "127.0.0.1:1", "localhost", "127.0.0.1:80,127.0.0.1:443"]
)
def test_another_port_of_an_allowed_address_is_refused(tmp_path: Path, erp: Erp, allow: str) -> None:
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allow))
    assert error.message.endswith(f"does not allow its port {erp.port}")
    assert erp.asked == []


@pytest.mark.parametrize(
    ("allow", "permitted"),
    [
        ("10.1.0.5", {("x", "10.1.0.5", 80), ("x", "10.1.0.5", 443)}),
        ("10.1.0.0/16:8443", {("x", "10.1.0.5", 8443)}),
        ("ERP.example:8080", {("erp.example", "10.1.0.5", 8080), ("erp.example", "fd00::5", 8080)}),
        ("erp.example", {("erp.example", a, p) for a in ("10.1.0.5", "fd00::5") for p in (80, 443)}),
        ("fd00::/8", {("x", "fd00::5", 80), ("x", "fd00::5", 443)}),
        ("fd00::5", {("x", "fd00::5", 80), ("x", "fd00::5", 443)}),
        ("[fd00::5]:8080", {("x", "fd00::5", 8080)}),
        ("[fd00::/8]:8443", {("x", "fd00::5", 8443)}),
    ],
)
def test_a_setting_allows_a_host_or_network_on_its_port(allow: str, permitted: set[tuple[str, str, int]]) -> None:
    tried = {
        (host, address, port)
        for host in ("x", "erp.example")
        for address in ("10.1.0.5", "fd00::5")
        for port in (80, 443, 6379, 8080, 8443)
    }
    asked = Allowed.parse(allow)
    found = {(h, a, p) for h, a, p in tried if asked.permits(h, ipaddress.ip_address(a), p)}
    same_for_a_name = (
        {(h, a, p) for h in ("x", "erp.example") for _, a, p in permitted} if "erp" not in allow.lower() else permitted
    )
    assert found == same_for_a_name


def test_allowed_name_is_fetched_from_but_not_its_address_under_another_name(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    allow = f"localhost:{erp.port}"
    named = request_of(tmp_path, f"http://LocalHost:{erp.port}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allow)
    export = fetched(named)
    assert export.size_bytes == len(CONTENT)
    export.path.unlink()
    other = request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allow)
    assert type(refused(other)) is SourceError


def test_name_whose_address_changes_after_the_check_is_connected_to_the_checked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name resolves once to the allowed 127.0.0.2; a second look-up would give 127.0.0.1."""
    answers = iter(["127.0.0.2"])
    real = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers, "127.0.0.1") if host == "erp.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with running_erp(host="127.0.0.2") as good, running_erp(host="127.0.0.1", port=good.port) as bad:
        good.answers["/o.csv"] = Answer(body=CONTENT)
        bad.answers["/o.csv"] = Answer(body=b"stolen")
        url = f"http://erp.test:{good.port}/o.csv"
        export = fetched(request_of(tmp_path, url, ARCHISYNC_HTTP_ALLOW_PRIVATE=f"127.0.0.2:{good.port}"))
        assert export.path.read_bytes() == CONTENT
        assert bad.asked == []
        assert good.asked[0].headers["host"] == f"erp.test:{good.port}"


def test_name_with_a_public_and_a_private_address_never_leads_to_the_private_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def both(host: Any, *args: Any, **kwargs: Any) -> Any:
        names = ["127.0.0.1", "93.184.215.14"] if host == "erp.test" else [host]
        return [found for name in names for found in real(name, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    backend = GuardedBackend(Allowed(), deadline=0, by_redirect=False)
    assert [str(a) for a in backend._permitted("erp.test", 80, resolve("erp.test", 80))] == ["93.184.215.14"]


def test_unknown_name_is_transient(tmp_path: Path) -> None:
    error = refused(request_of(tmp_path, "http://no-such-host.invalid/o.csv"))
    assert type(error) is TransientSourceError
    assert error.message.startswith("the name no-such-host.invalid can't be resolved: ")
    assert error.hint == "getent hosts no-such-host.invalid"


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("http:/o.csv", "the source is a http: address without a host"),
        ("https://", "the source is a https: address without a host"),
        ("https://user:secret@erp.example/o.csv", "the source's address has credentials in it"),
        ("https://{agent}.erp.example/o.csv", "the source's address has a placeholder in its host"),
        ("https://erp.example:{type}/o.csv", "the source's address has a placeholder in its host"),
        ("https://erp.example:no/o.csv", "the source is not an address"),
        ("https://[::1/o.csv", "the source is not an address"),
        ("https://erp.example/{x}", "the source has the unknown placeholder '{x}'"),
    ],
)
def test_address_that_can_not_work_is_a_configuration_error(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_template(template)
    assert caught.value.message == message
    assert "secret" not in caught.value.message + caught.value.hint
    with pytest.raises(ConfigurationError):
        sources.fetch(request_of(tmp_path, template))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOKEN": CANARY, "USER": "x"}, "both ARCHISYNC_HTTP_TOKEN and ARCHISYNC_HTTP_USER are set"),
        (
            {"TOKEN_ORDERS": CANARY, "USER_ORDERS": "x"},
            "both ARCHISYNC_HTTP_TOKEN_ORDERS and ARCHISYNC_HTTP_USER_ORDERS are set",
        ),
        ({"PASSWORD": CANARY}, "ARCHISYNC_HTTP_PASSWORD is set, but ARCHISYNC_HTTP_USER is not"),
        ({"USER": f"a:{CANARY}"}, "ARCHISYNC_HTTP_USER has a colon"),
        ({"TOKEN": f"{CANARY}\nX: y"}, "ARCHISYNC_HTTP_TOKEN has characters that a token can't have"),
        ({"TOKEN": f"{CANARY}è"}, "ARCHISYNC_HTTP_TOKEN has characters that a token can't have"),
        ({"KEY": "/x/key.pem"}, "ARCHISYNC_HTTP_KEY is set, but ARCHISYNC_HTTP_CERT is not"),
        ({"HEADERS": f"X: {CANARY}"}, "ARCHISYNC_HTTP_HEADERS is not JSON"),
        ({"HEADERS": f'["{CANARY}"]'}, "ARCHISYNC_HTTP_HEADERS is not a JSON object of texts"),
        ({"HEADERS": f'{{"X": "{CANARY}\\n"}}'}, "ARCHISYNC_HTTP_HEADERS has a name or value that no header can have"),
        ({"HEADERS": f'{{"Host": "{CANARY}"}}'}, "ARCHISYNC_HTTP_HEADERS sets Host, which archisync sets itself"),
        (
            {"TOKEN": CANARY, "HEADERS": '{"authorization": "x"}'},
            "ARCHISYNC_HTTP_HEADERS sets Authorization beside a token or user",
        ),
        (
            {"ALLOW_PRIVATE": "10.0.0.0/33"},
            "ARCHISYNC_HTTP_ALLOW_PRIVATE has '10.0.0.0/33', which is no host, address or CIDR",
        ),
        (
            {"ALLOW_PRIVATE": f"u:{CANARY}@10.0.0.1:80"},
            "ARCHISYNC_HTTP_ALLOW_PRIVATE has '10.0.0.1:80', which is no host, address or CIDR",
        ),
        *(
            ({"ALLOW_PRIVATE": wrong}, f"ARCHISYNC_HTTP_ALLOW_PRIVATE has {wrong!r}, which is no host, address or CIDR")
            for wrong in (
                "erp:65536",
                "erp:",
                "[::1",
                "[erp]:80",
                "*",
                "*:80",
                "no",
                "erp.example/x:80",
                "fd00::5:x",
                "erp:80:90",
                "a;b",
            )
        ),
        ({"ALLOW_PRIVATE": "yes,no"}, "ARCHISYNC_HTTP_ALLOW_PRIVATE has 'yes', which is no host, address or CIDR"),
        ({"CERT": "/no/such.pem"}, "the client certificate can't be used: No such file or directory"),
        ({"CA": "/no/such.pem"}, "the authorities' file can't be used: No such file or directory"),
    ],
)
def test_contradicting_settings_are_found_before_anything_is_fetched(variables: dict[str, str], message: str) -> None:
    config = Config.from_environment({f"ARCHISYNC_HTTP_{name}": value for name, value in variables.items()})
    with pytest.raises(ConfigurationError) as caught:
        check_template("https://erp.example/{agent}/{type}.csv", config)
    assert caught.value.message == message
    assert CANARY not in caught.value.message + caught.value.hint


def test_http_source_without_httpx_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['httpx'] = None\n"
        "from archisync.sources import source_for\n"
        "from archisync.base.errors import ConfigurationError\n"
        "source_for('/exports/{agent}.csv'), source_for('exec:cat x')\n"
        "try: source_for('https://erp.example/o.csv')\n"
        "except ConfigurationError as exc: print(exc.message, '|', exc.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "an http(s):// source needs httpx, which is not installed | pip install 'archisync[http]'\n"


def test_httpx_is_imported_only_for_an_http_source() -> None:
    program = (
        "import sys\n"
        "from archisync import sources\nfrom archisync.sync import run\nfrom archisync.work import worker\n"
        "sources.check_template('/exports/{agent}.csv'); sources.check_template('exec:cat x')\n"
        "assert not {'httpx', 'httpcore'} & set(sys.modules)\n"
        "sources.check_template('https://erp.example/{agent}.csv')\n"
        "assert 'httpx' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=CONTENT),
        Answer(status=401),
        Answer(status=418),
        Answer(status=500),
        Answer(body=CONTENT, length=999),
        Answer(body=b"<html>"),
        redirect("/login?key=" + CANARY),
        redirect("/o.csv?key=" + CANARY),
        redirect("ftp://" + CANARY),
        redirect(f"http://127.0.0.9:9/?key={CANARY}"),
        Answer(body=CONTENT, headers={"Content-MD5": "XrY7u+Ae7tCTyyK7j1rNww=="}),
    ],
)
def test_credentials_are_never_shown(
    tmp_path: Path, erp: Erp, answer: Answer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    erp.answers[f"/o.csv?key={CANARY}"] = answer
    request = request_of(
        tmp_path,
        f"{erp.url}/o.csv?key={CANARY}",
        ARCHISYNC_HTTP_USER=CANARY,
        ARCHISYNC_HTTP_PASSWORD=CANARY,
        ARCHISYNC_HTTP_HEADERS=f'{{"X-Api-Key": "{CANARY}"}}',
    )
    assert CANARY not in repr(request.config)
    try:
        said = repr(sources.fetch(request))
    except SyncError as exc:
        said = f"{exc!r} {exc.hint}"
    captured = capfd.readouterr()
    assert len(erp.asked) >= 1
    assert CANARY not in said + caplog.text + captured.out + captured.err
