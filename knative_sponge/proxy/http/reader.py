"""HTTP/1.1 requests in a client connection's bytes; answers nothing and decides nothing about what was asked."""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

import httptools

from knative_sponge.errors import BadRequest, RequestFailed
from knative_sponge.proxy.http.headers import HOP_BY_HOP, REWRITTEN, Pair
from knative_sponge.proxy.http.scope import offered_protocols

_BODY_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
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
    """Finds where each request begins and ends. `feed` raises BadRequest when the bytes are no requests."""

    head_limit: ClassVar[int] = 2**20
    """Bytes of a request's head or trailers, as in Go's server."""

    def __init__(self, owner: Owner) -> None:
        self.unfinished: Request | None = None
        """The request whose head is here but not its end."""
        self.in_head = False
        """In the middle of a head."""
        self._owner = owner
        self._parser = self._new_parser()
        self._head_size = 0
        self._replaying = False
        self._offer = False
        self._url = b""
        self._headers: list[Pair] = []

    def feed(self, data: bytes) -> bytes:
        """Read on. Returns, unread, the bytes that follow a request which may switch protocols."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._replace_parser()
                if self._offer:
                    return data
                continue
            except httptools.HttpParserError as error:
                cause = error.__context__
                raise (cause if isinstance(cause, RequestFailed) else BadRequest(f"malformed HTTP: {error}")) from None
            if self.in_head:
                self._head_size += len(data)
                if self._head_size > self.head_limit:
                    raise BadRequest("the request's head is too large", status=431)
            return b""
        return b""

    def close(self) -> None:
        """Read no further, and keep nothing of what was read: parser and reader hold each other."""
        self.unfinished = None
        self.in_head = False
        self.__dict__.pop("_parser", None)
        self._url = b""
        self._headers = []

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
            self._head_size = 0
            self._url = b""
            self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))
        elif self.unfinished is not None and not self._replaying:
            name = name.lower()
            if name not in _NO_TRAILERS:
                self.unfinished.trailers.append((name, value.rstrip(b" \t")))
            self._head_size += len(name) + len(value)
            if self._head_size > self.head_limit:
                raise BadRequest("the request's trailers are too large", status=431)

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self.in_head = False
        self._head_size = 0
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

    def on_body(self, body: bytes) -> None:
        if self.unfinished is not None:
            self.unfinished.feed(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade() and self._has_body():
            return  # of the head only, see _replace_parser
        request, self.unfinished = self.unfinished, None
        if request is not None:
            request.feed_end()
