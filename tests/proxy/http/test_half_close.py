"""A client that has ended its side, and one that is gone: the first gets its answer, the second frees its place."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from knative_sponge.proxy.http.client_gone import Departure
from tests.proxy.harness import Script, answering, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import LOCAL, Client, Wire, body_of, client

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def slow(go: asyncio.Event, first: bytes = b"", rest: bytes = ok(b"late")) -> tuple[Script, list[Wire]]:
    """Answer `first` at once and `rest` after `go`; the wires that were asked, `over` when they were cut."""
    wires: list[Wire] = []

    async def script(wire: Wire) -> None:
        await body_of(wire, await wire.head())
        await wire.send(first)
        wires.append(wire)
        watch = asyncio.ensure_future(wire.gone())
        await go.wait()
        await wire.send(rest)
        await watch

    return script, wires


async def final(one: Client) -> bytes:
    """The body of the answer, whatever probes came before it."""
    return (await one.reply()).body


@pytest.mark.parametrize("request_", [GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"])
@on_loop
async def test_a_client_that_ends_its_side_behind_its_request_gets_its_answer(request_: bytes) -> None:
    go = asyncio.Event()
    script, wires = slow(go)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(request_)
        one.half_close()
        await until(lambda: bool(wires))
        # The probe is here: the proxy knows of the end.
        assert await one.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        go.set()
        assert await final(one) == b"late"
        assert await one.rest() == b"", "the connection ends with the last answer"
        assert fake.connections == 1


@on_loop
async def test_a_client_of_http_1_0_is_answered_without_a_probe() -> None:
    go = asyncio.Event()
    script, wires = slow(go)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.0\r\n\r\n")
        one.half_close()
        await until(lambda: bool(wires))
        go.set()
        assert (await one.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


@on_loop
async def test_all_requests_before_the_end_are_answered_and_an_unfinished_one_is_not_begun() -> None:
    script = answering(ok(b"1"), ok(b"2"))
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET + GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart")
        one.half_close()
        assert [await final(one), await final(one)] == [b"1", b"2"]
        assert await one.rest() == b""
        assert len(fake.seen) == 2


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n", id="chunked"),
        pytest.param(CHUNKED + b"2\r\nab\r\n", b"0\r\nx: y\r\n\r\n", id="last chunk and trailers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", b"b", id="known length"),
    ],
)
@on_loop
async def test_an_answer_that_has_begun_goes_on_when_the_client_ends_its_side(first: bytes, rest: bytes) -> None:
    go = asyncio.Event()
    script, wires = slow(go, first, rest)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET)
        await until(lambda: bool(wires))
        one.half_close()
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not wires[0].over
        go.set()
        assert await final(one) == b"ab"


@pytest.mark.parametrize("first", [b"", CHUNKED + b"1\r\na\r\n"], ids=["before", "in mid-answer"])
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@on_loop
async def test_a_client_that_is_gone_ends_its_request_at_the_model_server_at_once(first: bytes, reset: bool) -> None:
    script, wires = slow(asyncio.Event(), first)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET)
        await until(lambda: bool(wires))
        if first:
            await one.reader.readuntil(b"a\r\n")
        if reset:
            one.reset()
        else:
            one.close()
        await until(lambda: wires[0].over)


@on_loop
async def test_a_client_that_ends_its_side_and_then_leaves_ends_its_request() -> None:
    script, wires = slow(asyncio.Event())
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET)
        one.half_close()
        await one.head()
        await until(lambda: bool(wires))
        assert not wires[0].over
        one.reset()
        await until(lambda: wires[0].over)


@on_loop
async def test_a_client_that_is_gone_in_mid_answer_of_known_length_is_noticed_with_its_next_piece() -> None:
    go = asyncio.Event()
    script, wires = slow(go, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsec", b"re")
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(GET)
        await one.reader.readuntil(b"sec")
        one.close()
        go.set()
        await until(lambda: wires[0].over)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHo"])
@on_loop
async def test_a_client_that_ends_its_side_without_a_request_is_let_go(begun: bytes) -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.send(begun)
        one.half_close()
        assert await one.rest() == b""
        assert fake.seen == []


class Aborted(asyncio.Transport):
    """A transport of which only the socket is real."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.connection = connection
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.connection

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("gone", [False, True], ids=["ended", "gone"])
@on_loop
async def test_two_sides_that_have_ended_in_order_are_no_departure(gone: bool) -> None:
    with socket.create_server((LOCAL, 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        accepted, _ = listener.accept()
        with accepted:
            one.shutdown(socket.SHUT_WR)
            transport = Aborted(accepted)
            departure = Departure(asyncio.get_running_loop(), transport)
            if gone:
                one.close()
                accepted.send(b"probe")
                await until(lambda: transport.aborted)
            else:
                accepted.shutdown(socket.SHUT_WR)
                await until(lambda: departure.over)
                assert not transport.aborted
            departure.close()
