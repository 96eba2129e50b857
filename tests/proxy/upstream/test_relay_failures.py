"""Every way a model server can misbehave, and what the client sees: never a wrong answer, never a cut one taken for whole."""

from __future__ import annotations

import asyncio

import h11
import pytest

from tests.proxy.harness import Script, answering, closed_port, model_server, ok, on_loop, proxy, until
from tests.proxy.wire import Wire, body_of, client

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def after_head(*pieces: bytes, reset: bool = False) -> Script:
    """Read one request's head, answer with `pieces`, then end the connection."""

    async def script(wire: Wire) -> None:
        await wire.head()
        for piece in pieces:
            await wire.send(piece)
        if reset:
            wire.reset()

    return script


@on_loop
async def test_nobody_listening_is_a_502_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with proxy(closed_port()) as port, client(port) as one:
        reply = await one.get()
        assert reply.status == 502
        assert reply.field(b"sponge-reason") == b"upstream-refused"
        assert reply.field(b"content-type") == b"text/plain; charset=utf-8"
        assert reply.field(b"x-content-type-options") == b"nosniff"
        assert reply.body.startswith(b"no connection to the model server")
        assert reply.body.endswith(b"\n")
        assert [line.partition(": ")[0] for line in caplog.messages] == ["upstream-refused"], (
            "the operator reads it too"
        )
        assert (await one.get()).status == 502, "the client's connection stays usable"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(after_head(), id="closes before the head"),
        pytest.param(after_head(reset=True), id="resets before the head"),
        pytest.param(after_head(b"HTTP/1.1 200 OK\r\nContent-Le"), id="closes inside the head"),
        pytest.param(after_head(b"SSH-2.0-OpenSSH\r\n"), id="does not speak HTTP"),
        pytest.param(after_head(b"HTTP/9.9 200 OK\r\n\r\n"), id="speaks another version"),
        pytest.param(
            after_head(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), id="has two lengths"
        ),
        pytest.param(
            after_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            id="is chunked and has a length",
        ),
        pytest.param(
            after_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            id="uses a transfer coding nobody asked for",
        ),
        pytest.param(
            after_head(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), id="upgrades unasked"
        ),
        pytest.param(after_head(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**21), id="has an endless head"),
        pytest.param(after_head(CHUNKED + b"zz\r\n"), id="has a bad first chunk, with the head"),
    ],
)
@on_loop
async def test_a_failure_before_the_answer_begins_is_a_502(script: Script) -> None:
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.get()
        assert reply.status == 502
        assert reply.field(b"sponge-reason") == b"upstream-error"
        assert fake.connections == 1


def beginning(first: bytes) -> tuple[Script, list[Wire]]:
    """A script that begins its answer and leaves the rest to the test, by the wire in the list."""
    wires: list[Wire] = []

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(first)
        wires.append(wire)
        await wire.gone()

    return script, wires


def read_whole(parser: h11.Connection) -> None:
    while not isinstance(parser.next_event(), h11.EndOfMessage):
        pass


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", b"", id="known length"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", b"", id="between chunks"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", b"5\r\nwo", id="inside a chunk"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", b"zz\r\n", id="with a bad chunk size"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", b"0\r\nbad trailer\r\n\r\n", id="with a bad trailer"),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@on_loop
async def test_a_failure_in_mid_answer_cuts_the_client_off(first: bytes, then: bytes, reset: bool) -> None:
    script, wires = beginning(first)
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = await one.reader.readuntil(b"hello")
        if then:
            await wires[0].send(then)
        if reset:
            wires[0].reset()
        else:
            wires[0].close()
        received += await one.rest()
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(received)
        parser.receive_data(b"")
        with pytest.raises(h11.RemoteProtocolError):
            read_whole(parser)


@on_loop
async def test_a_client_of_http_1_0_sees_a_reset_since_a_close_would_end_its_answer() -> None:
    script, wires = beginning(CHUNKED + b"5\r\nhello\r\n")
    async with model_server(script) as fake, proxy(fake) as port, client(port) as one:
        await one.send(b"GET / HTTP/1.0\r\n\r\n")
        await one.reader.readuntil(b"hello")
        wires[0].close()
        with pytest.raises(ConnectionResetError):
            await one.rest()


@on_loop
async def test_bytes_behind_an_answer_reach_nobody() -> None:
    forged = ok(b"forged")
    async with (
        model_server(answering(ok(b"first") + forged), answering(ok(b"second"))) as fake,
        proxy(fake) as port,
        client(port) as one,
    ):
        assert (await one.get()).body == b"first"
        assert (await one.get()).body == b"second"
        assert fake.connections == 2


@on_loop
async def test_bytes_on_an_idle_connection_reach_nobody() -> None:
    first, idle = beginning(ok(b"first"))
    async with model_server(first, answering(ok(b"second"))) as fake, proxy(fake) as port, client(port) as one:
        assert (await one.get()).body == b"first"
        await idle[0].send(ok(b"forged"))
        await until(lambda: idle[0].over)
        assert (await one.get()).body == b"second"
        assert fake.connections == 2


@on_loop
async def test_a_client_that_leaves_in_mid_answer_ends_it_at_the_model_server() -> None:
    begun, wires = beginning(CHUNKED + b"6\r\nsec")
    async with model_server(begun, answering(ok(b"second"))) as fake, proxy(fake) as port:
        async with client(port) as first:
            await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await first.reader.readuntil(b"sec")
        await until(lambda: wires[0].over)
        async with client(port) as other:
            assert (await other.get()).body == b"second"


@on_loop
async def test_a_client_that_leaves_ends_its_request_at_the_model_server() -> None:
    events: list[str] = []

    async def waits(wire: Wire) -> None:
        await body_of(wire, await wire.head())
        events.append("asked")
        await wire.gone()
        events.append("gone")

    async with model_server(waits) as fake, proxy(fake) as port:
        async with client(port) as one:
            await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
            await until(lambda: events == ["asked"])
        await until(lambda: events == ["asked", "gone"])


@on_loop
async def test_a_client_that_leaves_in_mid_request_ends_it_at_the_model_server() -> None:
    ended: list[bytes] = []

    async def reads(wire: Wire) -> None:
        await wire.head()
        ended.append(await wire.rest())

    async with model_server(reads) as fake, proxy(fake) as port:
        async with client(port) as one:
            await one.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart")
            await until(lambda: bool(fake.seen))
        await until(lambda: ended == [b"part"])
        await until(lambda: not any("pump" in repr(task) for task in asyncio.all_tasks()))
