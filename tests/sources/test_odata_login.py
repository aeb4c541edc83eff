"""OData: OAuth 2.0 client credentials, whose token may end between two pages, and what must not be shown of them."""

from pathlib import Path

import pytest

from archisync.base.errors import AuthenticationError, ConfigurationError, SourceError, TransientSourceError
from archisync.sources import check_template
from tests.support.fetching import CANARY, refused
from tests.support.odata import (
    ROWS,
    SCOPE,
    Handler,
    Service,
    orders_request,
    rows_of,
    short,
    with_client,
)


def test_a_token_is_asked_for_once_and_used_for_all_pages(tmp_path: Path, service: Service) -> None:
    settings = with_client(service)
    for _ in range(2):
        assert rows_of(orders_request(tmp_path, service, settings=settings)) == short(ROWS)
    assert len(service.tokens) == 1
    assert service.token_asked == [{"grant_type": ["client_credentials"], "scope": [SCOPE]}], (
        "the secret is in the header"
    )


def test_a_token_that_expires_between_two_pages_is_renewed(tmp_path: Path, service: Service) -> None:
    settings = with_client(service)
    service.token_requests = 2
    assert rows_of(orders_request(tmp_path, service, settings=settings)) == short(ROWS)
    assert len(service.tokens) == 2


def test_a_new_token_that_is_refused_is_an_error(tmp_path: Path, service: Service) -> None:
    settings = with_client(service)
    service.token_requests = 0
    assert type(refused(orders_request(tmp_path, service, settings=settings))) is AuthenticationError
    assert len(service.tokens) == 1


def test_a_server_that_reads_the_secret_in_the_body_only_gets_it_there(tmp_path: Path, service: Service) -> None:
    settings = with_client(service)
    service.basic_only = False
    assert len(rows_of(orders_request(tmp_path, service, settings=settings))) == 8
    assert [set(form) for form in service.token_asked] == [
        {"grant_type", "scope"},
        {"grant_type", "scope", "client_id", "client_secret"},
    ]


def test_what_is_wrong_with_the_login_is_said_without_the_secret(tmp_path: Path, service: Service) -> None:
    settings = with_client(service)
    service.secret = "another"
    error = refused(orders_request(tmp_path, service, settings=settings))
    assert (type(error), error.message) == (
        AuthenticationError, f"{service.url}/token gives no token: it answers 401 invalid_client",
    )  # fmt: skip
    assert CANARY not in repr(error) + error.hint


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [(503, {"Retry-After": "5"}, TransientSourceError), (429, {}, TransientSourceError), (404, {}, SourceError),
     (302, {"Location": "https://evil.example/"}, SourceError), (200, {}, AuthenticationError), (403, {}, AuthenticationError)],
)  # fmt: skip
def test_an_answer_without_a_token_is_an_error(
    tmp_path: Path, service: Service, status: int, headers: dict[str, str], kind: type[Exception]
) -> None:
    def answers(handler: Handler, number: int) -> bool:
        handler.answer({"error": "x"}, headers, status=status)
        return True

    settings = with_client(service)
    service.hook = answers
    assert type(refused(orders_request(tmp_path, service, settings=settings))) is kind
    assert service.asked == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ARCHISYNC_HTTP_CLIENT_ID": ""}, "ARCHISYNC_HTTP_CLIENT_ID is not set, and others of its kind are"),
        ({"ARCHISYNC_HTTP_TOKEN": "x"}, "ARCHISYNC_HTTP_TOKEN_URL is set beside a token or user"),
        ({"ARCHISYNC_HTTP_TOKEN_URL": "login.example"}, "ARCHISYNC_HTTP_TOKEN_URL is no address"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, service: Service, more: dict[str, str], message: str
) -> None:
    request = orders_request(tmp_path, service, settings=with_client(service) | more)
    with pytest.raises(ConfigurationError) as wrong:
        check_template(request.template, request.config)
    assert wrong.value.message == message
    assert CANARY not in repr(wrong.value)


def test_an_address_can_not_have_credentials(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="credentials in it"):
        check_template("odata+https://me:secret@erp.example/ODataV4/Customers")
    with pytest.raises(ConfigurationError, match="without a host"):
        check_template("odata+https:///x")
