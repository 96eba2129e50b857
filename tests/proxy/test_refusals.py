"""What is no clear request is refused before anyone acts on it: nothing can be smuggled past the proxy."""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.harness import answering, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import Wire, client

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
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, id="space in the Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="path in the Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, id="user in the Host"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: a\t\xe9\r\n\r\n", 400, id="Host not ASCII"),
        pytest.param(b"GET http://u:p@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="user in the target"),
        pytest.param(b"GET /\r\n\r\n", 505, id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, id="HTTP/9.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="space in the target"),
        pytest.param(b"GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="fragment"),
        pytest.param("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400, id="target not ASCII"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="asterisk"),
        pytest.param(b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="another scheme"),
        pytest.param(b"CONNECT a:80 HTTP/1.0\r\nHost: a\r\n\r\n", 400, id="CONNECT in HTTP/1.0"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 400, id="CONNECT with a body"),
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
async def test_a_waiting_request_that_goes_wrong_is_never_begun() -> None:
    go = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(ok(b"fine"))
        await wire.gone()

    async with model_server(slow) as fake, proxy(fake) as port, client(port) as one:
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + chunked)
        await until(lambda: bool(fake.seen))
        go.set()
        assert (await one.reply()).body == b"fine"
        assert (await one.reply("POST")).status == 400
        assert await one.rest() == b""
        assert len(fake.seen) == 1
