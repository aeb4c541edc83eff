"""Clients that dawdle hold nothing but their own sockets, and not for long. Each waits for the panel's own limit: 10 s."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from time import monotonic

import pytest

from archisync.web.calls import BODY_S
from archisync.web.server import HEADERS_S, listen
from tests.support.panel import TOKEN, Panel

HEAD = f"POST /api/v1/pauses HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


def opened(stack: ExitStack, port: int, text: str) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    connection.sendall(text.encode())
    return connection


def test_an_answer_is_sent_at_once_and_not_when_its_first_part_is_acknowledged() -> None:
    """A client may take 40 ms for that, with each request."""

    async def without_delay(listening: socket.socket) -> int:
        accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer)

        async with await asyncio.start_server(take, sock=listening):
            _, ours = await asyncio.open_connection(*listening.getsockname())
            theirs = await accepted
            found: int = theirs.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for writer in (ours, theirs):
                writer.close()
                await writer.wait_closed()
            return found

    assert asyncio.run(without_delay(listen("127.0.0.1", 0))) != 0


@pytest.mark.slow
def test_clients_that_dawdle_are_dropped_and_others_are_answered_meanwhile(running: Panel) -> None:
    begun = monotonic()
    with ExitStack() as stack, running.client() as client:
        silent = [opened(stack, running.port, "") for _ in range(50)]
        half = [opened(stack, running.port, HEAD) for _ in range(50)]
        bodies = [opened(stack, running.port, f"{HEAD}Content-Length: 1000\r\n\r\n{{") for _ in range(50)]
        assert client.get("/api/v1/me").status_code == 200
        assert monotonic() - begun < min(HEADERS_S, BODY_S)  # none of them has been dropped yet
        assert {connection.recv(1000) for connection in (*silent, *half)} == {b""}
        answers = {connection.recv(1000).split(b"\r\n")[0] for connection in bodies}
        assert answers == {b"HTTP/1.1 408 Request Timeout"}
        assert client.get("/api/v1/me").status_code == 200
