"""The connections to the model server: when one is reused, when a request may be sent again; knows neither ASGI nor queues.

A request is sent twice only when its first try cannot have had an effect (docs/design.md §6): it was never written, or it is
idempotent and a reused connection, which the model server may close at any time, ended without a byte of an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from knative_sponge.byte_budget import ByteBudget, Claim
from knative_sponge.codec.base import Answer, Call
from knative_sponge.errors import UpstreamBroken, UpstreamRefused
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.headers import end_to_end, request_head
from knative_sponge.proxy.upstream.connection import Connection

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that may be sent again, as in Go's client. PUT and DELETE should be idempotent, but applications differ."""

_REPLACED: Final = frozenset({b"content-length", b"expect"})


class Upstream:
    """Connections to one address.

    max_idle: connections kept for reuse.
    max_idle_s: how long one is kept; below the shortest keep-alive time that servers commonly have (gunicorn: 2 s),
        since a POST on a connection that is just being closed fails.
    max_answer: bytes of one answer to `fetch`.
    limits: of each answer's head and trailers; one that has more is broken.
    budget: holds what has come of answers and was not passed on yet; None is one of its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        max_idle: int = 1000,
        max_idle_s: float = 1.5,
        max_answer: int = 256 * 2**20,
        limits: HeadLimits = HeadLimits(),  # noqa: B008 (immutable)
        budget: ByteBudget | None = None,
    ) -> None:
        if max_idle < 0 or max_idle_s <= 0 or max_answer < 1:
            raise ValueError("the pool's bounds must be positive")
        self.host = host
        self.port = port
        self._max_idle = max_idle
        self._max_idle_s = max_idle_s
        self._max_answer = max_answer
        self._limits = limits
        self._budget = ByteBudget() if budget is None else budget
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def authority(self) -> bytes:
        """Host and port, for a request that names no host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode("ascii")

    def take(self) -> Connection | None:
        """The idle connection used last, if there is one that may be reused."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def connect(self, timeout_s: float | None = None) -> Connection:
        """A new connection. Raises UpstreamRefused when there is none within the time (seconds, None: the system's)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._open.discard, limits=self._limits, budget=self._budget),
                    self.host,
                    self.port,
                )
        except TimeoutError as error:
            raise UpstreamRefused("no connection to the model server in time") from error
        except OSError as error:
            raise UpstreamRefused(f"no connection to the model server: {error.strerror or error}") from error
        if not connection.lost:
            self._open.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """An exchange is over: keep its connection for the next one, if it can carry one."""
        if not connection.finish():
            return
        if self._closed or len(self._idle) >= self._max_idle:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(self._max_idle_s, self._reap)

    async def fetch(self, call: Call, room: Claim | None = None, *, connect_timeout_s: float | None = None) -> Answer:
        """One request with a complete body and its complete answer.

        Of the call's headers the hop-by-hop ones, Expect and Content-Length are replaced, a missing Host is added, the
        rest is sent as it is. room: grows with the answer; None leaves it uncounted. Raises UpstreamRefused when nothing
        was sent, UpstreamBroken when the answer did not come whole or is larger than `max_answer`, QueueFull when there is
        no room for it. Cancelling it cuts the connection.
        """
        method, body = call.method, call.body
        fields = [pair for pair in end_to_end(call.headers) if pair[0] not in _REPLACED]
        if all(name != b"host" for name, _ in fields):
            fields.insert(0, (b"host", self.authority))
        if body or method not in IDEMPOTENT:
            fields.append((b"content-length", b"%d" % len(body)))
        head = request_head(method, call.target, fields)
        connection = self.take() or await self.connect(connect_timeout_s)
        while True:
            try:
                return await self._fetch(connection, method, head, body, room)
            except UpstreamBroken:
                if not may_repeat(connection, method):
                    raise
            connection = await self.connect(connect_timeout_s)

    async def _fetch(self, connection: Connection, method: str, head: bytes, body: bytes, room: Claim | None) -> Answer:
        try:
            connection.begin(method)
            connection.write_all(head, body)
            connection.sent = True
            await connection.head()
            while not connection.head_complete:
                connection.informational.clear()
                await connection.head()
            chunks, size = [], 0
            while True:
                chunks.append(connection.take())
                size += len(chunks[-1])
                if size > self._max_answer:
                    raise UpstreamBroken(f"the model server's answer is larger than {self._max_answer} bytes")
                if room is not None:
                    room.resize(size, urgent=True)
                if connection.complete:
                    break
                await connection.more()
            return Answer(connection.status, end_to_end(connection.headers), b"".join(chunks))
        finally:
            self.give_back(connection)

    def close(self) -> None:
        """Cut all connections."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for connection in self._open:
            connection.abort()

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - self._max_idle_s
        while self._idle and self._idle[0].idle_since_s <= oldest_s:
            self._idle.popleft().abort()
        self._reaper = None
        if self._idle:
            self._reaper = loop.call_at(self._idle[0].idle_since_s + self._max_idle_s, self._reap)


def may_repeat(connection: Connection, method: str) -> bool:
    """Whether a request whose body is complete may be sent again after `connection` broke under it."""
    return connection.reused and not connection.received and method in IDEMPOTENT
