"""How an HTTP/1.1 answer looks on the wire: constants and heads without state; writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

from knative_sponge.proxy.http.headers import Pair

STATUS_LINE: Final = {
    code: b"HTTP/1.1 %d \r\n" % code for code in range(100, 1000)
} | {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}  # fmt: skip
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
FRAMING_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_BODY_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
BODYLESS: Final = frozenset({204, 304})
"""Of the two only 304 says how long a body would have been, as the answer to HEAD does (RFC 9110 §8.6)."""


class Framing(Enum):
    """How the client can tell where the answer's body ends."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    TRAILERS = auto()
    """The last chunk is written, trailers are not."""
    CLOSE = auto()


def unframed(headers: Iterable[Pair]) -> list[Pair]:
    """Fields of an answer that has no body, whatever its fields say: 1xx, and 2xx to CONNECT (RFC 9110 §8.6, RFC 9112 §6.1)."""
    return [pair for pair in headers if pair[0] not in _BODY_FRAMING]


def field_lines(headers: Iterable[Pair]) -> bytes:
    """Fields as they go on the wire. Raises RuntimeError when one holds a line end, which would make it two."""
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    text = b"".join(lines)
    if text.count(b"\n") != len(lines):
        raise RuntimeError("a header field of the answer holds a line end")
    return text
