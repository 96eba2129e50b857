"""What holds for every V2 tensor: its shape, the size of its data, where rows of binary data end. No JSON objects."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from knative_sponge.codec.json.skeleton import MOST_DIMENSIONS
from knative_sponge.codec.json.text import JsonText

Shape = tuple[int, ...]

BYTES = "BYTES"
ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "UINT8": 1,
        "UINT16": 2,
        "UINT32": 4,
        "UINT64": 8,
        "INT8": 1,
        "INT16": 2,
        "INT32": 4,
        "INT64": 8,
        "FP16": 2,
        "BF16": 2,
        "FP32": 4,
        "FP64": 8,
    }
)
"""Bytes of one element in binary form. BYTES is not here: each of its elements says its own length."""

_LONGEST_SHAPE = 4096
_MOST_SHOWN = 100
_SHAPE = re.compile(rb"\[(?:\d{1,18}(?:,\d{1,18})*+)?\]")
_PREFIX = struct.Struct("<I")


def read_shape(text: JsonText, raw: bytes) -> Shape | None:
    """The shape a JSON value says, () for a scalar; None unless it is at most 32 whole numbers, of at least 0.

    They have at most 18 digits, so that what they are multiplied to stays short.
    """
    if len(raw) > _LONGEST_SHAPE or raw.count(b",") >= MOST_DIMENSIONS:
        return None
    compact = text.compact(raw)
    if not _SHAPE.fullmatch(compact):
        return None
    return tuple(int(size) for size in compact[1:-1].split(b",")) if len(compact) > 2 else ()


def write_shape(rows: int, trailing: Shape) -> bytes:
    """The shape of `rows` rows as JSON."""
    return b"[" + b",".join(b"%d" % size for size in (rows, *trailing)) + b"]"


def show_shape(shape: Shape) -> str:
    """The shape for an error text, cut when it is long."""
    text = str(list(shape))
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def cut_sized(data: memoryview, counts: Sequence[int], item_bytes: int) -> list[memoryview]:
    """Binary data in pieces of `counts` elements of equal size. Raises ValueError unless they use it up."""
    if sum(counts) * item_bytes != len(data):
        raise ValueError(f"{len(data)} bytes instead of {sum(counts) * item_bytes}")
    pieces = []
    at = 0
    for count in counts:
        pieces.append(data[at : at + count * item_bytes])
        at += count * item_bytes
    return pieces


def cut_prefixed(data: memoryview, counts: Sequence[int]) -> list[memoryview]:
    """Binary BYTES data, each element after its length, in pieces of `counts` elements.

    Raises ValueError unless the counts use it up.
    """
    size = len(data)
    if sum(counts) * _PREFIX.size > size:
        raise ValueError(f"{size} bytes, too few for {sum(counts)} elements")
    pieces = []
    at = 0
    for count in counts:
        start = at
        for _ in range(count):
            if at + _PREFIX.size > size:
                raise ValueError(f"{size} bytes, which end before {sum(counts)} elements")
            at += _PREFIX.size + _PREFIX.unpack_from(data, at)[0]
        pieces.append(data[start:at])
    if at != size:
        raise ValueError(f"{size} bytes, but {sum(counts)} elements take {at}")
    return pieces
