"""The data port as a client sees it: order, portions, limits, leaving, and applications that fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.errors import BadRequest
from knative_sponge.proxy.http.bounds import Bounds
from knative_sponge.proxy.http.exchange import HIGH_WATER, Exchange
from knative_sponge.proxy.http.protocol import HttpProtocol
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy, serving, until
from tests.proxy.wire import Wire, body_of, client, fields_of

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"


@on_loop
async def test_requests_in_one_packet_are_answered_in_order() -> None:
    async def echo(wire: Wire) -> None:
        while True:
            head = await wire.head()
            await wire.send(ok(head.split()[1] + await body_of(wire, head)))

    requests = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (n, n, b"x" * n) for n in range(200)
    )
    async with model_server(echo) as fake, proxy(fake) as port, client(port) as one:
        await one.send(requests)
        for n in range(200):
            assert (await one.reply("POST")).body == b"/%d" % n + b"x" * n
        assert fake.connections == 1, "one at a time"


@on_loop
async def test_white_space_around_a_value_is_not_part_of_it() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        fields = b"Content-Length: 1\r\nExpect:\t 100-continue \t\r\nX: \t v \t"
        assert (await one.ask(HEAD + fields, b"x")).status == 200
        assert b"\r\nx: v\r\n" in fake.seen[0]


@on_loop
async def test_the_connection_ends_when_the_client_says_so() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = await one.reply()
        assert reply.field(b"connection") == b"close"
        assert await one.rest() == b""
        assert len(fake.seen) == 1


@on_loop
async def test_an_absolute_target_names_the_host() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        for target in (b"http://h.example:81/p?q", b"HTTP://h.example:81", b"http://h.example:81?q"):
            await one.get(target)
        assert [head.split(b" ")[1] for head in fake.seen] == [b"/p?q", b"/", b"/?q"]
        assert all((b"host", b"h.example:81") in fields_of(head) for head in fake.seen)


@on_loop
async def test_an_upgrade_that_nobody_takes_is_an_ordinary_request_with_its_body_and_its_successor() -> None:
    async def echo(wire: Wire) -> None:
        while True:
            await wire.send(ok(await body_of(wire, await wire.head())))

    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    sized = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + upgrade + b"\r\nhello"
    chunked = b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + upgrade + b"\r\n3\r\nyou\r\n0\r\n\r\n"
    bare = b"GET /3 HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n"
    plain = b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
    async with model_server(echo) as fake, proxy(fake) as port, client(port) as one:
        await one.send((sized + chunked + bare + plain) * 2)
        for _ in range(2):
            assert [(await one.reply(method)).body for method in ("POST", "POST", "GET", "GET")] == [
                b"hello", b"you", b"", b"",
            ]  # fmt: skip
        for head in fake.seen:
            assert {name for name, _ in fields_of(head)} <= {
                b"host", b"x-forwarded-for", b"content-length", b"transfer-encoding",
            }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@on_loop
async def test_bytes_may_come_in_any_portions(size: int) -> None:
    async def echo(wire: Wire) -> None:
        while True:
            await wire.send(ok(await body_of(wire, await wire.head())))

    stream = (
        b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nworld"
        b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    async with model_server(echo) as fake, proxy(fake) as port, client(port) as one:
        for at in range(0, len(stream), size):
            await one.send(stream[at : at + size])
            await asyncio.sleep(0)
        assert [(await one.reply(method)).body for method in ("POST", "POST", "GET")] == [b"hello", b"world", b""]
        assert [head.split()[1] for head in fake.seen] == [b"/1", b"/2", b"/3"]


HASTY = Bounds(head_timeout_s=0.05)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHo"], ids=["silent", "slow"])
@on_loop
async def test_a_client_that_does_not_finish_its_head_is_cut_off(begun: bytes) -> None:
    async with model_server(answering(ok())) as fake, proxy(fake, bounds=HASTY) as port, client(port) as one:
        await one.send(begun)
        assert await one.rest() == b""
        assert fake.connections == 0


@on_loop
async def test_a_client_that_begins_its_next_head_early_still_gets_its_answer() -> None:
    go = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok(b"late"))
        await wire.gone()

    async with model_server(slow) as fake, proxy(fake, bounds=HASTY) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET ")
        asyncio.get_running_loop().call_later(HASTY.head_timeout_s * 3, go.set)
        assert (await one.reply()).body == b"late"


@on_loop
async def test_a_client_that_does_not_read_holds_up_the_application() -> None:
    written = 0

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            written += 65536

    stopped = asyncio.Event()

    class Watched(HttpProtocol):
        def pause_writing(self) -> None:
            super().pause_writing()
            stopped.set()

    async with serving(endless, Watched) as port, client(port) as one:
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await stopped.wait()
        before = written
        for _ in range(20):
            await asyncio.sleep(0)
        assert written - before <= 65536 * 2


@on_loop
async def test_a_body_nobody_takes_is_not_read() -> None:
    release = asyncio.Event()
    connections: list[Any] = []

    async def idle(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % size})

    class Watched(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.append(transport)

    total = HIGH_WATER * 100
    async with serving(idle, Watched) as port, client(port) as one:
        one.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % total + b"x" * total)
        await until(lambda: bool(connections) and not connections[0].is_reading())
        release.set()
        assert (await one.reply("POST")).body == b"%d" % total


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("boom")


async def begins_and_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise ValueError("boom")


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def injects(scope: Scope, receive: Receive, send: Send) -> None:
    fields = [(b"x", b"a\r\nset-cookie: evil")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b""})


async def says_too_much(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": b"two"})


async def says_too_little(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"two"})


@pytest.mark.parametrize("app", [raises, says_nothing, injects])
@on_loop
async def test_an_application_that_fails_before_it_answers_is_a_500(app: Any) -> None:
    async with serving(app) as port, client(port) as one:
        reply = await one.get()
        assert (reply.status, reply.body) == (500, b"Internal Server Error\n")


@pytest.mark.parametrize("app", [begins_and_raises, says_too_much, says_too_little])
@on_loop
async def test_an_application_that_fails_in_mid_answer_is_cut_off(app: Any) -> None:
    async with serving(app) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head, _, body = (await one.rest()).partition(b"\r\n\r\n")
        length = dict(fields_of(head)).get(b"content-length")
        assert length is None or len(body) < int(length)


@on_loop
async def test_a_failure_with_a_reason_is_told_to_the_client() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        raise BadRequest("the body is too large", status=413)

    async with serving(refuses) as port, client(port) as one:
        reply = await one.post(b"x")
        assert (reply.status, reply.body) == (413, b"the body is too large\n")
        assert reply.field(b"sponge-reason") == b"bad-request"


@on_loop
async def test_a_client_that_leaves_cancels_the_application() -> None:
    events: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        events.append("called")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async with serving(waits) as port:
        async with client(port) as one:
            await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: events == ["called"])
        await until(lambda: events == ["called", "cancelled"])


class Mistaken(HttpProtocol):
    """Has a mistake in it that the second request of a connection finds."""

    asked = 0

    def request(self, *told: Any) -> Exchange:
        self.asked += 1
        if self.asked == 2:
            raise KeyError("a mistake")
        return super().request(*told)


MISTAKE = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n" + bytes(8192),
]


@pytest.mark.parametrize("sent", MISTAKE, ids=["a head", "an offer", "a body behind it"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["alone", "pipelined"])
@on_loop
async def test_a_mistake_of_the_proxys_own_is_a_500_and_not_the_clients_fault(
    sent: bytes, pipelined: bool, caplog: pytest.LogCaptureFixture
) -> None:
    first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with (
        model_server(answering(ok())) as fake,
        proxy(fake, protocol=Mistaken) as port,
        client(port) as one,
    ):
        await one.send(first + sent if pipelined else first)
        assert (await one.reply()).status == 200
        if not pipelined:
            await one.send(sent)
        reply = await one.reply(sent.split()[0].decode())
        assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
        assert b"KeyError" not in await one.rest()
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@on_loop
async def test_a_mistake_in_the_middle_of_a_body_is_a_500_and_is_logged_with_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistaken(_self: Exchange, _body: bytes) -> None:
        raise ZeroDivisionError

    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        monkeypatch.setattr(Exchange, "feed", mistaken)
        await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        assert (await one.reply("POST")).status == 500
        await one.rest()
    assert "in mistaken" in caplog.text
