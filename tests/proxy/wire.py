"""Raw ends of a connection: bytes as they are, and a client that reads answers with h11, not with the proxy's own parser."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11

LOCAL = "127.0.0.1"


class Wire:
    """One connection's bytes, either end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = False
        """`gone` has seen the end."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """All bytes up to and with the next blank line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """All bytes up to the end; the end must be a regular one."""
        return await self.reader.read()

    async def gone(self) -> None:
        """Return once the other side has closed or reset the connection; what comes before that is dropped."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.over = True

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


async def body_of(wire: Wire, head: bytes) -> bytes:
    """The body that belongs to a request's head, decoded."""
    fields = fields_of(head)
    for name, value in fields:
        if name.lower() == b"content-length":
            return await wire.exactly(int(value))
        if name.lower() == b"transfer-encoding":
            body = b""
            while size := int((await wire.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await wire.exactly(size)
                await wire.exactly(2)
            while await wire.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return body
    return b""


def fields_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields of a head, in order."""
    pairs = [line.split(b":", 1) for line in head.split(b"\r\n")[1:] if line]
    return [(name, value.strip(b" ")) for name, value in pairs]


@dataclass
class Reply:
    """An answer as h11 understood it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    informational: list[tuple[int, list[tuple[bytes, bytes]]]]
    trailers: list[tuple[bytes, bytes]]

    def field(self, name: bytes) -> bytes | None:
        """The value of the only field of that name; None without one."""
        values = [value for key, value in self.fields if key == name]
        assert len(values) <= 1, values
        return values[0] if values else None


class Client(Wire):
    """A raw HTTP/1.1 client. `reply` raises h11.RemoteProtocolError when the answer is cut off."""

    _parser: h11.Connection | None = None

    async def reply(self, method: str = "GET") -> Reply:
        """The next answer on this connection."""
        parser = self._parser
        if parser is None:
            parser = self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**24)
        elif parser.their_state is h11.DONE:
            parser.start_next_cycle()
        # What was sent is the test's business; the parser only has to know which method is being answered.
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        answer = Reply(0, [], b"", [], [])
        body = bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.reader.read(262144))
            elif isinstance(event, h11.InformationalResponse):
                answer.informational.append((event.status_code, list(event.headers)))
            elif isinstance(event, h11.Response):
                answer.status, answer.fields = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.trailers = list(event.headers)
                answer.body = bytes(body)
                return answer
            else:
                raise AssertionError(f"unexpected {event!r}")

    def unread(self) -> bytes:
        """What has come behind the answers that were read."""
        return b"" if self._parser is None else self._parser.trailing_data[0]

    async def ask(self, head: bytes, body: bytes = b"") -> Reply:
        """Send a request and read its answer; `head` is the request line and fields, without the blank line."""
        await self.send(head + b"\r\n\r\n" + body)
        return await self.reply(head.split(b" ", 1)[0].decode())

    async def get(self, target: bytes = b"/", *fields: bytes) -> Reply:
        return await self.ask(b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: a.example", *fields]))

    async def post(self, body: bytes, *fields: bytes, target: bytes = b"/") -> Reply:
        lines = [b"POST %b HTTP/1.1" % target, b"Host: a.example", b"Content-Length: %d" % len(body), *fields]
        return await self.ask(b"\r\n".join(lines), body)


@asynccontextmanager
async def client(port: int, local: str = LOCAL) -> AsyncIterator[Client]:
    """local: the address it comes from."""
    reader, writer = await asyncio.open_connection(LOCAL, port, limit=2**24, local_addr=(local, 0))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
