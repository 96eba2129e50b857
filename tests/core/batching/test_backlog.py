"""The waiting works in two orders, against plain sorted lists."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from knative_sponge.core.batching.backlog import Backlog
from knative_sponge.core.batching.work import Work


class AgainstSortedLists(RuleBasedStateMachine):
    """Every operation, with works whose deadlines differ and works whose do not."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.waiting: list[Work] = []
        self.keys = 0

    @rule(deadlines=st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 0, 0, 3])), min_size=1, max_size=20))
    def push(self, deadlines: list[tuple[int, int]]) -> None:
        for deadline_s, more_s in deadlines:
            self.keys += 1
            work = Work(self.keys, float(deadline_s), sizing_deadline_s=float(deadline_s + more_s))
            self.backlog.push(work)
            self.waiting.append(work)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(0, self.keys))
        found = self.backlog.cancel(key)
        assert found is next((work for work in self.waiting if work.key == key), None)
        self.waiting = [work for work in self.waiting if work.key != key]

    @rule(count=st.integers(1, 30))
    def pop(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            self.waiting.remove(self.backlog.pop())

    @rule(data=st.data(), count=st.integers(1, 12))
    def take(self, data: st.DataObject, count: int) -> None:
        if len(self.waiting) >= count:
            start = data.draw(st.integers(0, len(self.waiting) - count))
            works = sorted(self.waiting, key=lambda work: work.deadline_s)[start : start + count]
            self.backlog.take(works)
            self.waiting = [work for work in self.waiting if work not in works]

    @invariant()
    def both_orders_hold_all_that_wait(self) -> None:
        assert list(self.backlog) == sorted(self.waiting, key=lambda work: work.deadline_s)
        by_sizing = sorted(self.waiting, key=lambda work: work.sizing_deadline_s)
        assert self.backlog.sizing_prefix(10_000) == by_sizing
        assert self.backlog.sizing_prefix(3) == by_sizing[:3]


TestAgainstSortedLists = AgainstSortedLists.TestCase
TestAgainstSortedLists.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
