"""What a pod claims of its node: within which bounds, with which weight, and what of its proxy's curve is used."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from knative_sponge.controller.sizing.claims import STALE_S, PodDemand, bounds, claim
from knative_sponge.core.allocation.divide import Claim
from knative_sponge.wire.demand import DemandLine
from tests.controller.sized_pod import running, viewed

Curve = tuple[tuple[float, float], ...]


def machine(floor: float | None = None, ceiling: float | None = None, asked: float = 0.5) -> Any:
    """Stands in for the state machine of the pod's resize."""
    return SimpleNamespace(asked=asked, floor=lambda _now: floor, ceiling=lambda _now: ceiling)


def claimed(curve: Curve = (), cores: float | None = 0.8, **annotations: Any) -> Claim:
    demand = PodDemand(DemandLine(cores=0.5, want=0.8, curve=curve), 0.8, 10.0)
    return claim(viewed(running(**annotations)), machine(), demand, cores, 4.0, 10.0)


@pytest.mark.parametrize(
    ("annotations", "refused", "found"),
    [
        ({}, {}, (0.1, 4.0)),
        ({"min_cores": "200m", "max_cores": "2"}, {}, (0.2, 2.0)),
        ({"min_cores": "6"}, {}, (6.0, 6.0)),
        ({"max_cores": "2"}, {"floor": 0.4}, (0.4, 2.0)),
        ({"max_cores": "2"}, {"floor": 3.0}, (2.0, 2.0)),
        ({"min_cores": "500m", "max_cores": "2"}, {"floor": 0.4}, (0.5, 2.0)),
        ({"max_cores": "2"}, {"ceiling": 1.5}, (0.1, 1.5)),
        ({"max_cores": "2"}, {"ceiling": 3.0}, (0.1, 2.0)),
        ({"min_cores": "500m", "max_cores": "2"}, {"ceiling": 0.3}, (0.5, 0.5)),
    ],
)
def test_a_pod_stays_within_its_settings_and_what_was_not_refused(
    annotations: dict[str, Any], refused: dict[str, float], found: tuple[float, float]
) -> None:
    assert bounds(viewed(running(**annotations)), machine(**refused), 4.0, 10.0) == found


@pytest.mark.parametrize(("priority", "weight"), [("5", 1.0), ("6", 2.0), ("4", 0.5), ("9", 16.0)])
def test_each_step_of_priority_makes_a_missed_row_count_twice(priority: str, weight: float) -> None:
    assert claimed(priority=priority).weight == weight


def test_without_cores_or_demand_a_pod_keeps_its_size() -> None:
    pod = viewed(running())
    for demand, cores in ((None, 0.8), (PodDemand(DemandLine(cores=0.5, want=0.8), 0.8, 10.0), None)):
        kept = claim(pod, machine(), demand, cores, 4.0, 10.0)
        assert (kept.want, kept.cores, kept.curve, kept.shrinkable) == (0.5, 0.5, (), False)
    wanted = claimed()
    assert (wanted.want, wanted.cores, wanted.shrinkable) == (0.8, 0.5, True)


@pytest.mark.parametrize(
    ("said", "used"),
    [
        pytest.param(((0.1, 3.0), (0.5, 1.0), (1.0, 0.0)), ((0.1, 3.0), (0.5, 1.0), (1.0, 0.0)), id="as it was said"),
        pytest.param(((0.1, 3.0), (0.5, 3.0)), ((0.1, 3.0), (0.5, 3.0)), id="misses that stay"),
        pytest.param(((1.0, 0.0), (0.1, 3.0)), ((0.1, 3.0), (1.0, 0.0)), id="out of order"),
        pytest.param(((0.1, 3.0), (0.1, 2.0), (1.0, 0.0)), ((0.1, 2.0), (1.0, 0.0)), id="two points made one"),
        pytest.param(((0.1, 1.0), (0.5, 2.0), (1.0, 0.0)), ((0.1, 1.0), (0.5, 1.0), (1.0, 0.0)), id="misses that rise"),
        pytest.param(((0.0, 5.0), (0.5, 1.0)), ((0.5, 1.0),), id="no cores"),
        pytest.param(((0.0, 5.0), (0.2, 4.0), (0.5, 1.0)), ((0.2, 4.0), (0.5, 1.0)), id="less than one core"),
    ],
)
def test_of_a_curve_the_points_count_at_which_more_cores_miss_no_more(said: Curve, used: Curve) -> None:
    assert claimed(said).curve == used


def test_a_line_is_stale_once_it_is_older_than_its_limit() -> None:
    demand = PodDemand(DemandLine(cores=0.5, want=0.8), 0.8, 10.0)
    assert not demand.stale(10.0 + STALE_S)
    assert demand.stale(math.nextafter(10.0 + STALE_S, math.inf))
