"""Max-min fair shares against trying everything, and what no lie of others takes away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.fairness import Demand, shares, water_fill

amounts = st.integers(0, 12)
ranges = st.tuples(amounts, amounts).map(sorted).map(tuple)


def best(capacity: int, floors: Sequence[int], wants: Sequence[int]) -> list[int]:
    """The sorted shares whose least is largest, then the second least, and so on, among all divisions."""
    if sum(floors) > capacity:
        floors, wants = [0] * len(floors), floors
    spent = min(capacity, sum(wants))
    choices = itertools.product(*(range(low, high + 1) for low, high in zip(floors, wants, strict=True)))
    return max(sorted(choice) for choice in choices if sum(choice) == spent)


@given(capacity=st.integers(0, 30), each=st.lists(ranges, min_size=1, max_size=4))
def test_the_least_share_is_as_large_as_can_be_then_the_next(capacity: int, each: list[tuple[int, int]]) -> None:
    floors, wants = [low for low, _ in each], [high for _, high in each]
    found = water_fill(capacity, floors, wants)
    assert sorted(found) == best(capacity, floors, wants)
    if sum(floors) <= capacity:
        assert all(low <= share for low, share in zip(floors, found, strict=True))
    assert all(share <= high for share, high in zip(found, wants, strict=True))


demands = st.lists(st.integers(0, 5000), min_size=3, max_size=3).map(sorted).map(lambda sizes: Demand(*sizes))


@given(demand=demands, others=st.lists(demands, max_size=6), capacity=st.integers(0, 20_000), place=st.integers(0, 6))
def test_nobody_has_less_than_he_wants_or_is_fair_whatever_others_say(
    demand: Demand, others: list[Demand], capacity: int, place: int
) -> None:
    """Floors are facts. Wants are not: the others' may be anything."""
    place = min(place, len(others))
    everybody = [*others[:place], demand, *others[place:]]
    greedy = [each if each is demand else Demand(each.floor, 10**9, 10**9) for each in everybody]
    least = shares(greedy, capacity)[place]
    found = shares(everybody, capacity)[place]
    assert found.fair == least.fair
    assert found.given >= min(demand.late, least.fair)
    assert found.given >= min(demand.want, least.fair)
    if sum(each.floor for each in everybody) <= capacity:
        assert found.given >= demand.floor
        equal = (capacity - sum(each.floor for each in others)) // len(everybody)
        assert found.given >= min(demand.want, equal)


@given(everybody=st.lists(demands, min_size=1, max_size=6), capacity=st.integers(0, 20_000))
def test_nothing_is_left_over_while_somebody_wants_it_and_nobody_has_more_than_he_wants(
    everybody: list[Demand], capacity: int
) -> None:
    found = shares(everybody, capacity)
    assert sum(share.given for share in found) == min(capacity, sum(each.late for each in everybody))
    assert all(share.given <= each.late for share, each in zip(found, everybody, strict=True))


@given(everybody=st.lists(demands, min_size=2, max_size=6), capacity=st.integers(0, 20_000))
def test_who_has_more_than_another_has_it_by_a_floor_or_because_the_other_wants_no_more(
    everybody: list[Demand], capacity: int
) -> None:
    """Pareto: nobody can have more but from somebody who has no more than he."""
    given_ = [share.given for share in shares(everybody, capacity)]
    if sum(each.floor for each in everybody) > capacity:
        return
    for (one, has), (other, less) in itertools.permutations(zip(everybody, given_, strict=True), 2):
        if has > less + 1 and less < min(other.want, capacity):
            assert has <= max(one.floor, less + 1)


def test_equal_tenants_have_equal_shares() -> None:
    assert [share.given for share in shares([Demand(0, 9000, 9000)] * 4, 8000)] == [2000] * 4


def test_what_one_holds_of_late_gives_way_only_to_what_others_want_beyond_their_share() -> None:
    modest, greedy = Demand(0, 1000, 3000), Demand(0, 100_000, 100_000)
    assert [share.given for share in shares([modest, greedy], 8000)] == [3000, 5000]
    assert [share.given for share in shares([modest, greedy], 4000)] == [2000, 2000]


def test_floors_that_do_not_fit_are_shared_as_wants_are() -> None:
    assert [share.given for share in shares([Demand(1000, 1000, 1000), Demand(9000, 9000, 9000)], 4000)] == [1000, 3000]


@pytest.mark.parametrize("sizes", [(-1, 0, 0), (2, 1, 3), (0, 2, 1)])
def test_amounts_that_fall_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="may not fall"):
        Demand(*sizes)


@pytest.mark.parametrize(("capacity", "floor", "want"), [(-1, 0, 0), (1, 2, 1), (1, -1, 1)])
def test_a_division_of_what_cannot_be_is_refused(capacity: int, floor: int, want: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        water_fill(capacity, [floor], [want])
