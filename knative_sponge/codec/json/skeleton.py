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
_BLANK = b" \t\r\n"
_MOST_STRINGS = 250_000
_NONFINITE = re.compile(rb"NaN|-?Inf(?:inity)?")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BACKSLASH = ord("\\")
MOST_DIMENSIONS = 32
"""Of a tensor that is looked at; NumPy had so many for twenty years."""
_COLON = re.compile(rb"\s*+:")


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
        if b"[]" in form:  # [1] or []
            bare = bare.translate(None, _BLANK)
            if b"[]" in bare:
                form = bare.replace(b"[]", b"[:]").translate(_FALSE_AS_TRUE, _DROP)
        return cls(form, tuple(keys))

    def times_in(self, array: Skeleton) -> int | None:
        """Of how many such values, and of nothing else, the array is made; None when it is not."""
        # The lengths tell the number. What is repeated is never longer than what it is compared with.
        each = self.form + b","
        count, odd = divmod(len(array.form) - 1, len(each))
        if odd or count < 1 or array.form != b"[" + each * (count - 1) + self.form + b"]":
            return None
        if len(array.keys) != len(self.keys) * count or array.keys != self.keys * count:
            return None
        return count

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
        if not 0 < len(shape) <= MOST_DIMENSIONS or min(shape) < 1 or (leaves := prod(shape)) > len(self.form):
            return False
        arrays = 1 + sum(accumulate(shape[:-1], mul))
        if len(self.form) != 2 * arrays + leaves - 1 + len(leaf) * leaves:
            return False
        expected = leaf
        for size in reversed(shape):
            expected = b"[" + (expected + b",") * (size - 1) + expected + b"]"
        return self.form == expected


def has_many_strings(text: bytes) -> bool:
    """Whether a value has so many strings that it takes too long to find its structure."""
    return len(text) > 2 * _MOST_STRINGS and text.count(b'"') > 2 * _MOST_STRINGS


def _without_strings(text: bytes, keys: list[bytes]) -> bytes:
    """The text with keys as K, added to `keys`, and other strings as S."""
    bare = bytearray()  # a list of pieces would hold an object for each of a few bytes
    done = 0
    while (start := text.find(b'"', done)) >= 0:
        end = text.find(b'"', start + 1) + 1
        if not end or text[end - 2] == _BACKSLASH:
            end = _past_string(text, start)
        bare += text[done:start]
        if _COLON.match(text, end) is None:
            bare += b"S"
        else:
            bare += b"K"
            keys.append(text[start:end])
        done = end
    bare += text[done:]
    return bytes(bare)


def _past_string(text: bytes, start: int) -> int:
    found = _STRING.match(text, start)
    return found.end() if found else len(text)
