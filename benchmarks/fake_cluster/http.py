"""As much HTTP/1.1 as a fake server needs, at little cost: whole requests in, answers or endless chunked streams out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import parse_qsl

import httptools

_PHRASES: Final = {200: "OK", 201: "Created", 204: "No Content", 404: "Not Found", 409: "Conflict", 410: "Gone"}


class Connection(asyncio.Protocol):
    """One client's connection. handle: is called with it for each whole request, and answers with `reply` or `stream`."""

    def __init__(self, handle: Callable[[Connection], None]) -> None:
        self.method = ""
        self.path = ""
        self.query: dict[str, str] = {}
        self.body = b""
        self.local = ""
        """Address that the client connected to."""
        self.closed: Callable[[], None] = lambda: None
        """Called when the client has gone."""
        self._handle = handle
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of it
        self.local = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        """Of the event loop."""
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Of the event loop."""
        self._transport = None
        self.closed()

    def on_url(self, url: bytes) -> None:
        """Of the parser."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Of the parser."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Of the parser."""
        self.method = self._parser.get_method().decode()
        path, _, query = self._url.decode().partition("?")
        self.path, self.query, self.body = path, dict(parse_qsl(query)), b"".join(self._parts)
        self._url, self._parts = b"", []
        self._handle(self)

    def reply(self, status: int, body: bytes = b"", kind: str = "application/json") -> None:
        """Send a whole answer."""
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._write((head if status != 204 else f"HTTP/1.1 204 {_PHRASES[204]}\r\n\r\n").encode() + body)

    def stream(self, kind: str = "application/json") -> None:
        """Send the head of an answer; `chunk` sends its body."""
        self._write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())

    def chunk(self, data: bytes) -> None:
        """Send a piece of a stream."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """End the stream."""
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
