"""The data port as a client sees it: what is no request is refused before anyone acts on it; order, limits, leaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from knative_sponge.errors import BadRequest
from knative_sponge.proxy.exchange import HIGH_WATER
from knative_sponge.proxy.protocol import HttpProtocol
from tests.proxy.harness import (
    Wire,
    answering,
    body_of,
    client,
    fields_of,
    model_server,
    ok,
    on_loop,
    proxy,
    serving,
    until,
)

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="CL and TE"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, id="TE and CL"),
        pytest.param(HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400, id="CL twice"),
        pytest.param(HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400, id="two CLs"),
        pytest.param(HEAD + b"Content-Length: 4, 4\r\n\r\nabcd", 400, id="a list of CLs"),
        pytest.param(HEAD + b"Content-Length: +4\r\n\r\nabcd", 400, id="signed CL"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", 400, id="negative CL"),
        pytest.param(HEAD + b"Content-Length: 0x4\r\n\r\nabcd", 400, id="hexadecimal CL"),
        pytest.param(HEAD + b"Content-Length:\r\n\r\n", 400, id="empty CL"),
        pytest.param(HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400, id="huge CL"),
        pytest.param(HEAD + b"Content-Length : 4\r\n\r\nabcd", 400, id="space before the colon"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, id="chunked not last"),
        pytest.param(HEAD + b"Transfer-Encoding: identity\r\n\r\n", 501, id="identity"),
        pytest.param(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, id="gzip"),
        pytest.param(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, id="unknown coding"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="TE twice"
        ),
        pytest.param(HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, id="TE behind a control"),
        pytest.param(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 505, id="TE in HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", 400, id="LF only"),
        pytest.param(HEAD + b"X: a\n\r\n", 400, id="LF in a field"),
        pytest.param(HEAD + b"X: a\rb\r\n\r\n", 400, id="CR in a field"),
        pytest.param(HEAD + b"X: a\0b\r\n\r\n", 400, id="NUL in a field"),
        pytest.param(HEAD + b"X: a\r\n b\r\n\r\n", 400, id="folded field"),
        pytest.param(HEAD + b" X: a\r\n\r\n", 400, id="space before a field"),
        pytest.param(HEAD + b"X Y: a\r\n\r\n", 400, id="space in a field name"),
        pytest.param(HEAD + b"no field\r\n\r\n", 400, id="no colon"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET /\r\n\r\n", 505, id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, id="HTTP/9.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="space in the target"),
        pytest.param(b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="fragment"),
        pytest.param("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400, id="target not ASCII"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="asterisk"),
        pytest.param(b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="another scheme"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501, id="CONNECT"),
        pytest.param(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="unknown method"),
        pytest.param(HEAD + b"Expect: 200-ok\r\n\r\n", 417, id="another expectation"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2**21, 431, id="endless field"),
        pytest.param(b"GET /" + b"x" * 2**21, 431, id="endless target"),
        pytest.param(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400, id="TLS"),
    ],
)
@on_loop
async def test_what_is_no_clear_request_is_refused_and_reaches_nobody(request_: bytes, status: int) -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        one.writer.write(request_ + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = await one.reply()
        assert reply.status == status
        assert reply.field(b"sponge-reason") == b"bad-request"
        assert await one.rest() == b"", "nothing behind it is answered"
        assert fake.seen == []


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"zz\r\n", id="bad size"),
        pytest.param(b"5\nhello\r\n", id="LF behind a size"),
        pytest.param(b"5\r\nhelloXX", id="no line end behind a chunk"),
        pytest.param(b"5 \r\nhello\r\n", id="space behind a size"),
        pytest.param(b"0\r\nbad trailer\r\n\r\n", id="bad trailer"),
        pytest.param(b"0\r\nT: " + b"x" * 2**21 + b"\r\n\r\n", id="endless trailer"),
    ],
)
@on_loop
async def test_a_body_that_goes_wrong_is_refused_and_cut_off_at_the_model_server(bad: bytes) -> None:
    ended: list[bytes] = []

    async def reads(wire: Wire) -> None:
        await wire.head()
        ended.append(await wire.rest())

    async with model_server(reads) as fake, proxy(fake) as port, client(port) as one:
        await one.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await until(lambda: bool(fake.seen))
        one.writer.write(bad + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = await one.reply("POST")
        assert reply.status in (400, 431)
        assert await one.rest() == b""
        await until(lambda: len(ended) == 1)
        assert not ended[0].endswith(b"0\r\n\r\n"), "the model server cannot take the body for complete"
        assert len(fake.seen) == 1


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
async def test_what_goes_wrong_behind_a_request_does_not_keep_its_answer_from_it() -> None:
    go = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok(b"fine"))
        await wire.gone()

    async with model_server(slow) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        await until(lambda: bool(fake.seen))
        go.set()
        assert (await one.reply()).body == b"fine"
        assert (await one.reply()).status == 400
        assert await one.rest() == b""


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


class Hasty(HttpProtocol):
    head_timeout_s = 0.05


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHo"], ids=["silent", "slow"])
@on_loop
async def test_a_client_that_does_not_finish_its_head_is_cut_off(begun: bytes) -> None:
    async with model_server(answering(ok())) as fake, proxy(fake, protocol=Hasty) as port, client(port) as one:
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

    async with model_server(slow) as fake, proxy(fake, protocol=Hasty) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET ")
        asyncio.get_running_loop().call_later(Hasty.head_timeout_s * 3, go.set)
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
