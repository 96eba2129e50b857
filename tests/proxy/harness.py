"""Real sockets around the proxy: a model server that is scripted byte by byte, and the proxy, in one loop."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec

import uvloop

from knative_sponge.asgi import ASGIApp
from knative_sponge.proxy.app import InferenceHandler, data_app
from knative_sponge.proxy.http.bounds import Bounds
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.knative.drain import Drain
from knative_sponge.proxy.server import DataListener
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.settings import ProxySettings
from tests.proxy.wire import LOCAL, Wire, body_of

P = ParamSpec("P")
PATIENCE_S = 20.0
SETTINGS = ProxySettings(
    namespace="ns",
    configuration="conf",
    revision="rev",
    pod="pod",
    pod_ip=LOCAL,
    serving_port=0,
    tls_port=0,
    user_port=0,
    container_concurrency=0,
    timeout_s=60,
    host=LOCAL,
    admin_port=0,
    drain_quiet_s=0.0,
)


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on the loop the product runs on; it may not take for ever."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; the test's own bound ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.002)


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class ModelServer:
    """Plays one script per connection, the last one for all further connections. `seen` are the heads it was sent."""

    scripts: Sequence[Script]
    port: int = 0
    connections: int = 0
    seen: list[bytes] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        wire = Wire(reader, writer)
        heard = wire.head

        async def head() -> bytes:
            data = await heard()
            self.seen.append(data)
            return data

        wire.head = head  # type: ignore[method-assign]
        try:
            await script(wire)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as failure:
            self.failures.append(failure)
        finally:
            writer.close()


@asynccontextmanager
async def model_server(*scripts: Script) -> AsyncIterator[ModelServer]:
    fake = ModelServer(scripts)
    server = await asyncio.start_server(fake.play, LOCAL, 0, limit=2**24)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
    if fake.failures:
        raise fake.failures[0]


def answering(*answers: bytes) -> Script:
    """For each request on the connection, the next of these answers, byte for byte; the last one again and again."""

    async def script(wire: Wire) -> None:
        for turn in range(1_000_000):
            await body_of(wire, await wire.head())
            await wire.send(answers[min(turn, len(answers) - 1)])

    return script


def ok(body: bytes = b"ok", *fields: bytes) -> bytes:
    """A complete 200."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(
    app: ASGIApp, protocol: type[HttpProtocol] = HttpProtocol, bounds: Bounds | None = None
) -> AsyncIterator[int]:
    """Any ASGI application behind the proxy's protocol; the port."""
    listener = DataListener(app, LOCAL, 0, http=protocol, grace_s=1, bounds=bounds)
    await listener.start()
    try:
        yield listener.port
    finally:
        for connection in list(listener.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        for server in listener.servers:
            server.close()


@asynccontextmanager
async def proxy(
    fake: ModelServer | int,
    *,
    inference: InferenceHandler | None = None,
    drain: Drain | None = None,
    protocol: type[HttpProtocol] = HttpProtocol,
    bounds: Bounds | None = None,
    max_idle_s: float = 3600.0,
    **settings: Any,
) -> AsyncIterator[int]:
    """The data port in front of a model server (or of a port where there is none); the port."""
    user_port = fake if isinstance(fake, int) else fake.port
    upstream = Upstream(LOCAL, user_port, max_idle_s=max_idle_s, budget=None if bounds is None else bounds.budget)
    app = data_app(
        replace(SETTINGS, user_port=user_port, **settings), upstream, Drain(0.0) if drain is None else drain, inference
    )
    async with serving(app, protocol, bounds) as port:
        try:
            yield port
        finally:
            upstream.close()


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.create_server((LOCAL, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
