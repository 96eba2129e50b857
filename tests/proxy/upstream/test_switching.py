"""Offers to switch protocols, WebSocket or any other token, and CONNECT: what is accepted, declined or refused."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.asgi import Receive, Scope, Send
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy
from tests.proxy.tunnel_kit import OFFER, SWITCH, switching
from tests.proxy.wire import Wire, body_of, client, fields_of


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
async def test_what_would_frame_a_body_is_no_part_of_the_acceptance_of_connect(field: bytes) -> None:
    accepted = b"HTTP/1.1 200 OK\r\n" + field + b"\r\nX: y\r\n\r\nbytes of the tunnel"
    async with model_server(answering(accepted)) as fake, proxy(fake) as port, client(port) as one:
        await one.send(CONNECT)
        assert fields_of(await one.head()) == [(b"x", b"y")]
        assert await one.exactly(19) == b"bytes of the tunnel"


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
