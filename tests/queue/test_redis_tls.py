"""Redis over TLS: a private authority, a client certificate, and the errors when either is wrong."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archisync.base.errors import ExitCode
from archisync.standalone.folders import temporary_folder
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.queued import config_for, env_of, one_due_pair, queued, succeeded
from tests.support.redisservers import (
    REDIS_SERVER,
    client_tls,
    free_port,
    make_certificates,
    server,
    tls_before,
    tls_options,
)
from tests.support.said import as_text


@dataclass(frozen=True, kw_only=True)
class Tls:
    """A TLS server on `port` that requires a client certificate. `folder` has ca.pem, client.pem and client.key."""

    port: int
    folder: Path

    def url(self, **options: str) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?" + "&".join(f"{name}={value}" for name, value in options.items())

    @property
    def options(self) -> dict[str, str]:
        return client_tls(self.folder)


@pytest.fixture(params=["redis-server", "valkey behind TLS"])
def tls(request: pytest.FixtureRequest) -> Iterator[Tls]:
    if request.param == "redis-server" and REDIS_SERVER is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with temporary_folder() as folder:
        make_certificates(folder)
        if request.param == "redis-server":
            port = free_port()
            with server(folder / "redis", tls_options(folder, port), program=REDIS_SERVER):
                yield Tls(port=port, folder=folder)
        else:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
            context.verify_mode = ssl.CERT_REQUIRED
            with server(folder / "valkey", {}) as plain, tls_before(plain.port, context) as port:
                yield Tls(port=port, folder=folder)


def test_a_tick_and_a_worker_use_tls_with_a_private_authority_and_a_client_certificate(
    cli: Cli, connection: Database, database_url: str, tls: Tls
) -> None:
    one_due_pair(connection)
    env = env_of(config_for(database_url, tls.url(**tls.options)))
    done = cli("tick", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("due 1, enqueued 1, ")
    assert cli("worker", "--single", "--burst", "--single", env=env).returncode == 0
    assert succeeded(connection) == 1
    doctor = cli("doctor", "--only", "redis", env=env)
    assert (doctor.returncode, doctor.stdout.split()[:2]) == (0, ["ok", "redis"])


def test_a_wrong_authority_or_no_client_certificate_is_an_error_and_loses_nothing(
    cli: Cli, connection: Database, database_url: str, tls: Tls
) -> None:
    one_due_pair(connection)
    without = {"ssl_ca_certs": tls.options["ssl_ca_certs"]}
    for options in ({}, tls.options | {"ssl_ca_certs": f"{tls.folder}/stranger.pem"}, without):
        done = cli("tick", env=env_of(config_for(database_url, tls.url(**options))))
        assert done.returncode == ExitCode.UNREACHABLE, options
        assert as_text(done.stderr).startswith("error: Redis is out of reach: ")
        assert queued(connection) == 1
        if options != without:  # a server may simply close the connection of a client without a certificate
            assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
            assert as_text(done.stderr).endswith(
                "\nhint: check rediss:// and ssl_ca_certs, ssl_certfile, ssl_keyfile in ARCHISYNC_REDIS_URL\n"
            )
    done = cli("tick", env=env_of(config_for(database_url, tls.url(**tls.options))))
    assert (done.returncode, done.stdout[:18]) == (0, "due 0, enqueued 1,")


def test_the_certificate_must_have_the_name_of_the_server(cli: Cli, tls: Tls) -> None:
    url = tls.url(**tls.options).replace("127.0.0.1", "localhost", 1)
    done = cli("doctor", "--only", "redis", env={"ARCHISYNC_REDIS_URL": url})
    assert done.returncode == ExitCode.UNREACHABLE
    assert "CERTIFICATE_VERIFY_FAILED" in done.stdout


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_missing_file_is_a_configuration_error(cli: Cli, tmp_path: Path, name: str) -> None:
    done = cli("plan", env={"ARCHISYNC_REDIS_URL": f"rediss://127.0.0.1:9/0?{name}={tmp_path}/gone.pem"})
    assert done.returncode == ExitCode.CONFIGURATION
    assert done.stderr.startswith(
        f"error: ARCHISYNC_REDIS_URL: the {name} {tmp_path}/gone.pem can't be read\nhint: ls -l {tmp_path}/gone.pem "
    )
