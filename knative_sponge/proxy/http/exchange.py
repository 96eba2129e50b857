"""One request and its answer on a client connection, as ASGI sees them; parses nothing and knows no upstream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from knative_sponge.asgi import ASGIApp, Message, Scope
from knative_sponge.byte_budget import ByteBudget, no_room
from knative_sponge.codec.base import Answer
from knative_sponge.errors import RequestFailed
from knative_sponge.proxy.http.failure_log import note_failure
from knative_sponge.proxy.http.flow import WriteGate
from knative_sponge.proxy.http.framing import (
    BODYLESS,
    CONTINUE,
    FRAMING_FIELDS,
    STATUS_LINE,
    Framing,
    field_lines,
    unframed,
)
from knative_sponge.proxy.http.headers import Pair
from knative_sponge.proxy.http.plain_answers import error, refusal

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 64 * 1024
"""Bytes of a request's body that wait in memory before its connection is read no further."""


class ClientConnection(Protocol):
    """The connection that an exchange is on: where its answer goes, and who has to know how far it is."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    gate: WriteGate
    budget: ByteBudget
    """Where the bytes of a request come from, from when they are read until they are taken and the next ones asked for."""
    largest_write: int
    """Bytes of an answer that are written at once; the rest waits until they are gone."""
    last_write: int
    """Bytes of the latest one. All of them are kept until the last one is gone."""

    def set_reading(self) -> None:
        """The buffered part of the request's body has grown: read on or not."""
        ...

    def body_taken(self) -> None:
        """The application took what was buffered of the request's body."""
        ...

    def switch(self, exchange: Exchange) -> None:
        """The exchange's answer is another protocol; from here on all bytes of the client belong to it."""
        ...

    def answered(self, exchange: Exchange) -> None:
        """The exchange's answer is written completely."""
        ...

    def cut(self, exchange: Exchange) -> None:
        """End the connection so that the client sees a broken answer."""
        ...


def _over() -> bool:
    """What `sponge.arrived` says when there is nothing to wait for any more."""
    return True


class Exchange:
    """One request and its answer; `receive` and `send` are the ASGI callables.

    Beyond ASGI 3 (scope extension `sponge.http`): `sponge.arrived()` in the scope tells whether `receive` would return at
    once; the last `http.request` message has `trailers` when there were any;
    `http.response.informational` with `status` and `headers` sends a 1xx answer; `http.response.start` with
    `trailers: True` is followed by `http.response.trailers`, as in ASGI's own extension. Where the scope has
    `sponge.upgrade`, the protocols offered, a start with status 101 (2xx to CONNECT) makes the connection the
    application's until it returns: `receive` gives the client's bytes as a body, `send` writes a body unframed.
    A client that goes away cancels the task that runs the application. A RequestFailed that the application raises
    becomes the answer when none was begun; otherwise, and after any other error, the connection is cut so that the
    client sees a broken answer.

    What the application has received counts as held until it asks for more: it may still be on its way upstream.
    """

    __slots__ = (
        "_chunks", "_connection", "_continued", "_framing", "_head", "_length", "_remaining", "_taken", "_trailers_due",
        "_waiter", "buffered", "delivered", "disconnected", "ended", "finished", "held", "keep_alive", "received", "scope",
        "started", "switched", "task", "trailers",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, scope: Scope, *, keep_alive: bool) -> None:
        self.scope = scope
        scope["sponge.arrived"] = self._arrived
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self.buffered = self.received = 0
        self.held = 0
        """Bytes of the budget that it holds besides its body: for a long head, and while it waits behind others."""
        self.ended = False
        """The request has arrived completely."""
        self.delivered = False
        """… and the application has all of it."""
        self.started = False
        """The answer's head is written."""
        self.switched = False
        """The connection carries another protocol."""
        self.finished = False
        self.disconnected = False
        self.trailers: list[Pair] = []
        self._connection = connection
        self._continued = False
        self._chunks: list[bytes] = []
        self._taken = 0
        self._length: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None
        self._framing = Framing.NONE
        self._remaining = 0
        self._trailers_due = False

    # The request, as the connection parses it.

    def feed(self, body: bytes) -> None:
        """More of the body. Raises QueueFull when there is no room for it."""
        size = len(body)
        self.received += size
        if not (self.finished or self.disconnected):
            if not self._connection.budget.take(size, urgent=True):
                raise no_room(size)
            self._chunks.append(body)
            self.buffered += size
            if self.buffered > HIGH_WATER:
                self._connection.set_reading()
            self._wake()

    def feed_end(self) -> None:
        """The request is complete."""
        self.ended = True
        self._wake()

    def disconnect(self) -> None:
        """The client is gone: nothing is sent any more, and the application is cancelled."""
        self.disconnected = True
        if self.task is not None and not self.finished:
            self.task.cancel()
        self._give_back()
        self._wake()

    def expected(self) -> int:
        """Bytes of the body that are still to come, as far as its head says."""
        if self._length is None:
            lengths = [value for name, value in self.scope["headers"] if name == b"content-length"]
            self._length = int(lengths[0]) if lengths else 0
        return max(self._length - self.received, 0)

    def probe(self) -> None:
        """Send what means nothing, so that the system of a client that is gone answers it with a reset."""
        if not self.started:
            if self.scope["http_version"] == "1.1":
                self._connection.transport.write(CONTINUE)
        elif self._framing is Framing.CHUNKED:
            self._connection.transport.write(b"0")  # a leading zero of the next chunk's size

    # The application.

    def start(self, app: ASGIApp) -> None:
        """Call the application, in a task of its own."""
        self.task = self._connection.loop.create_task(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        """Call the application and see to it that the client is told how it ended."""
        try:
            await app(self.scope, self.receive, self.send)
        except RequestFailed as failure:
            note_failure(failure.reason, str(failure))
            self._fail(refusal(failure))
        except asyncio.CancelledError:
            self._connection.cut(self)
            raise
        except Exception:
            logger.exception("%s %s failed", self.scope["method"], self.scope["path"])
            self._fail(error(500, "Internal Server Error"))
        else:
            if self.switched and not self.disconnected:
                self._finish()
            elif not self.finished and not self.disconnected:
                logger.error("%s %s was not answered completely", self.scope["method"], self.scope["path"])
                self._fail(error(500, "Internal Server Error"))

    async def receive(self) -> Message:
        """The next piece of the request; after the last one, waits for the end of the exchange."""
        while self.delivered or not self._arrived():
            if self.finished or self.disconnected:
                return {"type": "http.disconnect"}
            if not (self._continued or self.delivered or self.started):
                self._continue()
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        if self._taken:
            self._connection.budget.give(self._taken)
        self._taken = self.buffered
        self.buffered = 0
        self._connection.body_taken()
        if not self.ended:
            return {"type": "http.request", "body": body, "more_body": True}
        self.delivered = True
        if self.trailers:
            return {"type": "http.request", "body": body, "more_body": False, "trailers": self.trailers}
        return {"type": "http.request", "body": body, "more_body": False}

    def _arrived(self) -> bool:
        return self.ended or bool(self._chunks)

    def _continue(self) -> None:
        """Ask for a body that the client holds back until it is told to go on."""
        self._continued = True
        if self.scope["http_version"] == "1.1" and any(name == b"expect" for name, _ in self.scope["headers"]):
            self._connection.transport.write(CONTINUE)

    async def send(self, message: Message) -> None:
        """One piece of the answer. The head is held until a body message follows, so that both leave in one write."""
        if self._connection.gate.closed:
            await self._connection.gate.passed()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            if len(body) > self._connection.largest_write:
                await self._body_in_pieces(memoryview(body), message.get("more_body", False))
            else:
                self._body(body, message.get("more_body", False))
        elif kind == "http.response.start":
            self._start(message["status"], message.get("headers", ()), message.get("trailers", False))
        elif kind == "http.response.trailers":
            self._trailers(message.get("headers", ()), message.get("more_trailers", False))
        elif kind == "http.response.informational":
            self._inform(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"unexpected message {kind!r}")

    # The answer.

    def _start(self, status: int, headers: Sequence[Pair], trailers: bool) -> None:
        if self._head is not None or self.started:
            raise RuntimeError("the answer was started twice")
        if status == 101 or (self.scope["method"] == "CONNECT" and 200 <= status < 300):
            self._switch(status, headers)
            return
        parts = [STATUS_LINE[status]]
        framing = Framing.CHUNKED if self.scope["http_version"] == "1.1" else Framing.CLOSE
        for name, value in headers:
            if name in FRAMING_FIELDS:
                if name == b"content-length":
                    if status == 204:
                        continue
                    framing = Framing.LENGTH
                    self._remaining = int(value)
                else:
                    if name == b"connection" and value.lower() == b"close":
                        self.keep_alive = False
                    continue
            parts += (name, b": ", value, b"\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != 1 + (len(parts) - 1) // 4:
            raise RuntimeError("a header field of the answer holds a line end")
        if self.scope["method"] == "HEAD" or status in BODYLESS:
            framing = Framing.NONE
        elif framing is Framing.CHUNKED:
            head += b"transfer-encoding: chunked\r\n"
        # An unfinished request leaves the connection in the middle of a message.
        if framing is Framing.CLOSE or not self.ended:
            self.keep_alive = False
        if not self.keep_alive:
            head += b"connection: close\r\n"
        self._framing = framing
        self._trailers_due = trailers
        self._head = head + b"\r\n"

    def _switch(self, status: int, headers: Sequence[Pair]) -> None:
        if "sponge.upgrade" not in self.scope:
            raise RuntimeError("a protocol was switched to that nobody offered")
        self._write([STATUS_LINE[status], field_lines(unframed(headers)), b"\r\n"])
        self.started = self.switched = True
        self.keep_alive = self.ended = self.delivered = False
        self._framing = Framing.CLOSE
        self._connection.switch(self)

    async def _body_in_pieces(self, body: memoryview, more: bool) -> None:
        """Write it as the client takes it, so that the rest waits with its sender, who has accounted for it.

        Each piece is a copy, which keeps nothing else in memory.
        """
        size = self._connection.largest_write
        for begin in range(0, len(body), size):
            if self._connection.gate.closed:
                await self._connection.gate.passed()
            if self.disconnected:
                return
            end = begin + size
            self._body(bytes(body[begin:end]), more or end < len(body))

    def _body(self, body: bytes, more: bool) -> None:
        if self._head is None and not self.started:
            raise RuntimeError("a body came before the answer's start")
        if self.finished:
            raise RuntimeError("a body came after the answer's end")
        frame = []
        self._connection.last_write = len(body)
        if self._head is not None:
            frame.append(self._head)
            self._head = None
            self.started = True
        framing = self._framing
        if framing is Framing.LENGTH:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the body does not have the announced length")
            frame.append(body)
        elif framing is Framing.CHUNKED:
            if body:
                frame += (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                frame.append(b"0\r\n" if self._trailers_due else b"0\r\n\r\n")
                self._framing = Framing.TRAILERS
        elif framing is Framing.CLOSE:
            frame.append(body)
        self._write(frame)
        if not more and self.switched:
            if self._connection.transport.can_write_eof():
                self._connection.transport.write_eof()
        elif not more and not self._trailers_due:
            self._finish()

    def _trailers(self, trailers: Sequence[Pair], more: bool) -> None:
        if not self._trailers_due or self.finished or not self.started:
            raise RuntimeError("trailers were not announced")
        if self._framing is Framing.TRAILERS:
            self._write([field_lines(trailers), b"" if more else b"\r\n"])
        if not more:
            self._finish()

    def _inform(self, status: int, headers: Sequence[Pair]) -> None:
        if self._head is not None or self.started:
            raise RuntimeError("an informational answer came after the start")
        if self.scope["http_version"] != "1.1":
            return
        self._write([STATUS_LINE[status], field_lines(unframed(headers)), b"\r\n"])

    def _write(self, frame: list[bytes]) -> None:
        transport = self._connection.transport
        if len(frame) == 1:
            transport.write(frame[0])
        elif frame:
            transport.writelines(frame)

    def _finish(self) -> None:
        self.finished = True
        self._give_back()
        self._wake()
        self._connection.answered(self)

    def _fail(self, answer: Answer) -> None:
        if self.started or self.finished or self.disconnected:
            self._connection.cut(self)
            return
        self._head = None
        self._start(answer.status, answer.headers, trailers=False)
        self._body(answer.body, more=False)

    @property
    def unframed(self) -> bool:
        """Whether only the end of the connection ends the answer's body."""
        return self.started and self._framing is Framing.CLOSE

    def _give_back(self) -> None:
        """Nothing of the request is held any more, nor does it hold itself: that would wait for the garbage collector."""
        self.scope["sponge.arrived"] = _over
        self._chunks = []
        size = self.buffered + self._taken + self.held
        self.buffered = self._taken = self.held = 0
        if size:
            self._connection.budget.give(size)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
