"""Refused batches, against a model server that refuses every call with a bad row in it."""

from __future__ import annotations

from collections.abc import Set

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from knative_sponge.core.batching.halving import Halving
from knative_sponge.core.batching.work import Work
from tests.core.batching.virtual_shell import VirtualShell, new_batcher


def most_calls(members: int, bad: int) -> int:
    """Calls at most until each member of one merged call has its answer: see the theory in `core/batching/halving.py`."""
    if not bad:
        return 1
    many = members + members // 2 + 1
    return min(1 + bad * below(members), many) if bad <= 2 else many


def below(members: int) -> int:
    """Calls at most to find the one bad member of a refused call of so many."""
    return members if members <= 7 else 2 + max(below(members // 2), below(members - members // 2))


class Oracle(VirtualShell):
    """A shell whose model server refuses what has a bad row in it; a request alone is answered with its own refusal."""

    def serve_all(self, bad: Set[int]) -> int:
        """Serve until nothing is left to do; returns the number of calls."""
        calls = 0
        while self.running:
            batch, works = next(iter(self.running.items()))
            self.finish(batch, "refused" if any(work.key in bad for work in works) else "done")
            calls += 1
        return calls


def after_one_call(members: int, bad: Set[int], deadline_s: float = 1e6) -> tuple[int, dict[int, str]]:
    """Calls that a batch of so many takes, and what its members were told."""
    shell = Oracle(new_batcher(max_rows=64).handle)
    shell.arrive(Work(0, deadline_s))
    for key in range(1, members + 1):
        shell.arrive(Work(key, deadline_s))
    calls = shell.serve_all(bad) - 1
    return calls, shell.ended


@pytest.mark.parametrize(
    ("members", "bad", "calls"),
    [
        pytest.param(32, {7}, 11, id="one of 32: 33 before"),
        pytest.param(32, {7, 20}, 19, id="two far apart"),
        pytest.param(32, {7, 8}, 11, id="two side by side"),
        pytest.param(64, {64}, 13, id="one of 64"),
        pytest.param(32, set(range(1, 33)), 41, id="all"),
        pytest.param(4, {1}, 5, id="few go alone at once"),
        pytest.param(2, {1, 2}, 3, id="both of two"),
        pytest.param(32, set(), 1, id="none"),
    ],
)
def test_calls_that_bad_rows_cost(members: int, bad: set[int], calls: int) -> None:
    took, ended = after_one_call(members, bad)
    assert took == calls <= most_calls(members, len(bad))
    assert all(ended[key] == ("refused" if key in bad else "answered") for key in range(1, members + 1))


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 64).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n)))))
def test_every_good_member_gets_its_answer_and_no_batch_takes_more_calls_than_the_bound(
    case: tuple[int, set[int]],
) -> None:
    members, bad = case
    took, ended = after_one_call(members, bad)
    assert took <= most_calls(members, len(bad))
    assert all(ended[key] == ("refused" if key in bad else "answered") for key in range(1, members + 1))


class AgainstAnOracle(RuleBasedStateMachine):
    """Requests come, some of them bad, and the model server answers call after call; deadlines are far away."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = new_batcher(max_rows=16, max_queue=100_000)
        self.shell = Oracle(self.batcher.handle)
        self.bad: set[int] = set()
        self.keys = 0
        self.merged_calls = self.calls = 0

    @rule(
        goodness=st.lists(st.sampled_from([True, True, True, True, False]), min_size=1, max_size=20),
        group=st.sampled_from("ab"),
    )
    def arrive(self, goodness: list[bool], group: str) -> None:
        for good in goodness:
            self.keys += 1
            if not good:
                self.bad.add(self.keys)
            self.shell.arrive(Work(self.keys, 1e6 + self.keys, group=group))

    @rule(count=st.integers(1, 5))
    def serve(self, count: int) -> None:
        for batch in list(self.shell.running)[:count]:
            self.calls += 1
            works = self.shell.running[batch]
            self.shell.finish(batch, "refused" if any(work.key in self.bad for work in works) else "done")

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.shell.cancel(data.draw(st.integers(0, self.keys)))

    @invariant()
    def nobody_fails_for_anothers_row(self) -> None:
        for key, how in self.shell.ended.items():
            assert how in ("cancelled", "refused" if key in self.bad else "answered")

    def teardown(self) -> None:
        self.calls += self.shell.serve_all(self.bad)
        assert set(self.shell.ended) == set(range(1, self.keys + 1))
        assert self.calls <= 2 * self.keys + 1


TestAgainstAnOracle = AgainstAnOracle.TestCase
TestAgainstAnOracle.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_retried_members_keep_their_places_among_the_others() -> None:
    shell = VirtualShell(new_batcher(max_rows=8).handle)
    shell.arrive(Work(0, 1e6))
    for key in range(1, 9):
        shell.arrive(Work(key, 100.0 + 10 * key))
    shell.finish(1, "done")
    shell.arrive(Work(9, 145.0))
    shell.arrive(Work(10, 500.0))
    shell.finish(2, "refused")
    order = []
    while shell.running:
        batch, works = next(iter(shell.running.items()))
        order.append([work.key for work in works])
        shell.finish(batch, "done")
    assert order == [[1, 2, 3, 4], [9, 10], [5, 6, 7, 8]]


def test_a_server_that_takes_no_merged_calls_soon_gets_none_again_until_it_takes_one() -> None:
    halving = Halving()
    works = [Work(key, 1.0, group="g") for key in range(16)]
    sizes = [len({work.cohort for work in halving.split(works)}) for _ in range(6)]
    assert sizes == [2, 2, 2, 2, 16, 16]
    assert len({work.cohort for work in halving.split([Work(1, 1.0, group="other")] * 16)}) == 2
    halving.accepted("g")
    assert len({work.cohort for work in halving.split(works)}) == 2


def test_no_cohort_is_given_twice_and_of_nobody_nothing_is_left() -> None:
    halving = Halving()
    cohorts = [work.cohort for _ in range(3) for work in halving.split([Work(key, 1.0) for key in range(16)])]
    assert len(set(cohorts)) == 6
    assert halving.split([]) == []


def test_refusals_of_strangers_groups_are_not_kept_for_ever() -> None:
    halving = Halving()
    for number in range(10_000):
        halving.split([Work(1, 1.0, group=f"{number}" * 100), Work(2, 1.0, group=f"{number}" * 100)])
    assert len(halving._in_a_row) <= 64


def test_of_a_half_that_no_longer_fits_its_deadline_as_many_go_as_do() -> None:
    batcher = new_batcher(max_rows=16)
    shell = VirtualShell(batcher.handle)
    shell.arrive(Work(0, 1e6))
    for key in range(1, 17):
        shell.arrive(Work(key, 2.0))
    shell.finish(1, "done")
    assert [len(works) for works in shell.running.values()] == [16]
    shell.advance(1.75)
    shell.finish(2, "refused")
    fits = max(rows for rows in range(1, 9) if batcher.model.cautious_s(rows, 1.0) <= 0.25)
    assert 1 < fits < 8
    assert [len(works) for works in shell.running.values()] == [fits]
