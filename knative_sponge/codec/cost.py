"""How long parsing, merging and splitting may take, guessed from sizes before any of it is done. Reads no structure.

Whoever has an event loop uses it to decide what must leave the loop. Guesses are for the slowest text of a size, on one
core of 2.5 GHz: the dearest byte of JSON costs 20 ns (`[],[],…`), a string 0.5 µs, an element of binary BYTES 0.1 µs. An
ordinary request is guessed in microseconds, and far too high rather than too low.
"""

from __future__ import annotations

from collections.abc import Sequence

from knative_sponge.codec.base import Answer, Headers, Part, RequestHead
from knative_sponge.codec.headers import JSON_LENGTH, header

_SMALL = 64 * 1024
"""Bytes that take at most 12 ms, whatever they are."""
_BYTE_S = 16e-9
_STRING_S = 0.5e-6
_MOST_STRINGS = 250_000
"""Values with more are not looked at (`codec/json/skeleton.py`)."""
_PREFIXED_BYTE_S = 25e-9
_COPY_BYTE_S = 1e-9
_PART_S = 10e-6
_FEW_PARTS = 64
_SHARE_S = 5e-6
"""One request's rows of one V2 output."""
_FEW_QUOTES = 64


def parse_s(head: RequestHead, body: bytes) -> float:
    """Seconds that a codec may take to parse a request."""
    return 0.0 if len(body) <= _SMALL else _read_s(head.headers, body)


def merge_s(parts: Sequence[Part]) -> float:
    """Seconds that a codec may take to merge parts; one alone is sent as it is."""
    return 0.0 if len(parts) == 1 else sum(len(part.body) for part in parts) * _COPY_BYTE_S


def split_s(parts: Sequence[Part], answer: Answer) -> float:
    """Seconds that a codec may take to split an answer; one part's is not split."""
    if len(parts) == 1:
        return 0.0
    outputs = answer.body.count(b'"shape"') if len(parts) > _FEW_PARTS else 0
    shares_s = len(parts) * (_PART_S + outputs * _SHARE_S)
    return shares_s + (0.0 if len(answer.body) <= _SMALL else _read_s(answer.headers, answer.body))


def _read_s(headers: Headers, body: bytes) -> float:
    length = header(headers, JSON_LENGTH)
    if length is None or not length.isdigit() or len(length) > len(str(len(body))):
        return _json_s(body, 0, len(body))
    end = min(int(length), len(body))
    prefixed = body.find(b"BYTES", 0, end) >= 0
    return _json_s(body, 0, end) + (len(body) - end) * (_PREFIXED_BYTE_S if prefixed else _COPY_BYTE_S)


def _json_s(text: bytes, start: int, end: int) -> float:
    return (end - start) * _BYTE_S + min(_quotes(text, start, end) // 2, _MOST_STRINGS) * _STRING_S


def _quotes(text: bytes, start: int, end: int) -> int:
    at = start
    for met in range(_FEW_QUOTES):  # finding a few is faster than counting all, and tensors have but a few
        at = text.find(b'"', at, end) + 1
        if not at:
            return met
    return text.count(b'"', start, end)
