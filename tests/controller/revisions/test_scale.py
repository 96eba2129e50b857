"""How many pods a revision shall have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.controller.revisions.scale import Routing, ScaleBounds, desired

COUNTS = st.integers(min_value=0, max_value=9)
BOUNDS = st.builds(ScaleBounds, least=COUNTS, most=COUNTS, initial=COUNTS)


@pytest.mark.parametrize(
    ("least", "most", "initial", "routing", "initialized", "pods"),
    [
        pytest.param(0, 0, 1, "active", True, 1, id="one pod when nothing is asked for"),
        pytest.param(3, 0, 1, "active", True, 3, id="min-scale"),
        pytest.param(0, 0, 4, "active", False, 4, id="initial-scale until it was ready"),
        pytest.param(0, 0, 4, "active", True, 1, id="initial-scale no more once it was ready"),
        pytest.param(5, 0, 4, "pending", False, 5, id="the larger of min-scale and initial-scale at first"),
        pytest.param(0, 2, 4, "active", False, 2, id="max-scale bounds initial-scale"),
        pytest.param(0, 0, 0, "active", False, 1, id="never zero under a Route"),
        pytest.param(3, 0, 1, "reserve", True, 0, id="no Route: zero in spite of min-scale"),
        pytest.param(0, 0, 2, "reserve", False, 2, id="no Route: its first start is not cut off"),
    ],
)
def test_pods(least: int, most: int, initial: int, routing: str, initialized: bool, pods: int) -> None:
    bounds = ScaleBounds(least, most, initial)
    assert desired(bounds, Routing(routing), initialized=initialized, replicas=1, stuck=False) == pods


@given(BOUNDS, st.sampled_from(Routing), st.booleans(), COUNTS, st.booleans())
def test_only_a_revision_without_route_may_have_no_pod(
    bounds: ScaleBounds, routing: Routing, initialized: bool, replicas: int, stuck: bool
) -> None:
    pods = desired(bounds, routing, initialized=initialized, replicas=replicas, stuck=stuck)
    if routing is not Routing.RESERVE:
        assert pods >= 1
        assert pods <= max(1, bounds.least, bounds.initial)
    assert not bounds.most or pods <= bounds.most


@given(BOUNDS, st.booleans(), COUNTS, st.booleans())
def test_what_goes_to_zero_stays_there(bounds: ScaleBounds, initialized: bool, replicas: int, stuck: bool) -> None:
    """A Deployment at zero makes progress again: that must not start a revision that was given up."""
    if desired(bounds, Routing.RESERVE, initialized=initialized, replicas=replicas, stuck=stuck) == 0:
        for progresses in (False, True):
            assert desired(bounds, Routing.RESERVE, initialized=initialized, replicas=0, stuck=not progresses) == 0


def test_a_revision_that_never_comes_up_is_given_up_with_its_deployment() -> None:
    assert desired(ScaleBounds(), Routing.RESERVE, initialized=False, replicas=1, stuck=True) == 0
    assert desired(ScaleBounds(), Routing.ACTIVE, initialized=False, replicas=1, stuck=True) == 1


@pytest.mark.parametrize("label", [None, "", "something-new"])
def test_an_unknown_routing_state_takes_no_pod_away(label: str | None) -> None:
    routing = Routing.of(label)
    assert desired(ScaleBounds(), routing, initialized=True, replicas=1, stuck=False, waited=True) == 1


@pytest.mark.parametrize(
    ("least", "most", "initialized", "waited", "pods"),
    [
        pytest.param(0, 0, True, True, 0, id="no Route ever named it"),
        pytest.param(0, 0, True, False, 1, id="a Route may still do so"),
        pytest.param(0, 0, False, True, 2, id="its first start is not cut off"),
        pytest.param(3, 2, True, True, 2, id="min-scale holds, within max-scale"),
    ],
)
def test_pods_of_a_revision_that_no_route_names(
    least: int, most: int, initialized: bool, waited: bool, pods: int
) -> None:
    bounds = ScaleBounds(least, most, initial=2)
    assert desired(bounds, Routing.PENDING, initialized=initialized, replicas=1, stuck=False, waited=waited) == pods


def test_annotations_win_over_the_clusters_defaults() -> None:
    defaults = {"min-scale": "2", "max-scale": "8", "initial-scale": "3"}
    assert ScaleBounds.of({}, defaults) == ScaleBounds(2, 8, 3)
    annotations = {"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "0"}
    assert ScaleBounds.of(annotations, defaults) == ScaleBounds(1, 0, 3)
    assert ScaleBounds.of({}, {}) == ScaleBounds(0, 0, 1)


def test_knatives_other_names_of_the_annotations_count_after_the_first() -> None:
    old = {f"autoscaling.knative.dev/{name}": text for name, text in (("minScale", "2"), ("maxScale", "5"))}
    old |= {"autoscaling.knative.dev/initialScale": "4"}
    assert ScaleBounds.of(old, {"min-scale": "1"}) == ScaleBounds(2, 5, 4)
    assert ScaleBounds.of(old | {"autoscaling.knative.dev/min-scale": "0"}, {}).least == 0


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "2147483648", "9" * 5000])
def test_a_value_that_is_no_count_is_passed_over(text: str) -> None:
    assert ScaleBounds.of({"autoscaling.knative.dev/min-scale": text}, {"min-scale": "2"}).least == 2


def test_knative_asks_for_nothing_where_nobody_says_anything() -> None:
    assert ScaleBounds.of({}, {}) == ScaleBounds() == ScaleBounds(least=0, most=0, initial=1)


@pytest.mark.parametrize(("least", "initial", "at_zero"), [(0, 0, True), (1, 0, False), (0, 1, False), (2, 0, False)])
def test_only_a_revision_that_may_have_no_pod_starts_without(least: int, initial: int, at_zero: bool) -> None:
    assert ScaleBounds(least=least, initial=initial).starts_at_zero == at_zero


def test_what_is_not_said_of_a_revision_takes_no_pod_away() -> None:
    assert desired(ScaleBounds(), Routing.PENDING, initialized=True, replicas=1, stuck=False) == 1
