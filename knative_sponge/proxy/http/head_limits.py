"""How large a message's head, its trailers and the frames of its chunks may get, either way; counts, and parses nothing.

A parser tells how a message ends only once it has read on, so what arrives is handed to it in pieces: a head for itself, and a
chunked body in portions that cannot exceed a limit by more than `_LEAST`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_DIGITS: Final = 19
"""Of a Content-Length. Where there are more they are leading zeros, and Python refuses to read thousands of them."""
_BLANK_LINE: Final = b"\r\n\r\n"
EXCESS: Final = 16 * 1024
"""Bytes of a chunked body that are neither data nor earned by it, as in Go (`net/http/internal/chunked.go`)."""
_PER_CHUNK: Final = 16
_PER_BYTE: Final = 2
"""What each chunk, and each byte of its data, earns: who sends single bytes as chunks of their own means no harm."""
_LEAST: Final = 1024
"""Bytes of the smallest portion: a client that stays just below the limit must not buy a call of the parser for each byte."""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What one head may have, and the trailers of one message as well.

    size: bytes, line ends included. fields: header lines.
    """

    size: int = 64 * 1024
    fields: int = 256

    def __post_init__(self) -> None:
        if self.size < 1 or self.fields < 1:
            raise ValueError("a head has at least one byte and one field")


class HeadMeter:
    """The bytes and lines of one head, or of several that share a limit."""

    __slots__ = ("_tail", "lines", "size")

    def __init__(self) -> None:
        self.size = self.lines = 0
        """Bytes so far, and line ends."""
        self._tail = b""

    def end(self, data: bytes, at: int) -> int:
        """Counts what belongs to the head from `at` on. Returns where it ends: at the data's end if more must come."""
        tail = self._tail
        found = (tail + data[at : at + 3]).find(_BLANK_LINE) if tail else -1
        if found >= 0:
            end = at + found - len(tail) + len(_BLANK_LINE)
        else:
            found = data.find(_BLANK_LINE, at)
            end = found + len(_BLANK_LINE) if found >= 0 else len(data)
        self._tail = b"" if found >= 0 else (tail + data[max(at, end - 3) : end])[-3:]
        self.size += end - at
        self.lines += data.count(b"\n", at, end)
        return end

    def begun(self, data: bytes, at: int) -> None:
        """A head has begun in data that was read already: at `at`, or before it where that is the data's end."""
        self.size, self.lines, self._tail = len(data) - at, data.count(b"\n", at), data[-3:]

    def reset(self) -> None:
        """The head is over."""
        self.size, self.lines, self._tail = 0, 0, b""


class ChunkMeter:
    """What a chunked body has beside its data: sizes and extensions of chunks, and the trailers behind them.

    Its owner asks for a `portion`, hands so many bytes to the parser, passes on what that finds (`chunk`, `data`), and then
    says how many they were (`passed`).
    """

    __slots__ = ("_awaited", "_chunks", "_data", "_excess", "_size_read", "trailers")

    def __init__(self) -> None:
        self.trailers = 0
        """Bytes of the trailers so far, but for what came in one portion with the last chunk."""
        self._excess = self._chunks = self._data = 0
        self._size_read = self._awaited = False

    def portion(self) -> int:
        """The most bytes that may be read before somebody looks again."""
        self._awaited = self._size_read
        return max(_LEAST, EXCESS - self._excess)

    def chunk(self) -> None:
        """The line with a chunk's size is read."""
        self._chunks += 1
        self._size_read = True

    def data(self, size: int) -> None:
        """So many bytes of data were read."""
        self._data += size
        self._size_read = False

    def passed(self, size: int) -> bool:
        """A portion of `size` bytes was read. Returns whether the body has no more beside its data than it may."""
        data, chunks = self._data, self._chunks
        self._data = self._chunks = 0
        if self._awaited and not data:
            # The data of a chunk follows its size at once, so that one was the last, and these are trailers.
            self.trailers += size
            return True
        self._excess = max(0, self._excess + size - data - _PER_CHUNK * chunks - _PER_BYTE * data)
        return self._excess <= EXCESS
