"""Places for TLS handshakes: who gets one, who gives one up, and what is left when the port closes."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from knative_sponge import tls_acceptor
from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.listener import Listener
from knative_sponge.proxy.http.plain_answers import deliver, text
from knative_sponge.tls_acceptor import TlsAcceptor, handshake_files
from tests.controller.admission.webhook_kit import on_loops
from tests.proxy.harness import on_loop
from tests.proxy.http.test_tls import OLD
from tests.proxy.wire import LOCAL, Client, client

OTHER = "127.0.0.2"


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two handshakes, two who wait."""
    monkeypatch.setattr(tls_acceptor, "MOST_HANDSHAKES", 2)
    monkeypatch.setattr(tls_acceptor, "MOST_WAITING", 2)


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await deliver(text(200, b"app"), send)


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        OLD.write(Path(folder))
        context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    listener = Listener(app, LOCAL, 0, tls=context)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


async def answer(listener: Listener, local: str = LOCAL) -> bytes:
    """What an honest client of that address gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        LOCAL, listener.port, ssl=context, server_hostname="", local_addr=(local, 0)
    )
    try:
        return (await Client(reader, writer).get()).body
    finally:
        writer.transport.abort()


async def ended(one: Client) -> bytes:
    """What came until the connection was closed."""
    with suppress(ConnectionError):
        return await one.rest()
    return b""


def acceptor(listener: Listener) -> TlsAcceptor:
    (found,) = listener.servers
    assert isinstance(found, TlsAcceptor)
    return found


async def arrived(listener: Listener, under_way: int, waiting: int) -> None:
    while (len(acceptor(listener)._under_way), len(acceptor(listener)._waiting)) != (under_way, waiting):
        await asyncio.sleep(0.002)


@on_loop
async def test_an_address_with_fewer_takes_the_place_of_the_oldest_of_the_one_with_most() -> None:
    async with listening() as listener, client(listener.port) as first, client(listener.port):
        await arrived(listener, 2, 0)
        assert await answer(listener, OTHER) == b"app"
        assert await ended(first) == b""
        await arrived(listener, 1, 0)


@on_loop
async def test_who_waits_gets_the_place_of_a_handshake_that_had_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_acceptor, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(tls_acceptor, "_LOOK_S", 0.01)
    async with listening() as listener, client(listener.port), client(listener.port):
        await arrived(listener, 2, 0)
        assert await answer(listener) == b"app", "of the same address"


@on_loop
async def test_where_too_many_wait_the_oldest_of_the_address_with_most_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_acceptor, "_PATIENCE_S", 3600)
    async with listening() as listener, client(listener.port), client(listener.port):
        await arrived(listener, 2, 0)
        async with client(listener.port) as third, client(listener.port):
            await arrived(listener, 2, 2)
            async with client(listener.port):
                assert await ended(third) == b""
                await arrived(listener, 2, 2)


@on_loops
async def test_a_port_that_closes_waits_for_no_handshake() -> None:
    async with (
        listening() as listener,
        client(listener.port) as first,
        client(listener.port) as second,
        client(listener.port) as third,
    ):
        await arrived(listener, 2, 1)
        await listener.stop()
        for one in (first, second, third):
            assert await ended(one) == b""
        assert not acceptor(listener)._tasks


@on_loops
async def test_what_is_no_tls_is_closed_and_frees_its_place() -> None:
    async with listening() as listener, client(listener.port) as one:
        await one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await ended(one)
        await arrived(listener, 0, 0)
        assert await answer(listener) == b"app"


class Scarce:
    """A listening socket that gets no file for its connections."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.refused = 0
        self.full = True

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        if self.full:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()


@on_loop
async def test_without_free_files_the_loop_is_not_kept_busy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_acceptor, "_REST_S", 0.2)
    loop = asyncio.get_running_loop()
    async with listening() as listener:
        found = acceptor(listener)
        loop.remove_reader(found._listening)
        scarce = Scarce(found._listening)
        found._listening = scarce  # type: ignore[assignment]
        loop.add_reader(scarce, found._accept)
        asking = asyncio.create_task(answer(listener))
        while not scarce.refused:
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert scarce.refused < 10
        assert "EMFILE" in caplog.text
        scarce.full = False
        assert await asking == b"app"


@pytest.mark.parametrize(("files", "places"), [(2**20, 4), (16, 2), (1, 0)])
def test_handshakes_take_an_eighth_of_the_files_at_most(files: int, places: int) -> None:
    assert handshake_files(files) == places
