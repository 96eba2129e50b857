"""One HTTP/1.1 connection to the model server, one exchange at a time; never decides whether to send a request again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import httptools

from knative_sponge.byte_budget import ByteBudget, no_room
from knative_sponge.errors import RequestFailed, UpstreamBroken
from knative_sponge.proxy.http.failure_log import failures
from knative_sponge.proxy.http.flow import WriteGate
from knative_sponge.proxy.http.framing import BODYLESS
from knative_sponge.proxy.http.head_limits import EXCESS, MOST_DIGITS, ChunkMeter, HeadLimits, HeadMeter
from knative_sponge.proxy.http.headers import Pair

HIGH_WATER: Final = 256 * 1024
"""Bytes of an answer's body that wait in memory before the connection is read no further."""


class Connection(asyncio.Protocol):
    """A connection and the answer it is receiving.

    One exchange: `begin`, `write` the request (`await gate.passed()` between its pieces), set `sent`, `await head()`,
    then `take` and `await more()` until `complete`, and `finish`. `head` and `more` raise UpstreamBroken when the
    connection fails before they have what they wait for, and QueueFull when there is no room for it.

    limits: of an answer's head, the informational answers before it included, and of its trailers.
    budget: holds what has come, until the next `take`, or `finish`: who takes it passes it on meanwhile.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[Connection], None],
        *,
        limits: HeadLimits = HeadLimits(),  # noqa: B008 (immutable)
        budget: ByteBudget | None = None,
    ) -> None:
        self.transport: asyncio.Transport
        self.idle_since_s = 0.0
        self.reused = False
        """An exchange was completed before this one."""
        self.lost = False
        self.status = 0
        self.headers: list[Pair] = []
        self.trailers: list[Pair] = []
        self.informational: list[tuple[int, list[Pair]]] = []
        """1xx answers not yet passed on."""
        self.received = False
        """At least one byte of the answer has come."""
        self.head_complete = False
        self.chunked = False
        """The answer's body comes in chunks, so that trailers may follow it."""
        self.switched = False
        """The model server has switched protocols: the body is its bytes, until its side ends."""
        self.complete = True
        self.sent = True
        """The request is written completely."""
        self.gate = WriteGate()
        self._budget = ByteBudget() if budget is None else budget
        self._loop = loop
        self._on_lost = on_lost
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False
        self._upgradable = self._tunnel = False
        self._persistent = False
        self._bodyless = False
        self._until_end = False
        self._failure: RequestFailed | None = None
        self._chunks: list[bytes] = []
        self._buffered = self._taken = 0
        self._read_paused = False
        self._limits = limits
        self._little = min(EXCESS, limits.size)
        self._meter = HeadMeter()
        self._chunk_meter: ChunkMeter | None = None
        self._trailers = self._trailer_size = 0
        self._waiter: asyncio.Future[None] | None = None

    # One exchange, as its owner sees it.

    def begin(self, method: str, upgrade: bool = False) -> None:
        """A new exchange starts; `upgrade` allows the model server to switch protocols."""
        self._busy = True
        self._upgradable = upgrade
        self._tunnel = upgrade and method == "CONNECT"
        self._persistent = False
        self._bodyless = method == "HEAD"
        self._until_end = False
        self._failure = UpstreamBroken("the model server closed the connection") if self.lost else None
        self._meter.reset()
        self._chunk_meter = None
        self._trailers = self._trailer_size = 0
        self.headers = []
        self.trailers = []
        self.informational = []
        self.received = self.head_complete = self.chunked = self.switched = self.complete = self.sent = False

    def write(self, data: bytes) -> None:
        """Send a piece of the request."""
        if not self.lost:
            self.transport.write(data)

    def write_all(self, *pieces: bytes) -> None:
        """Send a request's pieces, not copied into one."""
        if not self.lost:
            self.transport.writelines(pieces)

    def end(self) -> None:
        """Nothing more is sent; the other direction stays open."""
        if not self.lost and not self.transport.is_closing():
            self.transport.write_eof()

    async def head(self) -> None:
        """Return once the answer's head, or an informational answer, is there."""
        while self._failure is not None or not (self.head_complete or self.informational):
            await self._wait()

    async def more(self) -> None:
        """Return once there is more of the body, or it is complete."""
        while not (self._chunks or self.complete):
            await self._wait()

    async def over(self) -> None:
        """Return once the connection is lost."""
        while not self.lost:
            self._waiter = self._loop.create_future()
            await self._waiter

    def take(self) -> bytes:
        """What has come of the body since the last call."""
        chunks = self._chunks
        if self._taken:
            self._budget.give(self._taken)
            self._taken = 0
        if not chunks:
            return b""
        self._chunks = []
        self._taken, self._buffered = self._buffered, 0
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def finish(self) -> bool:
        """The exchange is over. Returns whether the connection can carry another one; if not, it is closed."""
        reusable = self.complete and self.sent and self._persistent and not self.lost
        self._busy = False
        # What a cancelled exchange did not take must not reach the next one.
        self._chunks = []
        self._budget.give(self._taken + self._buffered)
        self._taken = self._buffered = 0
        if reusable:
            self.reused = True
        elif self.switched and self.complete:
            self.transport.close()  # once all is written
        else:
            self.abort()
        return reusable

    def abort(self) -> None:
        """Cut the connection: an unfinished exchange is cancelled at the model server too."""
        if not self.lost:
            self.transport.abort()

    # The transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            # No request is in flight: these bytes must not be taken for the answer to the next one.
            self.transport.abort()
            return
        self.received = True
        if self.switched:
            self.on_body(data)
        else:
            self._parse(data)
        if self._buffered > HIGH_WATER and not self._read_paused and not self.complete:
            self._read_paused = True
            self.transport.pause_reading()
        self._wake()

    def _parse(self, data: bytes) -> None:
        """Read on: each head for itself, a chunked body in portions, all else as it came."""
        at, total = 0, len(data)
        while at < total and self._failure is None:
            chunks, end = self._chunk_meter, total
            little = False
            if chunks is not None:
                end = min(at + chunks.portion(), total)
            elif not self.head_complete:
                little = total <= self._little and not self._tunnel
                if not little or self._meter.size:
                    little = False
                    end = self._meter.end(data, at)
                    if self._meter.size > self._limits.size:
                        self._fail("the head of the model server's answer is too large")
                        return
            try:
                self._parser.feed_data(data if end - at == total else memoryview(data)[at:end])
            except httptools.HttpParserUpgrade as upgrade:
                self.status = 101
                self.head_complete = self.switched = True
                end = at + upgrade.args[0]
            except httptools.HttpParserError as error:
                cause = error.__context__ or error
                if not isinstance(cause, ValueError | httptools.HttpParserError):
                    failures.error("%s while an answer was read", type(cause).__name__, exc_info=cause)
                self._fail(f"the model server's answer is not HTTP: {cause}")
                return
            if self.switched:
                self.on_body(data[end:])
                return
            if little:
                # Too little to exceed a limit was read at once: count what more will be added to.
                if not self.head_complete:
                    self._meter.begun(data, at)
                elif self._chunk_meter is not None:
                    self._chunk_meter.passed(total - max(data.rfind(b"\r\n\r\n"), at))
            elif chunks is not None and not chunks.passed(end - at):
                self._fail(f"the model server's answer has too much beside its data; {EXCESS} bytes are allowed")
            elif chunks is not None and chunks.trailers > self._limits.size:
                self._fail("the trailers of the model server's answer are too large")
            at = end

    def eof_received(self) -> bool:
        """True keeps the transport open in the other direction."""
        if (self._until_end or self.switched) and self.head_complete:
            self.complete = True
            self._wake()
        return self.switched

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._busy and not self.complete:
            self._fail(f"the model server closed the connection{f': {exc}' if exc else ''}")
        self.gate.open()
        self._wake()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self.gate.close()

    def resume_writing(self) -> None:
        self.gate.open()

    # The parser.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("more than one answer")
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:
            self.headers.append((name.lower(), value.rstrip(b" \t")))
            return
        self._trailers += 1
        self._trailer_size += len(name) + len(value) + 4
        if self._trailers > self._limits.fields or self._trailer_size > self._limits.size:
            raise ValueError("trailers are too large")
        self.trailers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._limits.fields:
            raise ValueError(f"the head has more than {self._limits.fields} fields")
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.status = status
        self.head_complete = True
        if self._tunnel and status < 300:
            # The client of a CONNECT ignores what would frame a body (RFC 9110 §9.3.6): what follows is the tunnel.
            self.switched = True
            self._until_end = True
            return
        until_end = status not in BODYLESS
        for name, value in self.headers:
            if name == b"content-length":
                if len(value) > MOST_DIGITS:
                    raise ValueError("malformed Content-Length")
                until_end = False
            elif name == b"transfer-encoding" and not self._bodyless:
                if value.lower() != b"chunked":
                    raise ValueError("unsupported transfer coding")
                until_end = False
                self.chunked = True
        if self._bodyless:
            # httptools cannot be told that the answer to HEAD has no body: the connection ends here.
            self.complete = True
            return
        self._until_end = until_end
        if self.chunked:
            self._chunk_meter = ChunkMeter()

    def on_chunk_header(self) -> None:
        if self._chunk_meter is not None:
            self._chunk_meter.chunk()

    def on_body(self, body: bytes) -> None:
        if self._chunk_meter is not None:
            self._chunk_meter.data(len(body))
        if not self.complete and body and self._busy and self._failure is None:
            size = len(body)
            if not self._budget.take(size, urgent=True):
                self._fail(no_room(size))
                return
            self._chunks.append(body)
            self._buffered += size

    def on_message_complete(self) -> None:
        if not self.head_complete:
            status = self._parser.get_status_code()
            if status != 101:
                self.informational.append((status, self.headers))
            elif not (self._upgradable and self._parser.should_upgrade()):
                raise ValueError("a switch of protocols that nobody asked for")
        elif not self._bodyless and not self.switched:
            self.complete = True
            self._persistent = self._parser.should_keep_alive()

    def _fail(self, why: str | RequestFailed) -> None:
        self._persistent = False
        if not self.complete and self._failure is None:
            self._failure = UpstreamBroken(why) if isinstance(why, str) else why
        self.abort()

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
