"""The HTTP/1.1 of the admin port's clients: the head of a request as bytes, and an answer from bytes. Pure: no I/O, no clock.

An answer is read line by line but for its body: each line decides what the next one means. Everything that is kept has a bound.
"""

from __future__ import annotations

import re
from typing import Final

from knative_sponge.errors import WireError

ADMIN_PORT: Final = 8022
DEMAND_PATH: Final = "/sponge/v1/demand"
CORES_PATH: Final = "/sponge/v1/cores"
STATE_PATH: Final = "/sponge/v1/state"

_LONGEST_HEAD: Final = 16 * 1024
"""Of an answer, its trailers included."""
_LONGEST_LINE: Final = 8 * 1024
_FREE_CHUNKS: Final = 1024
_LEAST_CHUNK: Final = 16
"""Bytes of a chunk, on average, once so many chunks have come: a chunk costs more to read than what is in it."""
_ENDLESS: Final = 1 << 62
"""Bytes left of a body that ends with its connection."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?")
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


def bracketed(host: str) -> str:
    """An address as URLs and Host fields have it."""
    return f"[{host}]" if ":" in host else host


def bearer(token: str) -> str:
    """The value of the field `authorization`."""
    return f"Bearer {token}"


def request(method: str, path: str, host: str, port: int, token: str | None, body: bytes = b"") -> bytes:
    """A whole request, for a connection of its own. token: None where none is needed. body: JSON. Raises ValueError for a host
    or token that no head can carry."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {bracketed(host)}:{port}", "connection: close"]
    if token is not None:
        lines.append(f"authorization: {bearer(token)}")
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a request's head")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


class AnswerReader:
    """One answer, from pieces however they were cut. `expected`: its status; another one is a WireError that carries it."""

    __slots__ = ("_chunked", "_chunks", "_expected", "_left", "_length", "_next", "_rest", "_spent", "ended")

    def __init__(self, expected: int) -> None:
        self.ended = False
        """Is it complete? What comes after it is passed over."""
        self._expected = expected
        self._next = self._read_status
        self._rest = b""
        """A line that has only begun."""
        self._spent = 0
        """Bytes of the head, and of trailers."""
        self._length = _ENDLESS
        """Of the body, as the head has it; -1 where it comes in chunks."""
        self._left = 0
        """Bytes to come of the body, or of this chunk of it."""
        self._chunks = self._chunked = 0
        """Chunks, and the bytes in them."""

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in what came next. Raises WireError for what is no such answer; it ends there."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        body: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self.ended = not self._left and self._length >= 0
                continue
            end = data.find(b"\r\n", at)
            if (len(data) if end < 0 else end) - at > _LONGEST_LINE:
                raise WireError("this is no HTTP, or more of it than fits: a line without end")
            if end < 0:
                self._rest = data[at:]
                break
            self._next(data[at:end])
            at = end + 2
        return body[0] if len(body) == 1 else b"".join(body)

    def finish(self) -> None:
        """The connection was closed. Raises WireError where more had to come."""
        if not self.ended and not (self._left and self._length == _ENDLESS):
            raise WireError("the answer ended early")
        self.ended = True

    def _read_status(self, line: bytes) -> None:
        if (found := _STATUS.fullmatch(line)) is None:
            raise WireError(f"this is no HTTP: {line[:60]!r}")
        if (status := int(found[1])) != self._expected:
            raise WireError(f"answered with {status}", status=status)
        self._next = self._read_field

    def _read_field(self, line: bytes) -> None:
        self._spend(line)
        if not line:
            self._begin_body()
            return
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name == b"transfer-encoding" and value.lower() == b"chunked":
            self._length = -1
        elif name == b"content-length" and self._length >= 0:
            if not _LENGTH.fullmatch(value):
                raise WireError(f"a body of {value[:60]!r} bytes")
            self._length = int(value)

    def _begin_body(self) -> None:
        if self._expected == 204:
            self._length = 0
        if self._length < 0:
            self._next = self._read_size
        else:
            self._left = self._length
            self.ended = not self._left

    def _read_size(self, line: bytes) -> None:
        if (found := _SIZE.fullmatch(line)) is None:
            raise WireError(f"no size of a chunk: {line[:60]!r}")
        self._left = int(found[1], 16)
        self._chunks += 1
        self._chunked += self._left
        if self._chunks > _FREE_CHUNKS + self._chunked // _LEAST_CHUNK:
            raise WireError("too many chunks for so few bytes")
        self._next = self._read_chunk_end if self._left else self._read_trailer

    def _read_chunk_end(self, line: bytes) -> None:
        if line:
            raise WireError("a chunk is longer than its size")
        self._next = self._read_size

    def _read_trailer(self, line: bytes) -> None:
        self._spend(line)
        self.ended = not line

    def _spend(self, line: bytes) -> None:
        self._spent += len(line) + 2
        if self._spent > _LONGEST_HEAD:
            raise WireError("a head without end")
