"""The ports beside the users' own: a head or a body of any size, for any time, ends the connection and costs little."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import pytest

from knative_sponge.asgi import ASGIApp, Receive, Scope, Send
from knative_sponge.bounded_protocol import PortLimits
from knative_sponge.listener import Listener
from tests.hostile.proxy_process import ProxyProcess, proxy_process
from tests.proxy.harness import on_loop, until
from tests.proxy.wire import LOCAL, Client, client

MIB = 2**20
SIDE = ("admin_port", "stat_port", "metrics_port")
MOST = 16 * MIB
"""What such an attack may add to the process; before, 24 MiB of head cost 700."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with proxy_process(SPONGE_SLO="5s", SPONGE_CONTROL_TOKEN="t") as process:
        yield process


@contextmanager
def flooded(port: int, begin: bytes, piece: bytes, size: int, count: int = 4) -> Iterator[list[socket.socket]]:
    """So many connections on which so many bytes are sent, as far as they are taken."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((LOCAL, port), timeout=10)) for _ in range(count)]
        for one in connections:
            with suppress(OSError):
                one.sendall(begin)
                for _ in range(size // len(piece)):
                    one.sendall(piece)
        yield connections


def answered(one: socket.socket) -> bytes:
    """The first line of what came, as far as a reset has not destroyed it."""
    with suppress(OSError):
        return one.recv(65536).partition(b"\r\n")[0]
    return b""


@pytest.mark.parametrize("port", SIDE)
@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", b"x-a: " + b"b" * 1000 + b"\r\n", b"431"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", b"x:\r\n" * 100, b"431"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nx-a: ", b"b" * 1000, b"431"),
        (b"GET /", b"b" * 1000, b"431"),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n", b"b" * 1000, b"413"),
        (
            b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3e8\r\n" + b"b" * 1000 + b"\r\n",
            b"413",
        ),
    ],
    ids=["many fields", "tiny fields", "a long field", "a long target", "a long body", "an endless body"],
)
def test_a_giant_ends_its_connection_and_costs_little(
    proxy: ProxyProcess, port: str, begin: bytes, piece: bytes, status: bytes
) -> None:
    number = getattr(proxy, port)
    before, before_s = proxy.rss(), proxy.cpu_s()
    with flooded(number, begin, piece, 24 * MIB) as connections:
        proxy.settle()
        assert proxy.rss() - before < MOST
        assert proxy.cpu_s() - before_s < 1.0
        # Some answer before the body has come, since they do not want it.
        statuses = {line.split()[1] for line in map(answered, connections) if line}
        assert statuses <= {status, b"200", b"404", b"405"}
    assert proxy.probe() < 1.0


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body; /stream sends lines for as long as somebody listens, /slow never answers."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"line\n", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"%d" % size})


@asynccontextmanager
async def listening(limits: PortLimits, app: ASGIApp = echo) -> AsyncIterator[int]:
    listener = Listener(app, LOCAL, 0, limits=limits)
    await listener.start()
    try:
        yield listener.port
    finally:
        for task in listener.server_state.tasks:
            task.cancel()
        for connection in list(listener.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await listener.stop()


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x:\r\n" * 99 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x:\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 15_000 + b"\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 16_384, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
    ],
    ids=["100 fields", "101 fields", "15,000 bytes", "16 KiB and more", "a body that is announced"],
)
@on_loop
async def test_each_limit_has_its_answer_at_once(sent: bytes, status: int) -> None:
    endless = PortLimits(silent_s=900.0, head_s=900.0, body_s=900.0)
    async with listening(endless) as port, client(port) as one:
        await one.send(sent)
        assert (await one.reply()).status == status


@pytest.mark.parametrize(
    ("limits", "sent", "told"),
    [
        (PortLimits(silent_s=0.1), b"", b""),
        (PortLimits(head_s=0.1), b"GET / HTTP/1.1\r\nHo", b"HTTP/1.1 408"),
        (PortLimits(body_s=0.1), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 408"),
        (PortLimits(answer_s=0.1), b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    ],
    ids=["silence", "a head", "a body", "an answer"],
)
@on_loop
async def test_what_takes_too_long_is_ended(limits: PortLimits, sent: bytes, told: bytes) -> None:
    async with listening(limits) as port, client(port) as one:
        await one.send(sent)
        assert (await _rest(one)).startswith(told)


@on_loop
async def test_a_stream_that_is_meant_to_last_is_not_ended() -> None:
    quick = PortLimits(silent_s=0.1, head_s=0.1, body_s=0.1, answer_s=None)
    async with listening(quick) as port, client(port) as one:
        await one.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(20):
            await one.reader.readuntil(b"line\n")


@on_loop
async def test_an_answer_that_nobody_reads_is_ended() -> None:
    ended = asyncio.Event()

    async def pours(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4):
            await send({"type": "http.response.body", "body": bytes(8 * MIB), "more_body": True})
        ended.set()

    async with listening(PortLimits(unread_s=0.1, answer_s=None), pours) as port:
        with socket.create_connection((LOCAL, port)) as deaf:
            deaf.sendall(HEAD)
            await until(ended.is_set)


@on_loop
async def test_who_asks_again_before_it_has_its_answer_is_refused() -> None:
    async with listening(PortLimits(answer_s=None)) as port, client(port) as one:
        await one.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        assert (await _rest(one)).startswith(b"HTTP/1.1 400")


@on_loop
async def test_the_longest_idle_connection_goes_when_another_one_comes() -> None:
    async with listening(PortLimits(connections=2)) as port, client(port) as first, client(port) as second:
        for one in (first, second, first):
            await one.send(HEAD)
            assert (await one.reply()).status == 200
        async with client(port) as third:
            await third.send(HEAD)
            assert (await third.reply()).status == 200
            assert await _rest(second) == b""
            await first.send(HEAD)
            assert (await first.reply()).status == 200


@on_loop
async def test_all_bodies_together_are_bounded() -> None:
    async with listening(PortLimits(body=1000, bodies=1500)) as port, client(port) as one, client(port) as other:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999
        await one.send(post)
        await asyncio.sleep(0.05)
        await other.send(post)
        assert (await _rest(other)).startswith(b"HTTP/1.1 503")
        await one.send(b"x")
        assert (await one.reply()).body == b"1000"
        await one.send(post + b"x")
        assert (await one.reply()).body == b"1000"


BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999
OTHER = "127.0.0.2"


@on_loop
async def test_unfinished_bodies_of_one_address_take_no_place_that_another_needs() -> None:
    async with (
        listening(PortLimits(connections=3)) as port,
        client(port) as first,
        client(port) as second,
        client(port) as third,
    ):
        for one in (first, second, third):
            await one.send(BODY)
        await asyncio.sleep(0.05)
        async with client(port) as fourth:
            assert (await _rest(fourth)).startswith(b"HTTP/1.1 503"), "of the same address"
        async with client(port, OTHER) as honest:
            await honest.send(HEAD)
            assert (await honest.reply()).status == 200
        assert await _rest(first) == b"", "the one that has been there longest"
        await second.send(b"x")
        assert (await second.reply()).body == b"1000"


@on_loop
async def test_nobody_is_pushed_out_by_an_address_that_has_as_much() -> None:
    async with listening(PortLimits(connections=2)) as port, client(port) as first, client(port, OTHER) as honest:
        for one in (first, honest):
            await one.send(BODY)
        await asyncio.sleep(0.05)
        async with client(port) as second:
            assert (await _rest(second)).startswith(b"HTTP/1.1 503")
        await honest.send(b"x")
        assert (await honest.reply()).body == b"1000"


@on_loop
async def test_bodies_of_one_address_take_no_room_that_another_needs() -> None:
    limits = PortLimits(body=1000, bodies=2000)
    async with listening(limits) as port, client(port) as first, client(port) as second, client(port, OTHER) as honest:
        for one in (first, second):
            await one.send(BODY)
        await asyncio.sleep(0.05)
        await honest.send(BODY + b"x")
        assert (await honest.reply()).body == b"1000"
        assert (await _rest(first)).startswith(b"HTTP/1.1 503")
        await second.send(b"x")
        assert (await second.reply()).body == b"1000"


@on_loop
async def test_a_large_review_is_legitimate() -> None:
    from knative_sponge.controller.admission.bodies import LARGEST_REVIEW
    from knative_sponge.controller.admission.webhook import _LIMITS

    body = json.dumps({"object": "x" * (LARGEST_REVIEW - 100)}).encode()
    async with listening(_LIMITS) as port, client(port) as one:
        assert (await one.post(body)).body == b"%d" % len(body)


async def _rest(one: Client) -> bytes:
    with suppress(ConnectionError):
        return await one.rest()
    return b""
