"""1xx answers on their way through, and `Expect: 100-continue` from end to end."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.proxy.upstream.relay import Relay
from tests.proxy.harness import Script, answering, model_server, ok, on_loop, proxy
from tests.proxy.wire import Wire, client, fields_of

EXPECTING = b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue"


@on_loop
async def test_informational_answers_are_passed_on_in_order() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    async with model_server(answering(hints + ok(b"done"))) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.get()
        assert reply.informational == [(103, [(b"link", b"</a>"), (b"link", b"</b>")]), (102, [])]
        assert reply.body == b"done"


@on_loop
async def test_an_informational_answer_does_not_wait_for_the_final_one() -> None:
    go = asyncio.Event()

    async def slow(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await go.wait()
        await wire.send(ok())

    async with model_server(slow) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await one.head()).startswith(b"HTTP/1.1 103")
        go.set()
        assert (await one.head()).startswith(b"HTTP/1.1 200")


@on_loop
async def test_a_client_of_http_1_0_gets_no_informational_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with model_server(answering(hints + ok(b"done"))) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await one.rest()).startswith(b"HTTP/1.1 200")


@on_loop
async def test_the_body_is_asked_for_when_the_model_server_asks_for_it() -> None:
    bodies: list[bytes] = []

    async def asks(wire: Wire) -> None:
        head = await wire.head()
        assert (b"expect", b"100-continue") in fields_of(head)
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        bodies.append(await wire.exactly(5))
        await wire.send(ok(b"thanks"))
        await wire.gone()

    async with model_server(asks) as fake, proxy(fake) as port, client(port) as one:
        await one.send(EXPECTING + b"\r\n\r\n")
        assert await one.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await one.send(b"hello")
        reply = await one.reply("POST")
        assert (reply.informational, reply.body, bodies) == ([], b"thanks", [b"hello"])


@on_loop
async def test_a_body_that_the_model_server_does_not_want_is_never_asked_for() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with model_server(answering_heads(refusal)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(EXPECTING + b"\r\n\r\n")
        reply = await one.reply("POST")
        assert (reply.status, reply.informational) == (413, [])
        assert reply.field(b"connection") == b"close", "the body may come yet"


def answering_heads(answer: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)
        await wire.gone()

    return script


@on_loop
async def test_a_model_server_that_ignores_the_expectation_gets_the_body_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Relay, "continue_timeout_s", 0.02)
    async with model_server(answering(ok(b"got it"))) as fake, proxy(fake) as port, client(port) as one:
        await one.send(EXPECTING + b"\r\n\r\n")
        assert await one.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await one.send(b"hello")
        assert (await one.reply("POST")).body == b"got it"


@on_loop
async def test_a_body_that_does_not_wait_to_be_asked_for_is_not_asked_for() -> None:
    async def asks(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.send(ok(await wire.exactly(5)))

    async with model_server(asks) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.ask(EXPECTING, b"hello")
        assert (reply.informational, reply.body) == ([], b"hello")
