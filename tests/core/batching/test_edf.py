"""The EDF queue against a plain sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from knative_sponge.core.batching import edf
from knative_sponge.core.batching.edf import EdfQueue
from knative_sponge.core.batching.work import Work


class AgainstSortedList(RuleBasedStateMachine):
    """Every operation on the queue, and on a list that is sorted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = EdfQueue()
        self.reference: list[Work] = []
        self.keys = 0

    @rule(deadlines=st.lists(st.integers(0, 8).map(float), min_size=1, max_size=40), rows=st.integers(1, 3))
    def push(self, deadlines: list[float], rows: int) -> None:
        for deadline_s in deadlines:
            self.keys += 1
            work = Work(self.keys, deadline_s, rows=rows)
            self.queue.push(work)
            self.reference.append(work)
            self.reference.sort(key=lambda w: w.deadline_s)  # stable: ties keep their order of arrival

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.keys == 0:
            return
        key = data.draw(st.integers(1, self.keys))
        expected = next((work for work in self.reference if work.key == key), None)
        assert self.queue.cancel(key) is expected
        if expected is not None:
            self.reference.remove(expected)

    @rule(count=st.integers(1, 30))
    def pop(self, count: int) -> None:
        for _ in range(min(count, len(self.reference))):
            assert self.queue.pop() is self.reference.pop(0)

    @rule(data=st.data(), count=st.integers(1, 12), neighbours=st.booleans())
    def take(self, data: st.DataObject, count: int, neighbours: bool) -> None:
        if len(self.reference) < count:
            return
        start = data.draw(st.integers(0, len(self.reference) - count))
        works = self.reference[start : start + count] if neighbours else self.reference[-count:][::-1]
        self.queue.take(works)
        for work in works:
            self.reference.remove(work)

    @rule(count=st.integers(0, 100))
    def prefix(self, count: int) -> None:
        assert self.queue.prefix(count) == self.reference[:count]

    @invariant()
    def same_content(self) -> None:
        assert list(self.queue) == self.reference
        assert len(self.queue) == len(self.reference)
        assert self.queue.rows == sum(work.rows for work in self.reference)
        assert self.queue.first() is (self.reference[0] if self.reference else None)
        assert self.queue.last() is (self.reference[-1] if self.reference else None)


TestAgainstSortedList = AgainstSortedList.TestCase
TestAgainstSortedList.settings = settings(max_examples=150, stateful_step_count=30)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_any_history_over_many_small_blocks_pops_in_deadline_order(deadlines: list[float]) -> None:
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(edf, "_BLOCK", 2)  # every push splits, every cancel empties a block
        queue = EdfQueue()
        works = [Work(key, deadline_s) for key, deadline_s in enumerate(deadlines)]
        for work in works:
            queue.push(work)
        gone = {work.key for work in works[::3]}
        for key in gone:
            assert queue.cancel(key) is works[key]
        kept = sorted((work for work in works if work.key not in gone), key=lambda w: w.deadline_s)
        assert [queue.pop() for _ in kept] == kept
        assert queue.first() is None


def test_a_key_is_queued_once() -> None:
    queue = EdfQueue()
    queue.push(Work(1, 5.0))
    with pytest.raises(ValueError, match="queued already"):
        queue.push(Work(1, 6.0))
    assert len(queue) == 1


def test_pop_from_an_empty_queue_is_an_error() -> None:
    with pytest.raises(IndexError):
        EdfQueue().pop()


def test_infinite_deadlines_wait_behind_all_others() -> None:
    queue = EdfQueue()
    queue.push(Work(1, float("inf"), give_up_s=float("inf")))
    queue.push(Work(2, 3.0))
    assert [work.key for work in queue] == [2, 1]


def test_the_first_works_are_those_of_the_earliest_deadlines_however_many_are_asked_for() -> None:
    queue = EdfQueue()
    for key in range(1200):
        queue.push(Work(key, float(1200 - key)))
    for count in (0, 1, 3, 256, 700, 1200, 5000):
        assert [work.key for work in queue.prefix(count)] == list(range(1199, max(-1, 1199 - count), -1))
    assert EdfQueue().prefix(3) == []
