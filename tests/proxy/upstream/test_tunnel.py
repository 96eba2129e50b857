"""Connections that have switched protocols: bytes both ways until both sides have ended, time is up or the proxy leaves."""

from __future__ import annotations

import asyncio

import pytest

from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.server import DataListener, build
from knative_sponge.proxy.upstream.pool import Upstream
from tests.proxy.harness import SETTINGS, model_server, on_loop, proxy, until
from tests.proxy.tunnel_kit import MANY, OFFER, SWITCH, switching, tunnel
from tests.proxy.wire import LOCAL, Client, Wire, client


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
    monkeypatch.setattr(DataListener, "tunnel_grace_s", 3600.0 if ends else 0.5)
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
