"""OData: pages, what the service counts, throttling and tokens that expire in between, links that lead away, delta links."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from archisync.base.errors import (
    NoExportError,
    SourceError,
    TransientSourceError,
)
from archisync.sources import Unchanged, fetch
from archisync.sources.conformance import SourceConformance
from archisync.sources.interface import Source
from archisync.sources.odata import ODataSource
from tests.support.fetching import CANARY, fetched, refused, request_of
from tests.support.odata import (
    ROOT,
    ROWS,
    SET,
    Handler,
    Service,
    orders_request,
    rows_of,
    short,
    with_client,
)


class TestODataSource(SourceConformance):
    reads_files = False
    supports_unchanged = True

    @pytest.fixture(autouse=True)
    def _service(self, service: Service) -> None:
        self.service = service
        self.settings = with_client(service)

    def source(self) -> Source:
        return ODataSource()

    def template(self) -> str:
        return f"odata+{self.service.url}{ROOT}/Company('ACME')/{{agent}}-{{type}}"

    def variables(self) -> Mapping[str, str]:
        return self.settings | {"ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.1:*"}

    def secrets(self) -> Iterable[str]:
        return [CANARY]

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        rows = list(csv.DictReader(io.StringIO(content.decode()), delimiter=";"))
        self.service.put(f"Company('ACME')/{agent_id}-{sync_type}", rows)

    def remove(self, agent_id: str, sync_type: str) -> None:
        del self.service.sets[f"Company('ACME')/{agent_id}-{sync_type}"]

    def expected(self, content: bytes) -> bytes:
        rows = csv.DictReader(io.StringIO(content.decode()), delimiter=";")
        return "".join(json.dumps(row) + "\n" for row in rows).encode()


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("page_rows", [1, 3, 7, 8, 9])
def test_all_pages_are_one_export_with_the_fields_of_the_type(
    tmp_path: Path, service: Service, page_rows: int, relative: bool
) -> None:
    service.page_rows, service.relative_links = page_rows, relative
    export = fetched(orders_request(tmp_path, service))
    assert [json.loads(line) for line in export.path.read_text().splitlines()] == short(ROWS)
    assert (export.suffix, export.origin) == (".jsonl", f"{service.url}{ROOT}/{SET}")
    assert export.details == {"pages": -(-8 // page_rows), "rows": 8}
    probe, first, *_ = service.asked
    assert probe == f"{ROOT}/{SET}?$top=1"
    assert first == f"{ROOT}/{SET}?$select=order_id,created_at,total_amount&$count=true"
    assert set(service.preferred) == {"odata.maxpagesize=10000,odata.track-changes"}


def test_options_of_the_address_are_kept(tmp_path: Path, service: Service) -> None:
    service.put(SET, [*ROWS, {**ROWS[0], "order_id": "other", "Agent": "agent-2"}])
    assert len(rows_of(orders_request(tmp_path, service, "?$filter=Agent eq '{agent}'"))) == 8
    assert service.asked[-1].endswith("$skiptoken=6")
    service.asked.clear()
    found = rows_of(orders_request(tmp_path, service, "?$select=order_id,Memo&$count=false"))
    assert found == short([*ROWS, {"order_id": "other", "Memo": "text 0"}], "order_id", "Memo")
    assert service.asked[0] == f"{ROOT}/{SET}?$select=order_id,Memo&$count=false", "nothing is asked first"


def test_labels_are_found_by_the_aliases_of_the_type(tmp_path: Path, service: Service) -> None:
    service.put(SET, [{"No": "1", "Data": "2026-01-02", "Customer": {"Id": 7}, "Nota": "x", "Status": "Open"}])
    aliases = '{"No": "order_id", "Data": "created_at", "Customer.Id": "customer_id", "Status": ""}'
    request = orders_request(tmp_path, service, settings={"ARCHISYNC_ALIASES_ORDERS": aliases})
    assert rows_of(request) == [{"No": "1", "Data": "2026-01-02", "Customer": {"Id": 7}}]


def test_numbers_keep_their_digits(tmp_path: Path, service: Service) -> None:
    row = '{"order_id": 12345678901234567890, "total_amount": 1234567890123.4500, "x": [1.10, {"y": 1E2}], "t": "\\ud800\\n"}'

    def answers(handler: Handler, number: int) -> bool:
        handler.answer(b'{"value": [' + row.encode() + b"]}")
        return True

    service.hook = answers
    text = fetched(orders_request(tmp_path, service, "?$select=x")).path.read_text()
    assert text == row + "\n"


def test_no_row_is_an_export_without_rows(tmp_path: Path, service: Service) -> None:
    service.put(SET, [])
    export = fetched(orders_request(tmp_path, service))
    assert export.suffix == ".csv"
    assert export.path.read_text().startswith("order_id,order_number,customer_id,")
    assert export.path.read_text().count("\n") == 1


# --- what must not be believed ------------------------------------------------------------------------------------


def _on(number: int, change: dict[str, Any]) -> Any:
    """From that request on, entries of the answer are others; what is a function is called with the answer."""

    def hook(handler: Handler, asked: int) -> bool:
        if asked < number:
            return False
        real = handler.answer

        def answer(found: Any, headers: dict[str, str] | None = None, *, status: int = 200) -> None:
            changed = {name: value(found) if callable(value) else value for name, value in change.items()}
            real(found | changed if "value" in found else found, headers, status=status)

        handler.answer = answer  # type: ignore[method-assign]
        return False

    return hook


@pytest.mark.parametrize(
    "link",
    ["https://evil.example/ODataV4/x", "http://127.0.0.2:{port}/x", "http://127.0.0.1:9/x", "//evil.example/x",
     "http://user@127.0.0.1:{port}/x", "file:///etc/passwd", "http://[::1]:{port}/x"],
)  # fmt: skip
def test_a_next_page_elsewhere_is_refused(tmp_path: Path, service: Service, link: str) -> None:
    link = link.format(port=service.url.rpartition(":")[2])
    service.hook = _on(2, {"@odata.nextLink": link})
    error = refused(orders_request(tmp_path, service))
    assert type(error) is SourceError
    assert "names a next page on another host" in error.message
    assert error.hint
    assert len(service.asked) == 2, "nothing more was asked"


def test_a_next_page_that_is_no_address_is_refused(tmp_path: Path, service: Service) -> None:
    service.hook = _on(2, {"@odata.nextLink": "http://[::1"})
    assert "names a next page that is no address" in refused(orders_request(tmp_path, service)).message


@pytest.mark.parametrize("back_to", [0, 3])
def test_pages_that_come_again_are_refused(tmp_path: Path, service: Service, back_to: int) -> None:
    own = f"{ROOT}/{SET}?$select=order_id,created_at,total_amount&$count=true"
    service.hook = _on(4, {"@odata.nextLink": own + (f"&$skiptoken={back_to}" if back_to else "")})
    error = refused(orders_request(tmp_path, service))
    assert type(error) is SourceError
    assert error.message.endswith("names pages without an end")


def test_another_number_of_rows_than_counted_is_tried_again(tmp_path: Path, service: Service) -> None:
    for count in (0, 7, 9):
        service.asked.clear()
        service.hook = _on(2, {"@odata.count": count})
        error = refused(orders_request(tmp_path, service))
        assert type(error) is TransientSourceError
        assert re.search(rf"counts {count} rows?, and 8 came: they changed meanwhile$", error.message)
        assert error.hint.endswith("add $count=false to the address")
    assert len(rows_of(orders_request(tmp_path, service, "?$count=false"))) == 8
    service.counts, service.hook = False, lambda handler, number: False
    assert len(rows_of(orders_request(tmp_path, service))) == 8, "a service that does not count is believed"


def test_rows_that_come_or_go_between_two_pages_are_noticed(tmp_path: Path, service: Service) -> None:
    """With `$skip` inside, as many services page: one row would be missing, another one come twice."""

    def changes(handler: Handler, number: int) -> bool:
        if number == 3:
            service.put(SET, [{**ROWS[0], "order_id": "new"}, *ROWS])
        return False

    service.hook = changes
    error = refused(orders_request(tmp_path, service))
    assert (type(error), error.message.partition(" counts ")[2]) == (
        TransientSourceError, "8 rows on one page and 9 on another: they changed meanwhile",
    )  # fmt: skip
    service.hook = lambda handler, number: False
    assert len(rows_of(orders_request(tmp_path, service))) == 9


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"value": [{"order_id": 1}', b"\xff", b"[" * 100_000, b'{"value": [NaN]}']
)
def test_an_answer_that_is_no_whole_json_is_tried_again(tmp_path: Path, service: Service, body: bytes) -> None:
    def answers(handler: Handler, number: int) -> bool:
        handler.answer(body)
        return True

    service.hook = answers
    error = refused(orders_request(tmp_path, service, "?$select=order_id"))
    assert type(error) is TransientSourceError
    assert "no whole JSON" in error.message


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"value": 1}', b'{"value": [1]}', b'{"d": {"results": []}}', b'{"value": {"order_id": 1}}']
)
def test_an_answer_that_is_no_collection_is_refused(tmp_path: Path, service: Service, body: bytes) -> None:
    def answers(handler: Handler, number: int) -> bool:
        handler.answer(body)
        return True

    service.hook = answers
    error = refused(orders_request(tmp_path, service, "?$select=order_id"))
    assert (type(error), "no collection of OData v4" in error.message) == (SourceError, True)


def test_what_the_service_says_is_shown_without_keys(tmp_path: Path, service: Service) -> None:
    error = refused(orders_request(tmp_path, service, "?$select=Nothing"))
    assert error.message.endswith("answers 400 Bad Request: Could not find a property named 'Nothing'")

    def echoes(handler: Handler, number: int) -> bool:
        handler.fail(400, "BadRequest", f"what is {handler.path}?")
        return True

    service.hook = echoes
    error = refused(orders_request(tmp_path, service, f"?subscription-key={CANARY}"))
    assert "what is " in error.message
    assert CANARY not in error.message + error.hint
    missing = refused(request_of(tmp_path, f"odata+{service.url}{ROOT}/Nothing"))
    assert type(missing) is SourceError


def test_a_set_that_is_not_there_is_no_export(tmp_path: Path, service: Service) -> None:
    error = refused(request_of(tmp_path, f"odata+{service.url}{ROOT}/Nothing"))
    assert type(error) is NoExportError
    assert error.message.endswith("Resource not found for the segment 'Nothing'")


# --- throttling and broken connections ----------------------------------------------------------------------------


def test_a_throttled_page_is_waited_for_and_nothing_is_read_again(tmp_path: Path, service: Service) -> None:
    refused_once: set[str] = set()

    def throttles(handler: Handler, number: int) -> bool:
        if number <= 2 or handler.path in refused_once:
            return False
        refused_once.add(handler.path)
        handler.fail(429, "TooManyRequests", "slow down", {"Retry-After": "0"})
        return True

    service.hook = throttles
    assert rows_of(orders_request(tmp_path, service)) == short(ROWS)
    assert len(service.asked) == 2 + 2 * 2, "the probe, and of three pages two came at the second try"


def test_a_first_page_that_is_throttled_is_left_to_a_later_run(tmp_path: Path, service: Service) -> None:
    def throttles(handler: Handler, number: int) -> bool:
        handler.fail(429, "TooManyRequests", "slow down", {"Retry-After": "77"})
        return True

    service.hook = throttles
    error = refused(orders_request(tmp_path, service))
    assert isinstance(error, TransientSourceError)
    assert error.retry_after_s == 77
    assert len(service.asked) == 1


def test_a_longer_wait_than_the_fetch_has_time_for_is_left_to_a_later_run(tmp_path: Path, service: Service) -> None:
    def throttles(handler: Handler, number: int) -> bool:
        if number < 3:
            return False
        handler.fail(503, "ServerBusy", "later", {"Retry-After": "600"})
        return True

    service.hook = throttles
    error = refused(orders_request(tmp_path, service))
    assert isinstance(error, TransientSourceError)
    assert (error.retry_after_s, len(service.asked)) == (600, 3)


def test_a_page_that_is_cut_is_asked_for_again(tmp_path: Path, service: Service) -> None:
    def cuts(handler: Handler, number: int) -> bool:
        if number != 3:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"value": [')
        handler.close_connection = True
        return True

    service.hook = cuts
    assert rows_of(orders_request(tmp_path, service)) == short(ROWS)
    service.hook = lambda handler, number: cuts(handler, 3)
    (tmp_path / "again").mkdir()
    error = refused(orders_request(tmp_path / "again", service))
    assert type(error) is TransientSourceError, "the first page: of nothing there is a part"


# --- changes ------------------------------------------------------------------------------------------------------


def test_a_service_that_tracks_changes_says_that_there_are_none(tmp_path: Path, service: Service) -> None:
    export = fetched(orders_request(tmp_path, service))
    assert set(export.validators) == {"address", "delta"}
    service.asked.clear()
    assert fetch(orders_request(tmp_path, service, known=export.validators)) == Unchanged(origin=export.origin)
    assert service.asked == [f"{ROOT}/{SET}?$deltatoken=1"]
    service.put(SET, ROWS[:5])
    assert len(rows_of(orders_request(tmp_path, service, known=export.validators))) == 5


@pytest.mark.parametrize("link", ["expired", "https://evil.example/?$deltatoken=1", "", None])
def test_a_delta_link_that_says_nothing_hides_nothing(tmp_path: Path, service: Service, link: str | None) -> None:
    validators = dict(fetched(orders_request(tmp_path, service)).validators)
    if link is None:
        service.tracks_changes = False
        assert fetched(orders_request(tmp_path, service)).validators == {}
        return
    validators["delta"] = f"{ROOT}/{SET}?$deltatoken=expired" if link == "expired" else link
    assert len(rows_of(orders_request(tmp_path, service, known=validators))) == 8
    assert not any("evil" in asked for asked in service.asked)


def test_a_delta_link_is_not_kept_when_it_may_have_a_key(tmp_path: Path, service: Service) -> None:
    assert (
        fetched(
            orders_request(tmp_path, service, f"?subscription-key={CANARY}&$count=false&$select=order_id")
        ).validators
        == {}
    )
