"""Real sockets around the proxy: a model server that is scripted byte by byte, the proxy in the same loop, a raw client.

Nothing here uses the proxy's own parsing: h11 reads what the proxy writes.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec

import h11
import uvloop
from starlette.types import ASGIApp

from knative_sponge.proxy.app import InferenceHandler, data_app
from knative_sponge.proxy.drain import Drain
from knative_sponge.proxy.protocol import HttpProtocol
from knative_sponge.proxy.server import Listener
from knative_sponge.proxy.upstream import Upstream
from knative_sponge.settings import ProxySettings

P = ParamSpec("P")
LOCAL = "127.0.0.1"
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
        await asyncio.sleep(0.002)  # noqa: ASYNC110 (what is waited for is told by nobody)


class Wire:
    """One connection's bytes, either end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = False
        """`gone` has seen the end."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """All bytes up to and with the next blank line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """All bytes up to the end; the end must be a regular one."""
        return await self.reader.read()

    async def gone(self) -> None:
        """Return once the other side has closed or reset the connection; what comes before that is dropped."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.over = True

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


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
    server = await asyncio.start_server(fake.play, LOCAL, 0)
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


async def body_of(wire: Wire, head: bytes) -> bytes:
    """The body that belongs to a request's head, decoded."""
    fields = fields_of(head)
    for name, value in fields:
        if name.lower() == b"content-length":
            return await wire.exactly(int(value))
        if name.lower() == b"transfer-encoding":
            body = b""
            while size := int((await wire.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await wire.exactly(size)
                await wire.exactly(2)
            while await wire.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return body
    return b""


def fields_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of a head, in order."""
    pairs = [line.split(b":", 1) for line in head.split(b"\r\n")[1:] if line]
    return [(name, value.strip(b" ")) for name, value in pairs]


def ok(body: bytes = b"ok", *fields: bytes) -> bytes:
    """A complete 200."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(app: ASGIApp, protocol: type[HttpProtocol] = HttpProtocol) -> AsyncIterator[int]:
    """Any ASGI application behind the proxy's protocol; the port."""
    listener = Listener(app, LOCAL, 0, http=protocol, grace_s=1)
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
    max_idle_s: float = 5.0,
    **settings: Any,
) -> AsyncIterator[int]:
    """The data port in front of a model server (or of a port where there is none); the port."""
    user_port = fake if isinstance(fake, int) else fake.port
    upstream = Upstream(LOCAL, user_port, max_idle_s=max_idle_s)
    app = data_app(
        replace(SETTINGS, user_port=user_port, **settings), upstream, Drain(0.0) if drain is None else drain, inference
    )
    async with serving(app, protocol) as port:
        try:
            yield port
        finally:
            upstream.close()


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.create_server((LOCAL, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@dataclass
class Reply:
    """An answer as h11 understood it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    informational: list[tuple[int, list[tuple[bytes, bytes]]]]
    trailers: list[tuple[bytes, bytes]]

    def field(self, name: bytes) -> bytes | None:
        """The value of the only field of that name; None without one."""
        values = [value for key, value in self.fields if key == name]
        assert len(values) <= 1, values
        return values[0] if values else None


class Client(Wire):
    """A raw HTTP/1.1 client. `reply` raises h11.RemoteProtocolError when the answer is cut off."""

    _parser: h11.Connection | None = None

    async def reply(self, method: str = "GET") -> Reply:
        """The next answer on this connection."""
        parser = self._parser
        if parser is None:
            parser = self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**24)
        elif parser.their_state is h11.DONE:
            parser.start_next_cycle()
        # What was sent is the test's business; the parser only has to know which method is being answered.
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        answer = Reply(0, [], b"", [], [])
        body = bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.reader.read(262144))
            elif isinstance(event, h11.InformationalResponse):
                answer.informational.append((event.status_code, list(event.headers)))
            elif isinstance(event, h11.Response):
                answer.status, answer.fields = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.trailers = list(event.headers)
                answer.body = bytes(body)
                return answer
            else:
                raise AssertionError(f"unexpected {event!r}")

    async def ask(self, head: bytes, body: bytes = b"") -> Reply:
        """Send a request and read its answer; `head` is the request line and fields, without the blank line."""
        await self.send(head + b"\r\n\r\n" + body)
        return await self.reply(head.split(b" ", 1)[0].decode())

    async def get(self, target: bytes = b"/", *fields: bytes) -> Reply:
        return await self.ask(b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: a.example", *fields]))

    async def post(self, body: bytes, *fields: bytes, target: bytes = b"/") -> Reply:
        lines = [b"POST %b HTTP/1.1" % target, b"Host: a.example", b"Content-Length: %d" % len(body), *fields]
        return await self.ask(b"\r\n".join(lines), body)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(LOCAL, port, limit=2**24)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
