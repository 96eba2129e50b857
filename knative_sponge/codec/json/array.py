"""One JSON array as bytes: what is inside, and where to cut it between rows. No number is decoded.

The text must be valid JSON: only then do commas count elements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BLANK = b" \t\r\n"
_ELEMENT = rb'\s*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s",\[\]{}]++)\s*+'
_LAST = re.compile(_ELEMENT, re.DOTALL)
# So many elements at one go, that a giant array does not hold up other threads.
_STRIDES = tuple((size, re.compile(b"(?:%b,){%d}+" % (_ELEMENT, size), re.DOTALL)) for size in (4096, 256, 16, 1))


@dataclass(frozen=True, slots=True)
class Array:
    """`text[start:end]` is one JSON array, brackets included.

    flat: known to hold no string, array or object.
    """

    text: bytes
    start: int
    end: int
    flat: bool

    @property
    def raw(self) -> bytes:
        """The array with its brackets."""
        return self.text[self.start : self.end]

    @property
    def inner(self) -> memoryview:
        """What stands between the brackets; not copied."""
        return memoryview(self.text)[self.start + 1 : self.end - 1]

    def has(self, mark: bytes) -> bool:
        """Whether the bytes occur in the array."""
        return self.text.find(mark, self.start, self.end) >= 0

    def flat_size(self) -> int:
        """Elements of a flat array."""
        commas = self.text.count(b",", self.start, self.end)
        return commas + 1 if commas or self.text[self.start + 1 : self.end - 1].strip(_BLANK) else 0

    def cut_flat(self, counts: Sequence[int]) -> list[memoryview]:
        """The elements of a flat array in pieces of `counts` (each at least 1) elements, without brackets; not copied.

        Raises ValueError unless the counts add up to what is there.
        """
        total = sum(counts)
        if total > self.end - self.start:
            raise ValueError(f"fewer than {total} elements")
        view = memoryview(self.text)
        last = self.end - 1
        width = (self.end - self.start) / total
        at = self.start + 1
        pieces = []
        for count in counts[:-1]:
            after = self._past_commas(at, last, count, width)
            pieces.append(view[at : after - 1])
            at = after
        rest = self.text.count(b",", at, last) + 1 if at < last else 0
        if rest != counts[-1]:
            raise ValueError(f"{total - counts[-1] + rest} elements instead of {total}")
        pieces.append(view[at:last])
        return pieces

    def cut_scalars(self, counts: Sequence[int]) -> list[memoryview]:
        """As `cut_flat`, of an array that may hold strings; one that holds arrays or objects is a ValueError too."""
        view = memoryview(self.text)
        at = self.start + 1
        pieces = []
        for index, count in enumerate(counts, 1):
            start = at
            left = count if index < len(counts) else count - 1
            for size, elements in _STRIDES:
                while left >= size:
                    found = elements.match(self.text, at, self.end - 1)
                    if found is None:
                        if size == 1:
                            raise ValueError(f"fewer than {sum(counts)} elements")
                        break
                    left -= size
                    at = found.end()
            if index < len(counts):
                pieces.append(view[start : at - 1])
        found = _LAST.match(self.text, at, self.end - 1)
        if found is None or found.end() != self.end - 1:
            raise ValueError(f"other than {sum(counts)} elements")
        pieces.append(view[start : self.end - 1])
        return pieces

    def _past_commas(self, at: int, last: int, count: int, width: float) -> int:
        """The offset after the count-th comma from `at`. `width`: about how many bytes an element takes."""
        while count > 16:
            # Counting is much faster than finding one by one. Aim short: a stride must stop before the last comma.
            stop = min(at + max(1, int(count * width * 0.95)), last)
            met = self.text.count(b",", at, stop)
            if met >= count:
                width /= 2
                continue
            if stop == last:
                raise ValueError("fewer elements than expected")
            width = (stop - at) / max(met, 1)
            count -= met
            at = stop
        for _ in range(count):
            at = self.text.find(b",", at, last) + 1
            if not at:
                raise ValueError("fewer elements than expected")
        return at
