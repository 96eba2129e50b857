"""HTTP/1.1 on a client connection of the data port: bytes in, an Exchange per request; knows neither probes nor queues.

uvicorn runs this in place of its own protocol class (`Config(http=HttpProtocol)`), because a transparent proxy must
carry what that one cannot: informational answers, trailers, the request target byte for byte, answers that overtake
the request, other protocols behind an upgrade, and an abort that a client can see.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from knative_sponge.asgi import ASGIApp
from knative_sponge.byte_budget import no_room
from knative_sponge.codec.base import Answer
from knative_sponge.connection_limit import Place
from knative_sponge.errors import RequestFailed
from knative_sponge.proxy.http.bounds import Bounds
from knative_sponge.proxy.http.client_gone import Departure
from knative_sponge.proxy.http.exchange import HIGH_WATER, Exchange
from knative_sponge.proxy.http.failure_log import failures
from knative_sponge.proxy.http.flow import WriteGate
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.headers import Pair
from knative_sponge.proxy.http.plain_answers import deliver, error, refusal
from knative_sponge.proxy.http.reader import RequestReader
from knative_sponge.proxy.http.scope import address, http_scope

_RESET: Final = struct.pack("ii", 1, 0)
_PIECE: Final = 4096
"""Bytes that are parsed at once where they may hold many requests: those behind the first are left unparsed."""
_BODY_PIECE: Final = 16 * 1024
"""… and in the middle of a body of unknown length."""
_PIPELINED_BYTES: Final = 4096
"""What a request that waits for the answer to the one before is counted as, besides its body."""
_FIELDS: Final = 32
_FIELD_BYTES: Final = 512
"""What each field of a head beyond so many is counted as, however short."""
_HEAD_COPIES: Final = 2
"""Bytes that each byte of a head costs, parsed."""
_LARGEST_WRITE: Final = 256 * 1024
_TLS_BYTES: Final = 64 * 1024
"""What a connection costs more over TLS: measured 24 KiB, and two writes that the loop does not tell of."""
_LARGEST_TLS_WRITE: Final = 32 * 1024
"""The loop takes two such writes over TLS before it says that the client is slow."""
_PATIENCE_S: Final = 1.0
_LEAST_RATE: Final = 64 * 1024
"""Bytes per second. Who takes less than that, for longer than the patience, goes when there is no memory for others."""


class HttpProtocol(asyncio.Protocol):
    """One client connection. Requests are answered in order; a pipelined one waits for the answer before it.

    A client may end its side after a complete request: it still gets its answer. A client that is gone (see
    `Departure`), or that ends its side in the middle of a request, gets none, and the request is cancelled. A TLS
    connection cannot be ended on one side only: its end means that the client is gone.

    Idle connections are kept for ever, unless another one needs the place. What comes behind a complete request stays
    unparsed until that is answered. Nothing more is asked of the application while the client does not read; a client
    that takes nothing for `Bounds.delivery_timeout_s` is cut off.
    """

    head_limits: ClassVar[HeadLimits] = HeadLimits()
    """Of requests' heads and trailers; a server that has others runs a subclass."""
    linger_s: ClassVar[float] = 5.0
    """How long a client that still sends is listened to after its answer, so that a reset does not destroy it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 (uvicorn passes it)
        _loop: asyncio.AbstractEventLoop | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = Bounds() if bounds is None else bounds
        self.budget = self._bounds.budget
        self.largest_write = _LARGEST_WRITE
        self.last_write = 0
        self._places = self._bounds.connections
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.gate = WriteGate()
        self._app = config.loaded_app
        self._connections: set[Any] = server_state.connections
        self._tasks = server_state.tasks
        self._reader = RequestReader(self, self.head_limits)
        self._current: Exchange | None = None
        self._waiting: deque[tuple[Exchange, ASGIApp]] = deque()
        self._offer: Exchange | None = None
        self._unparsed = bytearray()
        """What came behind an offer to switch protocols, or behind a request that is not answered yet."""
        self._head_bytes = 0
        """What the budget holds for the head that is being read."""
        self._unsent = 0
        """… and for what the client has not taken yet, as much as it was when the gate was closed."""
        self._closed_gate_s = self._moved_s = 0.0
        self._last_unsent = self._left = 0
        self._delivery: asyncio.TimerHandle | None = None
        self._tls_bytes = 0
        self._spare = False
        self._raw_sink: Callable[[bytes], None] | None = None
        self._read_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._departure: Departure | None = None
        self._closing = False
        self._ignoring_input = False
        self._client_ended = False

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        place = self._places.enter(self)
        if place is Place.NONE:
            self._ignoring_input = self._closing = True
            transport.abort()
            return
        self._spare = place is Place.SPARE
        self._connections.add(self)
        self._client = address(transport.get_extra_info("peername"))
        self._server = address(transport.get_extra_info("sockname"))
        self._scheme = "http"
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = "https"
            self.largest_write = _LARGEST_TLS_WRITE
            if not self.budget.take(_TLS_BYTES, urgent=True):
                self.shed()
                return
            self._tls_bytes = _TLS_BYTES
        # The gate is closed as long as anything waits in memory for the client.
        transport.set_write_buffer_limits(high=1, low=0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._await_head()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connections.discard(self)
        self._places.leave(self)
        self.budget.give(self._tls_bytes)
        self._tls_bytes = 0
        self._stop_timer()
        if self._delivery is not None:
            self._delivery.cancel()
            self._delivery = None
        if self._departure is not None:
            self._departure.close()
        self._closing = self._ignoring_input = True
        self.resume_writing()
        self._reader.close()
        self._forget_head()
        self._take_unparsed()
        while self._waiting:
            self._drop_waiting()
        exchange, self._current = self._current, None
        if exchange is not None:
            self._abandon(exchange)

    def eof_received(self) -> bool:
        """The client's side has ended. True keeps ours open for the answers that are still to come."""
        current, unfinished = self._current, self._reader.unfinished
        self._reader.unfinished = None
        self._client_ended = True
        if current is None or self._scheme == "https" or (unfinished is current and not current.switched):
            return False
        if unfinished is current:
            current.feed_end()
        elif unfinished is not None:
            self._drop_waiting()
        try:
            self._departure = Departure(self.loop, self.transport)
        except OSError:
            return False
        current.probe()
        return True

    def pause_writing(self) -> None:
        self.gate.close()
        left = self.transport.get_write_buffer_size()
        size = max(left, self.last_write)
        if not self.budget.take(size, urgent=True):
            self.transport.abort()
            return
        self._unsent = size
        self._closed_gate_s = self._moved_s = self.loop.time()
        self._last_unsent = self._left = left
        self.budget.watch(self)
        if self._delivery is None:
            self._watch_delivery()

    def resume_writing(self) -> None:
        self.budget.give(self._unsent)
        self._unsent = 0
        self.budget.unwatch(self)
        self.gate.open()

    def _watch_delivery(self) -> None:
        self._delivery = self.loop.call_later(self._bounds.delivery_timeout_s / 2, self._check_delivery)

    def _check_delivery(self) -> None:
        """Cut off a client that takes nothing, or too little. The timer outlives many short waits: it costs less."""
        self._delivery = None
        if not self.gate.closed or self.transport.is_closing():
            return
        now, size = self.loop.time(), self.transport.get_write_buffer_size()
        if size != self._last_unsent:
            self._last_unsent, self._moved_s = size, now
        stalled = now - self._moved_s >= self._bounds.delivery_timeout_s
        # As long as the application is at it, the revision's timeouts bound the whole.
        if stalled or (self._current is None and now - self._closed_gate_s >= self._bounds.longest_s):
            self.transport.abort()
        else:
            self._watch_delivery()

    def leave_if_slow(self) -> bool:
        """See `byte_budget.Holder`: the client keeps an answer in memory that it does not read."""
        waited_s = self.loop.time() - self._closed_gate_s
        taken = self._left - self.transport.get_write_buffer_size()
        if waited_s < _PATIENCE_S or taken >= _LEAST_RATE * waited_s or self.transport.is_closing():
            return False
        self.transport.abort()
        return True

    def shed(self) -> None:
        """See `connection_limit.Connection`."""
        self._ignoring_input = self._closing = True
        self.transport.abort()

    def shutdown(self) -> None:
        """Finish what is in flight, then close; uvicorn calls it when the server stops."""
        self._closing = True
        if self._current is None:
            self.transport.close()
        else:
            self._current.keep_alive = False

    def cut_tunnel(self) -> None:
        """End the connection if it carries another protocol."""
        if self._current is not None and self._current.switched:
            self.cut(self._current)

    # What comes in.

    def data_received(self, data: bytes) -> None:
        if self._ignoring_input:
            return
        try:
            if self._raw_sink is not None:
                self._raw_sink(data)
            elif self._current is not None and self._reader.unfinished is None:
                self._hold(data)
            elif len(data) <= _PIECE:
                self._parse(data)
            else:
                self._parse_pieces(data)
        except RequestFailed as failure:
            self._refuse(refusal(failure))
        except Exception as mistake:
            self._refuse(_told(mistake))

    def _parse(self, data: bytes) -> None:
        behind = self._reader.feed(data)
        if behind:
            self._hold(behind, before=True)
        elif self._reader.in_head:
            size = len(data) * _HEAD_COPIES
            if self._current is not None and not self._head_bytes:
                size += _PIPELINED_BYTES
            if not self.budget.take(size, urgent=True):
                raise no_room(size)
            self._head_bytes += size
            self._places.in_head(self)
            if self._timer is None:
                self._await_head()

    def _parse_pieces(self, data: bytes) -> None:
        """Parse no further than to the first request that would have to wait."""
        at = 0
        while at < len(data) and not self._ignoring_input:
            if self._raw_sink is not None:
                self._raw_sink(data[at:])
                return
            if self._current is not None and self._reader.unfinished is None:
                self._hold(data[at:])
                return
            end = at + self._piece()
            self._parse(data if at == 0 and end >= len(data) else data[at:end])
            at = end

    def _piece(self) -> int:
        """How many bytes may be parsed without going on to a request that would have to wait."""
        unfinished = self._reader.unfinished
        return _PIECE if unfinished is None else unfinished.expected() or _BODY_PIECE

    def request(
        self, method: str, version: str, target: bytes, headers: list[Pair], keep_alive: bool, upgrade: bytes
    ) -> Exchange:
        """A request's head is complete; see `reader.Owner`."""
        self._stop_timer()
        scope = http_scope(method, version, target, headers, self._scheme, self._client, self._server)
        self._places.busy(self)
        if self._spare:
            self._spare = not self._places.promote(self)
            if self._spare:
                scope["sponge.full"] = True
                keep_alive = False
        exchange = Exchange(self, scope, keep_alive=keep_alive and not self._closing)
        if self._current is not None or len(headers) > _FIELDS:
            size = _PIPELINED_BYTES * (self._current is not None) + _FIELD_BYTES * max(len(headers) - _FIELDS, 0)
            if not self.budget.take(size, urgent=True):
                raise no_room(size)
            self._head_bytes += size
        exchange.held, self._head_bytes = self._head_bytes, 0
        if upgrade:
            scope["sponge.upgrade"] = upgrade
            self._offer = exchange
            self._raw_sink = self._hold
        self._enqueue(exchange, self._app)
        return exchange

    def _hold(self, data: bytes, before: bool = False) -> None:
        """Keep bytes whose turn has not come: the answer decides whether they are requests, or when.

        before: they came before those that are kept already.
        """
        if not self.budget.take(len(data), urgent=True):
            raise no_room(len(data))
        at = 0 if before else len(self._unparsed)
        self._unparsed[at:at] = data
        self.set_reading()

    def _take_unparsed(self, most: int | None = None) -> bytes:
        data = bytes(self._unparsed[:most])
        del self._unparsed[:most]
        self.budget.give(len(data))
        return data

    def switch(self, exchange: Exchange) -> None:
        """The answer is another protocol: what comes in belongs to this exchange until the end of the connection."""
        self._offer = None
        self._raw_sink = exchange.feed
        if self._unparsed:
            exchange.feed(self._take_unparsed())
        if self._client_ended:
            exchange.feed_end()
        else:
            self._reader.unfinished = exchange
        self.set_reading()

    def _read_on(self) -> bool:
        """Read what was left unparsed, as far as to the next request. Returns whether there is one."""
        try:
            while self._unparsed and self._raw_sink is None and not self._ignoring_input:
                if self._current is not None and self._reader.unfinished is None:
                    break
                self._parse(self._take_unparsed(self._piece()))
        except RequestFailed as failure:
            self._refuse(refusal(failure))
        except Exception as mistake:
            self._refuse(_told(mistake))
        current, unfinished = self._current, self._reader.unfinished
        if self._client_ended and unfinished is not None:  # its end will not come
            self._reader.unfinished = None
            if current is not None and unfinished is current:
                self._current = None
                self._abandon(current)
                return False
            self._drop_waiting()
        self.set_reading()
        return current is not None

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self._bounds.head_timeout_s, self._head_overdue)

    def _forget_head(self) -> None:
        self.budget.give(self._head_bytes)
        self._head_bytes = 0

    def _head_overdue(self) -> None:
        if self._current is None:
            self.transport.close()
        else:
            self._await_head()

    # The exchanges.

    def _enqueue(self, exchange: Exchange, app: ASGIApp) -> None:
        if self._current is None:
            self._begin(exchange, app)
        else:
            self._waiting.append((exchange, app))
            self.set_reading()

    def _begin(self, exchange: Exchange, app: ASGIApp) -> None:
        self._current = exchange
        exchange.start(app)

    def body_taken(self) -> None:
        """The application took what was buffered of a request."""
        if self._read_paused:
            self.set_reading()

    def answered(self, exchange: Exchange) -> None:
        """An answer is written completely."""
        self._current = None
        if exchange is self._offer:
            self._offer = self._raw_sink = None
        if self._unparsed and exchange.keep_alive and not self._waiting and self._read_on():
            return
        if self._waiting and exchange.keep_alive:
            self._begin(*self._waiting.popleft())
            self.set_reading()
        elif self._ignoring_input or exchange is self._reader.unfinished or self._read_paused:
            self._linger()
        elif self._client_ended or not exchange.keep_alive:
            self.transport.close()
        else:
            self._places.idle(self)
            if self._reader.in_head:
                self._places.in_head(self)

    def cut(self, exchange: Exchange) -> None:
        """End the connection in mid-answer, so that no client can take the answer for complete."""
        if exchange.disconnected or self.transport.is_closing():
            return
        exchange.disconnected = True
        if exchange.unframed:
            # Only a reset differs from the regular end of such an answer.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if exchange.unframed or self.gate.closed:
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, answer: Answer) -> None:
        """The bytes are no request, or break one off: say so after the answers to the requests before, then close."""
        self._stop_timer()
        self._ignoring_input = True
        broken, self._reader.unfinished = self._reader.unfinished, None
        if broken is not None and broken is self._current:
            if self._current.started:
                self.cut(self._current)
                return
            exchange, self._current = self._current, None
            self._abandon(exchange)
        elif broken is not None:
            self._drop_waiting()
        self._reader.close()
        self._forget_head()
        last = Exchange(self, {"method": "GET", "http_version": "1.1", "headers": ()}, keep_alive=False)
        last.feed_end()
        self._enqueue(last, lambda _scope, _receive, send: deliver(answer, send))

    def _drop_waiting(self) -> None:
        """The last one of those that wait is not answered."""
        exchange, _ = self._waiting.pop()
        exchange.disconnect()

    def _abandon(self, exchange: Exchange) -> None:
        exchange.disconnect()
        if exchange.task is not None and not exchange.task.done():
            self._tasks.add(exchange.task)
            exchange.task.add_done_callback(self._tasks.discard)

    def _linger(self) -> None:
        """Close after an answer that came before the end of its request."""
        self._stop_timer()
        self._ignoring_input = self._closing = True
        if self._read_paused and not self._client_ended:
            self._read_paused = False
            self.transport.resume_reading()
        if not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._timer = self.loop.call_later(self.linger_s, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self.transport.get_write_buffer_size():
            self._timer = self.loop.call_later(self.linger_s, self._stop_lingering)
        else:
            self.transport.abort()

    def set_reading(self) -> None:
        """Pause reading while the application takes less than the client sends; else read on."""
        if self._client_ended:
            return
        unfinished = self._reader.unfinished
        most = _PIECE if self._offer is None else HIGH_WATER
        full = len(self._unparsed) > most or (unfinished is not None and unfinished.buffered > HIGH_WATER)
        pause = not self._ignoring_input and (full or bool(self._waiting))
        if pause is not self._read_paused:
            self._read_paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _told(mistake: Exception) -> Answer:
    """What a client is told of a mistake of ours, which is logged: its bytes are not to blame."""
    failures.error("%s while a client's bytes were read", type(mistake).__name__, exc_info=mistake)
    return error(500, "Internal Server Error")
