"""Differential fuzzing. Invariant: whatever bytes a client sends, another parser (h11) reads the same requests in what the
proxy hands to the model server as the proxy read in what the client sent, and as h11 reads in it where it accepts it."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from knative_sponge.asgi import Receive, Scope, Send
from knative_sponge.proxy.http.protocol import HttpProtocol
from knative_sponge.proxy.knative.header_shims import HeaderShims
from knative_sponge.proxy.upstream.connection import Connection
from knative_sponge.proxy.upstream.pool import Upstream
from knative_sponge.proxy.upstream.relay import Relay
from tests.proxy.harness import ok
from tests.proxy.upstream.test_connection import FakeTransport

Request = tuple[bytes, bytes, bytes]

LENGTHS = [b"0", b"3", b"5", b"+5", b"5 ", b"05", b"5, 5", b"0x5", b"-1", b"", b"5\t"]
CODINGS = [
    b"chunked",
    b"Chunked",
    b"identity",
    b"gzip, chunked",
    b"chunked, chunked",
    b"xchunked",
    b" chunked",
    b"chunked ",
]
FIELDS = st.one_of(
    st.sampled_from(LENGTHS).map(lambda value: b"Content-Length: " + value),
    st.sampled_from(CODINGS).map(lambda value: b"Transfer-Encoding: " + value),
    st.sampled_from([
        b"Host: b", b"Content-Length:5", b"Content-Length : 5", b"Transfer-Encoding : chunked", b"transfer-encoding:\tchunked",
        b"Connection: close", b"Connection: content-length", b"Connection: transfer-encoding", b"Connection: keep-alive",
        b"Connection: upgrade", b"Upgrade: h2c", b"Expect: 100-continue", b"X: y", b" X: folded", b"X:", b"Trailer: T",
        b"X: a\0b", b"X: a\rb", b"\tX: y", b"X", b": y", b"TE: trailers",
    ]),
)  # fmt: skip
BODIES = st.sampled_from([
    b"", b"hello", b"abc", b"0\r\n\r\n", b"0\r\n", b"-1\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nT: v\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\n\r\n", b"05\r\nhello\r\n00\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
])  # fmt: skip
LINES = st.sampled_from([
    b"GET / HTTP/1.1", b"POST /p HTTP/1.1", b"PUT /p?q HTTP/1.1", b"HEAD / HTTP/1.1", b"POST http://h/p HTTP/1.1",
    b"POST / HTTP/1.0", b"GET / HTTP/1.1 ", b"GET  / HTTP/1.1", b"get / HTTP/1.1", b"\r\nGET / HTTP/1.1",
])  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request: mostly in order, with the wrong things in the right places."""
    fields = draw(st.lists(FIELDS, max_size=4))
    ends = draw(st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n"]))
    head = ends.join([draw(LINES), *draw(st.sampled_from([[b"Host: a"]] * 5 + [[]])), *fields, b"", b""])
    return head + draw(BODIES)


class Recorder(Relay):
    """A relay that notes each request it was given whole; the answer comes at once."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream)
        self.read: list[Request] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""

        async def noting() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.request" and not message["more_body"]:
                self.read.append((scope["method"].encode(), scope["sponge.target"], body))
            return message

        await super().__call__(scope, noting, send)


class Answering(FakeTransport):
    """The model server's end: answers once a whole request, as h11 reads it, has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection
        self.heard: list[Request] = []
        self.parser = h11.Connection(h11.SERVER)
        self.head: tuple[bytes, bytes] = b"", b""
        self.body = b""

    def write(self, data: Any) -> None:
        self.parser.receive_data(bytes(data))
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                self.head, self.body = (event.method, event.target), b""
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.heard.append((*self.head, self.body))
                self.parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                self.parser.send(h11.EndOfMessage())
                asyncio.get_running_loop().call_soon(self.connection.data_received, ok(b""))
                if self.parser.our_state is h11.DONE:
                    self.parser.start_next_cycle()
            else:
                assert event in (h11.NEED_DATA, h11.PAUSED), event
                return


class OneServer(Upstream):
    """Each connection ends in an `Answering`."""

    def __init__(self) -> None:
        super().__init__("model", 80)
        self.ends: list[Answering] = []

    async def connect(self, timeout_s: float | None = None) -> Connection:
        end = Answering()
        end.connection = Connection(asyncio.get_running_loop(), lambda _connection: None)
        end.connection.connection_made(end)
        self.ends.append(end)
        return end.connection


class ClientEnd(FakeTransport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _NoSocket() if name == "socket" else ("1.2.3.4", 5)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class _NoSocket:
    def setsockopt(self, *_: Any) -> None:
        pass


class _Config:
    def __init__(self, app: Any) -> None:
        self.loaded_app = app


class _State:
    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.tasks: set[Any] = set()


def through_the_proxy(pieces: list[bytes]) -> tuple[list[Request], list[Request]]:
    """What the proxy read in these bytes, and what the model server's parser read in what the proxy wrote."""

    async def run() -> tuple[list[Request], list[Request]]:
        upstream = OneServer()
        relay = Recorder(upstream)
        protocol = HttpProtocol(_Config(HeaderShims(relay, upstream.authority)), _State(), {})  # type: ignore[arg-type]
        transport = ClientEnd()
        protocol.connection_made(transport)
        for piece in pieces:
            if not transport.closed:
                protocol.data_received(piece)
            for _ in range(30):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        upstream.close()
        return relay.read, [request for end in upstream.ends for request in end.heard]

    return asyncio.run(run())


def as_h11_reads(stream: bytes) -> list[Request]:
    """The whole requests in a stream up to where h11 refuses it."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(stream)
    found: list[Request] = []
    head, body = (b"", b""), b""
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                head, body = (event.method, event.target), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((*head, body))
                parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                parser.send(h11.EndOfMessage())
                parser.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


@settings(max_examples=400)
@given(st.lists(requests(), min_size=1, max_size=4), st.integers(0, 400))
def test_no_two_parsers_disagree_about_what_was_asked(sent: list[bytes], cut: int) -> None:
    stream = b"".join(sent)
    read, heard = through_the_proxy([stream[:cut], stream[cut:]] if 0 < cut < len(stream) else [stream])
    assert heard == read
    second_opinion = as_h11_reads(stream)
    for ours, theirs in zip(read, second_opinion, strict=False):
        method, target, body = theirs
        assert ours == (method, b"/p" if target == b"http://h/p" else target, body)
