"""Clients that send or read too slowly: each is ended in time, holds no more than it is counted for, and none other waits."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from uvicorn.server import ServerState

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.byte_budget import ByteBudget
from knative_sponge.codec.select import codec_for
from knative_sponge.connection_limit import ConnectionLimit
from knative_sponge.core.batching.batcher import Batcher, BatchRules
from knative_sponge.core.latency.model import LatencyModel
from knative_sponge.proxy.http.bounds import Bounds
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.queue.endpoint import InferenceEndpoint, RequestRules
from knative_sponge.proxy.queue.metrics import Metrics
from tests.proxy.harness import model_server, on_loop, proxy, serving, until
from tests.proxy.queue.inference_kit import FakeServer
from tests.proxy.upstream.test_connection import FakeTransport
from tests.proxy.wire import LOCAL, Client, client
from tests.virtual_time import run_virtual

PREDICT = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\n"
ROWS = b'{"instances": [0]}'


def endpoint(
    budget: ByteBudget, server: FakeServer | None = None, slo_s: float = 30.0, **rules: Any
) -> InferenceEndpoint:
    return InferenceEndpoint(
        codec_for("v1"),
        Batcher(BatchRules(max_rows=8), LatencyModel(), 1.0, 1.0),
        server or FakeServer(),
        RequestRules(slo_s=slo_s, timeout_s=60.0, **rules),
        Metrics(),
        budget=budget,
    )


@pytest.mark.parametrize(
    "begun",
    [b"Content-Length: 18\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
    ids=["length", "chunked"],
)
@on_loop
async def test_a_body_that_is_not_complete_by_its_deadline_is_answered(begun: bytes) -> None:
    bounds = Bounds()
    queue = endpoint(bounds.budget, slo_s=0.1)
    async with model_server() as fake, proxy(fake, inference=queue, bounds=bounds) as port, client(port) as one:
        await one.send(PREDICT + begun)
        reply = await one.reply()
        assert (reply.status, reply.field(b"sponge-reason")) == (504, b"expired")
        assert bounds.budget.taken == 0
        assert queue._metrics.missed == 0, "no cores would have helped"


@on_loop
async def test_what_is_taken_is_given_back_however_a_request_ends() -> None:
    bounds = Bounds()
    server = FakeServer()
    queue = endpoint(bounds.budget, server, max_body=1000)
    body = PREDICT + b"Content-Length: 18\r\n\r\n"
    async with model_server() as fake, proxy(fake, inference=queue, bounds=bounds) as port:
        async with client(port) as one:  # gone in the middle of its body
            await one.send(body + b"{")
            await until(lambda: bounds.budget.taken > 0)
        await until(lambda: bounds.budget.taken == 0)
        async with client(port) as one:  # gone while it is with the model server
            await one.send(body + ROWS)
            await server.call(0)
            assert bounds.budget.taken >= 18
        await until(lambda: bounds.budget.taken == 0)
        async with client(port) as one:
            for begin, status in (
                (PREDICT + b"Content-Length: 1001\r\n\r\n", 413),
                (PREDICT + b"Content-Length: 1\r\n\r\n{", 400),
            ):
                async with client(port) as other:
                    await other.send(begin)
                    assert (await other.reply()).status == status
            await one.send(body + ROWS)
            (await server.call(1)).reply()
            assert (await one.reply()).status == 200
        await until(lambda: bounds.budget.taken == 0)


@on_loop
async def test_a_body_that_comes_too_slowly_leaves_when_there_is_no_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("knative_sponge.proxy.queue.body._PATIENCE_S", 0.0)
    bounds = Bounds(ByteBudget(200_000))
    server = FakeServer()
    queue = endpoint(bounds.budget, server, max_body=50_000)
    async with model_server() as fake, proxy(fake, inference=queue, bounds=bounds) as port:  # noqa: SIM117
        async with client(port) as slow, client(port) as other, client(port) as last:
            await slow.send(PREDICT + b"Content-Length: 40000\r\n\r\n{")
            await until(lambda: bounds.budget.taken > 0)
            await asyncio.sleep(0.01)  # at which rate it comes shows only after a while
            await other.send(PREDICT + b"Content-Length: 40000\r\n\r\n{")
            assert (await other.reply()).status == 503
            reply = await slow.reply()
            assert (reply.status, reply.field(b"retry-after")) == (503, b"1")
            rows = json.dumps({"instances": ["x" * 19_000]}).encode()
            await last.send(PREDICT + b"Content-Length: %d\r\n\r\n" % len(rows) + rows)
            (await server.call(0)).reply()
            assert (await last.reply()).status == 200


LARGE = 2**23


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


def deaf(port: int, buffer: int = 4096) -> socket.socket:
    """A client that asks and does not read."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    one.connect((LOCAL, port))
    one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return one


@pytest.mark.parametrize("bounds", [Bounds(delivery_timeout_s=0.2)], ids=["stalled"])
@on_loop
async def test_a_client_that_takes_nothing_is_cut_off(bounds: Bounds) -> None:
    async with serving(large, bounds=bounds) as port:
        with deaf(port):
            await until(lambda: bounds.budget.taken > 0)
            assert bounds.budget.taken <= 2**18, "no more than one write is in the transport's hands"
            await until(lambda: bounds.connections.open == 0)
            assert bounds.budget.taken == 0


class Unread(FakeTransport):
    """A transport with an answer in its buffer."""

    left = 1000

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Mock() if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.left


@pytest.mark.parametrize(("takes", "ended_s"), [(0, 60.0), (1, None)], ids=["nothing", "a byte now and then"])
def test_a_client_is_cut_off_for_the_time_in_which_it_takes_nothing(takes: int, ended_s: float | None) -> None:
    async def body() -> float | None:
        protocol = HttpProtocol(Mock(loaded_app=large), ServerState(), {}, bounds=Bounds())
        transport = Unread()
        protocol.connection_made(transport)
        protocol.pause_writing()
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for second in range(1, 241):
            await asyncio.sleep(1.0)
            if second % 20 == 0:
                transport.left -= takes
            if transport.is_closing():
                break
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        return float(second) if transport.is_closing() else None

    assert run_virtual(body) == ended_s


@on_loop
async def test_a_client_that_reads_slowly_gets_all_of_it() -> None:
    bounds = Bounds()
    async with serving(large, bounds=bounds) as port:
        with deaf(port, 2**16) as one:
            one.setblocking(False)
            loop, size = asyncio.get_running_loop(), 0
            while size < LARGE:
                piece = await loop.sock_recv(one, 2**21)
                assert piece
                size += len(piece)
                await asyncio.sleep(0.01)
        await until(lambda: bounds.budget.taken == 0)


@on_loop
async def test_an_answer_nobody_reads_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knative_sponge.proxy.http.protocol._PATIENCE_S", 0.0)
    bounds = Bounds(ByteBudget(2**19))
    async with serving(large, bounds=bounds) as port:
        with deaf(port):
            await until(lambda: bounds.budget.taken > 0)
            await asyncio.sleep(0.1)
            assert not bounds.budget.take(2**19)
            await until(lambda: bounds.connections.open == 0)
            assert bounds.budget.taken == 0


@on_loop
async def test_requests_behind_one_that_runs_stay_unparsed_and_are_answered_in_order() -> None:
    bounds = Bounds()
    go = asyncio.Event()
    begun: list[str] = []
    connections: list[HttpProtocol] = []

    class Watched(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.append(self)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await go.wait()
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    count = 3000
    async with serving(slow, Watched, bounds) as port, client(port) as one:
        one.writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count)))
        await until(lambda: bool(connections) and not connections[0].transport.is_reading())
        assert begun == ["/0"]
        assert len(connections[0]._waiting) < 200, "parsed ahead: no more than one piece of 4 KiB"
        assert bounds.budget.taken > 0
        go.set()
        for number in range(count):
            assert (await one.reply()).body == b"/%d" % number
        await until(lambda: bounds.budget.taken == 0)


@on_loop
async def test_a_head_is_counted_while_it_is_unfinished() -> None:
    bounds = Bounds(ByteBudget(50_000), ConnectionLimit(10))

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async with serving(never, bounds=bounds) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x-a: " + b"b" * 10_000)
        await until(lambda: bounds.budget.taken >= 10_000)
        with suppress(ConnectionError):
            await one.send(b"b" * 30_000)
        assert (await _status(one)) in (503, 431)
        await until(lambda: bounds.budget.taken == 0)


async def _status(one: Client) -> int:
    return (await one.reply()).status
