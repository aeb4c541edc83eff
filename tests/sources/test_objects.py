"""Buckets: moto's S3, names that change, credentials that have expired, throttling, and answers that break."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportError,
    NoExportError,
    NotSettledError,
    SyncError,
    TransientSourceError,
)
from archisync.sources import Request, Unchanged, check_template, fetch
from archisync.sources.conformance import SourceConformance
from archisync.sources.interface import Source
from tests.support.erp import Answer, Erp, Handler
from tests.support.fetching import CANARY, CONTENT, fetched, refused, request_of
from tests.support.s3 import KEY, Bucket, running_s3

obstore = pytest.importorskip("obstore")
OLD = {"Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}
ONE = OLD | {"ETag": '"1"'}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with running_s3() as variables:
        yield variables


@pytest.fixture
def bucket(s3: dict[str, str]) -> Bucket:
    bucket = Bucket(s3)
    bucket.clear()
    return bucket


class TestObjectSource(SourceConformance):
    supports_unchanged = True
    s3: dict[str, str]

    @pytest.fixture(autouse=True)
    def _s3(self, s3: dict[str, str]) -> None:
        self.s3 = s3

    def source(self) -> Source:
        from archisync.sources.objects import ObjectSource

        return ObjectSource()

    def template(self) -> str:
        return "s3://exports/{agent}/{type}.csv"

    def variables(self) -> Mapping[str, str]:
        return self.s3

    def secrets(self) -> Iterable[str]:
        return [CANARY, KEY["AWS_ACCESS_KEY_ID"]]

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        Bucket(self.s3).put(f"{agent_id}/{sync_type}.csv", content)

    def remove(self, agent_id: str, sync_type: str) -> None:
        Bucket(self.s3).remove(f"{agent_id}/{sync_type}.csv")


def _request(
    tmp_path: Path, template: str, variables: Mapping[str, str], validators: Mapping[str, str] | None = None
) -> Request:
    return request_of(tmp_path, template, max_bytes=10**8, validators=validators, **variables)


def test_the_newest_name_is_the_export(tmp_path: Path, bucket: Bucket, s3: dict[str, str]) -> None:
    for name in ("orders_20251231.csv", "orders_20260101.csv", "orders_old/x.csv", "ddt_20260102.csv"):
        bucket.put(f"agent-1/{name}", CONTENT + name.encode())
    template = "s3://exports/{agent}/{type}_{date:%Y%m%d}.csv"
    export = fetched(_request(tmp_path, template, s3))
    assert (export.origin, export.suffix) == ("s3://exports/agent-1/orders_20260101.csv", ".csv")
    assert fetch(_request(tmp_path, template, s3, export.validators)) == Unchanged(origin=export.origin)
    bucket.put("agent-1/orders_20260102.csv", CONTENT + b"orders_20260101.csv")
    assert fetched(_request(tmp_path, template, s3, export.validators)).origin.endswith("0102.csv")
    with pytest.raises(NotSettledError):
        fetch(_request(tmp_path, f"{template}?settle=3600s", s3))


def test_what_is_not_there_is_no_export(tmp_path: Path, bucket: Bucket, s3: dict[str, str]) -> None:
    for template in ("s3://exports/none.csv", "s3://no-such-bucket/none.csv"):
        error = refused(_request(tmp_path, template, s3))
        assert (type(error), error.message) == (NoExportError, f"no export at {template}")
    error = refused(_request(tmp_path, "s3://exports/{agent}/invoices_*.csv", s3))
    assert (type(error), error.message) == (NoExportError, "no export invoices_*.csv in s3://exports/agent-1")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("s3://exports", "the source is no address of a bucket and a key"),
        ("az://container/", "the source is no address of a bucket and a key"),
        ("s3://{agent}/x.csv", "the source's bucket has a placeholder or credentials in it"),
        ("s3://key:canary@exports/x.csv", "the source's bucket has a placeholder or credentials in it"),
        ("gs://exports/*.csv", "the source's file name begins with *, so it may be any file"),
    ],
)
def test_an_address_that_can_not_work_is_refused_before_a_worker_starts(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(template)
    assert (refused.value.message, "canary" in refused.value.hint) == (message, False)


def _xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{CANARY * 2}</Message></Error>".encode()


def _break(handler: Handler) -> None:
    """Half of the body, and a reset; each time."""
    handler.send_response(200)
    for name, value in {"Content-Length": "1000", "ETag": '"1"', **OLD}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(bytes(500))
    handler.reset()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(status=403, body=_xml("AccessDenied")), AuthenticationError, "refuses our credentials"),
        (Answer(status=400, body=_xml("ExpiredToken")), AuthenticationError, "refuses our credentials"),
        (Answer(status=403, body=_xml("SignatureDoesNotMatch")), AuthenticationError, "refuses our credentials"),
        (Answer(status=503, body=_xml("SlowDown")), TransientSourceError, "can't be read"),
        (Answer(status=429, body=b""), TransientSourceError, "can't be read"),
        (Answer(status=500, body=b"oops"), TransientSourceError, "can't be read"),
        (Answer(body=CONTENT, length=10**9, headers=ONE), ExportError, "has more than 100000000 bytes"),
        (_break, TransientSourceError, "can't be read"),
    ],
)
def test_an_answer_with_a_fault_is_never_an_export(
    tmp_path: Path, erp: Erp, answer: Any, kind: type[SyncError], words: str
) -> None:
    erp.answers["/exports/agent-1/orders.csv"] = answer
    error = refused(_request(tmp_path, "s3://exports/{agent}/{type}.csv", KEY | {"AWS_ENDPOINT_URL": erp.url}))
    assert (type(error), words in error.message, bool(error.hint)) == (kind, True, True), error.message
    assert CANARY not in error.message + error.hint
    if isinstance(error, TransientSourceError) and getattr(answer, "status", 0) in (429, 503):
        assert error.retry_after_s == 30


def test_a_body_that_is_cut_at_any_tenth_is_never_an_export(tmp_path: Path, erp: Erp) -> None:
    content = os.urandom(10_000)
    for tenth in range(10):
        body = content[: tenth * 1000]
        erp.answers["/exports/agent-1/orders.csv"] = Answer(body=body, length=len(content), headers=ONE)
        error = refused(_request(tmp_path, "s3://exports/{agent}/{type}.csv", KEY | {"AWS_ENDPOINT_URL": erp.url}))
        assert isinstance(error, TransientSourceError)


@pytest.mark.parametrize(
    ("template", "path", "variables"),
    [
        ("gs://exports/{agent}/{type}.csv", "/exports/agent%2D1%2Forders%2Ecsv",
         {"GOOGLE_SKIP_SIGNATURE": "true", "GOOGLE_BASE_URL": "{url}"}),
        ("az://exports/{agent}/{type}.csv", "/exports/agent-1/orders.csv",
         {"AZURE_SKIP_SIGNATURE": "true", "AZURE_ENDPOINT": "{url}", "AZURE_STORAGE_ACCOUNT_NAME": "acme"}),
    ],
)  # fmt: skip
def test_the_other_stores_are_asked_alike(
    tmp_path: Path, erp: Erp, template: str, path: str, variables: dict[str, str]
) -> None:
    erp.answers[path] = Answer(body=CONTENT, etag='"1"', headers=OLD)
    settings = {name: value.format(url=erp.url) for name, value in variables.items()}
    export = fetched(_request(tmp_path, template, settings))
    assert export.path.read_bytes() == CONTENT
    assert isinstance(fetch(_request(tmp_path, template, settings, export.validators)), Unchanged)


@pytest.mark.parametrize(("scheme", "prefix"), [("s3", "AWS_"), ("gs", "GOOGLE_"), ("az", "AZURE_")])
def test_variables_that_are_not_the_stores_change_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], scheme: str, prefix: str
) -> None:
    """obstore panics at the ones about its connections, and prints how it came to that."""
    others = (
        "ALLOW_HTTP",
        "ALLOW_INVALID_CERTIFICATES",
        "CONNECT_TIMEOUT",
        "PAGER",
        "PROXY_URL",
        "TIMEOUT",
        "USER_AGENT",
    )
    variables = {prefix + name: CANARY for name in others} | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    places = {"GOOGLE_BASE_URL": "http://127.0.0.1:9", "AZURE_ENDPOINT": "http://127.0.0.1:9"}
    skip = {"GOOGLE_SKIP_SIGNATURE": "true", "AZURE_SKIP_SIGNATURE": "true", "AZURE_STORAGE_ACCOUNT_NAME": "acme"}
    error = refused(_request(tmp_path, f"{scheme}://exports/{{agent}}/{{type}}.csv", KEY | variables | places | skip))
    assert isinstance(error, TransientSourceError)
    assert (prefix in error.hint, CANARY in error.message) == (True, False)
    assert capfd.readouterr().err == ""
