"""The queue: works in order of absolute deadline, ties in order of arrival. It orders and decides nothing.

The works are a sorted sequence in blocks of bounded size. Insert, cancel and pop cost O(log n) comparisons and move the
pointers of at most one block: a few kilobytes, which takes less time than one Python function call. Every scheduling
decision reads a prefix, and here that is a plain slice. A balanced tree has the same bound with a tenfold constant in Python;
a heap has no cheap prefix.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice

from knative_sponge.core.batching.work import Work

Entry = tuple[float, int, Work]
"""Deadline, arrival number, work. Entries compare by deadline, then by arrival number; works are never compared."""

_BLOCK = 256
"""A block holds at most twice this many entries."""


class EdfQueue:
    """Works by deadline, earliest first; ties first come, first served.

    sizing: by the deadline that cores are bought for.
    """

    __slots__ = ("_blocks", "_entries", "_maxima", "_rows", "_serial", "_sizing")

    def __init__(self, *, sizing: bool = False) -> None:
        self._sizing = sizing
        self._blocks: list[list[Entry]] = []
        self._maxima: list[Entry] = []
        self._entries: dict[int, Entry] = {}
        self._serial = 0
        self._rows = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Work]:
        return (entry[2] for block in self._blocks for entry in block)

    @property
    def rows(self) -> int:
        """Rows of all works together."""
        return self._rows

    def push(self, work: Work) -> None:
        """Insert the work behind all of the same or an earlier deadline. Raises ValueError when its key is queued already."""
        if work.key in self._entries:
            raise ValueError(f"work {work.key} is queued already")
        self._serial += 1
        entry = (work.sizing_deadline_s if self._sizing else work.deadline_s, self._serial, work)
        self._entries[work.key] = entry
        self._rows += work.rows
        blocks, maxima = self._blocks, self._maxima
        if not blocks:
            blocks.append([entry])
            maxima.append(entry)
            return
        at = bisect_left(maxima, entry)
        if at == len(blocks):
            at -= 1
            blocks[at].append(entry)
            maxima[at] = entry
        else:
            insort(blocks[at], entry)
        block = blocks[at]
        if len(block) > 2 * _BLOCK:
            blocks.insert(at + 1, block[_BLOCK:])
            del block[_BLOCK:]
            maxima.insert(at, block[-1])

    def cancel(self, key: int) -> Work | None:
        """Take out the work of this key, wherever it stands; None when it is not queued."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        at = bisect_left(self._maxima, entry)
        block = self._blocks[at]
        del block[bisect_left(block, entry)]
        if not block:
            del self._blocks[at], self._maxima[at]
        elif self._maxima[at] is entry:
            self._maxima[at] = block[-1]
        self._rows -= entry[2].rows
        return entry[2]

    def take(self, works: Sequence[Work]) -> None:
        """Take out these works, in any order; all must be queued.

        Works that stand next to each other cost one deletion. A batch nearly always does.
        """
        entry = self._entries[works[0].key]
        at = bisect_left(self._maxima, entry)
        block = self._blocks[at]
        start = bisect_left(block, entry)
        end = start + len(works)
        if end >= len(block) or [one[2] for one in block[start:end]] != works:
            for work in works:
                self.cancel(work.key)
            return
        del block[start:end]
        for work in works:
            del self._entries[work.key]
            self._rows -= work.rows

    def first(self) -> Work | None:
        """The work with the earliest deadline; None when empty."""
        return self._blocks[0][0][2] if self._blocks else None

    def last(self) -> Work | None:
        """The work with the latest deadline, the youngest of equals; None when empty."""
        return self._maxima[-1][2] if self._maxima else None

    def pop(self) -> Work:
        """Take out the first work. Raises IndexError when empty."""
        first = self.first()
        if first is None:
            raise IndexError("pop from an empty queue")
        self.cancel(first.key)
        return first

    def prefix(self, count: int) -> list[Work]:
        """The first `count` works, or all when there are fewer."""
        if self._blocks and count <= len(self._blocks[0]):
            return [entry[2] for entry in self._blocks[0][:count]]
        return list(islice(self, count))
