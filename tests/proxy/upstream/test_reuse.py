"""When an upstream connection is used again, and when a request may be sent again: never if it may have had an effect."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.codec.base import Call
from knative_sponge.errors import UpstreamBroken
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import ModelServer, answering, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import LOCAL, Client, Reply, Wire, body_of, client


async def once_then_gone(wire: Wire) -> None:
    """Answer a first request, end the connection at the second without a byte."""
    await body_of(wire, await wire.head())
    await wire.send(ok(b"first"))
    await wire.head()


@on_loop
async def test_requests_share_a_connection() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one, client(port) as two:
        for each in (one, two, one):
            assert (await each.post(b"x")).body == b"ok"
        assert fake.connections == 1


@on_loop
async def test_requests_at_once_use_connections_of_their_own() -> None:
    """The answer to each comes only when all have arrived."""
    here = asyncio.Barrier(3)

    async def together(wire: Wire) -> None:
        head = await wire.head()
        await here.wait()
        await wire.send(ok(head.split()[1]))

    async with model_server(together) as fake, proxy(fake) as port:

        async def ask(target: bytes) -> bytes:
            async with client(port) as one:
                return (await one.get(target)).body

        targets = [b"/1", b"/2", b"/3"]
        assert await asyncio.gather(*map(ask, targets)) == targets
        assert fake.connections == 3


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
@on_loop
async def test_a_harmless_request_on_a_connection_that_went_stale_is_sent_again_on_a_new_one(method: str) -> None:
    async with (
        model_server(once_then_gone, answering(ok(b"again"))) as fake,
        proxy(fake) as port,
        client(port) as one,
    ):
        assert (await one.get()).body == b"first"
        reply = await one.ask(f"{method} /x HTTP/1.1\r\nHost: a".encode())
        assert reply.status == 200
        assert fake.connections == 2
        assert [head.split()[0] for head in fake.seen] == [b"GET", method.encode(), method.encode()]


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"", b""), (b"\r\nContent-Length: 0", b""), (b"\r\nContent-Length: 1", b"x")],
    ids=["no body", "an empty body", "a body"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@on_loop
async def test_a_request_that_may_have_had_an_effect_is_never_sent_twice(
    method: str, framing: bytes, body: bytes
) -> None:
    async with (
        model_server(once_then_gone, answering(ok(b"again"))) as fake,
        proxy(fake) as port,
        client(port) as one,
    ):
        assert (await one.get()).body == b"first"
        reply = await one.ask(b"%b /x HTTP/1.1\r\nHost: a%b" % (method.encode(), framing), body)
        assert reply.status == 502
        assert reply.field(b"sponge-reason") == b"upstream-error"
        assert [head.split()[0] for head in fake.seen] == [b"GET", method.encode()]


@on_loop
async def test_a_get_with_a_body_is_never_sent_twice() -> None:
    async with model_server(once_then_gone, answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.get()
        assert (await one.ask(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1", b"x")).status == 502
        assert len(fake.seen) == 2


@on_loop
async def test_a_request_on_a_new_connection_is_never_sent_twice() -> None:
    async def refuses(wire: Wire) -> None:
        await wire.head()

    async with model_server(refuses) as fake, proxy(fake) as port, client(port) as one:
        assert (await one.get()).status == 502
        assert len(fake.seen) == 1


@on_loop
async def test_a_request_is_sent_again_once_at_most() -> None:
    async def refuses(wire: Wire) -> None:
        await wire.head()

    async with model_server(once_then_gone, refuses) as fake, proxy(fake) as port, client(port) as one:
        await one.get()
        assert (await one.get()).status == 502
        assert len(fake.seen) == 3


@on_loop
async def test_a_request_whose_answer_has_begun_is_never_sent_twice() -> None:
    async def half(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"first"))
        await wire.head()
        await wire.send(b"HTTP/1.1 2")

    async with model_server(half, answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.get()
        assert (await one.get()).status == 502
        assert len(fake.seen) == 2


@on_loop
async def test_a_connection_the_model_server_closed_while_idle_is_not_used_again() -> None:
    idle: list[Wire] = []

    async def closes(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"first"))
        idle.append(wire)

    async with model_server(closes, answering(ok(b"second"))) as fake, proxy(fake) as port, client(port) as one:
        await one.get()
        await until(lambda: bool(idle) and idle[0].writer.is_closing())
        await idle[0].writer.wait_closed()
        reply = await settled(one, fake)
        assert reply.body == b"second"


async def settled(one: Client, fake: ModelServer) -> Reply:
    """A POST after the proxy's loop has had its turn to see the close."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return await one.post(b"x")


@on_loop
async def test_an_idle_connection_is_closed_before_the_model_server_does_it() -> None:
    ended: list[bool] = []

    async def notes(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok())
        await wire.gone()
        ended.append(True)

    async with model_server(notes) as fake, proxy(fake, max_idle_s=0.05) as port, client(port) as one:
        await one.get()
        await until(lambda: ended == [True])


@on_loop
async def test_no_more_connections_are_kept_than_allowed() -> None:
    here = asyncio.Barrier(3)
    over: list[Wire] = []

    async def together(wire: Wire) -> None:
        await wire.head()
        await here.wait()
        await wire.send(ok())
        await wire.gone()
        over.append(wire)

    async with model_server(together) as fake:
        upstream = Upstream(LOCAL, fake.port, max_idle=1)
        await asyncio.gather(*(upstream.fetch(Call("GET", b"/", [], b"")) for _ in range(3)))
        await until(lambda: len(over) == 2)
        assert upstream.take() is not None
        assert upstream.take() is None
        upstream.close()


@on_loop
async def test_fetch_sends_the_call_and_returns_the_whole_answer() -> None:
    async with model_server(answering(ok(b"answer", b"X-A: 1", b"X-A: 2", b"Connection: keep-alive"))) as fake:
        upstream = Upstream(LOCAL, fake.port)
        fields = [(b"x-b", b"1"), (b"x-b", b"2"), (b"content-length", b"99"), (b"expect", b"100-continue")]
        answer = await upstream.fetch(
            Call("POST", b"/v2?x=%20", [*fields, (b"transfer-encoding", b"chunked")], b"body")
        )
        assert (answer.status, answer.body) == (200, b"answer")
        assert answer.headers == [(b"content-length", b"6"), (b"x-a", b"1"), (b"x-a", b"2")]
        host = b"127.0.0.1:%d" % fake.port
        assert fake.seen == [
            b"POST /v2?x=%20 HTTP/1.1\r\nhost: " + host + b"\r\nx-b: 1\r\nx-b: 2\r\ncontent-length: 4\r\n\r\n"
        ]
        upstream.close()


@pytest.mark.parametrize("body", [b"", b"x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@on_loop
async def test_fetch_never_sends_twice_what_may_have_had_an_effect(method: str, body: bytes) -> None:
    async with model_server(once_then_gone, answering(ok())) as fake:
        upstream = Upstream(LOCAL, fake.port)
        call = Call(method, b"/", [], body)
        await upstream.fetch(call)
        with pytest.raises(UpstreamBroken):
            await upstream.fetch(call)
        assert len(fake.seen) == 2
        upstream.close()


@on_loop
async def test_fetch_repeats_a_get_on_a_connection_that_went_stale() -> None:
    async with model_server(once_then_gone, answering(ok(b"again"))) as fake:
        upstream = Upstream(LOCAL, fake.port)
        call = Call("GET", b"/", [], b"")
        assert (await upstream.fetch(call)).body == b"first"
        assert (await upstream.fetch(call)).body == b"again"
        assert len(fake.seen) == 3
        upstream.close()


@on_loop
async def test_fetch_refuses_an_answer_that_is_too_large() -> None:
    async with model_server(answering(ok(b"x" * 1001))) as fake:
        upstream = Upstream(LOCAL, fake.port, max_answer=1000)
        with pytest.raises(UpstreamBroken, match="1000 bytes"):
            await upstream.fetch(Call("GET", b"/", [], b""))
        upstream.close()


@on_loop
async def test_a_cancelled_fetch_is_cut_at_the_model_server() -> None:
    events: list[str] = []

    async def waits(wire: Wire) -> None:
        await wire.head()
        events.append("asked")
        await wire.gone()
        events.append("gone")

    async with model_server(waits) as fake:
        upstream = Upstream(LOCAL, fake.port)
        task = asyncio.create_task(upstream.fetch(Call("POST", b"/", [], b"")))
        await until(lambda: events == ["asked"])
        task.cancel()
        await until(lambda: events == ["asked", "gone"])
        upstream.close()
