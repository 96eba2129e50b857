"""HTTP/1.1 requests in a client connection's bytes; answers nothing and decides nothing about what was asked."""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from knative_sponge.errors import BadRequest
from knative_sponge.proxy.http.head_limits import EXCESS, ChunkMeter, HeadLimits, HeadMeter
from knative_sponge.proxy.http.headers import HOP_BY_HOP, REWRITTEN, Pair
from knative_sponge.proxy.http.scope import offered_protocols

_BODY_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_LONG: Final = 4096
"""Bytes of a head, or of trailers, that are parsed as they come; then lines are. What is no HTTP at all shows before."""
_BLANK_LINES: Final = 128
"""Lines beyond the fields and the request's own that are read before a head is refused unparsed: blank ones may precede it."""
_NO_TRAILERS: Final = HOP_BY_HOP | REWRITTEN | {b"content-length", b"trailer", b"authorization", b"cookie"}
"""Fields that are dropped from trailers: they say how a message is framed, where it goes, or who sent it. As trailers they
come after the checks of the head, and a server that adds trailers to the head would believe them (RFC 9110 §6.5.1)."""


class Request(Protocol):
    """Where the pieces of one request go."""

    buffered: int
    """Bytes of the body that nobody has taken yet."""
    trailers: list[Pair]

    def feed(self, body: bytes) -> None:
        """More of the body."""
        ...

    def feed_end(self) -> None:
        """The request is complete."""
        ...

    def expected(self) -> int:
        """Bytes of the body that are still to come; 0 also when its length is not known."""
        ...


class Owner(Protocol):
    """Who is told of requests."""

    def request(
        self, method: str, version: str, target: bytes, headers: list[Pair], keep_alive: bool, upgrade: bytes
    ) -> Request:
        """A head is complete. Names are lower-case; `upgrade` are the protocols that may be switched to, or nothing."""
        ...


class RequestReader:
    """Finds where each request begins and ends. `feed` raises BadRequest when the bytes are no requests, or too large ones,
    and whatever the owner or a request raises when it is told.

    Of a head that is too large nothing is parsed but what came before.
    """

    def __init__(self, owner: Owner, limits: HeadLimits = HeadLimits()) -> None:  # noqa: B008 (immutable)
        self.unfinished: Request | None = None
        """The request whose head is here but not its end."""
        self.in_head = False
        """In the middle of a head."""
        self._owner = owner
        self._limits = limits
        self._most_fields = limits.fields
        self._little = min(EXCESS, limits.size)
        self._parser = self._new_parser()
        self._meter = HeadMeter()
        self._chunks: ChunkMeter | None = None
        self._held = bytearray()
        self._left = self._got = 0
        self._trailers = self._trailer_size = 0
        self._head_read = False
        self._replaying = False
        self._offer = False
        self._url = b""
        self._headers: list[Pair] = []

    def feed(self, data: bytes) -> bytes:
        """Read on. Returns, unread, the bytes that follow a request which may switch protocols."""
        if self._held or self._meter.size > _LONG or (self._chunks is not None and self._chunks.trailers > _LONG):
            data = self._lines_of(data)
        at, total = 0, len(data)
        while at < total:
            chunks, whole, end = self._chunks, False, total
            if chunks is not None:
                end = min(at + chunks.portion(), total)
            elif self._left:
                end = min(at + self._left, total)
                self._left -= end - at
            elif total - at <= self._little and not self._meter.size:
                whole, self._head_read = True, False
            else:
                end = self._meter.end(data, at)
                if self._meter.size > self._limits.size:
                    raise self._too_large("head")
                if self._meter.lines > self._most_fields + 2 + _BLANK_LINES:
                    raise self._too_many("head")
            try:
                self._parser.feed_data(data if end - at == total else memoryview(data)[at:end])
            except httptools.HttpParserUpgrade as upgrade:
                chunks, whole, end = None, False, at + upgrade.args[0]
                self._replace_parser()
                if self._offer:
                    return data[end:]
            except httptools.HttpParserCallbackError as error:
                raise (error.__context__ or error) from None
            except httptools.HttpParserError as error:
                raise BadRequest(f"malformed HTTP: {error}") from None
            if self.unfinished is not None and not self._left and self._chunks is None:
                self._expect_body()
            if whole:
                self._look_back(data, at)
            elif chunks is not None:
                self._look_at_chunks(chunks, data, at, end)
            at = end
        return b""

    def close(self) -> None:
        """Read no further, and keep nothing of what was read: parser and reader hold each other."""
        self.unfinished = None
        self.in_head = False
        self.__dict__.pop("_parser", None)
        self._held.clear()
        self._url = b""
        self._headers = []

    def _lines_of(self, data: bytes) -> bytes:
        """What has come of a long head, or of long trailers, once a line is over. The parser joins each piece to all that came
        of the same line before, and a client may send single bytes."""
        held = self._held
        held += data
        if b"\n" in data:
            data = bytes(held)
            held.clear()
            return data
        place, size = ("head", self._meter.size) if self._chunks is None else ("trailers", self._chunks.trailers)
        if size + len(held) > self._limits.size:
            raise self._too_large(place)
        return b""

    def _look_back(self, data: bytes, at: int) -> None:
        """From `at` on all was read at once, since it is too little to exceed a limit: count what more will be added to."""
        if self.in_head:
            self._meter.begun(data, len(data) if self._head_read else at)
        elif self._chunks is not None:
            self._chunks.passed(len(data) - max(data.rfind(b"\r\n\r\n"), at))
        elif self.unfinished is None and not self._head_read:  # nothing but blank lines, of which no event tells
            self._meter.size += len(data) - at

    def _look_at_chunks(self, chunks: ChunkMeter, data: bytes, at: int, end: int) -> None:
        """Refuse a body that is mostly something else, and trailers that are too large."""
        if chunks is self._chunks:
            if not chunks.passed(end - at):
                raise BadRequest(f"the request's body has too much beside its data; {EXCESS} bytes are allowed")
            if chunks.trailers > self._limits.size:
                raise self._too_large("trailers")
        elif self.in_head:  # the body is over, and another request has begun behind it
            self._meter.begun(data[:end], end)

    def _expect_body(self) -> None:
        """A head was read that a body follows, or a piece of it did already: what comes next is no head."""
        for name, value in self._headers:
            if name == b"content-length":
                self._left = int(value) - self._got
            elif name == b"transfer-encoding":
                self._chunks = ChunkMeter()

    def _too_large(self, place: str) -> BadRequest:
        return BadRequest(f"the request's {place}: too large; {self._limits.size} bytes are allowed", status=431)

    def _too_many(self, place: str) -> BadRequest:
        return BadRequest(f"the request's {place}: too many fields; {self._most_fields} are allowed", status=431)

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Bytes behind the last request of a connection are ignored, instead of failing that request.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _replace_parser(self) -> None:
        """Parse on behind the head of a request that offers an upgrade.

        When the offer is not taken, the request's body follows, if it has one, then the next request. llhttp stops at such
        a head; a new parser that is told only how the body is framed reads on.
        """
        self._parser = self._new_parser()
        if self._has_body():
            framing = [b"%b: %b\r\n" % pair for pair in self._headers if pair[0] in _BODY_FRAMING]
            self._replaying = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
            self._replaying = False

    def _has_body(self) -> bool:
        return any(name in _BODY_FRAMING and value != b"0" for name, value in self._headers)

    # What llhttp finds.

    def on_message_begin(self) -> None:
        if not self._replaying:
            self.in_head = True
            self._url = b""
            self._headers = []
            self._trailers = self._trailer_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))
        elif self.unfinished is not None and not self._replaying:
            self._trailers += 1
            self._trailer_size += len(name) + len(value) + 4
            if self._trailers > self._most_fields:
                raise self._too_many("trailers")
            if self._trailer_size > self._limits.size:
                raise self._too_large("trailers")
            name = name.lower()
            if name not in _NO_TRAILERS:
                self.unfinished.trailers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        if len(self._headers) > self._most_fields:
            raise self._too_many("head")
        self.in_head = False
        self._head_read = True
        self._got = 0
        if self._meter.size:
            self._meter.reset()
        parser = self._parser
        version = parser.get_http_version()
        method = parser.get_method().decode("ascii")
        keep_alive = version == "1.1" and parser.should_keep_alive()
        upgrade = b""
        if parser.should_upgrade():
            # After a body nothing but the answer tells the next request from bytes of the other protocol.
            upgrade = offered_protocols(method, version, self._headers) if not self._has_body() else b""
            self._offer = bool(upgrade)
            if method == "CONNECT" and not upgrade:
                raise BadRequest("CONNECT needs HTTP/1.1 and takes no body")
        self.unfinished = self._owner.request(method, version, self._url, self._headers, keep_alive, upgrade)

    def on_chunk_header(self) -> None:
        if self._chunks is None:
            self._chunks = ChunkMeter()
        self._chunks.chunk()

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._got += size
        if self._chunks is not None:
            self._chunks.data(size)
        if self.unfinished is not None:
            self.unfinished.feed(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade() and self._has_body():
            return  # of the head only, see _replace_parser
        self._left, self._chunks = 0, None
        request, self.unfinished = self.unfinished, None
        if request is not None:
            request.feed_end()
