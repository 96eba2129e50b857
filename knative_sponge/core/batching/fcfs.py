"""First come, first served: the queue of requests that are already late, and of the baseline policy. It orders only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from knative_sponge.core.batching.work import Work

_SPARE: Final = 64
"""So many give-up times of works that have left are kept in any case."""


class FcfsQueue:
    """Works in order of arrival. It also knows when the next client gives up."""

    __slots__ = ("_give_up", "_works")

    def __init__(self) -> None:
        self._works: OrderedDict[int, Work] = OrderedDict()
        self._give_up: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._works)

    def __iter__(self) -> Iterator[Work]:
        return iter(self._works.values())

    def push(self, work: Work) -> None:
        """Behind all others."""
        self._works[work.key] = work
        if len(self._give_up) > 2 * len(self._works) + _SPARE:  # mostly of works that have left
            self._give_up = [(waiting.give_up_s, key) for key, waiting in self._works.items()]
            heapify(self._give_up)
        else:
            heappush(self._give_up, (work.give_up_s, work.key))

    def push_front(self, work: Work) -> None:
        """Before all others."""
        self.push(work)
        self._works.move_to_end(work.key, last=False)

    def first(self) -> Work | None:
        """The oldest work; None when empty."""
        return next(iter(self._works.values()), None)

    def cancel(self, key: int) -> Work | None:
        """Take the work with this key out; None when it is not here."""
        return self._works.pop(key, None)

    def pop_last(self) -> Work:
        """Take the youngest out. Raises KeyError when empty."""
        return self._works.popitem()[1]

    def next_give_up(self) -> float | None:
        """The earliest time at which a client gives up; None when no work waits. O(log n) amortised."""
        while self._give_up and self._give_up[0][1] not in self._works:
            heappop(self._give_up)
        return self._give_up[0][0] if self._give_up else None

    def pop_given_up(self, now: float) -> Iterator[Work]:
        """Take out every work whose client gave up by `now`."""
        while (give_up_s := self.next_give_up()) is not None and give_up_s <= now:
            yield self._works.pop(self._give_up[0][1])

    def front_batch(self, cap: int) -> list[Work]:
        """The longest run from the front that may share a batch of `cap` rows: at least one work, unless the queue is empty."""
        batch: list[Work] = []
        rows = 0
        for work in self._works.values():
            if batch:
                first = batch[0]
                if work.cohort != first.cohort or work.group != first.group or rows + work.rows > cap:
                    break
            batch.append(work)
            rows += work.rows
        return batch

    def take(self, works: Sequence[Work]) -> None:
        """Take these works out; all must be queued."""
        for work in works:
            del self._works[work.key]
