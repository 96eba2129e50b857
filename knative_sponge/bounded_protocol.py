"""uvicorn's HTTP/1.1 protocol with bounds: how large heads and bodies may be, how long each may take, how many there are.

For the side ports of proxy and controller, which serve our own applications. uvicorn has no such bounds; its parser would
take a head of any size for any time. Each bound ends the connection; where an answer can still be given it is 431, 413, 408
or 503.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from knative_sponge.connection_limit import ConnectionLimit, Place

_PIECE: Final = 16 * 1024
"""Bytes that are parsed at once, so that a bound is noticed soon after it is passed."""
_LINGER_S: Final = 2.0
"""How long a client that still sends is listened to after a refusal, so that a reset does not destroy it."""
_TEXT: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class PortLimits:
    """The bounds of one port; bytes and seconds.

    head, fields: of a request's head. body: of its body. bodies: of all bodies that the port holds at once.
    connections: open at once; the longest idle goes when another one comes, and where all are busy, one of the address that has
    most. The same holds for room for bodies.
    silent_s: from the connection's start to its first byte. head_s: from a head's first byte to its end. body_s: from
    there to the body's end.
    answer_s: from there to the answer's end; None leaves it to the application, for streams that are meant to last.
    unread_s: how long a client may take nothing of an answer.
    """

    head: int = 16 * 1024
    fields: int = 100
    body: int = 64 * 1024
    bodies: int = 2 * 2**20
    connections: int = 32
    silent_s: float = 60.0
    head_s: float = 10.0
    body_s: float = 10.0
    answer_s: float | None = 60.0
    unread_s: float = 30.0

    def __post_init__(self) -> None:
        if self.bodies < self.body:
            raise ValueError("all bodies together cannot be less than one")


@dataclass(slots=True)
class PortState:
    """What the connections of one port share."""

    limits: PortLimits = field(default_factory=PortLimits)
    places: ConnectionLimit = field(init=False)
    held: int = 0
    """Bytes of bodies that are held."""
    _open: dict[BoundedProtocol, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = ConnectionLimit(self.limits.connections)

    def enter(self, connection: BoundedProtocol) -> bool:
        """Whether a new connection has a place. Where all are busy it takes one from the address that has most, unless its own
        would have as many then: from an unfinished body if there is one."""
        if self.places.enter(connection) is Place.NONE:
            counts = Counter(one.peer for one in self._open)
            largest, count = counts.most_common(1)[0]
            if count <= counts[connection.peer] + 1:
                return False
            theirs = [one for one in self._open if one.peer == largest]
            victim = next((one for one in theirs if one.in_body), theirs[0])
            self.leave(victim)
            victim.shed()
            self.places.enter(connection)
        self._open[connection] = None
        return True

    def leave(self, connection: BoundedProtocol) -> None:
        """It is closed, or about to be."""
        self._open.pop(connection, None)
        self.places.leave(connection)

    def take(self, connection: BoundedProtocol, size: int) -> bool:
        """Whether there is room for more of a body. Where there is none it takes that of the largest body of the address that
        holds most, unless its own would hold as much then."""
        while self.held + size > self.limits.bodies:
            sums: Counter[str] = Counter()
            for one in self._open:
                sums[one.peer] += one.held
            largest, most = max(sums.items(), key=lambda item: item[1])
            if most <= sums[connection.peer] + size:
                return False
            max((one for one in self._open if one.peer == largest), key=lambda one: one.held).give_way()
        self.held += size
        connection.held += size
        return True

    def give_back(self, connection: BoundedProtocol) -> None:
        """It holds nothing of a body any more."""
        self.held -= connection.held
        connection.held = 0


class _TooMuch(Exception):
    """A bound was passed; `status` says which."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a side port. port: shared by all of its connections."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        port: PortState | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._port = PortState() if port is None else port
        self._limits = self._port.limits
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._last_unread = 0
        self._in_head = False
        self._head_size = 0
        self._body_size = 0
        self._over = False
        self.held = 0
        """Bytes of the body that is held; counted by the port."""
        self.in_body = False
        """The body of a request is not complete yet."""

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._port.enter(self):
            self._end(503)
            return
        transport.set_write_buffer_limits(high=64 * 1024)
        self._within(self._limits.silent_s, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.leave(self)
        self._over = True
        self._stop()
        self._port.give_back(self)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    @property
    def peer(self) -> str:
        """The address it comes from."""
        return "" if self.client is None else self.client[0]

    def shed(self) -> None:
        """See `connection_limit.Connection`."""
        self._over = True
        self._port.leave(self)
        self._port.give_back(self)
        self.transport.abort()

    def give_way(self) -> None:
        """Somebody else needs the room that its body takes."""
        self._port.give_back(self)
        self.cycle.body = bytearray()
        self._end(503)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._last_unread = -1
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.unread_s, self._check_unread)

    def _check_unread(self) -> None:
        self._unread = None
        if self.flow.write_paused:
            size = self.transport.get_write_buffer_size()
            if size == self._last_unread:
                self.transport.abort()
                return
            self._last_unread = size
            self._unread = self.loop.call_later(self._limits.unread_s, self._check_unread)

    # What comes in.

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            if self._over or self.transport.is_closing():
                return
            self._feed(data[at : at + _PIECE])

    def _feed(self, data: bytes) -> None:
        if not self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._port.places.in_head(self)
            self._within(self._limits.head_s, 408)
        self._unset_keepalive_if_required()
        # As uvicorn does, but for a line in the log that strangers can have written as often as they like.
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to no protocol that is spoken here
        except httptools.HttpParserError:
            self._end(400)
        if self._over:
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self._limits.head:
                self._end(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_size = 0
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(400)  # no client of these ports asks again before it has its answer

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self._limits.fields:  # trailers are added to them
            self._refuse(431)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_size = 0
        self._body_size = 0
        self._stop()
        self._port.places.busy(self)
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self._limits.body:
                self._refuse(413)
        self.in_body = True
        super().on_headers_complete()
        self._within(self._limits.body_s, 408)

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._body_size += size
        if self._body_size > self._limits.body:
            self._refuse(413)
        if not self._port.take(self, size):
            self._refuse(503)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_body = False
        super().on_message_complete()
        self._stop()
        if self._limits.answer_s is not None and not self.cycle.response_complete:
            self._within(self._limits.answer_s, None)

    def on_response_complete(self) -> None:
        self.in_body = False
        self._stop()
        self._port.give_back(self)
        super().on_response_complete()
        if self.cycle.response_complete:
            self._port.places.idle(self)

    # The bounds.

    def _within(self, seconds: float, status: int | None) -> None:
        """Something has to be over in time; else the connection ends, after an answer if there is a status."""
        self._stop()
        self._timer = self.loop.call_later(seconds, self._end, status)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int) -> NoReturn:
        """End the connection from within the parser, which goes no further."""
        self._end(status)
        raise _TooMuch(status)

    def _end(self, status: int | None) -> None:
        """End the connection; say why, unless an answer has been begun."""
        if self._over:
            return
        self._over = True
        self._stop()
        if self.transport.is_closing():
            return
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if status is None or answering:
            self.transport.abort()
            return
        text = _TEXT[status]
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, text, len(text), text)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()
