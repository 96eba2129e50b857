"""Answers that have no body, whatever a model server says of one: no client may wait for it, or take the next answer for it."""

from __future__ import annotations

import pytest

from knative_sponge.asgi import Receive, Scope, Send
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy, serving
from tests.proxy.wire import Wire, client, fields_of

FRAMING = {b"content-length", b"transfer-encoding"}


def framing(head: bytes) -> set[bytes]:
    return {name for name, _ in fields_of(head)} & FRAMING


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@on_loop
async def test_a_204_is_over_at_its_head(method: bytes, field: bytes) -> None:
    none = b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n"
    request = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with model_server(answering(none)) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            await one.send(request)
            head = await one.head()
            assert head.startswith(b"HTTP/1.1 204 ")
            assert framing(head) == set()


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [b"102 Processing", b"103 Early Hints"])
@on_loop
async def test_an_informational_answer_is_over_at_its_head(status: bytes, field: bytes) -> None:
    hint = b"HTTP/1.1 " + status + b"\r\n" + field + b"\r\nLink: a\r\n\r\n"
    async with model_server(answering(hint + ok(b"final"))) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await one.head()
        assert (head.split()[1], fields_of(head)) == (status.split()[0], [(b"link", b"a")])
        await one.head()
        assert await one.exactly(5) == b"final"


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@on_loop
async def test_a_switch_of_protocols_is_over_at_its_head(field: bytes) -> None:
    async def switches(wire: Wire) -> None:
        await wire.head()
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n"
        await wire.send(switch + field + b"\r\n\r\nbytes of the other protocol")
        await wire.gone()

    async with model_server(switches) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert framing(await one.head()) == set()
        assert await one.exactly(27) == b"bytes of the other protocol"


@on_loop
async def test_answers_to_head_and_a_304_say_how_long_a_body_would_be() -> None:
    for method, status in ((b"HEAD", b"200 OK"), (b"GET", b"304 Not Modified")):
        answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 99\r\n\r\n"
        async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
            for _ in range(2):
                await one.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert fields_of(await one.head()) == [(b"content-length", b"99")]


@on_loop
async def test_a_204_of_the_proxys_own_is_no_exception() -> None:
    async def none(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(none) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert framing(await one.head()) == set()
