"""The waiting works in two orders: by the deadline of their answers, and by the one that cores are bought for. Decides nothing.

Where no waiting work's two deadlines differ, which is nearly always, the orders are one. The second is kept from the first
work on whose do, until nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from knative_sponge.core.batching.edf import EdfQueue
from knative_sponge.core.batching.work import Work


class Backlog(EdfQueue):
    """An EDF queue whose works can also be read by their sizing deadline."""

    __slots__ = ("_by_sizing",)

    def __init__(self) -> None:
        super().__init__()
        self._by_sizing: EdfQueue | None = None

    def push(self, work: Work) -> None:
        """See `EdfQueue.push`."""
        super().push(work)
        if self._by_sizing is not None:
            self._by_sizing.push(work)
        elif work.sizing_deadline_s != work.deadline_s:
            self._by_sizing = EdfQueue(sizing=True)
            for _, _, waiting in self._entries.values():  # as they came, so that ties are first come, first served
                self._by_sizing.push(waiting)

    def cancel(self, key: int) -> Work | None:
        """See `EdfQueue.cancel`."""
        if self._by_sizing is not None:
            self._by_sizing.cancel(key)
        work = super().cancel(key)
        if not self._entries:
            self._by_sizing = None
        return work

    def take(self, works: Sequence[Work]) -> None:
        """See `EdfQueue.take`."""
        if self._by_sizing is not None:
            for work in works:
                self._by_sizing.cancel(work.key)
        super().take(works)
        if not self._entries:
            self._by_sizing = None

    @property
    def ordered_twice(self) -> bool:
        """Whether the orders may differ."""
        return self._by_sizing is not None

    def sizing_prefix(self, count: int) -> list[Work]:
        """The first `count` works by sizing deadline, or all when there are fewer."""
        return (self if self._by_sizing is None else self._by_sizing).prefix(count)
