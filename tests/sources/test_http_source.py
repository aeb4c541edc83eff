"""The HTTP source against a real server: what is fetched, what is refused, and what no message may show."""

import base64
import gzip
import hashlib
import logging
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from archisync import sources
from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
    TruncatedError,
    UsageError,
)
from archisync.rules.config import Config
from archisync.sources import Export, Request, Unchanged, check_template
from tests.support.erp import Answer, Erp, Handler, running_erp

CONTENT = b"order_id,created_at\n1,2026-01-02\n"
CANARY = "canary-9f3a1c77"


@pytest.fixture
def erp() -> Iterator[Erp]:
    with running_erp() as erp:
        yield erp


def request_of(
    tmp_path: Path,
    template: str,
    *,
    agent_id: str = "agent-1",
    max_bytes: int = 10**6,
    validators: dict[str, str] | None = None,
    **variables: str,
) -> Request:
    """A request to a server of the test's, which is on a loopback address."""
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    allowed = {"ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8"}
    return Request(
        template=template,
        agent_id=agent_id,
        sync_type="orders",
        spool_dir=spool,
        max_bytes=max_bytes,
        config=Config.from_environment(allowed | variables),
        validators=validators or {},
    )


def fetched(request: Request) -> Export:
    found = sources.fetch(request)
    assert isinstance(found, Export)
    return found


def refused(request: Request) -> SyncError:
    """The error of a fetch that must fail, leaving nothing in the spool directory."""
    with pytest.raises(SyncError) as caught:
        sources.fetch(request)
    assert list(request.spool_dir.iterdir()) == []
    return caught.value


def test_an_export_is_fetched_whole_and_hashed(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/agent-1/orders.csv"] = Answer(body=CONTENT)
    export = fetched(request_of(tmp_path, f"{erp.url}/{{agent}}/{{type}}.csv"))
    assert export.path.read_bytes() == CONTENT
    assert (export.size_bytes, export.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (export.origin, export.suffix) == (f"{erp.url}/agent-1/orders.csv", ".csv")


def test_the_agent_is_percent_encoded_in_path_and_query(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/x/a%2Bb%40c.csv?who=a%2Bb%40c"] = Answer(body=CONTENT)
    template = f"{erp.url}/x/{{agent}}.csv?who={{agent}}"
    assert fetched(request_of(tmp_path, template, agent_id="a+b@c")).size_bytes == len(CONTENT)
    with pytest.raises(UsageError):
        sources.fetch(request_of(tmp_path, template, agent_id="../../admin"))


# --- what is sent -------------------------------------------------------------------------------------------------


def test_a_token_is_sent_as_bearer(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
    assert erp.asked[0].headers["authorization"] == f"Bearer {CANARY}"


def test_user_and_password_are_sent_as_basic(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_USER="erp", ARCHISYNC_HTTP_PASSWORD="pà:ss"))
    kind, _, value = erp.asked[0].headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(value).decode()) == ("Basic", "erp:pà:ss")


def test_further_headers_are_sent(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_HEADERS=f'{{"X-Api-Key": "{CANARY}"}}'))
    assert erp.asked[0].headers["x-api-key"] == CANARY


def test_a_type_with_a_credential_of_its_own_gets_none_of_the_common_ones(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(
        request_of(
            tmp_path,
            f"{erp.url}/o.csv",
            ARCHISYNC_HTTP_TOKEN="common",
            ARCHISYNC_HTTP_HEADERS_ORDERS='{"X-Own": "1"}',
            ARCHISYNC_HTTP_TOKEN_PRICES="of-prices",
        )
    )
    assert erp.asked[0].headers["x-own"] == "1"
    assert "authorization" not in erp.asked[0].headers


def test_a_proxy_from_the_environment_is_not_used(tmp_path: Path, erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


# --- unchanged ----------------------------------------------------------------------------------------------------


def test_an_etag_comes_back_with_the_next_request_and_an_unchanged_export_is_not_sent(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, etag='"v1"')
    first = fetched(request_of(tmp_path, f"{erp.url}/o.csv"))
    again = sources.fetch(request_of(tmp_path, f"{erp.url}/o.csv", validators=dict(first.validators)))
    assert again == Unchanged(origin=f"{erp.url}/o.csv")
    erp.answers["/o.csv"] = Answer(body=CONTENT * 2, etag='"v2"')
    changed = fetched(request_of(tmp_path, f"{erp.url}/o.csv", validators=dict(first.validators)))
    assert changed.size_bytes == 2 * len(CONTENT)
    assert changed.validators["etag"] == '"v2"'


def _dated(age: timedelta) -> dict[str, str]:
    now = datetime.now(UTC)
    # BaseHTTPRequestHandler.send_response sends a Date of its own
    return {"Last-Modified": format_datetime(now - age, usegmt=True)}


def test_a_modification_time_comes_back_with_the_next_request(tmp_path: Path, erp: Erp) -> None:
    headers = _dated(timedelta(hours=1))
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers=headers)
    first = fetched(request_of(tmp_path, f"{erp.url}/o.csv"))
    erp.answers["/o.csv"] = Answer(status=304)
    again = sources.fetch(request_of(tmp_path, f"{erp.url}/o.csv", validators=dict(first.validators)))
    assert isinstance(again, Unchanged)
    assert erp.asked[1].headers["if-modified-since"] == headers["Last-Modified"]


def test_a_modification_time_of_this_very_minute_is_not_relied_on(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers=_dated(timedelta(seconds=5)))
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).validators == {}


def test_validators_of_another_address_are_not_sent(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/a.csv"] = erp.answers["/b.csv"] = Answer(body=CONTENT, etag='"same"')
    first = fetched(request_of(tmp_path, f"{erp.url}/a.csv"))
    assert isinstance(
        sources.fetch(request_of(tmp_path, f"{erp.url}/b.csv", validators=dict(first.validators))), Export
    )
    assert "if-none-match" not in erp.asked[1].headers


def test_the_target_of_a_redirect_is_asked_with_its_own_validators_only(tmp_path: Path, erp: Erp) -> None:
    """`/latest` leads to another document each day, which may have the same tag, or be older."""
    to_monday, to_tuesday = (Answer(status=302, headers={"Location": f"/{day}.csv"}) for day in ("monday", "tuesday"))
    erp.answers["/latest"] = to_monday
    erp.answers["/monday.csv"] = Answer(body=CONTENT, etag='"1"')
    erp.answers["/tuesday.csv"] = Answer(body=CONTENT + b"3;c\n", etag='"1"')
    first = fetched(request_of(tmp_path, f"{erp.url}/latest"))
    known = dict(first.validators)
    assert isinstance(sources.fetch(request_of(tmp_path, f"{erp.url}/latest", validators=known)), Unchanged)
    erp.answers["/latest"] = to_tuesday
    other = fetched(request_of(tmp_path, f"{erp.url}/latest", validators=known))
    assert (other.sha256 != first.sha256, other.suffix) == (True, ".csv")
    asked = [(one.path, one.headers.get("if-none-match")) for one in erp.asked]
    assert asked == [
        *(("/latest", None), ("/monday.csv", None)),
        *(("/latest", None), ("/monday.csv", '"1"')),
        *(("/latest", None), ("/tuesday.csv", None)),
    ]


def test_a_content_encoding_that_unpacks_to_a_bomb_is_stopped_early(tmp_path: Path, erp: Erp) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    erp.answers["/o.csv"] = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", max_bytes=10**9))
    assert re.fullmatch(r".*/o.csv unpacks to more than 6\d{7} bytes, 200 times its size", error.message)


def test_a_304_that_nobody_asked_for_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(status=304)
    assert refused(request_of(tmp_path, f"{erp.url}/o.csv")).message == f"{erp.url}/o.csv answers 304 Not Modified"


@pytest.mark.parametrize("etag", ['"' + "x" * 1001 + '"', '"caffè"'])
def test_an_etag_that_can_t_be_sent_back_is_not_kept(tmp_path: Path, erp: Erp, etag: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"ETag": etag})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).validators == {}


# --- completeness -------------------------------------------------------------------------------------------------


def test_a_body_shorter_than_its_content_length_is_truncated(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, length=len(CONTENT) + 1)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TruncatedError
    assert error.message == f"{erp.url}/o.csv: the body ended before it was complete"


def test_a_chunked_body_without_its_last_chunk_is_truncated(tmp_path: Path, erp: Erp) -> None:
    body = f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n"
    erp.answers["/o.csv"] = Answer(body=body, headers={"Transfer-Encoding": "chunked"})
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is TruncatedError
    erp.answers["/o.csv"] = Answer(body=body + b"0\r\n\r\n", headers={"Transfer-Encoding": "chunked"})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


def test_an_encoded_body_is_decoded_and_one_cut_anywhere_is_truncated(tmp_path: Path, erp: Erp) -> None:
    packed, headers = gzip.compress(CONTENT), {"Content-Encoding": "gzip"}
    erp.answers["/o.csv"] = Answer(body=packed, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.read_bytes() == CONTENT
    for length in range(1, len(packed)):
        erp.answers["/o.csv"] = Answer(body=packed[:length], headers=headers)
        with pytest.raises(TruncatedError, match="the gzip data is truncated or damaged"):
            sources.fetch(request_of(tmp_path, f"{erp.url}/o.csv"))


def test_a_body_that_is_not_encoded_as_it_says_is_truncated(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Content-Encoding": "gzip"})
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is TruncatedError


def test_identity_is_no_encoding(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Content-Encoding": "identity"})
    erp.answers["/p.csv"] = Answer(body=gzip.compress(CONTENT), headers={"Content-Encoding": "gzip, identity"})
    for name in ("o", "p"):
        assert fetched(request_of(tmp_path, f"{erp.url}/{name}.csv")).path.read_bytes() == CONTENT


def test_an_encoding_that_was_not_asked_for_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=zlib.compress(CONTENT), headers={"Content-Encoding": "deflate"})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (
        SourceError,
        f"{erp.url}/o.csv answers in the encoding deflate, which was not asked for",
    )
    assert erp.asked[0].headers["accept-encoding"] == "gzip, identity;q=0.5"


def test_a_gzipped_file_is_unpacked_with_and_without_an_encoding_around_it(tmp_path: Path, erp: Erp) -> None:
    packed = gzip.compress(CONTENT)
    erp.answers["/o.csv.gz"] = Answer(body=packed)
    erp.answers["/p.csv.gz"] = Answer(body=gzip.compress(packed), headers={"Content-Encoding": "gzip"})
    for name in ("o", "p"):
        export = fetched(request_of(tmp_path, f"{erp.url}/{name}.csv.gz"))
        assert (export.path.read_bytes(), export.suffix) == (CONTENT, ".csv")


def _b64(algorithm: str, content: bytes = CONTENT) -> str:
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


RIGHT = {
    "Content-MD5": _b64("md5"),
    "Digest": f"SHA-256={_b64('sha256')},MD5={_b64('md5')}",
    "Repr-Digest": f"sha-512=:{_b64('sha512')}:",
    "Content-Digest": f"sha-256=:{_b64('sha256')}:",
    "X-Checksum-Sha256": hashlib.sha256(CONTENT).hexdigest(),
}
WRONG = {name: value.replace(value[-8], "A" if value[-8] != "A" else "B") for name, value in RIGHT.items()} | {
    "Content-MD5": _b64("md5", b"other"),
    "Digest": f"SHA-256={_b64('sha256')},MD5={_b64('md5', b'other')}",
    "Repr-Digest": f"sha-512=:{_b64('sha512', b'other')}:",
    "Content-Digest": f"sha-256=:{_b64('sha256', b'other')}:",
    "X-Checksum-Sha256": hashlib.sha256(b"other").hexdigest(),
}


@pytest.mark.parametrize("header", list(RIGHT))
def test_an_export_without_the_announced_checksum_is_truncated(tmp_path: Path, erp: Erp, header: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={header: RIGHT[header]})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.read_bytes() == CONTENT
    fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.unlink()
    for left in (tmp_path / "spool").iterdir():
        left.unlink()
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={header: WRONG[header]})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TruncatedError
    assert error.message == f"{erp.url}/o.csv: what arrived does not have the checksum that {header} announces"


@pytest.mark.parametrize("of_encoded", [False, True])
def test_a_checksum_may_be_of_the_encoded_body_or_of_the_file(tmp_path: Path, erp: Erp, of_encoded: bool) -> None:
    packed = gzip.compress(CONTENT)
    value = hashlib.sha256(packed if of_encoded else CONTENT).hexdigest()
    headers = {"Content-Encoding": "gzip", "X-Checksum-Sha256": value}
    erp.answers["/o.csv"] = Answer(body=packed, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.read_bytes() == CONTENT


@pytest.mark.parametrize("value", ["", "not base64!", "sha-256=:AAAA:", "crc32c=AAAAAA=="])
def test_a_checksum_that_can_t_be_read_is_no_evidence(tmp_path: Path, erp: Erp, value: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Digest": value, "Content-MD5": value})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


# --- redirects ----------------------------------------------------------------------------------------------------


def _redirect(where: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": where})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host_is_followed_with_credentials(tmp_path: Path, erp: Erp, status: int) -> None:
    erp.answers["/o.csv"] = _redirect("/real/o.csv", status)
    erp.answers["/real/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
    assert [asked.headers.get("authorization") for asked in erp.asked] == [f"Bearer {CANARY}"] * 2


def test_a_redirect_to_another_host_is_followed_without_credentials_and_they_never_come_back(
    tmp_path: Path, erp: Erp
) -> None:
    with running_erp(host="127.0.0.2") as other:
        erp.answers["/o.csv"] = _redirect(f"{other.url}/o.csv")
        other.answers["/o.csv"] = _redirect("/next.csv")
        other.answers["/next.csv"] = _redirect(f"{erp.url}/final.csv")
        erp.answers["/final.csv"] = Answer(body=CONTENT)
        request = request_of(
            tmp_path,
            f"{erp.url}/o.csv",
            ARCHISYNC_HTTP_TOKEN=CANARY,
            ARCHISYNC_HTTP_HEADERS=f'{{"X-Api-Key": "{CANARY}"}}',
        )
        assert fetched(request).size_bytes == len(CONTENT)
        assert len(other.asked) == 2
        assert CANARY not in str(other.asked)
        assert [CANARY in str(asked.headers) for asked in erp.asked] == [True, False]


def test_another_port_is_another_host(tmp_path: Path, erp: Erp) -> None:
    with running_erp() as other:
        erp.answers["/o.csv"] = _redirect(f"{other.url}/o.csv")
        other.answers["/o.csv"] = Answer(body=CONTENT)
        fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
        assert "authorization" not in other.asked[0].headers


def test_five_redirects_are_followed_and_six_are_not(tmp_path: Path, erp: Erp) -> None:
    for number in range(6):
        erp.answers[f"/{number}"] = _redirect(f"/{number + 1}")
    erp.answers["/6"] = Answer(body=CONTENT)
    assert fetched(request_of(tmp_path, f"{erp.url}/1")).size_bytes == len(CONTENT)
    with pytest.raises(SourceError) as caught:
        sources.fetch(request_of(tmp_path, f"{erp.url}/0"))
    assert caught.value.message == f"{erp.url}/6 is redirected more than 5 times"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ftp://127.0.0.1/o.csv", "is redirected to nowhere that http can reach"),
        ("http://user:secret@127.0.0.1/o.csv", "is redirected to an address with credentials in it"),
        ("http://[::1/o.csv", "is redirected to something that is no address"),
    ],
)
def test_a_redirect_that_leads_astray_is_refused(tmp_path: Path, erp: Erp, where: str, message: str) -> None:
    erp.answers["/o.csv"] = _redirect(where)
    assert refused(request_of(tmp_path, f"{erp.url}/o.csv")).message == f"{erp.url}/o.csv {message}"


def test_a_redirect_without_a_location_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(status=302)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert error.message == f"{erp.url}/o.csv is redirected to nowhere that http can reach"


def test_a_redirect_to_a_private_address_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = _redirect("http://169.254.169.254/latest/meta-data/")
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is SourceError
    assert (
        error.message
        == "169.254.169.254 has the address 169.254.169.254, which is not public and not in ARCHISYNC_HTTP_ALLOW_PRIVATE"
    )


# --- what an answer means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "reason", "told"),
    [
        (401, AuthenticationError, "authentication", "401 Unauthorized"),
        (403, AuthenticationError, "authentication", "403 Forbidden"),
        (404, NoExportError, "no-export", "404 Not Found"),
        (410, NoExportError, "no-export", "410 Gone"),
        (400, SourceError, "source-refused", "400 Bad Request"),
        (204, SourceError, "source-refused", "204 No Content"),
        (429, TransientSourceError, "source-unavailable", "429 Too Many Requests"),
        (500, TransientSourceError, "source-unavailable", "500 Internal Server Error"),
        (503, TransientSourceError, "source-unavailable", "503 Service Unavailable"),
        (599, TransientSourceError, "source-unavailable", "599"),
    ],
)
def test_every_status_has_its_reaction(
    tmp_path: Path, erp: Erp, status: int, kind: type[SyncError], reason: str, told: str
) -> None:
    erp.answers["/o.csv"] = Answer(status=status)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.reason, error.message) == (kind, reason, f"{erp.url}/o.csv answers {told}")


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("999999", 3600.0), ("soon", None), ("-1", None), ("", None)]
)
def test_the_wait_that_a_busy_server_asks_for_is_kept_within_bounds(
    tmp_path: Path, erp: Erp, value: str, seconds: float | None
) -> None:
    erp.answers["/o.csv"] = Answer(status=503, headers={"Retry-After": value})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert isinstance(error, TransientSourceError)
    assert error.retry_after_s == seconds


def test_the_wait_may_be_a_date(tmp_path: Path, erp: Erp) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    erp.answers["/o.csv"] = Answer(status=429, headers={"Retry-After": when})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert isinstance(error, TransientSourceError)
    assert error.retry_after_s is not None
    assert 590 < error.retry_after_s <= 600
    erp.answers["/o.csv"] = Answer(status=429, headers={"Retry-After": "Sat, 03 Jan 2026 10:00:00 GMT"})
    past = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert isinstance(past, TransientSourceError)
    assert past.retry_after_s == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=CONTENT, headers={"Content-Type": "text/html; charset=utf-8"}),
        Answer(body=b"<!DOCTYPE html><form>", headers={"Content-Type": "text/csv"}),
        Answer(body=b"\xef\xbb\xbf \n<html lang=it>", headers={"Content-Type": "application/octet-stream"}),
        Answer(body=gzip.compress(b"<html><form>"), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_an_html_page_in_place_of_an_export_is_an_authentication_error(
    tmp_path: Path, erp: Erp, answer: Answer
) -> None:
    erp.answers["/o.csv"] = answer
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (
        AuthenticationError,
        f"{erp.url}/o.csv answers with an HTML page, probably a login page",
    )


@pytest.mark.parametrize(
    "path", ["/login", "/auth/sign-in?next=%2Fo.csv", "/Account/LogOn", "/sso/", "/oauth2/authorize"]
)
def test_a_redirect_to_a_login_page_is_an_authentication_error(tmp_path: Path, erp: Erp, path: str) -> None:
    erp.answers["/o.csv"] = _redirect(path)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is AuthenticationError
    shown = erp.url + path.partition("?")[0]
    assert error.message == f"{erp.url}/o.csv is redirected to a login page, {shown}"


def test_a_path_that_only_contains_such_letters_is_no_login_page(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = _redirect("/catalogin/cassowary.csv")
    erp.answers["/catalogin/cassowary.csv"] = Answer(body=CONTENT)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


# --- faults of the connection -------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_transient(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/o.csv"
        error = refused(request_of(tmp_path, url))
    assert (type(error), error.message) == (TransientSourceError, f"{url} can't be reached: Connection refused")


def test_a_connection_that_is_reset_in_the_middle_is_transient(tmp_path: Path, erp: Erp) -> None:
    def cut(handler: Handler) -> None:
        handler.answer(Answer(body=CONTENT, length=10**6), {})
        handler.reset()

    erp.answers["/o.csv"] = cut
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TransientSourceError
    assert error.message == f"{erp.url}/o.csv can't be reached: Connection reset by peer"


def test_a_server_that_hangs_up_without_an_answer_is_transient(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = lambda handler: None
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (TransientSourceError, f"{erp.url}/o.csv hung up without an answer")


@pytest.mark.parametrize("begun", [False, True])
def test_a_server_that_trickles_meets_the_limit_of_the_whole_download(tmp_path: Path, erp: Erp, begun: bool) -> None:
    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99999\r\n\r\n" if begun else b""))
        while not erp.released.wait(0.02):
            handler.wfile.write(b"x" if begun else b"X-Slow: 1\r\n")

    erp.answers["/o.csv"] = trickle
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert (type(error), error.message) == (TransientSourceError, f"{erp.url}/o.csv took too long to answer")


@pytest.mark.parametrize("encoded", [False, True])
def test_an_export_above_the_limit_is_refused(tmp_path: Path, erp: Erp, encoded: bool) -> None:
    content = bytes(3_000_000)
    body = gzip.compress(content) if encoded else content
    erp.answers["/o.csv"] = Answer(body=body, headers={"Content-Encoding": "gzip"} if encoded else {})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", max_bytes=1_000_000))
    assert (type(error), error.message) == (
        ExportError,
        f"{erp.url}/o.csv has more than 1000000 bytes (decompressed)",
    )


def test_a_body_without_end_is_cut_off_at_the_limit(tmp_path: Path, erp: Erp) -> None:
    def endless(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n")
        while not erp.released.is_set():
            handler.wfile.write(b"x" * 65536)

    erp.answers["/o.csv"] = endless
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is ExportError


# --- addresses ----------------------------------------------------------------------------------------------------

SPELLINGS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "localhost", "0", "0.0.0.0"]  # noqa: S104
SPELLINGS += ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]
SPELLINGS += ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fc00::1]"]
SPELLINGS += ["224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "[ff02::1]", "[::]"]


@pytest.mark.parametrize("host", SPELLINGS)
def test_an_address_that_is_not_public_is_refused_however_it_is_spelled(tmp_path: Path, host: str) -> None:
    request = request_of(tmp_path, f"http://{host}:9/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE="")
    error = refused(request)
    assert type(error) is SourceError
    assert error.message.endswith("which is not public and not in ARCHISYNC_HTTP_ALLOW_PRIVATE")
    assert error.hint.startswith("if it is your ERP: export ARCHISYNC_HTTP_ALLOW_PRIVATE=")


@pytest.mark.parametrize(
    "allow", ["127.0.0.1", "127.0.0.0/8", "yes", "erp.example 127.0.0.1", "10.0.0.0/8,127.0.0.1/32"]
)
def test_an_allowed_address_is_fetched_from(tmp_path: Path, erp: Erp, allow: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    for host in ("127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"):
        request = request_of(tmp_path, f"http://{host}:{erp.port}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allow)
        assert fetched(request).size_bytes == len(CONTENT)


def test_an_allowed_name_is_fetched_from_but_not_its_address_under_another_name(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    named = request_of(tmp_path, f"http://LocalHost:{erp.port}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE="localhost")
    assert fetched(named).size_bytes == len(CONTENT)
    named_path = named.spool_dir
    for left in named_path.iterdir():
        left.unlink()
    other = request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE="localhost")
    assert type(refused(other)) is SourceError


def test_a_name_whose_address_changes_after_the_check_still_meets_the_checked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name resolves to the allowed 127.0.0.2 once; whoever asked again would be sent to 127.0.0.1."""
    answers = iter(["127.0.0.2"])
    real = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers, "127.0.0.1") if host == "erp.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with running_erp(host="127.0.0.2") as good, running_erp(host="127.0.0.1", port=good.port) as bad:
        good.answers["/o.csv"] = Answer(body=CONTENT)
        bad.answers["/o.csv"] = Answer(body=b"stolen")
        url = f"http://erp.test:{good.port}/o.csv"
        export = fetched(request_of(tmp_path, url, ARCHISYNC_HTTP_ALLOW_PRIVATE="127.0.0.2"))
        assert export.path.read_bytes() == CONTENT
        assert bad.asked == []
        assert good.asked[0].headers["host"] == f"erp.test:{good.port}"


def test_a_name_with_a_public_and_a_private_address_never_leads_to_the_private_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from archisync.sources.addresses import Allowed, GuardedBackend, resolve

    real = socket.getaddrinfo

    def both(host: Any, *args: Any, **kwargs: Any) -> Any:
        names = ["127.0.0.1", "93.184.215.14"] if host == "erp.test" else [host]
        return [found for name in names for found in real(name, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    backend = GuardedBackend(Allowed(), deadline=0)
    assert [str(a) for a in backend._permitted("erp.test", resolve("erp.test", 80))] == ["93.184.215.14"]


def test_a_name_that_nobody_knows_is_transient(tmp_path: Path) -> None:
    error = refused(request_of(tmp_path, "http://no-such-host.invalid/o.csv"))
    assert type(error) is TransientSourceError
    assert error.message.startswith("the name no-such-host.invalid can't be resolved: ")
    assert error.hint == "getent hosts no-such-host.invalid"


# --- names of formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "suffix"),
    [
        ("/o.jsonl", {}, ".jsonl"),
        ("/o.CSV.gz", {}, ".csv"),
        ("/export.php", {"Content-Type": "text/csv; charset=utf-8"}, ".csv"),
        ("/export.php", {"Content-Type": "application/x-ndjson"}, ".jsonl"),
        ("/export", {"Content-Disposition": 'attachment; filename="Ordini.Tsv"'}, ".tsv"),
        ("/o.csv", {"Content-Disposition": "attachment; filename*=UTF-8''ordini%20e%20pi%C3%B9.jsonl.gz"}, ".jsonl"),
        ("/export.php", {"Content-Type": "application/octet-stream"}, ""),
        ("/export", {}, ""),
    ],
)
def test_the_format_is_known_from_the_name_the_address_or_the_type(
    tmp_path: Path, erp: Erp, path: str, headers: dict[str, str], suffix: str
) -> None:
    erp.answers[path] = Answer(body=CONTENT, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}{path}")).suffix == suffix


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
def test_an_address_that_can_t_work_is_a_configuration_error(tmp_path: Path, template: str, message: str) -> None:
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
        ({"ALLOW_PRIVATE": "yes,no"}, "ARCHISYNC_HTTP_ALLOW_PRIVATE has 'yes', which is no host, address or CIDR"),
        ({"CERT": "/no/such.pem"}, "the client certificate can't be used: No such file or directory"),
        ({"CA": "/no/such.pem"}, "the authorities' file can't be used: No such file or directory"),
    ],
)
def test_settings_that_contradict_each_other_are_found_before_anything_is_fetched(
    variables: dict[str, str], message: str
) -> None:
    config = Config.from_environment({f"ARCHISYNC_HTTP_{name}": value for name, value in variables.items()})
    with pytest.raises(ConfigurationError) as caught:
        check_template("https://erp.example/{agent}/{type}.csv", config)
    assert caught.value.message == message
    assert CANARY not in caught.value.message + caught.value.hint


def test_without_the_extra_an_http_source_says_what_to_install() -> None:
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
        _redirect("/login?key=" + CANARY),
        _redirect("/o.csv?key=" + CANARY),
        _redirect("ftp://" + CANARY),
        _redirect(f"http://127.0.0.9:9/?key={CANARY}"),
        Answer(body=CONTENT, headers={"Content-MD5": _b64("md5", b"x")}),
    ],
)
def test_no_credential_is_ever_shown(
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
