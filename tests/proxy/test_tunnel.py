"""Connections that switch protocols: WebSocket and any other token, as bytes both ways, until both sides have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from knative_sponge.proxy.drain import Drain
from knative_sponge.proxy.protocol import HttpProtocol
from knative_sponge.proxy.server import Listener, build
from knative_sponge.proxy.upstream import Upstream
from tests.proxy.harness import SETTINGS, ModelServer, Script, answering, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import LOCAL, Client, Wire, body_of, client, fields_of

OFFER = b"GET /chat?a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
MANY = bytes(range(256)) * 4096


def switching(*fields: bytes, then: Script | None = None) -> Script:
    """Accept the offer, then echo until the client ends its side, or do something else."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH + b"".join(field + b"\r\n" for field in fields) + b"\r\n")
        if then is not None:
            await then(wire)
            return
        while data := await wire.reader.read(65536):
            await wire.send(data)

    return script


@asynccontextmanager
async def tunnel(script: Script, **more: Any) -> AsyncIterator[tuple[ModelServer, Client]]:
    """A client that has just switched protocols with a model server."""
    async with model_server(script) as fake, proxy(fake, **more) as port, client(port) as one:
        await one.send(OFFER + b"\r\n")
        assert (await one.head()).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        yield fake, one


@on_loop
async def test_an_offer_and_its_acceptance_pass_with_their_fields_and_then_bytes_pass_both_ways() -> None:
    accept = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    key, protocol = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="), (b"sec-websocket-protocol", b"v1, v2")
    async with model_server(switching(accept)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(OFFER + b"".join(b"%b: %b\r\n" % pair for pair in (key, protocol)) + b"\r\n")
        head = fields_of(await one.head())
        assert {name.lower(): value.lower() for name, value in head} == {
            b"connection": b"upgrade", b"upgrade": b"websocket",
            b"sec-websocket-accept": accept.split(b": ")[1].lower(),
        }  # fmt: skip
        asked = fields_of(fake.seen[0])
        assert {key, protocol, (b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")} <= set(asked)
        assert fake.seen[0].startswith(b"GET /chat?a HTTP/1.1\r\n")
        for message in (b"\x81\x05hello", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0"):
            await one.send(message)
            assert await one.exactly(len(message)) == message


@on_loop
async def test_any_protocol_may_be_switched_to() -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH.replace(b"websocket", b"custom/2") + b"\r\nhello")

    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(OFFER.replace(b"WebSocket", b"h2c, Custom/1, Custom/2") + b"\r\n")
        assert b"\r\nupgrade: custom/2\r\n" in (await one.head()).lower()
        assert await one.rest() == b"hello"
        assert (b"upgrade", b"Custom/1, Custom/2") in fields_of(fake.seen[0]), "HTTP/2 cannot be carried"


@pytest.mark.parametrize("portion", [1, 7, 100_000])
@on_loop
async def test_bytes_right_behind_the_offer_and_right_behind_the_acceptance_are_not_lost(portion: int) -> None:
    async def first_words(wire: Wire) -> None:
        await wire.send(await wire.exactly(len(early)) + b"end")

    early = b"early" * 40
    script = switching(then=first_words)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        stream = OFFER + b"\r\n" + early
        for at in range(0, len(stream), portion):
            await one.send(stream[at : at + portion])
            await asyncio.sleep(0)
        await one.head()
        assert await one.rest() == early + b"end"


@on_loop
async def test_bytes_in_one_packet_with_the_acceptance_arrive() -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH + b"\r\n" + b"HTTP/1.1 200 OK\r\n\r\n")
        await wire.gone()

    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(OFFER + b"\r\n")
        await one.head()
        assert await one.head() == b"HTTP/1.1 200 OK\r\n\r\n"


@on_loop
async def test_an_offer_that_is_declined_is_an_ordinary_request_and_its_successors_are_answered() -> None:
    declined = (
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno"
    )
    async with model_server(answering(declined, ok(b"next"))) as fake, proxy(fake) as port, client(port) as one:
        for _ in range(2):
            await one.send(OFFER + b"\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
            first = await one.reply()
            assert (first.status, first.body) in ((426, b"no"), (200, b"next"))
            assert [(await one.reply()).body for _ in range(2)] == [b"next", b"next"]
        assert [head.split()[1] for head in fake.seen] == [b"/chat?a", b"/2", b"/3"] * 2
        assert fake.connections == 1


@on_loop
async def test_informational_answers_before_the_acceptance_are_passed_on() -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + SWITCH + b"\r\nx")

    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(OFFER + b"\r\n")
        assert (await one.head()).startswith(b"HTTP/1.1 103 ")
        assert (await one.head()).startswith(b"HTTP/1.1 101 ")
        assert await one.rest() == b"x"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", SWITCH, id="none offered"),
        pytest.param(OFFER, SWITCH.replace(b"websocket", b"other"), id="another one"),
        pytest.param(OFFER, b"HTTP/1.1 101 Switching Protocols\r\n", id="none named"),
        pytest.param(OFFER.replace(b"HTTP/1.1", b"HTTP/1.0"), SWITCH, id="offered in HTTP/1.0"),
        pytest.param(OFFER.replace(b"WebSocket", b"h2c"), SWITCH.replace(b"websocket", b"h2c"), id="HTTP/2"),
    ],
)
@on_loop
async def test_a_switch_that_was_not_offered_is_a_502(offer: bytes, answer: bytes) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer + b"\r\nsmuggled")
        await wire.gone()

    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(offer + b"\r\n")
        reply = await one.reply()
        assert reply.status == 502
        assert b"smuggled" not in reply.body


CONNECT = b"CONNECT b.example:80 HTTP/1.1\r\nHost: b.example:80\r\n\r\n"


@on_loop
async def test_connect_reaches_the_application_and_its_acceptance_makes_a_tunnel() -> None:
    async def accepts(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 Connected\r\nX: y\r\n\r\nhello")
        await wire.send(await wire.exactly(3))

    async with model_server(accepts) as fake, proxy(fake) as port, client(port) as one:
        await one.send(CONNECT + b"a\r\n")
        assert await one.head() == b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"
        assert await one.rest() == b"helloa\r\n"
        assert fake.seen[0].startswith(CONNECT[:-2].replace(b"Host", b"host"))


@on_loop
async def test_connect_that_is_refused_is_an_ordinary_answer() -> None:
    refused = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno"
    async with model_server(answering(refused, ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.send(CONNECT + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ((await one.reply("OPTIONS")).body, (await one.reply()).body) == (b"no", b"ok")


@pytest.mark.parametrize("field", [b"Content-Length: 2", b"Transfer-Encoding: chunked"])
@on_loop
async def test_an_acceptance_of_connect_that_has_a_body_is_a_502(field: bytes) -> None:
    accepted = b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\nno"
    async with model_server(answering(accepted)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(CONNECT)
        assert (await one.reply("OPTIONS")).status == 502


@on_loop
async def test_an_offer_on_a_connection_that_went_stale_is_made_again_on_a_new_one() -> None:
    async def once(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"first"))
        await wire.head()

    async with model_server(once, switching()) as fake, proxy(fake) as port, client(port) as one:
        assert (await one.get()).body == b"first"
        await one.send(OFFER + b"\r\nping")
        assert (await one.head()).startswith(b"HTTP/1.1 101 ")
        assert await one.exactly(4) == b"ping"


@on_loop
async def test_the_end_of_the_clients_side_reaches_the_model_server_and_the_other_side_goes_on() -> None:
    async def counts(wire: Wire) -> None:
        await wire.send(b"%d" % len(await wire.rest()))

    async with tunnel(switching(then=counts)) as (_, one):
        await one.send(MANY)
        one.half_close()
        assert await one.rest() == b"%d" % len(MANY)


@on_loop
async def test_the_end_of_the_model_servers_side_reaches_the_client_and_the_other_side_goes_on() -> None:
    heard: list[bytes] = []

    async def ends(wire: Wire) -> None:
        await wire.send(b"bye")
        wire.half_close()
        heard.append(await wire.rest())

    async with tunnel(switching(then=ends)) as (_, one):
        assert await one.rest() == b"bye"
        await one.send(MANY)
        one.half_close()
        await until(lambda: heard == [MANY])


@pytest.mark.parametrize("first", ["client", "model server"])
@on_loop
async def test_the_end_of_both_sides_loses_nothing_that_is_still_on_its_way(first: str) -> None:
    go = asyncio.Event()
    heard: list[int] = []

    async def ends(wire: Wire) -> None:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        if first == "client":
            await go.wait()
        wire.half_close()
        await go.wait()
        await asyncio.sleep(0.1)  # for the proxy to see both ends; only what it does wrong could need longer
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard.append(len(await wire.rest()))

    async with tunnel(switching(then=ends)) as (_, one):
        if first != "client":
            assert await one.rest() == b""
        one.writer.write(MANY * 8)
        one.half_close()
        go.set()
        if first == "client":
            assert await one.rest() == b""
        await until(lambda: heard == [len(MANY) * 8])


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@on_loop
async def test_a_client_that_leaves_ends_the_tunnel_at_the_model_server(reset: bool) -> None:
    wires: list[Wire] = []

    async def talks(wire: Wire) -> None:
        wires.append(wire)
        await wire.gone()

    async with tunnel(switching(then=talks)) as (_, one):
        if reset:
            one.reset()
        else:
            one.close()
        await until(lambda: wires[0].over)


@on_loop
async def test_a_client_that_is_gone_is_noticed_when_the_model_server_goes_on_talking() -> None:
    talked: list[bool] = []

    async def talks_on(wire: Wire) -> None:
        await wire.rest()
        try:
            while True:
                await wire.send(b"tick")
                await asyncio.sleep(0.01)
        finally:
            talked.append(True)

    async with tunnel(switching(then=talks_on)) as (_, one):
        one.close()
        await until(lambda: bool(talked))


@on_loop
async def test_a_model_server_that_breaks_off_resets_the_client() -> None:
    async def breaks(wire: Wire) -> None:
        await wire.exactly(1)
        wire.reset()

    async with tunnel(switching(then=breaks)) as (_, one):
        await one.send(b"x")
        with pytest.raises(ConnectionResetError):
            await one.rest()


@on_loop
async def test_who_does_not_read_holds_up_the_other_side_and_loses_nothing() -> None:
    size = 64 * len(MANY)
    go = asyncio.Event()
    received: list[int] = []

    async def both(wire: Wire) -> None:
        sending = asyncio.ensure_future(wire.send(b"d" * size))
        await go.wait()
        count = 0
        while data := await wire.reader.read(2**20):
            count += len(data)
        received.append(count)
        await sending

    async with tunnel(switching(then=both)) as (_, one):
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        up = asyncio.ensure_future(one.send(b"u" * size))
        # Kernel buffers take a few MiB; the 64 MiB cannot be on their way while nobody reads.
        await asyncio.sleep(0.2)
        assert not up.done()
        go.set()
        one.writer.transport.resume_reading()  # type: ignore[attr-defined]
        down = 0
        while down < size:
            down += len(await one.reader.read(2**20))
        await up
        one.half_close()
        await until(lambda: received == [size])


@pytest.mark.parametrize("timer", ["timeout_s", "response_start_timeout_s", "idle_timeout_s"])
@on_loop
async def test_a_tunnel_is_cut_by_the_first_timeout_however_busy_it_is(timer: str) -> None:
    async def echo(one: Client) -> None:
        while True:
            await one.send(b"x")
            await one.exactly(1)
            await asyncio.sleep(0.01)

    async with tunnel(switching(), **{timer: 0.3}) as (_, one):
        talking = asyncio.ensure_future(echo(one))
        await asyncio.wait([talking])
        assert isinstance(talking.exception(), ConnectionError | asyncio.IncompleteReadError | RuntimeError)
        assert one.writer.is_closing()


@on_loop
async def test_a_tunnel_that_is_offered_to_a_leaving_proxy_is_served_until_it_is_quiet() -> None:
    drain = Drain(30.0)
    drain.draining = True
    async with model_server(switching()) as fake, proxy(fake, drain=drain) as port, client(port) as one:
        await one.send(OFFER + b"\r\nx")
        await one.head()
        assert await one.exactly(1) == b"x"


@on_loop
async def test_bytes_behind_an_offer_wait_at_the_client_while_there_is_no_answer() -> None:
    connections: list[asyncio.Transport] = []
    go = asyncio.Event()
    heard: list[int] = []

    class Watched(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.append(transport)

    async def late(wire: Wire) -> None:
        await wire.head()
        await go.wait()
        await wire.send(SWITCH + b"\r\n")
        heard.append(len(await wire.rest()))

    async with model_server(late) as fake, proxy(fake, protocol=Watched) as port, client(port) as one:
        one.writer.write(OFFER + b"\r\n" + MANY * 8)
        await until(lambda: bool(connections) and not connections[0].is_reading())
        go.set()
        await one.writer.drain()
        one.half_close()
        await until(lambda: heard == [len(MANY) * 8])


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays"])
@on_loop
async def test_leaving_waits_for_a_tunnel_but_not_for_ever(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    monkeypatch.setattr(Listener, "tunnel_grace_s", 3600.0 if ends else 0.5)
    async with model_server(switching()) as fake:
        servers = build(SETTINGS, upstream=Upstream(LOCAL, fake.port))
        await servers.start()
        async with client(servers.data.port) as one:
            await one.send(OFFER + b"\r\n")
            await one.head()
            leaving = asyncio.ensure_future(servers.stop())
            await until(lambda: not servers.data.servers[0].is_serving())
            await one.send(b"still here")
            assert await one.exactly(10) == b"still here"
            assert not leaving.done()
            if ends:
                one.half_close()
                assert await one.rest() == b""
            else:
                with pytest.raises(ConnectionResetError):
                    await one.rest()
            await leaving


@on_loop
async def test_an_offer_never_waits_in_the_deadline_queue() -> None:
    class Queue:
        def wants(self, scope: Scope) -> bool:
            return True

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError

    async with model_server(switching()) as fake, proxy(fake, inference=Queue()) as port, client(port) as one:
        await one.send(OFFER.replace(b"GET", b"POST") + b"\r\nx")
        assert (await one.head()).startswith(b"HTTP/1.1 101 ")
        assert await one.exactly(1) == b"x"


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], bytes, list[int]]:
    """Bodies of requests that stay HTTP, what follows the offer that is taken, and where the stream is cut."""
    bodies = draw(st.lists(st.binary(max_size=20), max_size=5))
    behind = draw(st.binary(max_size=200))
    return bodies, behind, draw(st.lists(st.integers(1, 60), min_size=1, max_size=30))


@settings(max_examples=40, deadline=None)
@given(conversations(), st.sets(st.integers(0, 4)), st.booleans())
def test_every_byte_of_a_conversation_arrives_where_it_belongs(
    conversation: tuple[list[bytes], bytes, list[int]], offers: set[int], ends: bool
) -> None:
    bodies, behind, cuts = conversation

    async def script(wire: Wire) -> None:
        """Echo; decline every offer but that of the path /chat."""
        while True:
            head = await wire.head()
            if head.startswith(b"GET /chat"):
                break
            await wire.send(ok(await body_of(wire, head)))
        await wire.send(SWITCH + b"\r\n")
        while data := await wire.reader.read(65536):
            await wire.send(data)

    stream = b""
    for number, body in enumerate(bodies):
        if number in offers:
            stream += OFFER.replace(b"/chat", b"/other") + b"\r\n"
        stream += b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    stream += OFFER + b"\r\n" + behind

    @on_loop
    async def talk() -> None:
        async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
            at = 0
            for size in cuts:
                await one.send(stream[at : at + size])
                await asyncio.sleep(0)
                at += size
            await one.send(stream[at:])
            if ends:
                one.half_close()
            for number, body in enumerate(bodies):
                if number in offers:
                    assert (await one.reply()).body == b""
                assert (await one.reply("POST")).body == body
            heard = one.unread()
            while b"HTTP/1.1 101 " not in heard or b"\r\n\r\n" not in heard.partition(b"HTTP/1.1 101 ")[2]:
                heard += await one.reader.read(1)
            received = heard.partition(b"HTTP/1.1 101 ")[2].partition(b"\r\n\r\n")[2]
            if not ends:
                one.half_close()
            assert received + await one.rest() == behind

    talk()
