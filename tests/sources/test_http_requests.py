"""What the HTTP source sends, against a real server: credentials, validators, and both again after a redirect."""

import base64
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import (
    SourceError,
)
from archisync.sources import Export, Unchanged
from tests.support.erp import Answer, Erp, redirect, running_erp
from tests.support.fetching import CANARY, CONTENT, fetched, refused, request_of

# --- credentials and headers --------------------------------------------------------------------------------------


def test_token_is_sent_as_bearer(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
    assert erp.asked[0].headers["authorization"] == f"Bearer {CANARY}"


def test_user_and_password_are_sent_as_basic(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_USER="erp", ARCHISYNC_HTTP_PASSWORD="pà:ss"))
    scheme, _, value = erp.asked[0].headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(value).decode()) == ("Basic", "erp:pà:ss")


def test_further_headers_are_sent(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_HEADERS=f'{{"X-Api-Key": "{CANARY}"}}'))
    assert erp.asked[0].headers["x-api-key"] == CANARY


def test_type_with_a_credential_of_its_own_gets_none_of_the_common_ones(tmp_path: Path, erp: Erp) -> None:
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


def test_proxy_from_the_environment_is_not_used(tmp_path: Path, erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    erp.answers["/o.csv"] = Answer(body=CONTENT)
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).size_bytes == len(CONTENT)


# --- validators ---------------------------------------------------------------------------------------------------


def test_etag_comes_back_with_the_next_request_and_an_unchanged_export_is_not_sent(tmp_path: Path, erp: Erp) -> None:
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


def test_modification_time_comes_back_with_the_next_request(tmp_path: Path, erp: Erp) -> None:
    headers = _dated(timedelta(hours=1))
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers=headers)
    first = fetched(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert first.written_at == parsedate_to_datetime(headers["Last-Modified"]).timestamp()
    erp.answers["/o.csv"] = Answer(status=304)
    again = sources.fetch(request_of(tmp_path, f"{erp.url}/o.csv", validators=dict(first.validators)))
    assert isinstance(again, Unchanged)
    assert erp.asked[1].headers["if-modified-since"] == headers["Last-Modified"]


def test_modification_time_of_the_last_minute_is_not_used(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers=_dated(timedelta(seconds=5)))
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).validators == {}


def test_validators_of_another_address_are_not_sent(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/a.csv"] = erp.answers["/b.csv"] = Answer(body=CONTENT, etag='"same"')
    first = fetched(request_of(tmp_path, f"{erp.url}/a.csv"))
    assert isinstance(
        sources.fetch(request_of(tmp_path, f"{erp.url}/b.csv", validators=dict(first.validators))), Export
    )
    assert "if-none-match" not in erp.asked[1].headers


def test_target_of_a_redirect_is_asked_with_its_own_validators_only(tmp_path: Path, erp: Erp) -> None:
    """`/latest` leads to another document each day, which may have the same ETag."""
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


def test_304_without_conditions_in_the_request_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(status=304)
    assert refused(request_of(tmp_path, f"{erp.url}/o.csv")).message == f"{erp.url}/o.csv answers 304 Not Modified"


@pytest.mark.parametrize("etag", ['"' + "x" * 1001 + '"', '"caffè"'])
def test_etag_that_can_not_be_sent_back_is_not_kept(tmp_path: Path, erp: Erp, etag: str) -> None:
    erp.answers["/o.csv"] = Answer(body=CONTENT, headers={"ETag": etag})
    assert fetched(request_of(tmp_path, f"{erp.url}/o.csv")).validators == {}


# --- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_on_the_same_host_is_followed_with_credentials(tmp_path: Path, erp: Erp, status: int) -> None:
    erp.answers["/o.csv"] = redirect("/real/o.csv", status)
    erp.answers["/real/o.csv"] = Answer(body=CONTENT)
    fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
    assert [asked.headers.get("authorization") for asked in erp.asked] == [f"Bearer {CANARY}"] * 2


def test_redirect_to_another_host_drops_the_credentials_for_good(tmp_path: Path, erp: Erp) -> None:
    with running_erp(host="127.0.0.2") as other:
        erp.answers["/o.csv"] = redirect(f"{other.url}/o.csv")
        other.answers["/o.csv"] = redirect("/next.csv")
        other.answers["/next.csv"] = redirect(f"{erp.url}/final.csv")
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
        erp.answers["/o.csv"] = redirect(f"{other.url}/o.csv")
        other.answers["/o.csv"] = Answer(body=CONTENT)
        fetched(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_TOKEN=CANARY))
        assert "authorization" not in other.asked[0].headers


def test_five_redirects_are_followed_and_a_sixth_is_refused(tmp_path: Path, erp: Erp) -> None:
    for number in range(6):
        erp.answers[f"/{number}"] = redirect(f"/{number + 1}")
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
def test_redirect_to_something_else_than_a_plain_http_address_is_refused(
    tmp_path: Path, erp: Erp, where: str, message: str
) -> None:
    erp.answers["/o.csv"] = redirect(where)
    assert refused(request_of(tmp_path, f"{erp.url}/o.csv")).message == f"{erp.url}/o.csv {message}"


def test_redirect_without_a_location_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = Answer(status=302)
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert error.message == f"{erp.url}/o.csv is redirected to nowhere that http can reach"


def test_redirect_to_a_private_address_is_refused(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = redirect("http://169.254.169.254/latest/meta-data/")
    error = refused(request_of(tmp_path, f"{erp.url}/o.csv"))
    assert type(error) is SourceError
    assert error.message == (
        "the ERP redirects elsewhere: 169.254.169.254 has the address 169.254.169.254, which is not public, "
        "and ARCHISYNC_HTTP_ALLOW_PRIVATE does not allow its port 80"
    )
    assert error.hint == "ask who runs the ERP why it leads there", "nobody is told to allow it"


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:{other}/x", "http://localhost:{other}/x", "http://2130706433:{other}/x"]
)
def test_redirect_to_another_port_of_an_allowed_host_is_refused(tmp_path: Path, where: str) -> None:
    """A database's console on the ERP's host, say."""
    with running_erp() as erp, running_erp() as other:
        allowed = f"127.0.0.1:{erp.port},localhost:{erp.port}"
        erp.answers["/o.csv"] = redirect(where.format(other=other.port))
        error = refused(request_of(tmp_path, f"{erp.url}/o.csv", ARCHISYNC_HTTP_ALLOW_PRIVATE=allowed))
        assert error.message.endswith(f"ARCHISYNC_HTTP_ALLOW_PRIVATE does not allow its port {other.port}")
        assert error.hint == "ask who runs the ERP why it leads there"
        assert other.asked == []


def test_address_of_a_redirect_is_quoted_in_a_command_to_type(tmp_path: Path, erp: Erp) -> None:
    erp.answers["/o.csv"] = redirect("/x;$(id)")
    erp.answers["/x;$(id)"] = redirect("ftp://127.0.0.1/o.csv")
    assert refused(request_of(tmp_path, f"{erp.url}/o.csv")).hint == f"curl -I '{erp.url}/x;$(id)'"
