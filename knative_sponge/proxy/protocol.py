"""HTTP/1.1 on a client connection of the data port: bytes in, an Exchange per request; knows neither probes nor queues.

uvicorn runs this in place of its own protocol class (`Config(http=HttpProtocol)`), because a transparent proxy must
carry what that one cannot: informational answers, trailers, the request target byte for byte, answers that overtake
the request, and an abort that a client can see.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Any, ClassVar, Final

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from knative_sponge.errors import BadRequest, RequestFailed
from knative_sponge.proxy.exchange import HIGH_WATER, Exchange
from knative_sponge.proxy.flow import WriteGate
from knative_sponge.proxy.headers import Pair
from knative_sponge.proxy.plain import deliver, refusal
from knative_sponge.proxy.scope import address, http_scope

_BODY_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_RESET: Final = struct.pack("ii", 1, 0)


class HttpProtocol(asyncio.Protocol):
    """One client connection. Requests are answered in order; a pipelined one waits for the answer before it.

    The end of the client's side counts as its departure, as it does for Go's server: a close and a half-close look the
    same, and a client that gave up must not keep its place in a queue.
    """

    head_limit: ClassVar[int] = 2**20
    """Bytes of a request's head or trailers, as in Go's server."""
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
        self._parser = self._new_parser()
        self._current: Exchange | None = None
        self._waiting: deque[tuple[Exchange, ASGIApp]] = deque()
        self._parsing: Exchange | None = None
        self._read_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._deaf = False
        self._in_head = False
        self._head_size = 0
        self._replaying = False
        self._url = b""
        self._headers: list[Pair] = []

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connections.add(self)
        self.transport = transport
        self._client = address(transport.get_extra_info("peername"))
        self._server = address(transport.get_extra_info("sockname"))
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._await_head()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_timer()
        self._closing = self._deaf = True
        self.gate.open()
        self._waiting.clear()
        exchange, self._current = self._current, None
        if exchange is not None:
            self._abandon(exchange)

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

    # The parser.

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Bytes behind the last request of a connection are ignored, instead of failing that request.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def data_received(self, data: bytes) -> None:
        while data and not self._deaf:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._replace_parser()
                data = data[upgrade.args[0] :]
                continue
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._refuse(cause if isinstance(cause, RequestFailed) else BadRequest(f"malformed HTTP: {error}"))
                return
            if self._in_head:
                self._head_size += len(data)
                if self._head_size > self.head_limit:
                    self._refuse(BadRequest("the request's head is too large", status=431))
                elif self._timer is None:
                    self._await_head()
            return

    def on_message_begin(self) -> None:
        if not self._replaying:
            self._in_head = True
            self._head_size = 0
            self._url = b""
            self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))
        elif self._parsing is not None and not self._replaying:
            self._parsing.trailers.append((name.lower(), value.rstrip(b" \t")))
            self._head_size += len(name) + len(value)
            if self._head_size > self.head_limit:
                raise BadRequest("the request's trailers are too large", status=431)

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self._in_head = False
        self._head_size = 0
        self._stop_timer()
        parser = self._parser
        version = parser.get_http_version()
        method = parser.get_method().decode("ascii")
        scope = http_scope(method, version, self._url, self._headers, client=self._client, server=self._server)
        keep_alive = version == "1.1" and parser.should_keep_alive() and not self._closing
        self._parsing = exchange = Exchange(self, scope, keep_alive=keep_alive)
        self._enqueue(exchange, self._app)

    def on_body(self, body: bytes) -> None:
        exchange = self._parsing
        if exchange is not None:
            exchange.feed(body)
            if exchange.buffered > HIGH_WATER:
                self._set_reading()

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade() and self._has_body():
            return  # of the head only, see _replace_parser
        exchange, self._parsing = self._parsing, None
        if exchange is not None:
            exchange.feed_end()

    def _has_body(self) -> bool:
        return any(name in _BODY_FRAMING and value != b"0" for name, value in self._headers)

    def _replace_parser(self) -> None:
        """Parse on behind the head of a request that offers an upgrade.

        No upgrade is taken, so what follows is its body, if any, then the next request. llhttp stops at such a head;
        a new parser that is told only how the body is framed reads on.
        """
        self._parser = self._new_parser()
        if self._has_body():
            framing = [b"%b: %b\r\n" % pair for pair in self._headers if pair[0] in _BODY_FRAMING]
            self._replaying = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
            self._replaying = False

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
            self._set_reading()

    def _begin(self, exchange: Exchange, app: ASGIApp) -> None:
        self._current = exchange
        exchange.task = self.loop.create_task(exchange.run(app))

    def body_taken(self) -> None:
        """The application took what was buffered of a request."""
        if self._read_paused:
            self._set_reading()

    def answered(self, exchange: Exchange) -> None:
        """An answer is written completely."""
        self._current = None
        if self._waiting and exchange.keep_alive:
            self._begin(*self._waiting.popleft())
            self._set_reading()
        elif self._deaf or exchange is self._parsing:
            self._linger()
        elif not exchange.keep_alive:
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
        """What came is no request, or no end of one: say so after the answers to the requests before it, and close."""
        self._stop_timer()
        self._deaf = True
        broken, self._parsing = self._parsing, None
        if broken is not None and broken is self._current:
            if broken.started:
                self.cut(broken)
                return
            self._current = None
            self._abandon(broken)
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
        self._deaf = self._closing = True
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._timer = self.loop.call_later(self.linger_s, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self.transport.get_write_buffer_size():
            self._timer = self.loop.call_later(self.linger_s, self._stop_lingering)
        else:
            self.transport.abort()

    def _set_reading(self) -> None:
        parsing = self._parsing
        pause = not self._deaf and (bool(self._waiting) or (parsing is not None and parsing.buffered > HIGH_WATER))
        if pause is not self._read_paused:
            self._read_paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
