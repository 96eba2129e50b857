"""One HTTP/2 exchange with prior knowledge, for probes (docs/knative-contract.md §1.4); imported only when a probe needs it.

No reuse, no push, no flow control beyond what small messages need: probes ask one thing and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

_MOST_BYTES: Final = 2**20
_SERVING: Final = 1


@dataclass(slots=True)
class Reply:
    """A complete answer: header fields, body, trailers. Of a longer body its beginning."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status; 0 when the answer has none that can be read."""
        status = self.headers.get(b":status", b"")
        return int(status) if status.isdigit() and len(status) == 3 else 0


async def exchange(host: str, port: int, headers: Sequence[tuple[str, str]], body: bytes | None = None) -> Reply:
    """Send one request on a connection of its own. Raises OSError when no whole answer comes; cancelling cuts it off."""
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(lambda: _Connection(loop, headers, body), host, port)
    try:
        return await connection.answered
    finally:
        transport.abort()


async def serving(host: str, port: int, service: str) -> bool:
    """Whether gRPC's standard health check calls the service SERVING. Raises OSError when there is no answer."""
    name = service.encode()
    message = b"\x0a" + bytes((len(name) & 0x7F | 0x80, len(name) >> 7)) + name if name else b""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [
        (":method", "POST"), (":scheme", "http"), (":authority", authority),
        (":path", "/grpc.health.v1.Health/Check"), ("te", "trailers"), ("content-type", "application/grpc"),
        ("user-agent", "kube-probe//"),
    ]  # fmt: skip
    reply = await exchange(host, port, headers, b"\0" + len(message).to_bytes(4, "big") + message)
    if reply.status != 200 or reply.trailers.get(b"grpc-status") != b"0" or reply.body[:1] != b"\0":
        return False
    length = int.from_bytes(reply.body[1:5], "big")
    return len(reply.body) == 5 + length and _status(bytes(reply.body[5:])) == _SERVING


def _status(message: bytes) -> int | None:
    """Field 1 of a HealthCheckResponse, which has no other; the last one counts. None when it is malformed."""
    status = 0
    while message:
        if message[0] != 0x08:
            return None
        value = shift = 0
        for at, byte in enumerate(message[1:11], start=2):
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                message = message[at:]
                break
        else:
            return None
        status = value
    return status


class _Connection(asyncio.Protocol):
    """The connection of one exchange."""

    def __init__(self, loop: asyncio.AbstractEventLoop, headers: Sequence[tuple[str, str]], body: bytes | None) -> None:
        self.answered: asyncio.Future[Reply] = loop.create_future()
        self._headers = headers
        self._body = body
        self._reply = Reply()
        self._machine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._machine.initiate_connection()
        self._machine.send_headers(1, self._headers, end_stream=self._body is None)
        if self._body is not None:
            self._machine.send_data(1, self._body, end_stream=True)
        transport.write(self._machine.data_to_send())

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._machine.receive_data(data):
                self._take(event)
        except h2.exceptions.ProtocolError as error:
            self._fail(f"not HTTP/2: {error}")
        self._transport.write(self._machine.data_to_send())

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the connection was closed")

    def _take(self, event: h2.events.Event) -> None:
        reply = self._reply
        match event:
            case h2.events.ResponseReceived(headers=headers):
                reply.headers = dict(headers or ())
            case h2.events.TrailersReceived(headers=headers):
                reply.trailers = dict(headers or ())
            case h2.events.DataReceived(data=data, flow_controlled_length=length):
                if len(reply.body) < _MOST_BYTES:
                    reply.body += data or b""
                self._machine.acknowledge_received_data(length or 0, 1)
            case h2.events.StreamEnded():
                if not reply.trailers:
                    reply.trailers = reply.headers  # an answer of trailers only
                if not self.answered.done():
                    self.answered.set_result(reply)
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self._fail("the answer was broken off")

    def _fail(self, why: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError(why))
