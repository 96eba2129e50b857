"""The structure of a JSON value without its contents: equal skeletons mean equal shapes and kinds. No values.

A number leaves nothing, a string `S`, true and false `t`, null `n`, a key `K`; brackets, braces, commas, colons stay.
`[[1.5, 2], ["a", null]]` becomes `[[,],[S,n]]`, at the speed of one translation of the bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul

_KEEP = b"[]{}:,tfnSK"
_DROP = bytes(byte for byte in range(256) if byte not in _KEEP)
_FALSE_AS_TRUE = bytes.maketrans(b"f", b"t")
_EMPTY = re.compile(rb"\[\s*+\]")
_NONFINITE = re.compile(rb"NaN|-?Inf(?:inity)?")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BACKSLASH = ord("\\")
_COLON = re.compile(rb"\s*+:")
_MOST_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Structure of one JSON value.

    form: the value without its contents, as the module says; an empty array is `[:]`, unlike that of one number.
    keys: the keys of its objects as they stand, in order.
    """

    form: bytes
    keys: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, text: bytes) -> Skeleton:
        """The skeleton of a valid JSON value; NaN and Infinity are numbers."""
        keys: list[bytes] = []
        bare = _without_strings(text, keys) if b'"' in text else text
        if b"N" in bare or b"I" in bare:
            bare = _NONFINITE.sub(b"0", bare)
        form = bare.translate(_FALSE_AS_TRUE, _DROP)
        if b"[]" in form and _EMPTY.search(bare):
            form = _EMPTY.sub(b"[:]", bare).translate(_FALSE_AS_TRUE, _DROP)
        return cls(form, tuple(keys))

    def repeated(self, count: int) -> Skeleton:
        """The skeleton of an array of `count` (at least 1) such values."""
        return Skeleton(b"[" + b",".join([self.form] * count) + b"]", self.keys * count)

    def digest(self) -> bytes:
        """16 bytes that stand for the skeleton in a group."""
        whole = hashlib.blake2b(self.form, digest_size=16)
        for key in self.keys:
            whole.update(key)
        return whole.digest()

    def leaves(self) -> int | None:
        """How many values an array of arrays holds; None when it holds anything else or an empty array."""
        if b"{" in self.form or b"[:]" in self.form:
            return None
        return self.form.count(b",") + 1

    def is_nested(self, shape: Sequence[int], leaf: bytes) -> bool:
        """Whether it is arrays in arrays exactly as `shape` (all at least 1) says, around `leaf`s only."""
        if not 0 < len(shape) <= _MOST_DIMENSIONS or min(shape) < 1:
            return False
        arrays = 1 + sum(accumulate(shape[:-1], mul))
        leaves = prod(shape)
        if len(self.form) != 2 * arrays + leaves - 1 + len(leaf) * leaves:
            return False
        expected = leaf
        for size in reversed(shape):
            expected = b"[" + b",".join([expected] * size) + b"]"
        return self.form == expected


def _without_strings(text: bytes, keys: list[bytes]) -> bytes:
    """The text with keys as K, added to `keys`, and other strings as S."""
    pieces: list[bytes] = []
    done = 0
    while (start := text.find(b'"', done)) >= 0:
        end = text.find(b'"', start + 1) + 1
        if not end or text[end - 2] == _BACKSLASH:
            end = _past_string(text, start)
        is_key = _COLON.match(text, end) is not None
        if is_key:
            keys.append(text[start:end])
        pieces += (text[done:start], b"K" if is_key else b"S")
        done = end
    pieces.append(text[done:])
    return b"".join(pieces)


def _past_string(text: bytes, start: int) -> int:
    found = _STRING.match(text, start)
    return found.end() if found else len(text)
