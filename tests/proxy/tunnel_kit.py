"""An offer to switch protocols, a model server that accepts it, and the tunnel they make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.proxy.harness import ModelServer, Script, model_server, proxy
from tests.proxy.wire import Client, Wire, client

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
