"""Bodies and trailers on their way through, in both directions at once."""

from __future__ import annotations

import asyncio

import h11
import pytest

from tests.proxy.harness import answering, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import Wire, body_of, client, fields_of


@on_loop
async def test_each_event_of_a_stream_arrives_before_the_next_one_is_made() -> None:
    turn = asyncio.Event()

    async def stream(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await turn.wait()
            turn.clear()
            await wire.send(b"8\r\ndata: %d\n\r\n" % number)
        await turn.wait()
        await wire.send(b"0\r\n\r\n")

    async with model_server(stream) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"text/event-stream" in await one.head(), "the head does not wait for the first event"
        for number in range(3):
            turn.set()
            await one.reader.readuntil(b"data: %d\n\r\n" % number)
        turn.set()
        assert await one.exactly(5) == b"0\r\n\r\n"


@on_loop
async def test_request_and_answer_flow_at_the_same_time() -> None:
    async def echo(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (chunk := await wire.reader.readuntil(b"\r\n")) != b"0\r\n":
            await wire.send(chunk + await wire.exactly(int(chunk, 16) + 2))
        await wire.exactly(2)
        await wire.send(b"0\r\n\r\n")

    async with model_server(echo) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await one.head()
        for word in (b"ping", b"pong!"):
            await one.send(b"%x\r\n%b\r\n" % (len(word), word))
            assert await one.reader.readuntil(word + b"\r\n")
        await one.send(b"0\r\n\r\n")
        assert await one.exactly(5) == b"0\r\n\r\n"


@on_loop
async def test_an_answer_that_overtakes_the_upload_is_delivered() -> None:
    """The model server refuses after the head and never reads on; the client goes on sending meanwhile."""
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"

    async def refuses(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)

    async with model_server(refuses) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100):
            await one.send(b"x" * 100_000)
        reply = await one.reply("POST")
        assert (reply.status, reply.body) == (413, b"big")
        assert reply.field(b"connection") == b"close"


@on_loop
async def test_an_answer_to_an_unfinished_upload_ends_the_connection() -> None:
    async def early(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"enough"))
        await wire.gone()

    async with model_server(early) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
        assert (await one.reply("POST")).body == b"enough"
        assert await one.rest() == b""


@on_loop
async def test_an_unfinished_upload_ends_at_the_model_server_when_it_has_answered() -> None:
    ended: list[bool] = []

    async def early(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"enough"))
        await wire.gone()
        ended.append(True)

    async with model_server(early) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
        await until(lambda: ended == [True])


@on_loop
async def test_trailers_of_an_answer_are_carried() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n"
        b"5\r\nhello\r\n0\r\nGrpc-Status: 0\r\nX: \xff\r\n\r\n"
    )
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            reply = await one.get()
            assert reply.field(b"trailer") == b"Grpc-Status"
            assert (reply.body, reply.trailers) == (b"hello", [(b"grpc-status", b"0"), (b"x", b"\xff")])


@on_loop
async def test_trailers_of_an_answer_say_nothing_about_the_connection() -> None:
    end = b"0\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nUpgrade: x\r\nSum: 42\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + end
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        assert (await one.get()).trailers == [(b"sum", b"42")]


@on_loop
async def test_trailers_that_come_late_are_carried() -> None:
    go = asyncio.Event()

    async def late(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await go.wait()
        await wire.send(b"0\r\nT: v\r\n\r\n")
        await wire.gone()

    async with model_server(late) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = await one.reader.readuntil(b"hello\r\n")
        go.set()
        received += await one.reader.readuntil(b"\r\n\r\n")
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(received)
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            pass
        assert list(event.headers) == [(b"t", b"v")]


@pytest.mark.parametrize("together", [True, False], ids=["at once", "behind the body"])
@on_loop
async def test_trailers_of_a_request_are_carried(together: bool) -> None:
    ends: list[bytes] = []

    async def reads(wire: Wire) -> None:
        await wire.head()
        ends.append(await wire.reader.readuntil(b"\r\n\r\n"))
        await wire.send(ok())
        await wire.gone()

    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n"
    body, end = b"5\r\nhello\r\n", b"0\r\nSum: 42\r\n\r\n"
    async with model_server(reads) as fake, proxy(fake) as port, client(port) as one:
        if together:
            await one.send(head + body + end)
        else:
            await one.send(head + body)
            await until(lambda: bool(fake.seen))
            await one.send(end)
        assert (await one.reply("POST")).status == 200
        assert ends == [b"5\r\nhello\r\n0\r\nsum: 42\r\n\r\n"]
        assert (b"trailer", b"Sum") in fields_of(fake.seen[0])


@on_loop
async def test_trailers_cannot_say_what_only_a_head_may() -> None:
    ends: list[bytes] = []

    async def reads(wire: Wire) -> None:
        await wire.head()
        ends.append(await wire.reader.readuntil(b"\r\n\r\n"))
        await wire.send(ok())

    late = b"Host: evil\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: x\r\nConnection: close\r\nSum: 42\r\n"
    async with model_server(reads) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + late + b"\r\n")
        assert (await one.reply("POST")).status == 200
        assert ends == [b"0\r\nsum: 42\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", b"1234", id="HEAD with a length"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, id="HEAD of chunks"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None, id="204"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None, id="204 with a length"),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"99", id="304"),
    ],
)
@on_loop
async def test_an_answer_without_a_body_is_complete_at_its_head(
    method: str, answer: bytes, length: bytes | None
) -> None:
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            reply = await one.ask(f"{method} / HTTP/1.1\r\nHost: a".encode())
            assert (reply.body, reply.field(b"content-length")) == (b"", length)
            assert reply.field(b"transfer-encoding") is None


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@on_loop
async def test_an_answer_that_ends_with_its_connection_is_passed_on_whole(version: bytes) -> None:
    async def old(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/%b 200 OK\r\nX: y\r\n\r\n" % version + b"hello " * 50_000)

    async with model_server(old) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            assert (await one.get()).body == b"hello " * 50_000
        async with client(port) as old_client:
            await old_client.send(b"GET / HTTP/1.0\r\n\r\n")
            head = await old_client.head()
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            assert await old_client.rest() == b"hello " * 50_000


@on_loop
async def test_a_large_body_comes_back_as_it_was_sent() -> None:
    async def echo(wire: Wire) -> None:
        body = await body_of(wire, await wire.head())
        await wire.send(ok(body))
        await wire.gone()

    body = bytes(range(256)) * 20_000
    async with model_server(echo) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        sending = asyncio.create_task(one.send(body))
        assert (await one.reply("POST")).body == body
        await sending
