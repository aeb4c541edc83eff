"""What the HTTP source makes of a real server's answer: an export, or an error with the right reaction."""

import base64
import gzip
import hashlib
import re
import socket
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import (
    AuthenticationError,
    ExportError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
    TruncatedError,
    UsageError,
)
from tests.support.erp import Answer, Erp, Handler, redirect
from tests.support.fetching import CONTENT, fetched, refused, request_of


def test_export_is_fetched_completely_and_hashed(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/agent-1/orders.csv"] = Answer(body=CONTENT)
    export = fetched(request_of(tmp_path, f"{erp.url}/{{agent}}/{{type}}.csv"))
    assert export.path.read_bytes() == CONTENT
    assert (export.size_bytes, export.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (export.origin, export.suffix) == (f"{erp.url}/agent-1/orders.csv", ".csv")


def test_agent_is_percent_encoded_in_path_and_query(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/x/a%2Bb%40c.csv?who=a%2Bb%40c"] = Answer(body=CONTENT)
    template = f"{erp.url}/x/{{agent}}.csv?who={{agent}}"
    assert fetched(request_of(tmp_path, template, agent_id="a+b@c")).size_bytes == len(CONTENT)
    with pytest.raises(UsageError):
        sources.fetch(request_of(tmp_path, template, agent_id="../../admin"))


# --- completeness -------------------------------------------------------------------------------------------------


def test_body_shorter_than_its_content_length_is_truncated(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, length=len(CONTENT) + 1)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TruncatedError
    assert error.message == f"{erp.url}/o.csv: the body ended before it was complete"


def test_chunked_body_without_its_last_chunk_is_truncated(tmp_path: Path, erp: Erp) -> None:
    body = f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n"
    erp.answers["/o.csv"] = Answer(body=body, headers={"Transfer-Encoding": "chunked"})
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is TruncatedError
    erp.answers["/o.csv"] = Answer(body=body + b"0\r\n\r\n", headers={"Transfer-Encoding": "chunked"})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


def test_encoded_body_is_decoded_and_truncated_when_cut_at_any_byte(tmp_path: Path, erp: Erp) -> None:
    packed, headers = gzip.compress(CONTENT), {"Content-Encoding": "gzip"}
    erp.answers["/o.csv"] = Answer(body=packed, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.read_bytes() == CONTENT
    for length in range(1, len(packed)):
        erp.answers["/o.csv"] = Answer(body=packed[:length], headers=headers)
        with pytest.raises(TruncatedError, match="the gzip data is truncated or damaged"):
            sources.fetch(request_of(tmp_path, f"{erp.url}/o.csv"))


def test_body_without_its_announced_encoding_is_truncated(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Content-Encoding": "gzip"})
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is TruncatedError


def test_identity_is_no_encoding(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Content-Encoding": "identity"})
    erp.answers["/p.csv"] = Answer(body=gzip.compress(CONTENT), headers={"Content-Encoding": "gzip, identity"})
    for name in ("o", "p"):
        assert fetched(request_of(tmp_path, f"{erp.url}/{name}.csv")).path.read_bytes() == CONTENT


def test_encoding_that_was_not_asked_for_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=zlib.compress(CONTENT), headers={"Content-Encoding": "deflate"})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (
        SourceError,
        f"{erp.url}/o.csv answers in the encoding deflate, which was not asked for",
    )
    assert erp.asked[0].headers["accept-encoding"] == "gzip, identity;q=0.5"


def test_gzipped_file_is_unpacked_with_and_without_a_content_encoding(tmp_path: Path, erp: Erp) -> None:
    packed = gzip.compress(CONTENT)
    erp.answers["/o.csv.gz"] = Answer(body=packed)
    erp.answers["/p.csv.gz"] = Answer(body=gzip.compress(packed), headers={"Content-Encoding": "gzip"})
    for name in ("o", "p"):
        export = fetched(request_of(tmp_path, f"{erp.url}/{name}.csv.gz"))
        assert (export.path.read_bytes(), export.suffix) == (CONTENT, ".csv")


def checksums_of(content: bytes) -> dict[str, str]:
    """The headers that announce a checksum of the content. In `Digest` the first one is right in any case."""

    def base64_of(algorithm: str, data: bytes = content) -> str:
        return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()

    return {
        "Content-MD5": base64_of("md5"),
        "Digest": f"SHA-256={base64_of('sha256', CONTENT)},MD5={base64_of('md5')}",
        "Repr-Digest": f"sha-512=:{base64_of('sha512')}:",
        "Content-Digest": f"sha-256=:{base64_of('sha256')}:",
        "X-Checksum-Sha256": hashlib.sha256(content).hexdigest(),
    }


RIGHT, WRONG = checksums_of(CONTENT), checksums_of(b"other")


@pytest.mark.parametrize("header", list(RIGHT))
def test_export_without_the_announced_checksum_is_truncated(tmp_path: Path, erp: Erp, header: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={header: RIGHT[header]})
    export = fetched(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert export.path.read_bytes() == CONTENT
    export.path.unlink()
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={header: WRONG[header]})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TruncatedError
    assert error.message == f"{erp.url}/o.csv: what arrived does not have the checksum that {header} announces"


@pytest.mark.parametrize("of_encoded", [False, True])
def test_checksum_may_be_of_the_encoded_body_or_of_the_file(tmp_path: Path, erp: Erp, of_encoded: bool) -> None:
    packed = gzip.compress(CONTENT)
    value = hashlib.sha256(packed if of_encoded else CONTENT).hexdigest()
    headers = {"Content-Encoding": "gzip", "X-Checksum-Sha256": value}
    erp.answers["/o.csv"] = Answer(body=packed, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).path.read_bytes() == CONTENT


@pytest.mark.parametrize("value", ["", "not base64!", "sha-256=:AAAA:", "crc32c=AAAAAA=="])
def test_checksum_that_can_not_be_read_is_ignored(tmp_path: Path, erp: Erp, value: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"Digest": value, "Content-MD5": value})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


def test_bomb_in_a_content_encoding_is_stopped_early(tmp_path: Path, erp: Erp) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    erp.answers["/o.csv"] = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", max_bytes=10**9))
    assert re.fullmatch(r".*/o.csv unpacks to more than 6\d{7} bytes, 200 times its size", error.message)


# --- what an answer means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error_class", "reason", "phrase"),
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
    tmp_path: Path, erp: Erp, status: int, error_class: type[SyncError], reason: str, phrase: str
) -> None:
    erp.answers["/o.csv"] = Answer(status=status)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.reason, error.message) == (error_class, reason, f"{erp.url}/o.csv answers {phrase}")


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("999999", 3600.0), ("soon", None), ("-1", None), ("", None)]
)
def test_wait_that_a_busy_server_asks_for_has_a_limit(
    tmp_path: Path, erp: Erp, value: str, seconds: float | None
) -> None:
    erp.answers["/o.csv"] = Answer(status=503, headers={"Retry-After": value})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert isinstance(error, TransientSourceError)
    assert error.retry_after_s == seconds


def test_wait_may_be_a_date(tmp_path: Path, erp: Erp) -> None:
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
def test_html_page_instead_of_an_export_is_an_authentication_error(tmp_path: Path, erp: Erp, answer: Answer) -> None:
    erp.answers["/o.csv"] = answer
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (
        AuthenticationError,
        f"{erp.url}/o.csv answers with an HTML page, probably a login page",
    )


@pytest.mark.parametrize(
    "path", ["/login", "/auth/sign-in?next=%2Fo.csv", "/Account/LogOn", "/sso/", "/oauth2/authorize"]
)
def test_redirect_to_a_login_page_is_an_authentication_error(tmp_path: Path, erp: Erp, path: str) -> None:
    erp.answers["/o.csv"] = redirect(path)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is AuthenticationError
    shown = erp.url + path.partition("?")[0]
    assert error.message == f"{erp.url}/o.csv is redirected to a login page, {shown}"


def test_path_that_only_contains_the_letters_of_login_is_no_login_page(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = redirect("/catalogin/cassowary.csv")
    erp.answers["/catalogin/cassowary.csv"] = Answer(body=CONTENT)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


# --- faults of the connection -------------------------------------------------------------------------------------


def test_missing_server_is_transient(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/o.csv"
        error = refused(request_of(tmp_path, url))
    assert (type(error), error.message) == (TransientSourceError, f"{url} can't be reached: Connection refused")


def test_connection_that_is_reset_in_the_middle_is_transient(tmp_path: Path, erp: Erp) -> None:
    def cut(handler: Handler) -> None:
        handler.answer(Answer(body=CONTENT, length=10**6), {})
        handler.reset()

    erp.answers["/o.csv"] = cut
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is TransientSourceError
    assert error.message == f"{erp.url}/o.csv can't be reached: Connection reset by peer"


def test_server_that_hangs_up_without_an_answer_is_transient(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = lambda handler: None
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert (type(error), error.message) == (TransientSourceError, f"{erp.url}/o.csv hung up without an answer")


@pytest.mark.parametrize("in_body", [False, True])
def test_slow_server_meets_the_time_limit_of_the_whole_download(tmp_path: Path, erp: Erp, in_body: bool) -> None:
    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99999\r\n\r\n" if in_body else b""))
        while not erp.released.wait(0.02):
            handler.wfile.write(b"x" if in_body else b"X-Slow: 1\r\n")

    erp.answers["/o.csv"] = trickle
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert (type(error), error.message) == (TransientSourceError, f"{erp.url}/o.csv took too long to answer")


@pytest.mark.parametrize("encoded", [False, True])
def test_export_above_the_limit_is_refused(tmp_path: Path, erp: Erp, encoded: bool) -> None:
    content = bytes(3_000_000)
    body = gzip.compress(content) if encoded else content
    erp.answers["/o.csv"] = Answer(body=body, headers={"Content-Encoding": "gzip"} if encoded else {})
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv", max_bytes=1_000_000))
    assert (type(error), error.message) == (
        ExportError,
        f"{erp.url}/o.csv has more than 1000000 bytes (decompressed)",
    )


def test_endless_body_is_cut_off_at_the_limit(tmp_path: Path, erp: Erp) -> None:
    def endless(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n")
        while not erp.released.is_set():
            handler.wfile.write(b"x" * 65536)

    erp.answers["/o.csv"] = endless
    assert type(refused(request_of(tmp_path, f"{erp.url}/o.csv"))) is ExportError


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
def test_format_is_known_from_the_file_name_the_address_or_the_media_type(
    tmp_path: Path, erp: Erp, path: str, headers: dict[str, str], suffix: str
) -> None:
    erp.answers[path] = Answer(body=CONTENT, headers=headers)
    assert fetched(request_of(tmp_path, f"{erp.url}{path}")).suffix == suffix
