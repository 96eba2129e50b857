"""One node's cores among its pods: what is wanted when it fits, fewest misses when it does not, and no needless resizes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.allocation.divide import Claim, DivideRules, Division
from tests.core.allocation.claims import after, capacities, divide, floors, linear, missed, nodes, pod

EXACT = DivideRules(tolerance=0.0)


@given(nodes(), capacities)
def test_sizes_keep_to_the_capacity_and_to_each_pods_bounds(claims: list[Claim], capacity: float) -> None:
    division = divide(claims, capacity)
    assert division.sizes.keys() == {claim.key for claim in claims}
    least = sum(0.01 if claim.shrinkable else claim.cores for claim in claims)
    assert sum(division.sizes.values()) <= max(capacity, least) + 1e-9
    assert division.squeezed == (floors(claims) > capacity + 1e-9)
    for claim in claims:
        size = division.sizes[claim.key]
        assert size == round(size, 3)
        if not claim.shrinkable:
            assert size == claim.cores
        elif division.squeezed:
            assert 0.01 <= size <= claim.low
        else:
            assert claim.low <= size <= claim.high


@given(nodes(), capacities)
def test_the_misses_told_are_those_of_the_sizes(claims: list[Claim], capacity: float) -> None:
    division = divide(claims, capacity)
    misses = sum(missed(claim, division.sizes[claim.key]) for claim in claims)
    assert division.misses == pytest.approx(misses, abs=0.1 * len(claims))  # wants are rounded up to millicores
    assert division.misses <= misses + 1e-6


@given(nodes(), capacities)
def test_a_node_divided_again_stays_as_it_is(claims: list[Claim], capacity: float) -> None:
    first = divide(claims, capacity)
    assert divide(after(claims, first), capacity).sizes == first.sizes


@given(nodes(), capacities, st.randoms(use_true_random=False))
def test_the_order_of_the_claims_does_not_matter(claims: list[Claim], capacity: float, rng: random.Random) -> None:
    shuffled = rng.sample(claims, len(claims))
    one, other = divide(claims, capacity), divide(shuffled, capacity)
    assert one.sizes == other.sizes
    assert one.misses == pytest.approx(other.misses)


@given(nodes(convex=True, pinned=False), capacities, capacities)
def test_more_cores_never_miss_more(claims: list[Claim], one: float, other: float) -> None:
    less, more = (divide(claims, capacity, EXACT) for capacity in sorted((one, other)))
    assert more.misses <= less.misses + 1e-6


@given(nodes(convex=True, pinned=False), capacities, st.integers(1, 30))
def test_a_division_that_is_called_exact_is_not_beaten_by_any_other(
    claims: list[Claim], capacity: float, parts: int
) -> None:
    division = divide(claims, capacity, EXACT)
    if division.squeezed:
        return
    assert division.exact
    pieces = [
        {claim.low, min(max(claim.want, claim.low), claim.high), claim.low + (claim.high - claim.low) / parts}
        for claim in claims
    ]
    for sizes in itertools.product(*pieces):
        if sum(sizes) <= capacity:
            assert division.misses <= sum(map(missed, claims, sizes)) + 0.01


def test_random_convex_nodes_are_within_one_percent_of_the_best_on_a_grid() -> None:
    rng = random.Random(3)
    for _ in range(20):
        claims = []
        for key in range(3):
            need, rate, power = rng.uniform(0.5, 2.0), rng.uniform(1.0, 50.0), rng.uniform(1.0, 3.0)
            sizes = [round(need * share / 10, 3) for share in range(1, 11)]
            curve = tuple((x, rate * max(0.0, 1 - x / need) ** power) for x in sizes)
            claims.append(pod(str(key), sizes[-1], rng.uniform(0.1, 2.0), curve))
        capacity = rng.uniform(0.4, 0.95) * sum(claim.want for claim in claims)
        grid = [[0.1 + 0.1 * step for step in range(20)] for _ in claims]
        best = min(sum(map(missed, claims, sizes)) for sizes in itertools.product(*grid) if sum(sizes) <= capacity)
        assert divide(claims, capacity).misses <= 1.01 * best + 1e-9


def test_everybody_has_what_it_wants_while_it_fits() -> None:
    division = divide([pod("a", 1.5), pod("b", 0.4), pod("c", 9.0), pod("d", 0.01)], 12.0)
    assert division.sizes == {"a": 1.5, "b": 0.4, "c": 8.0, "d": 0.1}
    assert division.misses == pytest.approx(10.0 / 9)
    assert (division.short, division.squeezed, division.exact) == (False, False, True)


@pytest.mark.parametrize(
    ("want", "size"),
    [
        pytest.param(0.95, 1.0, id="a small shrink is not made"),
        pytest.param(0.89, 0.89, id="a shrink that frees a tenth is made"),
        pytest.param(1.01, 1.0, id="a small growth that saves nothing is not made"),
        pytest.param(1.03, 1.03, id="a growth is made"),
    ],
)
def test_small_changes_are_no_resize(want: float, size: float) -> None:
    idle = pod("a", want, 1.0, curve=((0.5, 1.0), (0.8, 0.0)))
    assert divide([idle], 4.0).sizes == {"a": size}


def test_any_growth_that_saves_misses_is_made() -> None:
    assert divide([pod("a", 1.005, 1.0)], 4.0).sizes == {"a": 1.005}


def test_a_pod_gives_back_what_it_need_not_hold_when_another_needs_it() -> None:
    holder, needy = pod("holder", 0.95, 1.0), pod("needy", 1.04, 0.5)
    assert divide([holder, needy], 2.0).sizes == {"holder": 0.95, "needy": 1.04}
    assert divide([holder, needy], 2.04).sizes == {"holder": 1.0, "needy": 1.04}


def test_scarce_cores_go_where_they_save_most() -> None:
    steep, flat = pod("steep", 1.0, curve=linear(20.0, 1.0)), pod("flat", 1.0, curve=linear(10.0, 1.0))
    division = divide([flat, steep], 1.5)
    assert division.sizes == {"steep": 1.0, "flat": 0.5}
    assert division.misses == pytest.approx(5.0)
    assert (division.short, division.exact) == (True, True)


def test_priority_decides_among_equal_pods() -> None:
    low, high = pod("low", 1.0), pod("high", 1.0, weight=2.0)
    assert divide([low, high], 1.3).sizes == {"high": 1.0, "low": 0.3}


def test_a_curve_with_a_cliff_is_not_paid_for_half() -> None:
    """Half of the cliff's cores save nothing; the hull would have it otherwise."""
    cliff = pod("cliff", 1.0, curve=((0.1, 30.0), (0.99, 30.0), (1.0, 0.0)))
    slope = pod("slope", 1.0, curve=linear(20.0, 1.0))
    below = divide([cliff, slope], 1.05)
    assert below.sizes["slope"] == pytest.approx(0.95)
    assert below.misses == pytest.approx(31.0)
    above = divide([cliff, slope], 1.15)
    assert above.sizes == pytest.approx({"cliff": 1.0, "slope": 0.15})
    assert above.misses == pytest.approx(17.0)


def test_what_no_longer_saves_misses_is_shared_in_proportion() -> None:
    """No row is expected to be missed from 0.5 on; what is wanted above that is for what is not expected."""
    curve = linear(10.0, 0.5)
    division = divide([pod("a", 1.5, 0.2, curve), pod("b", 0.75, 0.2, curve)], 1.5)
    assert division.sizes == pytest.approx({"a": 0.9, "b": 0.6}, abs=0.001)


@given(nodes(pinned=False))
def test_there_is_no_jump_where_a_node_begins_to_be_short(claims: list[Claim]) -> None:
    claims = [replace(claim, cores=0.001, low=0.001, high=5.0) for claim in claims]
    wanted = sum(claim.want for claim in claims)
    enough, short = divide(claims, wanted + 1e-6), divide(claims, wanted - 0.001)
    for claim in claims:
        assert short.sizes[claim.key] == pytest.approx(enough.sizes[claim.key], abs=0.002)


def test_equal_pods_do_not_change_places_when_their_curves_waver() -> None:
    rng = random.Random(7)
    claims = [pod(key, 1.0, 0.5, low=0.2) for key in "abcd"]
    claims = after(claims, divide(claims, 2.5))
    sizes = {claim.key: claim.cores for claim in claims}
    for _ in range(50):
        wavering = [replace(claim, curve=linear(10.0 * rng.uniform(0.999, 1.001), 1.0)) for claim in claims]
        assert divide(wavering, 2.5).sizes == sizes


def test_a_pod_without_news_keeps_its_size() -> None:
    silent = replace(pod("silent", 0.1, 1.0), shrinkable=False)
    assert divide([silent, pod("other", 2.0)], 2.0).sizes == {"silent": 1.0, "other": 1.0}


def test_floors_that_do_not_fit_are_scaled_alike() -> None:
    claims = [pod("a", 2.0, low=1.0), pod("b", 2.0, low=0.5), pod("c", 2.0, low=0.011)]
    division = divide(claims, 0.31)
    assert division.squeezed
    assert division.short
    assert division.sizes == {"a": 0.2, "b": 0.1, "c": 0.01}


def test_a_size_is_never_rounded_beyond_the_capacity() -> None:
    claims = [pod(str(key), 1.0 / 3, curve=linear(5.0 + key, 1.0 / 3)) for key in range(7)]
    sizes = divide(claims, 1.9999).sizes
    assert sum(round(size * 1000) for size in sizes.values()) <= 1999


def by_proportion(claims: Sequence[Claim], capacity: float) -> list[float]:
    share = min(1.0, capacity / sum(claim.want for claim in claims))
    return [claim.want * share for claim in claims]


def by_turn(claims: Sequence[Claim], capacity: float) -> list[float]:
    sizes = []
    for claim in claims:
        sizes.append(min(claim.want, capacity))
        capacity -= sizes[-1]
    return sizes


@given(nodes(pinned=False), capacities)
def test_neither_a_division_by_proportion_nor_by_turn_misses_less(claims: list[Claim], capacity: float) -> None:
    claims = [replace(claim, low=0.001, high=5.0) for claim in claims]
    division = divide(claims, capacity, EXACT)
    if division.exact and not division.squeezed:
        for rule in (by_proportion, by_turn):
            assert division.misses <= sum(map(missed, claims, rule(claims, capacity))) + 0.5 * len(claims)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"low": 2.0, "high": 1.0}, id="bounds the wrong way round"),
        pytest.param({"low": 0.0}, id="no floor"),
        pytest.param({"want": math.nan}, id="wants nothing that is a number"),
        pytest.param({"cores": -1.0}, id="negative size"),
        pytest.param({"weight": -1.0}, id="negative weight"),
        pytest.param({"curve": ((1.0, 2.0), (1.0, 1.0))}, id="a size twice"),
        pytest.param({"curve": ((1.0, 1.0), (2.0, 2.0))}, id="misses that rise"),
        pytest.param({"curve": ((1.0, 1.0), (2.0, -2.0))}, id="negative misses"),
        pytest.param({"curve": ((1.0, math.nan),)}, id="misses that are no number"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|curve's"):
        replace(pod("a", 1.0), **change)  # type: ignore[arg-type]


def test_impossible_divisions_are_refused() -> None:
    with pytest.raises(ValueError, match="one claim"):
        divide([pod("a", 1.0), pod("a", 1.0)], 2.0)
    with pytest.raises(ValueError, match="negative"):
        divide([], -1.0)
    with pytest.raises(ValueError, match="impossible"):
        DivideRules(deadband=1.0)
    assert divide([], 4.0) == Division({}, 0.0, False, False, True)
