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
from knative_sponge.errors import RequestFailed
from knative_sponge.proxy.http.client_gone import Departure
from knative_sponge.proxy.http.exchange import HIGH_WATER, Exchange
from knative_sponge.proxy.http.flow import WriteGate
from knative_sponge.proxy.http.head_limits import HeadLimits
from knative_sponge.proxy.http.headers import Pair
from knative_sponge.proxy.http.plain_answers import deliver, refusal
from knative_sponge.proxy.http.reader import RequestReader
from knative_sponge.proxy.http.scope import address, http_scope

_RESET: Final = struct.pack("ii", 1, 0)


class HttpProtocol(asyncio.Protocol):
    """One client connection. Requests are answered in order; a pipelined one waits for the answer before it.

    A client may end its side after a complete request: it still gets its answer. A client that is gone (see
    `Departure`), or that ends its side in the middle of a request, gets none, and the request is cancelled. A TLS
    connection cannot be ended on one side only: its end means that the client is gone.
    """

    head_limits: ClassVar[HeadLimits] = HeadLimits()
    """Of requests' heads and trailers; a server that has others runs a subclass."""
    head_timeout_s: ClassVar[float] = 60.0
    """From the first byte of a head (or the connection's start) to its end; idle connections are kept for ever."""
    linger_s: ClassVar[float] = 5.0
    """How long a client that still sends is listened to after its answer, so that a reset does not destroy it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 (uvicorn passes it)
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
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
        self._after_offer = bytearray()
        self._raw_sink: Callable[[bytes], None] | None = None
        self._read_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._departure: Departure | None = None
        self._closing = False
        self._ignoring_input = False
        self._client_ended = False

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connections.add(self)
        self.transport = transport
        self._client = address(transport.get_extra_info("peername"))
        self._server = address(transport.get_extra_info("sockname"))
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._await_head()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_timer()
        if self._departure is not None:
            self._departure.close()
        self._closing = self._ignoring_input = True
        self.gate.open()
        self._waiting.clear()
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
            self._waiting.pop()
        try:
            self._departure = Departure(self.loop, self.transport)
        except OSError:
            return False
        current.probe()
        return True

    def pause_writing(self) -> None:
        self.gate.close()

    def resume_writing(self) -> None:
        self.gate.open()

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
        if self._raw_sink is not None:
            self._raw_sink(data)
            return
        try:
            behind = self._reader.feed(data)
        except RequestFailed as failure:
            self._refuse(failure)
            return
        if behind:
            self._hold(behind)
        elif self._reader.in_head and self._timer is None:
            self._await_head()

    def request(
        self, method: str, version: str, target: bytes, headers: list[Pair], keep_alive: bool, upgrade: bytes
    ) -> Exchange:
        """A request's head is complete; see `reader.Owner`."""
        self._stop_timer()
        scope = http_scope(method, version, target, headers, self._scheme, self._client, self._server)
        exchange = Exchange(self, scope, keep_alive=keep_alive and not self._closing)
        if upgrade:
            scope["sponge.upgrade"] = upgrade
            self._offer = exchange
            self._raw_sink = self._hold
        self._enqueue(exchange, self._app)
        return exchange

    def _hold(self, data: bytes) -> None:
        """Keep bytes that came after an offer to switch protocols: the answer decides whether they are requests."""
        self._after_offer += data
        self.set_reading()

    def switch(self, exchange: Exchange) -> None:
        """The answer is another protocol: what comes in belongs to this exchange until the end of the connection."""
        self._offer = None
        self._raw_sink = exchange.feed
        if self._after_offer:
            exchange.feed(bytes(self._after_offer))
            self._after_offer.clear()
        if self._client_ended:
            exchange.feed_end()
        else:
            self._reader.unfinished = exchange
        self.set_reading()

    def _read_behind(self) -> bool:
        """No protocol was switched to: read what came after the offer as requests. Returns whether one has begun."""
        self._offer = self._raw_sink = None
        behind, self._after_offer = bytes(self._after_offer), bytearray()
        self.data_received(behind)
        self.set_reading()
        return self._current is not None

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout_s, self._head_overdue)

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
        if exchange is self._offer and exchange.keep_alive and self._read_behind():
            return
        if self._waiting and exchange.keep_alive:
            self._begin(*self._waiting.popleft())
            self.set_reading()
        elif self._ignoring_input or exchange is self._reader.unfinished:
            self._linger()
        elif self._client_ended or not exchange.keep_alive:
            self.transport.close()

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

    def _refuse(self, failure: RequestFailed) -> None:
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
            self._waiting.pop()
        last = Exchange(self, {"method": "GET", "http_version": "1.1", "headers": ()}, keep_alive=False)
        last.feed_end()
        answer = refusal(failure)
        self._enqueue(last, lambda _scope, _receive, send: deliver(answer, send))

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
        full = len(self._after_offer) > HIGH_WATER or (unfinished is not None and unfinished.buffered > HIGH_WATER)
        pause = not self._ignoring_input and (full or bool(self._waiting))
        if pause is not self._read_paused:
            self._read_paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
