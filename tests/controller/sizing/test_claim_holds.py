"""What pods hold when a node is divided: sizes, else peaks, else nothing beyond what they want now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.sizing.claim_holds import Hold, choose
from knative_sponge.core.allocation.divide import Claim, DivideRules, Problem

WANTS = st.lists(st.tuples(st.integers(50, 900), st.integers(0, 600), st.integers(0, 600)), min_size=1, max_size=6)


def holding(wants: list[tuple[int, int, int]], cores: float, hold: Hold) -> Problem:
    """wants: of each pod, in millicores, its want, how far its peak is above that, and its size above its peak."""
    parts = {"nothing": 1, "peak": 2, "size": 3}[hold]
    claims = [Claim(i, sum(each[:parts]) / 1000, (), sum(each) / 1000, 0.05, 4.0) for i, each in enumerate(wants)]
    return Problem(claims, cores, DivideRules())


@given(WANTS, st.integers(100, 4000), st.booleans())
def test_nobody_gets_less_than_now_for_what_was_and_nothing_is_given_twice(
    wants: list[tuple[int, int, int]], millis: int, short: bool
) -> None:
    problem, hold = choose(lambda hold: holding(wants, millis / 1000, hold), short=short)
    division = problem.solve()
    needs = [each[0] for each in wants]
    assert (hold == "nothing") == (sum(needs) > millis)
    if hold != "nothing":
        assert all(round(division.sizes[i] * 1000) >= need for i, need in enumerate(needs))
        assert round(sum(division.sizes.values()) * 1000) <= millis


@pytest.mark.parametrize(("cores", "hold"), [(1.2, "size"), (1.1, "peak"), (0.7, "peak"), (0.5, "nothing")])
def test_as_much_is_held_as_fits(cores: float, hold: Hold) -> None:
    wants = [(300, 200, 100), (300, 200, 100)]
    assert choose(lambda hold: holding(wants, cores, hold), short=False)[1] == hold
    assert choose(lambda hold: holding(wants, cores, hold), short=True)[1] == hold


def test_what_is_over_goes_to_those_who_lack_it_of_late() -> None:
    problem, _ = choose(lambda hold: holding([(300, 600, 0), (300, 0, 0)], 1.0, hold), short=False)
    assert problem.solve().sizes == {0: 0.7, 1: 0.3}
