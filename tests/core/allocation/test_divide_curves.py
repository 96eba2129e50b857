"""Where the curves bend decides who has the scarce cores."""

from __future__ import annotations

import pytest

from knative_sponge.core.allocation.divide import DivideRules
from tests.core.allocation.claims import divide, pod

EXACT = DivideRules(tolerance=0.0)


def test_cores_go_to_the_bend_of_a_curve_and_from_there_to_the_next_pod() -> None:
    bent = pod("bent", 4.0, 0.5, ((0.1, 10.0), (1.0, 2.0), (4.0, 0.0)))
    straight = pod("straight", 2.0, 0.5, ((0.1, 10.0), (2.0, 0.0)))
    division = divide([bent, straight], 3.0, EXACT)
    assert division.sizes == {"bent": 1.0, "straight": 2.0}
    assert division.misses == pytest.approx(2.0)


def test_beyond_the_end_of_its_curve_a_pod_saves_nothing_more() -> None:
    short = pod("short", 3.0, 0.5, ((0.1, 8.0), (1.0, 5.0)))
    straight = pod("straight", 3.0, 0.5, ((0.1, 3.0), (3.0, 0.0)))
    division = divide([short, straight], 4.0, EXACT)
    assert division.sizes == {"short": 1.0, "straight": 3.0}
    assert division.misses == pytest.approx(5.0)


@pytest.mark.parametrize(("second", "kept"), [(1.398, True), (1.397, False)])
def test_sizes_that_lack_no_more_than_rounding_stay(second: float, kept: bool) -> None:
    level = ((0.1, 1.0), (4.0, 1.0))
    pods = [pod("a", 3.0, 1.6, level), pod("b", 3.0, second, level)]
    sizes = divide(pods, 3.0, EXACT).sizes
    assert sizes == ({"a": 1.6, "b": second} if kept else {"a": 1.5, "b": 1.5})
