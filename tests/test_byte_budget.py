"""The budget of bytes: what was taken is given back on every path, and nobody waits."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from knative_sponge.byte_budget import ByteBudget, Claim
from knative_sponge.errors import QueueFull

LIMIT = 1000


class Books(RuleBasedStateMachine):
    """Claims that grow, shrink, change hands and end, in any order, beside what is taken and given directly."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.budget = ByteBudget(LIMIT)
        self.direct = 0
        self.owners: dict[int, tuple[Claim, int]] = {}

    @rule(target=claims)
    def claim(self) -> int:
        self.owners[len(self.owners)] = (self.budget.claim(), 1)
        return len(self.owners) - 1

    @rule(which=claims, size=st.integers(0, 1200), urgent=st.booleans())
    def resize(self, which: int, size: int, urgent: bool) -> None:
        claim, owners = self.owners[which]
        if not owners:
            return
        before, taken = claim.size, self.budget.taken
        fits = taken + size - before <= (LIMIT if urgent else LIMIT * 3 // 4)
        if fits or size <= before:
            claim.resize(size, urgent=urgent)
            return
        with pytest.raises(QueueFull) as refused:
            claim.resize(size, urgent=urgent)
        assert refused.value.retry_after_s == 1
        assert (claim.size, self.budget.taken) == (before, taken), "who is refused holds what it held"

    @rule(which=claims)
    def keep(self, which: int) -> None:
        claim, owners = self.owners[which]
        if owners:
            self.owners[which] = (claim.keep(), owners + 1)
            assert claim.shared

    @rule(which=claims)
    def release(self, which: int) -> None:
        claim, owners = self.owners[which]
        if owners:
            claim.release()
            self.owners[which] = (claim, owners - 1)

    @rule(size=st.integers(0, 1200), urgent=st.booleans())
    def take(self, size: int, urgent: bool) -> None:
        if self.budget.take(size, urgent=urgent):
            self.direct += size

    @rule()
    def give(self) -> None:
        self.budget.give(self.direct)
        self.direct = 0

    @invariant()
    def what_is_taken_is_what_is_held(self) -> None:
        held = sum(claim.size for claim, owners in self.owners.values() if owners)
        assert self.budget.taken == held + self.direct <= LIMIT
        assert all(claim.size == 0 for claim, owners in self.owners.values() if not owners)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class Slow:
    def __init__(self, slow: bool) -> None:
        self.slow = slow
        self.asked = 0

    def leave_if_slow(self) -> bool:
        self.asked += 1
        return self.slow


def test_when_there_is_no_room_the_first_that_is_slow_is_told_to_leave() -> None:
    budget = ByteBudget(LIMIT)
    quick, slow, other = Slow(False), Slow(True), Slow(True)
    for holder in (quick, slow, other):
        budget.watch(holder)
    assert budget.take(100)
    assert not any(holder.asked for holder in (quick, slow, other))
    assert not budget.take(700)
    assert [holder.asked for holder in (quick, slow, other)] == [1, 1, 0]
    budget.unwatch(slow)
    budget.unwatch(slow)
    assert not budget.take(700)
    assert other.asked == 1


def test_a_refusal_looks_at_few_holders_however_many_there_are() -> None:
    budget = ByteBudget(LIMIT)
    holders = [Slow(False) for _ in range(1000)]
    for holder in holders:
        budget.watch(holder)
    assert not budget.take(LIMIT + 1)
    assert sum(holder.asked for holder in holders) <= 16


def test_a_part_is_kept_back_from_bodies() -> None:
    budget = ByteBudget(LIMIT)
    assert budget.largest == 750
    assert budget.take(budget.largest)
    assert not budget.take(1)
    assert budget.take(250, urgent=True)
    assert not budget.take(1, urgent=True)


def test_whoever_keeps_the_budget_is_told_of_refusals() -> None:
    told = []
    budget = ByteBudget(LIMIT, lambda: told.append(1))
    budget.take(1)
    assert not told
    budget.take(LIMIT)
    assert told


def test_a_budget_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        ByteBudget(0)
