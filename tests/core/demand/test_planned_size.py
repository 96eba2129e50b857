"""How many cores the proxy plans with while a resize is under way."""

from __future__ import annotations

import math

import pytest

from knative_sponge.core.demand.planned_size import Size
from knative_sponge.core.latency.curve import LatencyParams
from knative_sponge.core.latency.model import LatencyModel

STEEP = LatencyModel(LatencyParams(0.0, 0.0, 1.0, 0.0))
"""A second on one core, half a second on two."""


def test_a_growth_is_planned_with_once_it_is_in_force() -> None:
    patched = Size(1.0).patched(2.0)
    assert patched == Size(1.0, coming=2.0, hook=None, sure=False)
    assert patched.actuated(2.0) == Size(2.0, coming=None, hook=2.0, sure=True)


def test_a_shrink_is_planned_with_at_once_and_sure_when_it_is_in_force() -> None:
    patched = Size(2.0).patched(1.0)
    assert patched == Size(1.0, coming=None, hook=1.0, sure=False)
    assert patched.actuated(1.0).sure


def test_a_patch_to_the_present_size_changes_nothing() -> None:
    assert Size(1.0).patched(1.0) == Size(1.0)
    assert not Size(1.0, sure=False).patched(1.0).sure


@pytest.mark.parametrize(("seconds", "cores"), [(1.0, 1.0), (0.71, 1.0), (0.70, 2.0), (0.5, 2.0)])
def test_a_batch_that_fits_the_larger_size_better_proves_the_growth(seconds: float, cores: float) -> None:
    assert Size(1.0, coming=2.0).measured(1, seconds, STEEP).cores == cores


def test_just_the_middle_between_the_sizes_proves_nothing() -> None:
    size = Size(1.0, coming=4.0)
    assert size.measured(1, 0.5, STEEP) == size
    assert size.measured(1, math.nextafter(0.5, 0.0), STEEP) == Size(4.0, hook=4.0)


def test_without_a_growth_under_way_nothing_is_proved() -> None:
    assert Size(1.0).measured(1, 0.001, STEEP) == Size(1.0)


@pytest.mark.parametrize(("coming", "cores"), [(1.1, 1.0), (1.12, 1.12)])
def test_sizes_that_hardly_differ_in_speed_are_not_told_apart(coming: float, cores: float) -> None:
    assert Size(1.0, coming=coming).measured(1, 0.01, STEEP).cores == cores


def test_batches_at_once_share_the_cores() -> None:
    shared = LatencyModel(LatencyParams(0.0, 0.0, 1.0, 1.0))
    size = Size(1.0, coming=4.0)
    # Half of the cores each: 3 s on half a core and 1.5 s on two, so 2.12 s is between them; alone it would be 1.58 s.
    assert size.measured(1, 2.0, shared, slots=2).cores == 4.0
    assert size.measured(1, 2.0, shared).cores == 1.0
