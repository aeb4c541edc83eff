"""The HTTP source over TLS: which servers it trusts, and which ones see its client certificate."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from archisync.base.errors import AuthenticationError, ConfigurationError, SourceError, TransientSourceError
from archisync.rules.config import Config
from archisync.sources import check_template
from archisync.sources.httpget import _same_host
from tests.support.erp import Answer, Erp, Handler, redirect, running_erp
from tests.support.fetching import CONTENT, fetched, refused, request_of
from tests.support.said import as_text


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, *names: str, client_required: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if client_required:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_files(authority: trustme.CA, folder: Path) -> tuple[str, str]:
    """(certificate, key) of a client, as PEM files."""
    issued = authority.issue_cert("archisync@example.test")
    cert, key = folder / "client.pem", folder / "client.key"
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(cert), append=number > 0)
    issued.private_key_pem.write_to_path(str(key))
    return str(cert), str(key)


@pytest.fixture
def erp(authority: trustme.CA) -> Iterator[Erp]:
    with running_erp(tls=server_context(authority, "127.0.0.1")) as erp:
        erp.answers["/o.csv"] = Answer(body=CONTENT)
        yield erp


@pytest.fixture
def strict_erp(authority: trustme.CA) -> Iterator[Erp]:
    """A server that requires a client certificate."""
    with running_erp(tls=server_context(authority, "127.0.0.1", client_required=True)) as erp:
        erp.answers["/o.csv"] = Answer(body=CONTENT)
        yield erp


def test_private_authority_is_trusted_when_it_is_configured(tmp_path: Path, erp: Erp, ca: str) -> None:
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca)).size_bytes == len(CONTENT)


def test_unknown_authority_is_not_trusted(tmp_path: Path, erp: Erp) -> None:
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is SourceError
    assert error.message == (
        f"{erp.url}/o.csv has a certificate that is not trusted: unable to get local issuer certificate"
    )
    assert error.hint == "if it is your ERP's own authority: export ARCHISYNC_HTTP_CA=/path/to/ca.pem"
    assert erp.asked == []


def test_certificate_of_another_host_is_not_trusted(tmp_path: Path, authority: trustme.CA, ca: str) -> None:
    with running_erp(tls=server_context(authority, "other.example")) as erp:
        error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca))
    assert type(error) is SourceError
    assert "IP address mismatch" in error.message


def test_certificate_is_verified_by_name_though_the_connection_is_to_an_address(
    tmp_path: Path, authority: trustme.CA, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def known(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if host == "erp.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", known)
    context = server_context(authority, "erp.example")
    asked_for: list[str] = []
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    with running_erp(tls=context) as erp:
        erp.answers["/o.csv"] = Answer(body=CONTENT)
        fetched(request_of(tmp_path, f"https://erp.example:{erp.port}/o.csv", ARCHISYNC_HTTP_CA=ca))
        assert erp.asked[0].headers["host"] == f"erp.example:{erp.port}"
    assert asked_for == ["erp.example"]


def test_client_certificate_is_shown_to_a_server_that_asks_for_it(
    tmp_path: Path, strict_erp: Erp, authority: trustme.CA, ca: str
) -> None:
    cert, key = client_files(authority, tmp_path)
    request = request_of(
        tmp_path, f"{strict_erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca, ARCHISYNC_HTTP_CERT=cert, ARCHISYNC_HTTP_KEY=key
    )
    assert fetched(request).size_bytes == len(CONTENT)


def test_missing_client_certificate_is_an_authentication_error(tmp_path: Path, strict_erp: Erp, ca: str) -> None:
    error = refused(request_of(tmp_path, f"{strict_erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca))
    assert (type(error), error.message) == (
        AuthenticationError,
        f"{strict_erp.url}/o.csv refuses our client certificate, or the lack of one",
    )


def test_client_certificate_that_the_server_does_not_trust_is_an_authentication_error(
    tmp_path: Path, strict_erp: Erp, ca: str
) -> None:
    cert, key = client_files(trustme.CA(), tmp_path)
    request = request_of(
        tmp_path, f"{strict_erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca, ARCHISYNC_HTTP_CERT=cert, ARCHISYNC_HTTP_KEY=key
    )
    assert type(refused(request)) is AuthenticationError


def test_redirect_to_another_host_is_followed_without_the_client_certificate(
    tmp_path: Path, strict_erp: Erp, authority: trustme.CA, ca: str
) -> None:
    cert, key = client_files(authority, tmp_path)
    shown: list[object] = []

    def note(handler: Handler) -> None:
        assert isinstance(handler.connection, ssl.SSLSocket)
        shown.append(handler.connection.getpeercert())
        handler.answer(Answer(body=CONTENT), {})

    context = server_context(authority, "127.0.0.2")
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    with running_erp(host="127.0.0.2", tls=context) as other:
        other.answers["/o.csv"] = other.answers["/direct.csv"] = note
        strict_erp.answers["/o.csv"] = redirect(f"{other.url}/o.csv")
        for url in (f"{strict_erp.url}/o.csv", f"{other.url}/direct.csv"):
            fetched(request_of(tmp_path, url, ARCHISYNC_HTTP_CA=ca, ARCHISYNC_HTTP_CERT=cert, ARCHISYNC_HTTP_KEY=key))
    assert [bool(certificate) for certificate in shown] == [False, True]


def test_redirect_from_https_to_http_is_not_followed(tmp_path: Path, erp: Erp, ca: str) -> None:
    with running_erp() as plain:
        erp.answers["/o.csv"] = redirect(f"{plain.url}/o.csv")
        error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_CA=ca))
        assert plain.asked == []
    assert (type(error), error.message) == (
        SourceError,
        f"{erp.url}/o.csv is redirected from https to http, which is not followed",
    )


def test_server_that_never_answers_the_handshake_meets_the_time_limit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/o.csv"
        error = refused(request_of(tmp_path, url, ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert (type(error), error.message) == (TransientSourceError, f"{url} took too long to answer")


def test_server_without_tls_is_transient(tmp_path: Path) -> None:
    with running_erp() as plain:
        url = f"https://127.0.0.1:{plain.port}/o.csv"
        assert type(refused(request_of(tmp_path, url))) is TransientSourceError


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("https://erp.example/a", "https://erp.example:443/b", True),
        ("http://erp.example/a", "https://erp.example/a", True),
        ("http://erp.example:8080/a", "https://erp.example/a", False),
        ("http://erp.example/a", "https://erp.example:8443/a", False),
        ("https://erp.example/a", "https://erp.example.evil.example/a", False),
        ("https://erp.example/a", "https://ERP.example/a", True),
        ("https://erp.example/a", "https://www.erp.example/a", False),
    ],
)
def test_credentials_go_only_to_the_same_host_and_port_or_from_http_to_https_of_it(
    before: str, after: str, same: bool
) -> None:
    assert _same_host(httpx.URL(before), httpx.URL(after)) is same


def test_encrypted_key_is_an_error_and_not_a_prompt_on_the_terminal(tmp_path: Path, authority: trustme.CA) -> None:
    cert, key = client_files(authority, tmp_path)
    private = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    encoding, layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(key).write_bytes(private.private_bytes(encoding, layout, encryption))
    config = Config.from_environment({"ARCHISYNC_HTTP_CERT": cert, "ARCHISYNC_HTTP_KEY": key})
    with pytest.raises(ConfigurationError) as caught:
        check_template("https://erp.example/{agent}.csv", config)
    assert caught.value.message.startswith("the client certificate can't be used: ")
    assert caught.value.hint.endswith("the key is not encrypted")


def test_worker_with_a_missing_certificate_exits_3(tmp_path: Path) -> None:
    environment = {
        "ARCHISYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0",
        "ARCHISYNC_SOURCE": "https://erp.example/{agent}/{type}.csv",
        "ARCHISYNC_HTTP_CERT": str(tmp_path / "missing.pem"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "worker"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, as_text(done.stderr).splitlines()[0]) == (
        3,
        "error: orders: the client certificate can't be used: No such file or directory",
    )
