"""Passes a request to the model server and its answer back, as they come; changes no body and keeps none in memory."""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar

from knative_sponge.asgi import Message, Receive, Scope, Send
from knative_sponge.errors import UpstreamBroken
from knative_sponge.proxy.http.headers import Pair, end_to_end, request_head
from knative_sponge.proxy.upstream.connection import Connection
from knative_sponge.proxy.upstream.pool import Upstream, may_repeat
from knative_sponge.proxy.upstream.tunnel import splice


class Relay:
    """ASGI application: the model server, seen through `upstream`.

    Raises UpstreamRefused or UpstreamBroken; when the answer was begun by then, the client's connection must be cut.
    When it is cancelled the exchange is cut at the model server too.
    """

    continue_timeout_s: ClassVar[float] = 1.0
    """How long `Expect: 100-continue` may stay unanswered before the body is sent anyway, as in Go's client."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        fields = end_to_end(scope["headers"])
        chunked = expects_continue = False
        for name, _ in scope["headers"]:
            if name == b"transfer-encoding":
                chunked = True
                fields.append((b"transfer-encoding", b"chunked"))
            elif name == b"expect":
                expects_continue = True
        offer: bytes = scope.get("sponge.upgrade", b"")
        if offer and method != "CONNECT":
            fields += ((b"connection", b"Upgrade"), (b"upgrade", offer))
        head = request_head(method, scope["sponge.target"], fields)
        # A body of which nothing has come yet may depend on the answer: it must not hold back the head.
        first = await receive() if scope["sponge.arrived"]() else None
        upstream = self._upstream
        connection = upstream.take() or await upstream.connect()
        if first is None or first["more_body"]:
            await self._stream(connection, method, head, _Body(receive, first, chunked, expects_continue), send)
            return
        while True:
            try:
                connection.begin(method, bool(offer))
                connection.write(head + _frame(first, chunked))
                connection.sent = True
                await _answer(connection, send)
                if connection.switched:
                    await splice(connection, offer, receive, send)
                return
            except UpstreamBroken:
                if first["body"] or not may_repeat(connection, method):
                    raise
            finally:
                upstream.give_back(connection)
            connection = await upstream.connect()

    async def _stream(self, connection: Connection, method: str, head: bytes, body: _Body, send: Send) -> None:
        """The body goes up while the answer may already come down."""
        pump: asyncio.Task[None] | None = None
        try:
            connection.begin(method)
            connection.write(head)
            if body.held_back:
                await self._await_continue(connection)
            if not connection.head_complete:
                pump = asyncio.get_running_loop().create_task(body.pump(connection))
            await _answer(connection, send)
        finally:
            if pump is not None:
                pump.cancel()
            self._upstream.give_back(connection)

    async def _await_continue(self, connection: Connection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.continue_timeout_s):
                await connection.head()


class _Body:
    """A request's body that is still coming."""

    __slots__ = ("_chunked", "_first", "_receive", "held_back")

    def __init__(self, receive: Receive, first: Message | None, chunked: bool, expects_continue: bool) -> None:
        self.held_back = expects_continue and first is None
        """The client sends it only when it is told to go on."""
        self._receive = receive
        self._first = first
        self._chunked = chunked

    async def pump(self, connection: Connection) -> None:
        """Write it as fast as it comes and the model server takes it."""
        message = self._first or await self._receive()
        while message["type"] == "http.request":
            connection.write(_frame(message, self._chunked))
            if not message["more_body"]:
                connection.sent = True
                return
            await connection.gate.passed()
            message = await self._receive()


async def _answer(connection: Connection, send: Send) -> None:
    """Pass the answer on; of one that switches protocols, only what comes before it."""
    await connection.head()
    while connection.informational or not connection.head_complete:
        informational, connection.informational = connection.informational, []
        for status, headers in informational:
            # 100 is between this hop's ends: the client's own comes when its body is asked for.
            if status != 100:
                await send({"type": "http.response.informational", "status": status, "headers": end_to_end(headers)})
        await connection.head()
    if connection.switched:
        return
    trailers = bool(connection.trailers) if connection.complete else connection.chunked
    headers = end_to_end(connection.headers)
    await send({"type": "http.response.start", "status": connection.status, "headers": headers, "trailers": trailers})
    while True:
        body, complete = connection.take(), connection.complete
        await send({"type": "http.response.body", "body": body, "more_body": not complete})
        if complete:
            break
        await connection.more()
    if trailers:
        fields = end_to_end(connection.trailers)
        await send({"type": "http.response.trailers", "headers": fields, "more_trailers": False})


def _frame(message: Message, chunked: bool) -> bytes:
    """A piece of the body as it goes on the wire."""
    body: bytes = message["body"]
    if not chunked:
        return body
    frame = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    if not message["more_body"]:
        trailers: list[Pair] = message.get("trailers", [])
        frame += b"0\r\n" + b"".join([b"%b: %b\r\n" % pair for pair in trailers]) + b"\r\n"
    return frame
